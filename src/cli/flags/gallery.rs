//! The store of galleries and its limits.

use std::{path::PathBuf, time::Duration};

use clap::{Args, builder::RangedU64ValueParser};

use super::names;
use crate::{
    error::Result,
    gallery::{self, Gallery, GalleryConfig, OpenMode, StoreLocation, VectorFormat},
    service::GalleryLimits,
};

/// Where and how galleries are stored.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Galleries")]
pub(in crate::cli) struct GalleryFlags {
    /// Location of the galleries: a folder, or a PostgreSQL database with pgvector as
    /// `postgres://…`
    #[arg(long = "gallery", env = "DINOSERVE_GALLERY", hide_env_values = true)]
    #[arg(value_name = "DIR|URL")]
    pub(in crate::cli) location: Option<String>,

    /// Precision of the vectors of new galleries, in the memory of the server or in the index of a
    /// database. In memory `f16` takes half, `i8` a quarter and `b1` a thirtieth; an index has
    /// links, too, and no `i8`. Scores are those of the vectors on disk, of which `f16` halves
    /// the size in a folder, and changes the fourth digit of scores
    #[arg(long = "gallery-vectors", env = "DINOSERVE_GALLERY_VECTORS")]
    #[arg(default_value_t, value_parser = names::<VectorFormat>())]
    vectors: VectorFormat,

    /// Maximum number of items of a gallery that is searched exactly; larger galleries use an
    /// approximate index
    #[arg(long = "gallery-exact-up-to", env = "DINOSERVE_GALLERY_EXACT_UP_TO", value_name = "COUNT",
        default_value_t = GalleryConfig::default().exact_up_to)]
    exact_up_to: usize,

    /// Maximum size of a folder's database, in bytes
    #[arg(long = "gallery-max-bytes", env = "DINOSERVE_GALLERY_MAX_BYTES", value_name = "BYTES",
        default_value_t = GalleryConfig::default().max_bytes)]
    max_bytes: u64,

    /// Maximum number of requests that read whole galleries of a folder at the same time, such as
    /// snapshots; further requests wait for 5 seconds and are then rejected with 503
    #[arg(long = "gallery-readers", env = "DINOSERVE_GALLERY_READERS", value_name = "COUNT",
        default_value_t = GalleryConfig::default().readers)]
    readers: usize,

    /// Maximum number of connections to a PostgreSQL database, at least 6
    #[arg(long = "gallery-connections", env = "DINOSERVE_GALLERY_CONNECTIONS", value_name = "COUNT",
        default_value_t = GalleryConfig::default().connections)]
    connections: usize,

    /// Number of tables over which the items of new galleries in PostgreSQL are distributed, so
    /// that the index of each fits into the memory for its build
    #[arg(long = "gallery-partitions", env = "DINOSERVE_GALLERY_PARTITIONS", value_name = "COUNT",
        default_value_t = GalleryConfig::default().partitions,
        value_parser = RangedU64ValueParser::<usize>::new()
            .range(1..=GalleryConfig::MAX_PARTITIONS as u64))]
    partitions: usize,

    /// Maximum memory of PostgreSQL for making an index, in bytes, at least 64 MiB; an index that
    /// needs more takes much longer
    #[arg(long = "gallery-index-bytes", env = "DINOSERVE_GALLERY_INDEX_BYTES", value_name = "BYTES",
        default_value_t = GalleryConfig::default().index_bytes,
        value_parser = RangedU64ValueParser::<u64>::new().range(GalleryConfig::MIN_INDEX_BYTES..))]
    index_bytes: u64,

    /// Location of a standby of the PostgreSQL database, for searches and lists of items; can be
    /// given several times, or with spaces between
    #[arg(
        long = "gallery-read",
        env = "DINOSERVE_GALLERY_READ",
        hide_env_values = true
    )]
    #[arg(value_name = "URL", value_delimiter = ' ')]
    standbys: Vec<String>,

    /// Maximum time to wait for a standby that lacks the last writes, in milliseconds; the primary
    /// is searched then
    #[arg(long = "gallery-read-wait-ms", env = "DINOSERVE_GALLERY_READ_WAIT_MS", value_name = "MS",
        default_value_t = GalleryConfig::default().standby_wait.as_millis() as u64)]
    standby_wait_ms: u64,
}

impl GalleryFlags {
    /// Opens the store if its location is given.
    pub(in crate::cli) async fn open(&self, mode: OpenMode) -> Result<Option<Gallery>> {
        match &self.location {
            Some(location) => Ok(Some(gallery::open(location, &self.config(), mode).await?)),
            None => Ok(None),
        }
    }

    /// Returns the folder of the store if the first start will create it.
    pub(in crate::cli) fn missing_folder(&self) -> Option<PathBuf> {
        StoreLocation::parse(self.location.as_deref()?).missing_folder()
    }

    pub(in crate::cli) fn config(&self) -> GalleryConfig {
        GalleryConfig {
            vectors: self.vectors,
            exact_up_to: self.exact_up_to,
            max_bytes: self.max_bytes,
            readers: self.readers,
            connections: self.connections,
            partitions: self.partitions,
            index_bytes: self.index_bytes,
            standbys: self.standbys.clone(),
            standby_wait: Duration::from_millis(self.standby_wait_ms),
        }
    }
}

