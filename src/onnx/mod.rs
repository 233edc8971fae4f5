//! From a folder of weights to an ONNX file of our own, in memory and without any runtime.
//!
//! * [`weights`] reads the published formats and gives every tensor under one name.
//! * [`graph`] builds a graph node by node; [`dinov2`] uses it to build the model.
//! * [`quantize`] turns weights into integers.
//! * [`proto`] holds the messages of the file format.

pub mod dinov2;
pub mod graph;
pub mod proto;
pub mod quantize;
pub mod weights;

/// The version of the graph that [`dinov2`] builds. It is part of a model's fingerprint: raise it
/// whenever a change can change a feature.
pub const GRAPH_VERSION: u32 = 1;

/// In which precision a model's weights are stored and its products computed.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats: the reference.
    #[default]
    Fp32,
    /// 8-bit integers in the large products, for CPUs: less memory and time, features that are
    /// nearly the same.
    Int8,
    /// 16-bit floats, for GPUs.
    Fp16,
}

/// Names of the metadata entries that a converted file carries.
pub mod metadata {
    /// Hash of weights, precision and graph version.
    pub const FINGERPRINT: &str = "dinoserve.fingerprint";
    /// The [`crate::model::ModelSpec`] as JSON.
    pub const SPEC: &str = "dinoserve.spec";
    /// Precision of the weights.
    pub const PRECISION: &str = "dinoserve.precision";
}
