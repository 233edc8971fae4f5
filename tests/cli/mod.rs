//! The commands of the program.

mod commands;
mod documents;
mod download;
mod eval;
mod eval_compare;
mod eval_linear;
mod examples;
mod gallery;
mod interrupts;
mod openvino;
mod readme;
mod settings;
mod setup;
mod sources;
mod tune;
