//! The program, as a user runs it.

mod commands;
mod download;
mod eval;
mod eval_linear;
mod examples;
mod gallery;
mod settings;
mod setup;
