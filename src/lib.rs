//! DINOv2 image features over HTTP.
//!
//! Imports go down these layers only, which `tests/tidy.rs` checks:
//!
//! * edges: [`http`], [`cli`]
//! * use cases: [`service`], [`eval`]
//! * adapters: [`engine`], [`gallery`], [`artifacts`], [`sources`]
//! * pure: [`vision`], [`features`], [`model`], [`onnx`]
//!
//! [`error`], [`hex`] and [`telemetry`] are leaves, which every module may use.

pub mod artifacts;
pub mod cli;
pub mod engine;
pub mod error;
pub mod eval;
pub mod features;
pub mod gallery;
pub mod hex;
pub mod http;
pub mod model;
mod names;
pub mod onnx;
pub mod service;
pub mod sources;
pub mod telemetry;
pub mod vision;
