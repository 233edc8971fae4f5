//! Model descriptions: architecture, where the weights come from, and how positions are
//! interpolated.

mod architecture;
mod catalog;
mod id;
mod position;
mod spec;

pub use architecture::{Architecture, Ffn, Normalization, Positions};
pub use catalog::Catalog;
pub use id::{Fingerprint, ModelId};
pub use position::PositionTable;
pub use spec::{ModelSpec, PositionRule, Source, SourceFormat};
