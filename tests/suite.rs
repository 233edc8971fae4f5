//! All tests in one binary, so that there is one build and one list.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that panics has failed, and nobody links against tests"
)]

mod cli;
mod download;
mod engine;
mod gallery_embedded;
mod gallery_store;
mod goldens;
mod http;
mod openapi;
mod pca;
mod positions;
mod preprocess;
mod problems;
mod setup;
mod shutdown;
mod support;
mod tidy;
mod weights;
