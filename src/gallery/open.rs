//! Opening the store that a location names.

use std::{path::PathBuf, sync::Arc};

use super::{Gallery, embedded::EmbeddedStore, postgres::PostgresStore};
use crate::error::{Error, Result};

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading, writing and searching, by this process alone if the store is a folder.
    Serve,
    /// Reading without searching, also beside a server that has the folder open. The store must
    /// exist.
    Read,
}

/// How vectors are kept in a folder.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    serde::Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum VectorFormat {
    /// Single precision.
    #[default]
    F32,
    /// Half precision: half the memory, and scores that differ in the fourth digit.
    F16,
}

/// How a store works.
#[derive(Debug, Clone)]
pub struct GalleryConfig {
    /// Format of the vectors of galleries that are made from now on.
    pub vectors: VectorFormat,
    /// Galleries of up to this many items are searched exactly.
    pub exact_up_to: usize,
    /// Most bytes of a folder's database.
    pub max_bytes: u64,
    /// Most connections to a database, 4 or more.
    pub connections: usize,
}

impl Default for GalleryConfig {
    fn default() -> Self {
        Self {
            vectors: VectorFormat::F32,
            exact_up_to: 100_000,
            max_bytes: 1 << 40,
            connections: 16,
        }
    }
}

/// Opens the store at `location`: a folder, which is made if need be, or `postgres://…`.
///
/// # Errors
/// [`crate::error::Kind::Unavailable`] if another process has the folder open or the database
/// cannot be reached, [`crate::error::Kind::NotFound`] if there is nothing to read,
/// [`crate::error::Kind::Io`] if the folder cannot be used.
pub async fn open(location: &str, config: &GalleryConfig, mode: OpenMode) -> Result<Gallery> {
    if ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| location.starts_with(scheme))
    {
        return PostgresStore::open(location, config, mode).await;
    }
    let (folder, config) = (PathBuf::from(location), config.clone());
    // Vectors are read into memory.
    let opened =
        tokio::task::spawn_blocking(move || EmbeddedStore::open(&folder, &config, mode)).await;
    let store =
        opened.map_err(|error| Error::internal(format!("opening the gallery: {error}")))??;
    Ok(Arc::new(store))
}
