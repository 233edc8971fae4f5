//! The store: connections, transactions and background work around the statements.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use deadpool_postgres::Transaction;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{
    commit,
    connection::Database,
    documents,
    failure::{Failure, Outcome},
    galleries,
    index::{self, Builds},
    item_row,
    read::{self, Cursor},
    schema, search, write,
};
use crate::{
    error::{Error, Result},
    gallery::{
        Binding, CheckReport, DocumentKey, DocumentKind, DocumentStore, GalleryConfig, GalleryInfo,
        GalleryName, GalleryStore, Item, ItemBatch, ItemChange, ItemFilter, ItemId, ItemStream,
        Neighbor, OpenMode, Parts, RestoreLock, Search, StoredItem, Written,
    },
};

/// Maximum number of lookups of a gallery whose table is dropped between lookup and read.
const MAX_LOOKUPS: usize = 5;

const CLEANUP_INTERVAL: u64 = 1024;

pub(in crate::gallery) struct PostgresStore {
    database: Arc<Database>,
    exact_up_to: usize,
    builds: Builds,
    writes: AtomicU64,
    /// Index builds and cleanups. Both are resumed later if they are interrupted.
    tasks: Mutex<JoinSet<()>>,
}

impl PostgresStore {
    /// Connects to the database. [`OpenMode::Serve`] creates or upgrades its tables.
    pub(in crate::gallery) async fn open(
        url: &str,
        config: &GalleryConfig,
        mode: OpenMode,
    ) -> Result<Self> {
        let least = GalleryConfig::MIN_CONNECTIONS;
        if config.connections < least {
            let detail = format!("must be {least} or more, so that no work waits for other work");
            return Err(Error::option("gallery-connections", detail));
        }
        let database = Arc::new(Database::new(url, config.connections)?);
        let prepare = async {
            let mut connection = database.connection().await?;
            match mode {
                OpenMode::Serve => schema::migrate(&mut connection).await,
                OpenMode::Read => schema::verify(&connection).await,
            }
        };
        prepare
            .await
            .map_err(|failure| Error::from(failure).context(database.location()))?;
        let exact_up_to = match mode {
            OpenMode::Serve => config.exact_up_to,
            // Readers do not build indexes.
            OpenMode::Read => usize::MAX,
        };
        let store = Self {
            database,
            exact_up_to,
            builds: Builds::default(),
            writes: AtomicU64::new(1),
            tasks: Mutex::default(),
        };
        if mode == OpenMode::Serve {
            store.clean_up();
        }
        Ok(store)
    }

