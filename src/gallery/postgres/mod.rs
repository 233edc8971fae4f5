//! Galleries in PostgreSQL with pgvector: for several servers that share them.
//!
//! Nothing is remembered here between two calls, so whatever another server did is seen. What must
//! not happen at once is kept apart by locks in the database ([`galleries`]).

mod commit;
mod connection;
mod documents;
mod failure;
mod filtering;
mod galleries;
mod index;
mod read;
mod record;
mod schema;
mod search;
mod write;

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use deadpool_postgres::Transaction;
use tokio::task::JoinSet;

use self::{
    connection::{Connection, Database},
    failure::{Failure, Outcome},
    index::Builds,
    read::Cursor,
};
use super::{
    Binding, CheckReport, DocumentKind, Gallery, GalleryConfig, GalleryInfo, GalleryName,
    GalleryStore, Item, ItemFilter, ItemId, ItemStream, Neighbor, NewItem, OpenMode, Parts, Search,
    StoredItem,
};
use crate::error::{Error, Result};

/// How often a gallery is looked up again whose table was dropped before it was read.
const LOOK_UPS: usize = 5;

/// After so many writes what they left behind is cleared away.
const TIDY_EVERY: u64 = 1024;

/// The store in a database.
pub(super) struct PostgresStore {
    database: Arc<Database>,
    exact_up_to: usize,
    builds: Builds,
    writes: AtomicU64,
    /// Builds of indexes, and what clears away. Both go on at another time if they are broken off.
    tasks: Mutex<JoinSet<()>>,
}

impl PostgresStore {
    /// Connects to the database at `url`, `postgres://…`. To serve, its tables are made or brought
    /// up to date.
    ///
    /// # Errors
    /// [`crate::error::Kind::InvalidOption`] for a bad URL; [`crate::error::Kind::Unavailable`] if
    /// the database cannot be reached, lacks pgvector, or was written by a newer program;
    /// [`crate::error::Kind::NotFound`] if it is to be read only and holds no galleries.
    pub(super) async fn open(url: &str, config: &GalleryConfig, mode: OpenMode) -> Result<Gallery> {
        let database = Arc::new(Database::new(url, config.connections.max(4))?);
        let opened = |error: Error| error.context(database.place());
        let connection = &mut database
            .connection()
            .await
            .map_err(|failure| opened(failure.into()))?;
        let done = match mode {
            OpenMode::Serve => schema::migrate(connection).await,
            OpenMode::Read => schema::verify(connection).await,
        };
        done.map_err(|failure| opened(failure.into()))?;
        let exact_up_to = match mode {
            OpenMode::Serve => config.exact_up_to,
            // Nothing is built by those who only read.
            OpenMode::Read => usize::MAX,
        };
        let store = Self {
            database: Arc::clone(&database),
            exact_up_to,
            builds: Builds::default(),
            writes: AtomicU64::new(1),
            tasks: Mutex::default(),
        };
        if mode == OpenMode::Serve {
            store.tidy();
        }
        Ok(Arc::new(store))
    }

