//! DINO image features over HTTP.
//!
//! Imports go down these layers only, which `tests/tidy.rs` checks:
//!
//! * edges: `http`, `bulk`, [`cli`]
//! * use cases: `service`, [`eval`]
//! * adapters: `engine`, [`gallery`], [`artifacts`], [`sources`]
//! * pure: [`vision`], [`features`], [`model`], [`onnx`]
//!
//! [`error`], [`hex`], `background` and `telemetry` are leaves, which every module may use.
//!
//! Public modules are for the packages of this workspace. Tests see more of them by the feature
//! `test-support`, and the fuzz targets by `fuzzing`.

#![cfg_attr(
    not(feature = "test-support"),
    allow(unreachable_pub, dead_code, unused_imports, reason = "tests use these")
)]

pub mod artifacts;
mod background;
#[cfg(not(feature = "test-support"))]
mod bulk;
#[cfg(feature = "test-support")]
pub mod bulk;
pub mod cli;
#[cfg(not(feature = "test-support"))]
mod engine;
#[cfg(feature = "test-support")]
pub mod engine;
pub mod error;
pub mod eval;
pub mod features;
pub mod gallery;
pub mod hex;
#[cfg(not(any(feature = "test-support", feature = "fuzzing")))]
mod http;
#[cfg(any(feature = "test-support", feature = "fuzzing"))]
pub mod http;
pub mod model;
mod names;
pub mod onnx;
#[cfg(not(feature = "test-support"))]
mod service;
#[cfg(feature = "test-support")]
pub mod service;
pub mod sources;
#[cfg(not(feature = "test-support"))]
mod telemetry;
#[cfg(feature = "test-support")]
pub mod telemetry;
pub mod vision;
