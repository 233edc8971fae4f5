//! Names of the metadata entries that a converted file carries.

/// Hash of weights, precision and graph version.
pub const FINGERPRINT: &str = "dinoserve.fingerprint";
/// The [`crate::model::ModelSpec`] as JSON.
pub const SPEC: &str = "dinoserve.spec";
/// Precision of the weights.
pub const PRECISION: &str = "dinoserve.precision";
