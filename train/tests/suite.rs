//! All tests in one binary.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that panics has failed, and no crate links against tests"
)]

mod augmentation;
mod backbone;
mod commands;
mod configuration;
mod losses;
mod runs;
mod serving;
mod step;
mod supervised;
mod support;
mod trainer;
