//! Model descriptions: architecture, where the weights come from, and how positions are
//! interpolated.

mod architecture;
mod catalog;
mod id;
mod known;
mod position;
mod spec;

pub use architecture::{Architecture, Ffn, Interpolation, Normalization, Positions};
pub use catalog::Catalog;
pub use id::{Fingerprint, ModelId};
pub use known::{KNOWN_IMAGE, KnownAnswer, known_answers};
pub use position::{PositionEncoding, PositionTable, RopePeriods};
pub use spec::{Family, ModelSpec, PositionRule, Source, SourceFormat};
