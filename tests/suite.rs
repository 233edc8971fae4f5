//! All tests in one binary, so that there is one build and one list.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a panic is a failed test, and tests have no dependents"
)]

mod cli;
mod compatibility;
mod engine;
mod http;
mod numeric;
mod ops;
mod store;
mod support;
mod tidy;