    fn in_background(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Drops the tables of removed galleries and the tokens of old writes, in the background.
    fn clean_up(&self) {
        let database = Arc::clone(&self.database);
        self.in_background(async move {
            let cleaned_up = async {
                let mut connection = database.connection().await?;
                galleries::drop_removed(&mut connection).await?;
                commit::forget(&connection).await
            };
            if let Err(failure) = cleaned_up.await {
                let error = Error::from(failure);
                tracing::warn!(%error, "removed galleries are dropped later");
            }
        });
    }

    /// Runs a read, again if the gallery was replaced between the lookup of its row and the read of
    /// its table.
    async fn read_with<T, F>(&self, read: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Outcome<T>>,
    {
        let mut lookups = 0;
        loop {
            lookups += 1;
            match read().await {
                Err(failure) if failure.table_is_gone() && lookups < MAX_LOOKUPS => {}
                done => return Ok(done?),
            }
        }
    }

    async fn cursor(&self, name: &GalleryName, columns: &str) -> Result<Cursor> {
        self.read_with(|| async {
            Cursor::open(self.database.stream().await?, name, columns).await
        })
        .await
    }

    /// Runs `work` in a transaction that holds the locks of `names`, and commits it.
    async fn write<T>(
        &self,
        names: &[&GalleryName],
        work: impl AsyncFnOnce(&Transaction<'_>) -> Outcome<T>,
    ) -> Result<T> {
        let (mut connection, _permit) = self.database.writer().await?;
        let transaction = connection.transaction().await.map_err(Failure::from)?;
        galleries::lock(&transaction, names).await?;
        let value = work(&transaction).await?;
        commit::commit(&self.database, transaction).await?;
        let earlier_writes = self.writes.fetch_add(1, Ordering::Relaxed);
        if earlier_writes.is_multiple_of(CLEANUP_INTERVAL) {
            self.clean_up();
        }
        Ok(value)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("database", &self.database.location())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl GalleryStore for PostgresStore {
    fn describe(&self) -> String {
        format!("PostgreSQL at {}", self.database.location())
    }

    async fn galleries(&self) -> Result<Vec<GalleryInfo>> {
        Ok(galleries::list(&self.database.connection().await?).await?)
    }

    async fn staging_galleries(&self) -> Result<Vec<GalleryName>> {
        Ok(galleries::staging(&self.database.connection().await?).await?)
    }

    async fn lock_restore(&self, target: &str) -> Result<Option<RestoreLock>> {
        let connection = self.database.connection().await?;
        Ok(galleries::lock_restore(connection, target).await?)
    }

    async fn gallery(&self, name: &GalleryName) -> Result<Option<GalleryInfo>> {
        let row = galleries::find(&self.database.connection().await?, name).await?;
        Ok(row.map(|row| row.info))
    }

    async fn create(&self, name: &GalleryName, binding: &Binding) -> Result<GalleryInfo> {
        let row = self
            .write(&[name], async |txn| {
                galleries::find_or_create(txn, name, binding).await
            })
            .await?;
        Ok(row.info)
    }

    async fn remove(&self, name: &GalleryName) -> Result<bool> {
        let existed = self
            .write(&[name], async |txn| galleries::remove(txn, name).await)
            .await?;
        self.clean_up();
        Ok(existed)
    }

    async fn move_gallery(
        &self,
        from: &GalleryName,
        to: &GalleryName,
        replaces: bool,
    ) -> Result<()> {
        self.write(&[from, to], async |txn| {
            galleries::rename(txn, from, to, replaces).await
        })
        .await?;
        self.clean_up();
        Ok(())
    }

    async fn put_batch(&self, name: &GalleryName, batch: ItemBatch) -> Result<Vec<Written>> {
        self.write(&[name], async |txn| write::put(txn, name, &batch).await)
            .await
    }

    async fn update(
        &self,
        name: &GalleryName,
        id: &ItemId,
        change: ItemChange,
    ) -> Result<Option<Item>> {
        self.write(&[name], async |txn| {
            write::update(txn, name, id, &change).await
        })
        .await
    }

    async fn delete(&self, name: &GalleryName, ids: Vec<ItemId>) -> Result<Vec<bool>> {
        self.write(&[name], async |txn| write::delete(txn, name, &ids).await)
            .await
    }

    async fn get(
        &self,
        name: &GalleryName,
        id: &ItemId,
        parts: Parts,
    ) -> Result<Option<StoredItem>> {
        self.read_with(|| async {
            read::get(&self.database.connection().await?, name, id, parts).await
        })
        .await
    }

    async fn page(
        &self,
        name: &GalleryName,
        after: u64,
        limit: usize,
        filter: Option<&ItemFilter>,
    ) -> Result<Vec<Item>> {
        self.read_with(|| async {
            let scan = self.database.page().await?;
            scan.run(async |connection| read::page(connection, name, after, limit, filter).await)
                .await
        })
        .await
    }

    async fn search(&self, name: &GalleryName, search: Search) -> Result<Vec<Neighbor>> {
        let (neighbors, gallery) = self
            .read_with(|| async {
                let scan = self.database.search().await?;
                scan.run(async |connection| {
                    search::nearest(connection, name, &search, self.exact_up_to).await
                })
                .await
            })
            .await?;
        if self.builds.is_due(&gallery, self.exact_up_to) {
            self.in_background(index::build(Arc::clone(&self.database), gallery));
        }
        Ok(neighbors)
    }

    async fn read(&self, name: &GalleryName, parts: Parts) -> Result<ItemStream> {
        if parts == Parts::ALL {
            let cursor = self.cursor(name, &read::checked_columns()).await?;
            return Ok(read::verified_items(cursor));
        }
        let cursor = self.cursor(name, &item_row::columns(parts)).await?;
        Ok(read::items(cursor))
    }

    async fn check(&self, name: &GalleryName) -> Result<CheckReport> {
        let cursor = self.cursor(name, &read::checked_columns()).await?;
        Ok(read::check(cursor).await?)
    }

    async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
        self.database.close();
    }
}

#[async_trait]
impl DocumentStore for PostgresStore {
    async fn put_document(&self, key: DocumentKey<'_>, document: Bytes) -> Result<()> {
        self.write(&[], async |txn| documents::put(txn, key, &document).await)
            .await
    }

    async fn document(&self, key: DocumentKey<'_>) -> Result<Option<Bytes>> {
        Ok(documents::get(&self.database.connection().await?, key).await?)
    }

    async fn documents(&self, kind: DocumentKind) -> Result<Vec<String>> {
        Ok(documents::list(&self.database.connection().await?, kind).await?)
    }

    async fn remove_document(&self, key: DocumentKey<'_>) -> Result<bool> {
        self.write(&[], async |txn| documents::remove(txn, key).await)
            .await
    }
}