    fn in_background(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Drops the tables of removed galleries, and forgets old writes.
    fn tidy(&self) {
        let database = Arc::clone(&self.database);
        self.in_background(async move {
            let tidied = async {
                let mut connection = database.connection().await?;
                galleries::drop_removed(&mut connection).await?;
                commit::forget(&connection).await
            };
            if let Err(failure) = tidied.await {
                tracing::warn!(error = %Error::from(failure), "removed galleries are dropped later");
            }
        });
    }

    /// Reads, and once more where a gallery was replaced between the look at its row and the look
    /// into its table.
    async fn read_with<T, F>(&self, read: impl Fn(Connection) -> F) -> Result<T>
    where
        F: Future<Output = Outcome<T>>,
    {
        let mut look_ups = 0;
        loop {
            look_ups += 1;
            match read(self.database.connection().await?).await {
                Err(failure) if failure.table_is_gone() && look_ups < LOOK_UPS => {}
                done => return Ok(done?),
            }
        }
    }

    async fn cursor(&self, name: &GalleryName, columns: &str) -> Result<Cursor> {
        let mut look_ups = 0;
        loop {
            look_ups += 1;
            match Cursor::open(self.database.stream().await?, name, columns).await {
                Err(failure) if failure.table_is_gone() && look_ups < LOOK_UPS => {}
                done => return Ok(done?),
            }
        }
    }

    async fn commit(&self, transaction: Transaction<'_>) -> Outcome<()> {
        commit::commit(&self.database, transaction).await?;
        if self
            .writes
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(TIDY_EVERY)
        {
            self.tidy();
        }
        Ok(())
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("database", &self.database.place())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl GalleryStore for PostgresStore {
    fn describe(&self) -> String {
        format!("PostgreSQL at {}", self.database.place())
    }

    async fn galleries(&self) -> Result<Vec<GalleryInfo>> {
        Ok(galleries::list(&self.database.connection().await?).await?)
    }

    async fn gallery(&self, name: &GalleryName) -> Result<GalleryInfo> {
        Ok(galleries::find(&self.database.connection().await?, name)
            .await?
            .info)
    }

    async fn create(&self, name: &GalleryName, binding: &Binding) -> Result<GalleryInfo> {
        let mut writer = self.database.writer().await?;
        let transaction = writer
            .connection
            .transaction()
            .await
            .map_err(Failure::from)?;
        galleries::lock(&transaction, &[name]).await?;
        let found = galleries::find_or_create(&transaction, name, binding).await?;
        self.commit(transaction).await?;
        Ok(found.info)
    }

    async fn remove(&self, name: &GalleryName) -> Result<()> {
        let mut writer = self.database.writer().await?;
        let transaction = writer
            .connection
            .transaction()
            .await
            .map_err(Failure::from)?;
        galleries::lock(&transaction, &[name]).await?;
        galleries::remove(&transaction, name).await?;
        self.commit(transaction).await?;
        self.tidy();
        Ok(())
    }

    async fn rename(&self, from: &GalleryName, to: &GalleryName) -> Result<()> {
        let mut writer = self.database.writer().await?;
        let transaction = writer
            .connection
            .transaction()
            .await
            .map_err(Failure::from)?;
        galleries::lock(&transaction, &[from, to]).await?;
        galleries::rename(&transaction, from, to).await?;
        self.commit(transaction).await?;
        self.tidy();
        Ok(())
    }

    async fn put(
        &self,
        name: &GalleryName,
        binding: &Binding,
        items: Vec<NewItem>,
    ) -> Result<Vec<bool>> {
        let mut writer = self.database.writer().await?;
        let transaction = writer
            .connection
            .transaction()
            .await
            .map_err(Failure::from)?;
        let new = write::put(&transaction, name, binding, &items).await?;
        self.commit(transaction).await?;
        Ok(new)
    }

    async fn delete(&self, name: &GalleryName, ids: Vec<ItemId>) -> Result<Vec<bool>> {
        let mut writer = self.database.writer().await?;
        let transaction = writer
            .connection
            .transaction()
            .await
            .map_err(Failure::from)?;
        let deleted = write::delete(&transaction, name, &ids).await?;
        self.commit(transaction).await?;
        Ok(deleted)
    }

    async fn get(&self, name: &GalleryName, id: &ItemId, parts: Parts) -> Result<StoredItem> {
        self.read_with(|client| read::get(client, name, id, parts))
            .await
    }

    async fn page(
        &self,
        name: &GalleryName,
        after: u64,
        limit: usize,
        filter: Option<&ItemFilter>,
    ) -> Result<Vec<Item>> {
        self.read_with(|client| read::page(client, name, after, limit, filter))
            .await
    }

    async fn search(&self, name: &GalleryName, search: Search) -> Result<Vec<Neighbor>> {
        let nearest = |client| search::nearest(client, name, &search, self.exact_up_to);
        let (neighbors, gallery) = self.read_with(nearest).await?;
        if self.builds.is_due(&gallery, self.exact_up_to) {
            self.in_background(index::build(Arc::clone(&self.database), gallery));
        }
        Ok(neighbors)
    }

    async fn read(&self, name: &GalleryName, parts: Parts) -> Result<ItemStream> {
        let checked = parts == Parts::ALL;
        let columns = if checked {
            read::checked_columns()
        } else {
            record::columns(parts)
        };
        Ok(read::items(self.cursor(name, &columns).await?, checked))
    }

    async fn check(&self, name: &GalleryName) -> Result<CheckReport> {
        Ok(read::check(self.cursor(name, &read::checked_columns()).await?).await?)
    }

    async fn put_document(
        &self,
        kind: DocumentKind,
        name: &GalleryName,
        document: Bytes,
    ) -> Result<()> {
        let mut writer = self.database.writer().await?;
        let transaction = writer
            .connection
            .transaction()
            .await
            .map_err(Failure::from)?;
        documents::put(&transaction, kind, name, &document).await?;
        Ok(self.commit(transaction).await?)
    }

    async fn document(&self, kind: DocumentKind, name: &GalleryName) -> Result<Bytes> {
        Ok(documents::get(&self.database.connection().await?, kind, name).await?)
    }

    async fn documents(&self, kind: DocumentKind) -> Result<Vec<GalleryName>> {
        Ok(documents::list(&self.database.connection().await?, kind).await?)
    }

    async fn remove_document(&self, kind: DocumentKind, name: &GalleryName) -> Result<()> {
        let mut writer = self.database.writer().await?;
        let transaction = writer
            .connection
            .transaction()
            .await
            .map_err(Failure::from)?;
        documents::remove(&transaction, kind, name).await?;
        Ok(self.commit(transaction).await?)
    }

    async fn close(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.database.close();
    }
}
