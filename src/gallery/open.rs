//! Opens stores.

use std::sync::Arc;

use super::{
    Gallery, GalleryConfig, OpenMode, StoreConfig, embedded::EmbeddedStore, postgres::PostgresStore,
};
use crate::error::{Error, Result};

/// Opens the store at `location`: a folder, which [`OpenMode::Serve`] creates if needed, or
/// `postgres://…`.
///
/// # Errors
/// [`Kind::Unavailable`] if another process serves the folder or the database cannot be reached,
/// [`Kind::NotFound`] if there is no store to read, [`Kind::Io`] if the folder cannot be used.
///
/// [`Kind::Unavailable`]: crate::error::Kind::Unavailable
/// [`Kind::NotFound`]: crate::error::Kind::NotFound
/// [`Kind::Io`]: crate::error::Kind::Io
pub async fn open(location: &str, config: &GalleryConfig, mode: OpenMode) -> Result<Gallery> {
    match StoreConfig::parse(location, config) {
        StoreConfig::Postgres(config) => Ok(Arc::new(PostgresStore::open(&config, mode).await?)),
        StoreConfig::Folder(config) => {
            // Opening a folder reads all vectors into memory.
            let opened =
                tokio::task::spawn_blocking(move || EmbeddedStore::open(&config, mode)).await;
            let store = opened
                .map_err(|error| Error::internal(format!("opening the gallery: {error}")))??;
            Ok(Arc::new(store))
        }
    }
}
