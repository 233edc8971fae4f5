//! Names of the metadata entries that a converted file carries.

/// Hash of weights, precision and graph version.
pub const FINGERPRINT: &str = "dinoserve.fingerprint";
/// The [`crate::model::ModelSpec`] as JSON.
pub const SPEC: &str = "dinoserve.spec";
/// Precision of the weights and products.
pub const PRECISION: &str = "dinoserve.precision";
/// Operators of the graph. Files without it have the fused ones.
pub const DIALECT: &str = "dinoserve.dialect";
/// Place of the position table in the data file, `OFFSET+LENGTH` in bytes. Files without it have
/// the table as the default of `pos_embed`.
pub const POSITIONS: &str = "dinoserve.positions";
/// Periods of rotary positions, as a JSON list of numbers; absent in models with a position table.
pub const ROPE_PERIODS: &str = "dinoserve.rope_periods";