/// Limits of requests about galleries.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Galleries")]
pub(in crate::cli) struct GalleryLimitFlags {
    /// Maximum number of neighbors of a search, at least 20, the default of `k`
    #[arg(long, env = "DINOSERVE_MAX_NEIGHBORS",
        default_value_t = GalleryLimits::default().max_neighbors,
        value_parser = RangedU64ValueParser::<usize>::new().range(20..))]
    max_neighbors: usize,

    /// Maximum number of items of a page, at least 100, the default of `limit`
    #[arg(long, env = "DINOSERVE_MAX_PAGE_ITEMS",
        default_value_t = GalleryLimits::default().max_page_items,
        value_parser = RangedU64ValueParser::<usize>::new().range(100..))]
    max_page_items: usize,

    /// Maximum number of values that the conditions of a filter (`where`) name
    #[arg(long, env = "DINOSERVE_MAX_FILTER_VALUES", value_name = "COUNT")]
    #[arg(default_value_t = GalleryLimits::default().max_filter_values)]
    max_filter_values: usize,

    /// Maximum number of conditions of a filter (`where`), whose depth is fixed by its form
    #[arg(long, env = "DINOSERVE_MAX_FILTER_CONDITIONS", value_name = "COUNT")]
    #[arg(default_value_t = GalleryLimits::default().max_filter_conditions)]
    max_filter_conditions: usize,

    /// Maximum number of searches and pages that run at the same time for one API key; further ones
    /// wait [default: half of the cores]
    #[arg(long, env = "DINOSERVE_MAX_KEY_READS", value_name = "COUNT",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_key_reads: Option<usize>,

    /// Longer side of the thumbnails of stored images, in pixels
    #[arg(long, env = "DINOSERVE_THUMBNAIL_SIDE",
        default_value_t = GalleryLimits::default().thumbnail_side,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    thumbnail_side: usize,

    /// Maximum number of items that a linear probe is trained on; training holds 4 bytes of memory
    /// for each number of their features
    #[arg(long, env = "DINOSERVE_MAX_PROBE_ITEMS")]
    #[arg(default_value_t = GalleryLimits::default().max_probe_items)]
    max_probe_items: usize,

    /// Maximum number of classes of a linear probe
    #[arg(long, env = "DINOSERVE_MAX_PROBE_CLASSES")]
    #[arg(default_value_t = GalleryLimits::default().max_probe_classes)]
    max_probe_classes: usize,

    /// Maximum number of items of a gallery that is audited or mapped; this holds 4 bytes of memory
    /// for each number of their vectors, and takes a time that grows with the square of the items
    #[arg(long, env = "DINOSERVE_MAX_COMPARED_ITEMS", value_name = "COUNT")]
    #[arg(default_value_t = GalleryLimits::default().max_compared_items)]
    max_compared_items: usize,

    /// Maximum number of images of an anomaly bank
    #[arg(long, env = "DINOSERVE_MAX_BANK_IMAGES", value_name = "COUNT")]
    #[arg(default_value_t = GalleryLimits::default().max_bank_images)]
    max_bank_images: usize,

    /// Maximum number of patches that an anomaly bank learns; it keeps an even sample of more.
    /// Making a bank holds up to 10 bytes of memory for each number of their tokens
    #[arg(long, env = "DINOSERVE_MAX_BANK_PATCHES", value_name = "COUNT",
        default_value_t = GalleryLimits::default().max_bank_patches,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_bank_patches: usize,

    /// Maximum number of patches that a segmenter is trained on; it takes an even sample of more.
    /// Training holds 4 bytes of memory for each number of their tokens
    #[arg(long, env = "DINOSERVE_MAX_SEGMENTER_PATCHES", value_name = "COUNT",
        default_value_t = GalleryLimits::default().max_segmenter_patches,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_segmenter_patches: usize,

    /// Maximum memory of all anomaly banks that are ready to score images, in bytes
    #[arg(long, env = "DINOSERVE_BANK_CACHE_BYTES", value_name = "BYTES")]
    #[arg(default_value_t = GalleryLimits::default().bank_cache_bytes)]
    bank_cache_bytes: u64,
}

impl GalleryLimitFlags {
    pub(in crate::cli) fn limits(&self) -> GalleryLimits {
        GalleryLimits {
            max_neighbors: self.max_neighbors,
            max_page_items: self.max_page_items,
            max_filter_values: self.max_filter_values,
            max_filter_conditions: self.max_filter_conditions,
            max_client_reads: self
                .max_key_reads
                .unwrap_or(GalleryLimits::default().max_client_reads),
            thumbnail_side: self.thumbnail_side,
            max_probe_items: self.max_probe_items,
            max_probe_classes: self.max_probe_classes,
            max_compared_items: self.max_compared_items,
            max_bank_images: self.max_bank_images,
            max_bank_patches: self.max_bank_patches,
            max_segmenter_patches: self.max_segmenter_patches,
            bank_cache_bytes: self.bank_cache_bytes,
        }
    }
}
