//! DINOv2 image features over HTTP.
//!
//! The layers, imports only go down (`tests/tidy.rs` checks it):
//!
//! * edges: [`http`], [`cli`]
//! * use cases: [`service`], [`eval`]
//! * adapters: [`engine`], [`gallery`], [`artifacts`]
//! * pure: [`vision`], [`features`], [`model`], [`onnx`]
//!
//! [`error`] and [`telemetry`] are leaves that anyone may use.

pub mod artifacts;
pub mod cli;
pub mod engine;
pub mod error;
pub mod eval;
pub mod features;
pub mod gallery;
pub mod http;
pub mod model;
mod names;
pub mod onnx;
pub mod service;
pub mod telemetry;
pub mod vision;
