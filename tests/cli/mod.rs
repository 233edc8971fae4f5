//! The commands of the program.

mod audit;
mod bulk;
mod commands;
mod demo;
mod deployments;
mod documents;
mod download;
mod eval;
mod eval_compare;
mod eval_linear;
mod examples;
mod gallery;
mod gallery_server;
mod ingest;
mod interrupts;
mod openvino;
mod patches;
mod python_client;
mod readme;
mod settings;
mod setup;
mod sources;
mod trained;
mod tune;
