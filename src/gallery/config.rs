//! Settings of stores, and the locations that name them.

use std::{path::PathBuf, time::Duration};

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
    /// Precision of the vectors of a gallery in memory, or in the index of a database. Answers have
    /// the scores of the vectors on disk, which are in single precision but for
    /// [`VectorFormat::F16`] in a folder.
    #[derive(Default)]
    pub enum VectorFormat {
        /// Single precision.
        #[default]
        F32,
        /// Half precision; in a folder on disk, too: scores that differ in the fourth digit.
        F16,
        /// 8 bits a value: a quarter of the memory. Not in a database.
        I8,
        /// One bit a value: a thirtieth of the memory.
        B1,
    }
}

impl VectorFormat {
    /// Returns the number of rows to choose by their estimated products if `k` are asked for, of
    /// vectors of `dim` values.
    pub(super) fn candidates(self, k: usize, dim: usize) -> usize {
        match self {
            Self::F32 => k,
            Self::F16 => k + k / 4 + 8,
            Self::I8 => 2 * k + 16,
            Self::B1 => (16 * k + 64).saturating_mul(Self::more_of_narrow(dim)),
        }
    }

    /// Returns how many times as many candidates narrow vectors need: the error of their one-bit
    /// codes grows as the width falls, and with it the number of rows that seem as near.
    pub(super) fn more_of_narrow(dim: usize) -> usize {
        384usize.div_ceil(dim.max(1)).pow(2)
    }
}

/// Settings for a store of either kind, as flags give them.
#[derive(Debug, Clone)]
pub struct GalleryConfig {
    /// Precision of the vectors of new galleries: in memory, or in the index of a database.
    pub vectors: VectorFormat,
    /// Maximum number of items of a gallery that is searched exactly.
    pub exact_up_to: usize,
    /// Maximum size of a folder's database, in bytes.
    pub max_bytes: u64,
    /// Maximum number of requests that read whole galleries of a folder at the same time.
    pub readers: usize,
    /// Maximum number of connections to a PostgreSQL database,
    /// [`MIN_CONNECTIONS`](Self::MIN_CONNECTIONS) or more.
    pub connections: usize,
    /// Number of tables over which the items of new galleries in a database are distributed, up to
    /// [`MAX_PARTITIONS`](Self::MAX_PARTITIONS).
    pub partitions: usize,
    /// Maximum memory of a database for the build of an index, in bytes. More makes it faster.
    pub index_bytes: u64,
    /// URLs of standbys of the database, for searches and pages.
    pub standbys: Vec<String>,
    /// Maximum time to wait for a standby that lacks the last writes.
    pub standby_wait: Duration,
}

impl GalleryConfig {
    /// Minimum number of connections to a PostgreSQL database. With fewer, a page could keep all
    /// searches waiting.
    pub const MIN_CONNECTIONS: usize = 6;
    /// Minimum of [`index_bytes`](Self::index_bytes), which is what PostgreSQL takes by default.
    pub const MIN_INDEX_BYTES: u64 = 64 << 20;
    /// Maximum number of partitions of a gallery: a search locks all of them and their indexes, and
    /// the table of locks of a database is limited.
    pub const MAX_PARTITIONS: usize = 32;
}

impl Default for GalleryConfig {
    fn default() -> Self {
        Self {
            vectors: VectorFormat::F32,
            exact_up_to: 100_000,
            max_bytes: 1 << 40,
            readers: 16,
            connections: 16,
            partitions: 1,
            index_bytes: 2 << 30,
            standbys: Vec::new(),
            standby_wait: Duration::from_millis(50),
        }
    }
}

/// Location of a store.
#[derive(Clone)]
pub enum StoreLocation {
    /// A folder on this machine, created on first use.
    Folder(PathBuf),
    /// A PostgreSQL database with pgvector: `postgres://user:password@host:5432/database`.
    Postgres(String),
}

impl StoreLocation {
    /// Parses a folder, or the URL of a database.
    pub fn parse(location: &str) -> Self {
        let schemes = ["postgres://", "postgresql://"];
        match schemes.iter().any(|scheme| location.starts_with(scheme)) {
            true => Self::Postgres(location.to_owned()),
            false => Self::Folder(PathBuf::from(location)),
        }
    }

    /// Returns the folder of a store that the first use will create.
    pub fn missing_folder(self) -> Option<PathBuf> {
        match self {
            Self::Folder(path) => Some(path).filter(|path| !path.exists()),
            Self::Postgres(_) => None,
        }
    }
}
