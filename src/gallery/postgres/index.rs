//! Builds of approximate indexes.
//!
//! A gallery gets one when it grows above the size that is searched exactly, and another one when
//! the format of its vectors is changed. A build blocks neither readers nor writers, and the index
//! before serves until it has ended. After that PostgreSQL updates the index in the transactions
//! that change the table. The partitions of a gallery are indexed one after the other, so that the
//! memory for a build is that of one.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::Object;
use parking_lot::Mutex;
use tokio_postgres::error::SqlState;

use super::{
    connection::{Connection, Database},
    failure::Outcome,
    gallery_row::{self, GalleryRow},
    index_kind::IndexKind,
    schema,
};
use crate::{error::Error, gallery::GalleryConfig};

/// Time after which a failed build is retried.
const RETRY_AFTER: Duration = Duration::from_secs(600);
/// Time after which it is seen whether another server has built the index.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// First key of the advisory locks of index builds, `hnsw` in ASCII; the second is the gallery's
/// number.
const LOCKS: i32 = 0x686e_7377;

/// Builds that this process has started, by gallery number, and when each is due again.
#[derive(Default)]
pub(super) struct Builds(Mutex<HashMap<i64, (IndexKind, Instant)>>);

impl Builds {
    /// Returns the index that the caller should build for this gallery, if any, and records the
    /// build.
    pub(super) fn due(&self, gallery: &GalleryRow, exact_up_to: usize) -> Option<IndexKind> {
        let wanted = gallery.wanted_index()?;
        if gallery.has_only(wanted) || gallery.info.items <= exact_up_to as u64 {
            return None;
        }
        let mut builds = self.0.lock();
        let now = Instant::now();
        if builds
            .get(&gallery.number)
            .is_some_and(|(kind, again)| *kind == wanted && now < *again)
        {
            return None;
        }
        builds.insert(gallery.number, (wanted, now + RETRY_AFTER));
        Some(wanted)
    }

    /// Records the end of a build.
    fn end(&self, gallery: i64, end: End) {
        let mut builds = self.0.lock();
        match end {
            End::Built => {
                builds.remove(&gallery);
            }
            End::OfAnother | End::Failed => {
                let pause = match end {
                    End::Failed => RETRY_AFTER,
                    _ => LOOK_AGAIN_AFTER,
                };
                if let Some((_, again)) = builds.get_mut(&gallery) {
                    *again = Instant::now() + pause;
                }
            }
        }
    }
}

/// How a build ended.
#[derive(Clone, Copy)]
enum End {
    /// The gallery has the index, and no other one.
    Built,
    /// Another server is building an index, or has built it, or the gallery now needs another one.
    OfAnother,
    /// The database returned an error.
    Failed,
}

/// Builds an index of a gallery with up to `max_bytes` of the database's memory, unless another
/// server is building one, and drops others.
pub(super) async fn build(
    database: Arc<Database>,
    builds: Arc<Builds>,
    gallery: GalleryRow,
    kind: IndexKind,
    max_bytes: u64,
) {
    let name = gallery.info.name.as_str();
    let started = Instant::now();
    let build = Build {
        gallery: &gallery,
        kind,
        max_bytes,
    };
    match build.run(&database).await {
        Ok(end) => {
            let seconds = started.elapsed().as_secs_f32();
            if matches!(end, End::Built) {
                let vectors = gallery.info.vectors;
                tracing::info!(gallery = name, %vectors, seconds, "built the index");
            }
            builds.end(gallery.number, end);
        }
        Err(failure) => {
            let error = Error::from(failure);
            tracing::warn!(gallery = name, %error, "the index was not built; it is retried later");
            builds.end(gallery.number, End::Failed);
        }
    }
}

struct Build<'a> {
    gallery: &'a GalleryRow,
    kind: IndexKind,
    max_bytes: u64,
}

