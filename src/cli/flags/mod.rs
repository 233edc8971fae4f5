//! Flags that several commands share, and how the library's types are made from them.

mod engine;
mod gallery;
mod http;
mod images;
mod segmenter;
mod target;

use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use strum::VariantNames;

pub(super) use self::{
    engine::{EngineFlags, ModelFlag, first_name, log_notice},
    gallery::{GalleryFlags, GalleryLimitFlags},
    http::{AccessFlags, HttpFlags},
    images::{EmbedFlags, ImageLimitFlags, MapFlags, RunFlags, VectorFlags},
    segmenter::SegmenterFlags,
    target::{StoreFlags, TargetFlags},
};

/// Parses the name of a variant of `T`, and lists all names in the help.
pub(super) fn names<T>() -> impl TypedValueParser<Value = T>
where
    T: VariantNames + FromStr + Clone + Send + Sync + 'static,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    PossibleValuesParser::new(T::VARIANTS).try_map(|name| name.parse::<T>())
}
