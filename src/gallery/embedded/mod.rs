//! Galleries in a folder of this machine.
//!
//! LMDB keeps them ([`environment`]); one thread writes and syncs ([`writer`]); the vectors lie in
//! memory, too, where searches work on them ([`rows`], [`scan`]), helped by an approximate index
//! above some size ([`index`], kept up to date by [`indexer`]).
//!
//! ```text
//! data.mdb, lock.mdb    the database
//! serving.lock          held by the process that serves the folder
//! ballast               space that gives way when the disk is full, so that something can be deleted
//! index/                approximate indexes; they only save time and may be deleted
//! ```

mod attributes;
mod codec;
mod environment;
mod index;
mod indexer;
mod memory;
mod reader;
mod rows;
mod scan;
mod search;
mod writer;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use self::{
    environment::Environment,
    indexer::Indexer,
    memory::Memory,
    writer::{Work, Writer, document_key},
};
use super::{
    Binding, CheckReport, DocumentKind, GalleryConfig, GalleryInfo, GalleryName, GalleryStore,
    Item, ItemFilter, ItemId, ItemStream, Neighbor, NewItem, OpenMode, Parts, Search, StoredItem,
};
use crate::error::{Error, Kind, Result};

/// Items that a slow reader of everything is ahead of.
const READ_AHEAD: usize = 64;
/// Readers of whole galleries at a time. Each keeps a thread, and old pages of the database, for as
/// long as it takes.
const STREAMS: usize = 16;
/// How long one more waits for its place.
const PATIENCE: Duration = Duration::from_secs(10);

/// A folder of galleries.
#[derive(Debug)]
pub struct EmbeddedStore {
    environment: Arc<Environment>,
    streams: Arc<Semaphore>,
    /// What serving takes; `None` when the folder is open for reading.
    serving: Option<Serving>,
}

#[derive(Debug)]
struct Serving {
    memory: Arc<Memory>,
    writer: Writer,
    indexer: Arc<Indexer>,
    /// Places for searches: one per core.
    searches: Arc<Semaphore>,
}

impl EmbeddedStore {
    /// Opens the folder; see [`super::open()`]. Reads all vectors into memory, so it blocks for a
    /// while.
    ///
    /// # Errors
    /// As [`super::open()`].
    pub fn open(folder: &Path, config: &GalleryConfig, mode: OpenMode) -> Result<Self> {
        let environment = Arc::new(Environment::open(folder, config.max_bytes, mode)?);
        let serving = match mode {
            OpenMode::Read => None,
            OpenMode::Serve => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let memory = Arc::new(Memory::load(&environment, config.exact_up_to, cores)?);
                let indexer = Arc::new(Indexer::start(Arc::clone(&memory))?);
                let (environment, indexes) = (Arc::clone(&environment), Arc::clone(&indexer));
                let writer =
                    Writer::start(environment, Arc::clone(&memory), indexes, config.vectors)?;
                Some(Serving {
                    memory,
                    writer,
                    indexer,
                    searches: Arc::new(Semaphore::new(cores)),
                })
            }
        };
        Ok(Self {
            environment,
            streams: Arc::new(Semaphore::new(STREAMS)),
            serving,
        })
    }

    fn serving(&self) -> Result<&Serving> {
        self.serving
            .as_ref()
            .ok_or_else(|| Error::internal("the gallery was opened for reading only"))
    }

    /// Reads from the disk, on a thread that may wait for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Environment) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let environment = Arc::clone(&self.environment);
        let done = tokio::task::spawn_blocking(move || work(&environment)).await;
        done.map_err(|error| Error::internal(format!("reading the gallery: {error}")))?
    }

    fn info(&self, name: GalleryName, row: codec::GalleryRow) -> GalleryInfo {
        let live = self
            .serving
            .as_ref()
            .and_then(|serving| serving.memory.gallery(&name).ok());
        let indexed = live
            .and_then(|live| Some(live.index.load_full()?.len() as u64))
            .unwrap_or_default();
        GalleryInfo {
            name,
            binding: row.binding,
            items: row.items,
            indexed: indexed.min(row.items),
        }
    }
}

fn no_document(kind: DocumentKind, name: &GalleryName) -> Error {
    Error::new(Kind::NotFound, format!("there is no {kind} `{name}`"))
}

#[async_trait]
impl GalleryStore for EmbeddedStore {
    fn describe(&self) -> String {
        self.environment.folder().display().to_string()
    }

    async fn galleries(&self) -> Result<Vec<GalleryInfo>> {
        let rows = self.blocking(memory::gallery_rows).await?;
        Ok(rows
            .into_iter()
            .map(|(name, row)| self.info(name, row))
            .collect())
    }

    async fn gallery(&self, name: &GalleryName) -> Result<GalleryInfo> {
        let wanted = name.clone();
        let row = self
            .blocking(move |environment| {
                reader::gallery(environment, &environment.read()?, &wanted)
            })
            .await?;
        Ok(self.info(name.clone(), row))
    }

    async fn create(&self, name: &GalleryName, binding: &Binding) -> Result<GalleryInfo> {
        let work = Work::Create {
            name: name.clone(),
            binding: binding.clone(),
        };
        self.serving()?.writer.write(work).await?;
        self.gallery(name).await
    }

    async fn remove(&self, name: &GalleryName) -> Result<()> {
        self.serving()?
            .writer
            .write(Work::Remove { name: name.clone() })
            .await
            .map(drop)
    }