impl Build<'_> {
    async fn run(&self, database: &Database) -> Outcome<End> {
        let connection = database.connection().await?;
        let gallery = self.gallery;
        // Numbers beyond 32 bits share a key with others, which only delays a build.
        let key = gallery.number as i32;
        let alone: bool = connection
            .query_one("SELECT pg_try_advisory_lock($1, $2)", &[&LOCKS, &key])
            .await?
            .get(0);
        if !alone {
            return Ok(End::OfAnother);
        }
        // The row of the search may be old, or of a standby.
        let is_needed = self.is_needed(&connection).await;
        // Taken out of the pool: the build takes minutes, and closing the connection releases its
        // lock and settings.
        let client = Object::take(connection);
        if !is_needed? {
            return Ok(End::OfAnother);
        }
        // A concurrent build waits for older transactions, however long they take, and cannot run
        // within a transaction.
        client
            .batch_execute("SET lock_timeout = 0; SET statement_timeout = 0")
            .await?;
        client.batch_execute(&self.memory()).await?;
        let mut built = false;
        for part in schema::parts(gallery.number, gallery.partitions) {
            built |= self.of_part(&client, &part).await?;
            // The gallery may have been converted during the build.
            if !self.is_wanted(&database.connection().await?).await? {
                return Ok(End::OfAnother);
            }
        }
        for kind in self.kind.others() {
            for part in schema::parts(gallery.number, gallery.partitions) {
                client.batch_execute(&drop_index(&part, kind)).await?;
            }
        }
        if built {
            let analyze = format!("ANALYZE {}", gallery.table);
            client.batch_execute(&analyze).await?;
        }
        Ok(End::Built)
    }

    /// Returns the row of the gallery if this is the index that it should have.
    async fn wanting_row(&self, client: &Connection) -> Outcome<Option<GalleryRow>> {
        let row = gallery_row::find(client, &self.gallery.info.name).await?;
        Ok(row.filter(|row| {
            row.number == self.gallery.number && row.wanted_index() == Some(self.kind)
        }))
    }

    async fn is_wanted(&self, client: &Connection) -> Outcome<bool> {
        Ok(self.wanting_row(client).await?.is_some())
    }

    /// Returns whether the gallery should have this index, and lacks it or has others, too.
    async fn is_needed(&self, client: &Connection) -> Outcome<bool> {
        let row = self.wanting_row(client).await?;
        Ok(row.is_some_and(|row| !row.has_only(self.kind)))
    }

    /// Returns the setting of the memory for the build of a part. The setting of the database stays
    /// if it is higher.
    fn memory(&self) -> String {
        let info = &self.gallery.info;
        let rows = info.items.div_ceil(self.gallery.partitions.max(1) as u64);
        let least = GalleryConfig::MIN_INDEX_BYTES;
        // Hashes do not divide rows evenly, and rows are added during the build.
        let needed = (rows + rows / 8) * self.kind.bytes_in_build(info.binding.dim);
        let kilobytes = needed.clamp(least, self.max_bytes.max(least)) >> 10;
        format!(
            "SELECT set_config('maintenance_work_mem', greatest(
                 {kilobytes}, (SELECT setting::bigint FROM pg_settings
                               WHERE name = 'maintenance_work_mem'))::text, false)"
        )
    }

    /// Builds the index of a part, unless it has one.
    async fn of_part(&self, client: &tokio_postgres::Client, part: &str) -> Outcome<bool> {
        const VALID: &str =
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1::text)";
        let index = index_of(part, self.kind);
        let row = client.query_opt(VALID, &[&index]).await?;
        if row.is_some_and(|row| row.get(0)) {
            return Ok(false);
        }
        let dim = self.gallery.info.binding.dim;
        let create = format!(
            "CREATE INDEX CONCURRENTLY {} ON {part} USING hnsw ({} {})",
            index.trim_start_matches("dinoserve."),
            self.kind.expression("vector", dim),
            self.kind.operators()
        );
        // An interrupted build leaves an invalid index, which is written to.
        let drop = drop_index(part, self.kind);
        client.batch_execute(&drop).await?;
        let mut built = client.batch_execute(&create).await;
        // Parallel workers share memory, of which containers have little.
        let lacks_memory = [Some(&SqlState::DISK_FULL), Some(&SqlState::OUT_OF_MEMORY)];
        if let Err(error) = &built
            && lacks_memory.contains(&error.code())
        {
            tracing::info!(%error, "the index is built again, by one worker");
            client.batch_execute(&drop).await?;
            let alone = "SET max_parallel_maintenance_workers = 0";
            client.batch_execute(alone).await?;
            built = client.batch_execute(&create).await;
        }
        if built.is_err() {
            client.batch_execute(&drop).await?;
        }
        Ok(built.map(|()| true)?)
    }
}

fn index_of(part: &str, kind: IndexKind) -> String {
    format!("{part}_{}", kind.name())
}

fn drop_index(part: &str, kind: IndexKind) -> String {
    format!("DROP INDEX CONCURRENTLY IF EXISTS {}", index_of(part, kind))
}
