//! What a DINOv2 variant is: its sizes, where its weights come from, and how its positions are
//! interpolated.

mod catalog;
mod id;
mod position;
mod spec;

pub use catalog::Catalog;
pub use id::{Fingerprint, ModelId};
pub use position::PositionTable;
pub use spec::{Ffn, ModelSpec, PositionRule, Source, SourceFormat};
