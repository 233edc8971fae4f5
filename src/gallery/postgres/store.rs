//! The store: connections, transactions and background work around the statements.

use std::{fmt, future::Future, sync::Arc};

use async_trait::async_trait;
use deadpool_postgres::Transaction;

use super::{
    connection::Database,
    failure::Outcome,
    galleries::{self, Layout},
    gallery_row,
    index::{self, Builds},
    item_row,
    read::{self, Cursor},
    schema, search,
    standbys::{ReadKind, Standbys},
    tasks::Tasks,
    write,
    writer::Writer,
};
use crate::{
    error::{Error, Result},
    gallery::{
        Binding, CheckReport, GalleryConfig, GalleryInfo, GalleryName, GalleryStore, Item,
        ItemBatch, ItemChange, ItemFilter, ItemId, ItemStream, Neighbor, OpenMode, Parts,
        RestoreLock, Search, StoredItem, VectorFormat, Written,
    },
};

/// Maximum number of lookups of a gallery whose table is dropped between lookup and read.
const MAX_LOOKUPS: usize = 5;

pub(in crate::gallery) struct PostgresStore {
    database: Arc<Database>,
    standbys: Standbys,
    writer: Arc<Writer>,
    builds: Arc<Builds>,
    tasks: Arc<Tasks>,
    exact_up_to: usize,
    /// Maximum memory of the database for the build of an index.
    index_bytes: u64,
}

impl PostgresStore {
    /// Connects to the database. [`OpenMode::Serve`] creates or upgrades its tables.
    pub(in crate::gallery) async fn open(
        url: &str,
        config: &GalleryConfig,
        mode: OpenMode,
    ) -> Result<Self> {
        check(config, mode)?;
        let database = Arc::new(Database::new("gallery", url, config.connections)?);
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
        let layout = Layout {
            vectors: config.vectors,
            partitions: config.partitions,
        };
        // Commands that read a store search nothing.
        let urls: &[String] = match mode {
            OpenMode::Serve => &config.standbys,
            OpenMode::Read => &[],
        };
        let standbys = Standbys::open(Arc::clone(&database), urls, config).await?;
        let tasks = Arc::new(Tasks::default());
        let writer = Writer::new(Arc::clone(&database), layout, Arc::clone(&tasks));
        let store = Self {
            database,
            standbys,
            writer: Arc::new(writer),
            builds: Arc::default(),
            tasks,
            exact_up_to,
            index_bytes: config.index_bytes,
        };
        if mode == OpenMode::Serve {
            store.writer.clean_up();
        }
        Ok(store)
    }

    /// Sets the format of the vectors in the index of a gallery, and returns the one before. The
    /// next search of a server begins to make the index.
    pub(in crate::gallery) async fn set_vectors(
        url: &str,
        config: &GalleryConfig,
        name: &GalleryName,
        vectors: VectorFormat,
    ) -> Result<VectorFormat> {
        check_format(vectors, "vectors")?;
        let store = Self::open(url, config, OpenMode::Read).await?;
        let set = async |txn: &Transaction<'_>| galleries::set_vectors(txn, name, vectors).await;
        let before = store.writer.write(&[name], set).await;
        store.close().await;
        before
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.writer
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
}

/// Checks the settings for a database.
fn check(config: &GalleryConfig, mode: OpenMode) -> Result<()> {
    let least = GalleryConfig::MIN_CONNECTIONS;
    if config.connections < least {
        let detail = format!("must be {least} or more, so that no work waits for other work");
        return Err(Error::option("gallery-connections", detail));
    }
    let most = GalleryConfig::MAX_PARTITIONS;
    if !(1..=most).contains(&config.partitions) {
        let detail = format!("must be a number from 1 to {most}");
        return Err(Error::option("gallery-partitions", detail));
    }
    match mode {
        OpenMode::Serve => check_format(config.vectors, "gallery-vectors"),
        // Readers make no galleries.
        OpenMode::Read => Ok(()),
    }
}

fn check_format(vectors: VectorFormat, flag: &str) -> Result<()> {
    if vectors == VectorFormat::I8 {
        let detail = "must be f32, f16 or b1 for a gallery in PostgreSQL: pgvector has no vectors \
                      of 8-bit values";
        return Err(Error::option(flag, detail));
    }
    Ok(())
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
        Ok(gallery_row::list(&self.database.connection().await?).await?)
    }

