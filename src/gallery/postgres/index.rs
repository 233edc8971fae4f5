//! The approximate index of a gallery: pgvector's HNSW, by inner product.
//!
//! A gallery gets one when it has grown above the size that is searched exactly. It is built beside
//! readers and writers; from then on PostgreSQL keeps it in step with the table, within the same
//! transactions.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use deadpool_postgres::Object;

use super::{connection::Database, failure::Outcome, galleries::Found, schema};
use crate::error::Error;

/// After so long a build that failed is tried again.
const AGAIN: Duration = Duration::from_secs(600);

/// The second advisory lock key space: `hnsw` in ASCII, with the gallery's number.
const LOCKS: i32 = 0x686e_7377;

/// How vectors of a width are indexed. pgvector takes up to 2000 numbers as they are and up to 4000
/// in half precision.
#[derive(Clone, Copy)]
pub(super) struct Indexing {
    dim: usize,
    rounded: bool,
}

impl Indexing {
    /// `None` for vectors that are too wide for an index.
    pub(super) fn of(dim: usize) -> Option<Self> {
        (dim <= 4000).then_some(Self {
            dim,
            rounded: dim > 2000,
        })
    }

    /// Whether the index holds less than the table.
    pub(super) fn is_rounded(self) -> bool {
        self.rounded
    }

    /// What is indexed.
    pub(super) fn expression(self) -> String {
        format!("(vector{})", self.cast())
    }

    /// Makes of a vector what is indexed.
    pub(super) fn cast(self) -> String {
        if self.rounded {
            format!("::halfvec({})", self.dim)
        } else {
            String::new()
        }
    }

    fn operators(self) -> &'static str {
        if self.rounded {
            "halfvec_ip_ops"
        } else {
            "vector_ip_ops"
        }
    }
}

/// Builds that this process has begun.
#[derive(Default)]
pub(super) struct Builds(Mutex<HashMap<i64, Instant>>);

impl Builds {
    /// Whether it is time to build the index of this gallery; the caller then does.
    pub(super) fn is_due(&self, gallery: &Found, exact_up_to: usize) -> bool {
        let info = &gallery.info;
        if info.indexed > 0
            || info.items <= exact_up_to as u64
            || Indexing::of(info.binding.dim).is_none()
        {
            return false;
        }
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.retain(|_, at| at.elapsed() < AGAIN);
        begun.insert(gallery.number, Instant::now()).is_none()
    }
}

/// Builds the index of a gallery, unless another server is doing it.
pub(super) async fn build(database: Arc<Database>, gallery: Found) {
    let name = gallery.info.name.as_str();
    let began = Instant::now();
    match try_build(&database, &gallery).await {
        Ok(true) => tracing::info!(
            gallery = name,
            seconds = began.elapsed().as_secs_f32(),
            "built the index"
        ),
        Ok(false) => {}
        Err(failure) => {
            tracing::warn!(gallery = name, error = %Error::from(failure), "the index was not built; searches stay exact");
        }
    }
}

async fn try_build(database: &Database, gallery: &Found) -> Outcome<bool> {
    let Some(indexing) = Indexing::of(gallery.info.binding.dim) else {
        return Ok(false);
    };
    // Outside the pool, since it takes minutes; its locks and settings end with it.
    let client = Object::take(database.connection().await?);
    // A number that has no 32 bits waits for another one's build, no more.
    let key = gallery.number as i32;
    let alone: bool = client
        .query_one("SELECT pg_try_advisory_lock($1, $2)", &[&LOCKS, &key])
        .await?
        .get(0);
    if !alone {
        return Ok(false);
    }
    let (number, table) = (gallery.number, schema::items(gallery.number));
    const VALID: &str = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1::text)";
    let index = format!("dinoserve.items_{number}_vector");
    let row = client.query_opt(VALID, &[&index]).await?;
    if row.is_some_and(|row| row.get(0)) {
        return Ok(false);
    }
    // It waits for transactions that were there before it, however long they take. Statements by
    // themselves, as a build beside writers is no part of a transaction. One that was broken off
    // has left an index that is not used.
    client
        .batch_execute("SET lock_timeout = 0; SET statement_timeout = 0")
        .await?;
    client
        .batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"))
        .await?;
    let create = format!(
        "CREATE INDEX CONCURRENTLY items_{number}_vector ON {table} USING hnsw ({} {})",
        indexing.expression(),
        indexing.operators()
    );
    client.batch_execute(&create).await?;
    client.batch_execute(&format!("ANALYZE {table}")).await?;
    Ok(true)
}
