//! The approximate index of a gallery: pgvector's HNSW, by inner product.
//!
//! A gallery gets one when it grows above the size that is searched exactly. The build blocks
//! neither readers nor writers. After that PostgreSQL updates the index in the transactions that
//! change the table.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::Object;
use parking_lot::Mutex;

use super::{connection::Database, failure::Outcome, galleries::GalleryRow};
use crate::error::Error;

/// Time after which a failed build is retried.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// First key of the advisory locks of index builds, `hnsw` in ASCII; the second is the gallery's
/// number.
const LOCKS: i32 = 0x686e_7377;

/// How vectors of a width are indexed. pgvector indexes up to 2000 values in single precision and
/// up to 4000 in half precision.
#[derive(Clone, Copy)]
pub(super) struct Indexing {
    dim: usize,
}

impl Indexing {
    /// Returns `None` for vectors that are too wide for an index.
    pub(super) fn of(dim: usize) -> Option<Self> {
        (dim <= 4000).then_some(Self { dim })
    }

    /// Returns whether the index has lower precision than the table.
    pub(super) fn is_rounded(self) -> bool {
        self.dim > 2000
    }

    pub(super) fn expression(self) -> String {
        format!("(vector{})", self.cast())
    }

    pub(super) fn cast(self) -> String {
        if self.is_rounded() {
            format!("::halfvec({})", self.dim)
        } else {
            String::new()
        }
    }

    fn operators(self) -> &'static str {
        if self.is_rounded() {
            "halfvec_ip_ops"
        } else {
            "vector_ip_ops"
        }
    }
}

/// Builds that this process has started, by gallery number.
#[derive(Default)]
pub(super) struct Builds(Mutex<HashMap<i64, Instant>>);

impl Builds {
    /// Returns whether the caller should build the index of this gallery, and records the build.
    pub(super) fn is_due(&self, gallery: &GalleryRow, exact_up_to: usize) -> bool {
        let info = &gallery.info;
        if info.indexed > 0
            || info.items <= exact_up_to as u64
            || Indexing::of(info.binding.dim).is_none()
        {
            return false;
        }
        let mut started = self.0.lock();
        started.retain(|_, at| at.elapsed() < RETRY_AFTER);
        started.insert(gallery.number, Instant::now()).is_none()
    }
}

/// Builds the index of a gallery, unless another server is building it.
pub(super) async fn build(database: Arc<Database>, gallery: GalleryRow) {
    let name = gallery.info.name.as_str();
    let started = Instant::now();
    match try_build(&database, &gallery).await {
        Ok(true) => tracing::info!(
            gallery = name,
            seconds = started.elapsed().as_secs_f32(),
            "built the index"
        ),
        Ok(false) => {}
        Err(failure) => {
            let error = Error::from(failure);
            tracing::warn!(gallery = name, %error, "the index was not built; searches stay exact");
        }
    }
}

async fn try_build(database: &Database, gallery: &GalleryRow) -> Outcome<bool> {
    let Some(indexing) = Indexing::of(gallery.info.binding.dim) else {
        return Ok(false);
    };
    // Taken out of the pool: the build takes minutes, and closing the connection releases its lock
    // and settings.
    let client = Object::take(database.connection().await?);
    // Numbers beyond 32 bits share a key with others, which only delays a build.
    let key = gallery.number as i32;
    let alone: bool = client
        .query_one("SELECT pg_try_advisory_lock($1, $2)", &[&LOCKS, &key])
        .await?
        .get(0);
    if !alone {
        return Ok(false);
    }
    const VALID: &str = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1::text)";
    let number = gallery.number;
    let table = &gallery.table;
    let index = format!("dinoserve.items_{number}_vector");
    let row = client.query_opt(VALID, &[&index]).await?;
    if row.is_some_and(|row| row.get(0)) {
        return Ok(false);
    }
    // A concurrent build waits for older transactions, however long they take, and cannot run
    // within a transaction. An interrupted build leaves an invalid index, which is dropped here.
    client
        .batch_execute("SET lock_timeout = 0; SET statement_timeout = 0")
        .await?;
    let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
    client.batch_execute(&drop).await?;
    let create = format!(
        "CREATE INDEX CONCURRENTLY items_{number}_vector ON {table} USING hnsw ({} {})",
        indexing.expression(),
        indexing.operators()
    );
    client.batch_execute(&create).await?;
    client.batch_execute(&format!("ANALYZE {table}")).await?;
    Ok(true)
}
