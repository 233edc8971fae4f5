//! Opens stores.

use std::sync::Arc;

use super::{
    Gallery, GalleryConfig, OpenMode, StoreLocation, embedded::EmbeddedStore,
    postgres::PostgresStore, snapshot::remove_interrupted_restores,
};
use crate::error::{Result, ResultExt};

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