    async fn staging_galleries(&self) -> Result<Vec<GalleryName>> {
        Ok(gallery_row::staging(&self.database.connection().await?).await?)
    }

    async fn lock_restore(&self, target: &str) -> Result<Option<RestoreLock>> {
        let connection = self.database.connection().await?;
        Ok(galleries::lock_restore(connection, target).await?)
    }

    async fn gallery(&self, name: &GalleryName) -> Result<Option<GalleryInfo>> {
        let row = gallery_row::find(&self.database.connection().await?, name).await?;
        Ok(row.map(|row| row.info))
    }

    async fn create(&self, name: &GalleryName, binding: &Binding) -> Result<GalleryInfo> {
        let row = self
            .writer
            .write(&[name], async |txn| {
                galleries::find_or_create(txn, name, binding, self.writer.layout()).await
            })
            .await?;
        Ok(row.info)
    }

    async fn remove(&self, name: &GalleryName) -> Result<bool> {
        let existed = self
            .writer
            .write(&[name], async |txn| galleries::remove(txn, name).await)
            .await?;
        self.writer.clean_up();
        Ok(existed)
    }

    async fn move_gallery(
        &self,
        from: &GalleryName,
        to: &GalleryName,
        replaces: bool,
    ) -> Result<()> {
        self.writer
            .write(&[from, to], async |txn| {
                galleries::rename(txn, from, to, replaces).await
            })
            .await?;
        self.writer.clean_up();
        Ok(())
    }

    async fn put_batch(&self, name: &GalleryName, batch: ItemBatch) -> Result<Vec<Written>> {
        self.writer.put(name, batch).await
    }

    async fn update(
        &self,
        name: &GalleryName,
        id: &ItemId,
        change: ItemChange,
    ) -> Result<Option<Item>> {
        self.writer
            .write(&[name], async |txn| {
                write::update(txn, name, id, &change).await
            })
            .await
    }

    async fn delete(&self, name: &GalleryName, ids: Vec<ItemId>) -> Result<Vec<bool>> {
        self.writer
            .write(&[name], async |txn| write::delete(txn, name, &ids).await)
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
            let mut source = self.standbys.source(name).await?;
            loop {
                let read = async {
                    let scan = source.connection(ReadKind::Page).await?;
                    let version = source.version();
                    scan.run(async |connection| {
                        read::page(connection, name, after, limit, filter, version).await
                    })
                    .await
                };
                let outcome = read.await;
                if let Some(outcome) = source.settle(outcome).await {
                    return outcome;
                }
            }
        })
        .await
    }

    async fn search(&self, name: &GalleryName, search: Search) -> Result<Vec<Neighbor>> {
        let (neighbors, gallery) = self
            .read_with(|| async {
                let mut source = self.standbys.source(name).await?;
                loop {
                    let read = async {
                        let scan = source.connection(ReadKind::Search).await?;
                        let version = source.version();
                        scan.run(async |connection| {
                            let exact_up_to = self.exact_up_to;
                            search::nearest(connection, name, &search, exact_up_to, version).await
                        })
                        .await
                    };
                    let outcome = read.await;
                    if let Some(outcome) = source.settle(outcome).await {
                        return outcome;
                    }
                }
            })
            .await?;
        if let Some(kind) = self.builds.due(&gallery, self.exact_up_to) {
            let (database, builds) = (Arc::clone(&self.database), Arc::clone(&self.builds));
            let build = index::build(database, builds, gallery, kind, self.index_bytes);
            self.tasks.spawn(build);
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
        self.writer.close().await;
        self.tasks.shutdown().await;
        self.standbys.close();
        self.database.close();
    }
}
