//! All tests in one binary, so that there is one build and one list.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that panics has failed, and nobody links against tests"
)]

mod access;
mod bases;
mod cli;
mod connections;
mod download;
mod engine;
mod eval;
mod eval_linear;
mod examples;
mod faults;
mod gallery_cli;
mod gallery_crash;
mod gallery_embedded;
mod gallery_full;
mod gallery_http;
mod gallery_problems;
mod gallery_snapshot;
mod gallery_snapshot_http;
mod gallery_store;
mod goldens;
mod hostile;
mod hot_swap;
mod http;
mod observation;
mod openai;
mod openapi;
mod pages;
mod pca;
mod positions;
mod preprocess;
mod probe;
mod probes_http;
mod problems;
mod schema;
mod settings;
mod setup;
mod shutdown;
mod similarity;
mod support;
mod tidy;
mod tls;
mod weights;
