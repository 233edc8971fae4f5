//! Settings of stores, and the locations that name them.

use std::path::{Path, PathBuf};

use crate::names::option_enum;

/// Access to an open store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading, writing and searching. Only one process at a time can serve a folder.
    Serve,
    /// Reading without searching, also while a server has the store open. The store must exist.
    Read,
}

option_enum! {
    /// Precision of the vectors in a folder.
    #[derive(Default)]
    pub enum VectorFormat {
        /// Single precision.
        #[default]
        F32,
        /// Half precision: half the memory, and scores that differ in the fourth digit.
        F16,
    }
}

/// Settings for a store of either kind, as flags give them.
#[derive(Debug, Clone)]
pub struct GalleryConfig {
    /// Precision of the vectors of new galleries in a folder.
    pub vectors: VectorFormat,
    /// Maximum number of items of a gallery that is searched exactly.
    pub exact_up_to: usize,
    /// Maximum size of a folder's database, in bytes.
    pub max_bytes: u64,
    /// Maximum number of connections to a PostgreSQL database, 4 or more.
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

/// Location and settings of one store.
#[derive(Clone)]
pub enum StoreConfig {
    /// A folder on this machine.
    Folder(FolderConfig),
    /// A PostgreSQL database with pgvector.
    Postgres(PostgresConfig),
}

/// Settings of a store in a folder.
#[derive(Debug, Clone)]
pub struct FolderConfig {
    /// Folder, created on first use.
    pub path: PathBuf,
    /// Precision of the vectors of new galleries.
    pub vectors: VectorFormat,
    /// Maximum number of items of a gallery that is searched exactly.
    pub exact_up_to: usize,
    /// Maximum size of the database, in bytes.
    pub max_bytes: u64,
}

/// Settings of a store in PostgreSQL.
#[derive(Clone)]
pub struct PostgresConfig {
    /// Location, `postgres://user:password@host:5432/database`.
    pub url: String,
    /// Maximum number of items of a gallery that is searched exactly.
    pub exact_up_to: usize,
    /// Maximum number of connections.
    pub connections: usize,
}

impl StoreConfig {
    /// Applies the settings to the store at `location`: a folder, or `postgres://…`.
    pub fn parse(location: &str, config: &GalleryConfig) -> Self {
        let is_url = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| location.starts_with(scheme));
        if is_url {
            Self::Postgres(PostgresConfig {
                url: location.to_owned(),
                exact_up_to: config.exact_up_to,
                connections: config.connections,
            })
        } else {
            Self::Folder(FolderConfig {
                path: PathBuf::from(location),
                vectors: config.vectors,
                exact_up_to: config.exact_up_to,
                max_bytes: config.max_bytes,
            })
        }
    }

    /// Returns the folder of a store that the first use will create.
    pub fn missing_folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder.path.as_path()).filter(|path| !path.exists()),
            Self::Postgres(_) => None,
        }
    }
}
