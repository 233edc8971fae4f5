//! From a folder of weights to an ONNX file of our own, in memory and without any runtime.
//!
//! * [`weights`] reads the published formats and gives every tensor under one name.
//! * [`graph`] builds a graph node by node; [`dinov2`] uses it to build the model.
//! * [`proto`] holds the messages of the file format.

pub mod dinov2;
pub mod graph;
pub mod proto;
pub mod weights;

/// The version of the graph that [`dinov2`] builds. It is part of a model's fingerprint: raise it whenever a change
/// can change a feature.
pub const GRAPH_VERSION: u32 = 1;

/// The precision of the weights that [`dinov2`] writes.
pub const PRECISION: &str = "fp32";

/// Names of the metadata entries that a converted file carries.
pub mod metadata {
    /// Hash of weights, precision and graph version.
    pub const FINGERPRINT: &str = "dinoserve.fingerprint";
    /// The [`crate::model::ModelSpec`] as JSON.
    pub const SPEC: &str = "dinoserve.spec";
    /// Precision of the weights.
    pub const PRECISION: &str = "dinoserve.precision";
}