    async fn rename(&self, from: &GalleryName, to: &GalleryName) -> Result<()> {
        self.serving()?
            .writer
            .write(Work::Rename {
                from: from.clone(),
                to: to.clone(),
            })
            .await
            .map(drop)
    }

    async fn put(
        &self,
        name: &GalleryName,
        binding: &Binding,
        items: Vec<NewItem>,
    ) -> Result<Vec<bool>> {
        if let Some(item) = items.iter().find(|item| item.vector.len() != binding.dim) {
            let (id, found, dim) = (item.id.as_str(), item.vector.len(), binding.dim);
            let detail = format!(
                "the vector of {id:?} has {found} values, and those of the gallery have {dim}"
            );
            return Err(Error::new(Kind::InvalidOption, detail));
        }
        self.serving()?
            .writer
            .write(Work::Put {
                name: name.clone(),
                binding: binding.clone(),
                items,
            })
            .await
    }

    async fn delete(&self, name: &GalleryName, ids: Vec<ItemId>) -> Result<Vec<bool>> {
        self.serving()?
            .writer
            .write(Work::Delete {
                name: name.clone(),
                ids,
            })
            .await
    }

    async fn get(&self, name: &GalleryName, id: &ItemId, parts: Parts) -> Result<StoredItem> {
        let (name, id) = (name.clone(), id.clone());
        self.blocking(move |environment| reader::get(environment, &name, &id, parts))
            .await
    }

    async fn page(
        &self,
        name: &GalleryName,
        after: u64,
        limit: usize,
        filter: Option<&ItemFilter>,
    ) -> Result<Vec<Item>> {
        let (name, filter) = (name.clone(), filter.cloned());
        self.blocking(move |environment| {
            reader::page(environment, &name, after, limit, filter.as_ref())
        })
        .await
    }

    async fn search(&self, name: &GalleryName, search: Search) -> Result<Vec<Neighbor>> {
        let serving = self.serving()?;
        let (memory, name) = (Arc::clone(&serving.memory), name.clone());
        let place = Arc::clone(&serving.searches).acquire_owned().await;
        self.blocking(move |environment| {
            let _place = place;
            search::neighbors(environment, &memory, &name, &search)
        })
        .await
    }

    async fn read(&self, name: &GalleryName, parts: Parts) -> Result<ItemStream> {
        let place = timeout(PATIENCE, Arc::clone(&self.streams).acquire_owned())
            .await
            .ok()
            .and_then(Result::ok);
        let place = place.ok_or_else(|| {
            let detail =
                format!("{STREAMS} others are reading whole galleries already; try again shortly");
            Error::new(Kind::Overloaded, detail)
        })?;
        let (sender, mut receiver) = mpsc::channel(READ_AHEAD);
        let (begun, begins) = oneshot::channel();
        let (environment, name) = (Arc::clone(&self.environment), name.clone());
        tokio::task::spawn_blocking(move || {
            let _place = place;
            reader::send_all(
                &environment,
                &name,
                parts,
                |outcome| drop(begun.send(outcome)),
                &sender,
            );
        });
        // From here on it reads what was there at this moment.
        begins
            .await
            .map_err(|_| Error::internal("the gallery's reader has ended"))??;
        Ok(Box::pin(futures_util::stream::poll_fn(move |context| {
            receiver.poll_recv(context)
        })))
    }

    async fn check(&self, name: &GalleryName) -> Result<CheckReport> {
        let name = name.clone();
        self.blocking(move |environment| reader::check(environment, &name))
            .await
    }

    async fn put_document(
        &self,
        kind: DocumentKind,
        name: &GalleryName,
        document: Bytes,
    ) -> Result<()> {
        self.serving()?
            .writer
            .write(Work::PutDocument {
                key: document_key(kind, name),
                document,
            })
            .await
            .map(drop)
    }

    async fn document(&self, kind: DocumentKind, name: &GalleryName) -> Result<Bytes> {
        let (key, missing) = (document_key(kind, name), no_document(kind, name));
        self.blocking(move |environment| {
            let txn = environment.read()?;
            let found = environment
                .tables
                .documents
                .get(&txn, &key)
                .map_err(|error| environment.failed(error))?;
            found.map(Bytes::copy_from_slice).ok_or(missing)
        })
        .await
    }

    async fn documents(&self, kind: DocumentKind) -> Result<Vec<GalleryName>> {
        self.blocking(move |environment| {
            let txn = environment.read()?;
            let prefix = format!("{kind}/");
            let entries = environment
                .tables
                .documents
                .prefix_iter(&txn, prefix.as_bytes());
            let entries = entries.map_err(|error| environment.failed(error))?;
            entries
                .map(|entry| {
                    let (key, _) = entry.map_err(|error| environment.failed(error))?;
                    GalleryName::new(String::from_utf8_lossy(&key[prefix.len()..]))
                })
                .collect()
        })
        .await
    }

    async fn remove_document(&self, kind: DocumentKind, name: &GalleryName) -> Result<()> {
        let work = Work::RemoveDocument {
            kind,
            name: name.clone(),
            key: document_key(kind, name),
        };
        self.serving()?.writer.write(work).await.map(drop)
    }

    async fn close(&self) {
        if let Some(serving) = &self.serving {
            serving.writer.stop().await;
            let indexer = Arc::clone(&serving.indexer);
            // A panic of it has been logged, and nothing depends on it.
            let _ = tokio::task::spawn_blocking(move || indexer.stop()).await;
        }
    }
}
