//! Opens stores.

use std::sync::Arc;

use super::{
    Gallery, GalleryConfig, GalleryName, OpenMode, StoreLocation, VectorFormat,
    embedded::{self, EmbeddedStore},
    postgres::PostgresStore,
    snapshot::remove_interrupted_restores,
};
use crate::error::{Error, Result, ResultExt};

/// Opens the store at `location`: a folder, which [`OpenMode::Serve`] creates if needed, or
/// `postgres://…`.
///
/// # Errors
/// `Unavailable` if another process serves the folder, or the database cannot be reached, lacks
/// pgvector or was written by a newer program; `NotFound` if there is no store to read;
/// `InvalidOption` for a bad URL; `Io` if the folder cannot be used.
pub async fn open(location: &str, config: &GalleryConfig, mode: OpenMode) -> Result<Gallery> {
    let store: Gallery = match StoreLocation::parse(location) {
        StoreLocation::Postgres(url) => Arc::new(PostgresStore::open(&url, config, mode).await?),
        StoreLocation::Folder(_) if !config.standbys.is_empty() => {
            let detail =
                "has standbys of a PostgreSQL database, and these galleries are in a folder";
            return Err(Error::option("gallery-read", detail));
        }
        StoreLocation::Folder(path) => {
            let config = config.clone();
            // Opening a folder reads all vectors into memory.
            let opened =
                tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, &config, mode));
            Arc::new(opened.await.internal("opening the gallery")??)
        }
    };
    if mode == OpenMode::Serve
        && let Err(error) = remove_interrupted_restores(&store).await
    {
        tracing::warn!(%error, "what interrupted restores had left could not be removed");
    }
    Ok(store)
}

/// Sets the precision of the vectors of a gallery, and returns the one before. This is one short
/// transaction, whatever the size of the gallery. A folder has them in memory from the next start
/// on. A database can be served meanwhile; its index is made by the next search, and the one before
/// serves until then.
///
/// # Errors
/// `NotFound` if there is no such gallery; `Unavailable` if a process serves the folder;
/// `InvalidOption` for [`VectorFormat::I8`] in a database.
pub async fn set_vectors(
    location: &str,
    config: &GalleryConfig,
    name: &GalleryName,
    vectors: VectorFormat,
) -> Result<VectorFormat> {
    let folder = match StoreLocation::parse(location) {
        StoreLocation::Folder(folder) => folder,
        StoreLocation::Postgres(url) => {
            return PostgresStore::set_vectors(&url, config, name, vectors).await;
        }
    };
    let (name, max_bytes) = (name.clone(), config.max_bytes);
    let set = move || embedded::set_vectors(&folder, max_bytes, &name, vectors);
    tokio::task::spawn_blocking(set)
        .await
        .internal("changing a gallery")?
}
