//! Converts published weights to an ONNX file, in memory and without a runtime.
//!
//! * [`weights`] reads the published formats and gives every tensor under one name.
//! * [`graph`] builds a graph node by node; [`vit`] uses it to build the model.
//! * `quantize` turns weights into integers.
//! * [`proto`] holds the messages of the file format.

pub mod graph;
pub mod metadata;
mod precision;
pub mod proto;
mod quantize;
pub mod vit;
pub mod weights;

pub use precision::{Conversion, Dialect, Precision};
pub use vit::GRAPH_VERSION;
