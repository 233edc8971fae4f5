//! The store: hands reads to blocking threads and writes to the writer thread.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    check,
    codec::GalleryRow,
    environment::Environment,
    indexer::Indexer,
    memory::Memory,
    reader, search,
    view::View,
    writer::{Writer, WriterThread},
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    gallery::{
        Binding, CheckReport, DocumentKey, DocumentKind, DocumentStore, GalleryConfig, GalleryInfo,
        GalleryName, GalleryStore, Item, ItemBatch, ItemFilter, ItemId, ItemStream, Neighbor,
        OpenMode, Parts, Search, StoredItem, Written,
    },
};

/// Number of items that are read ahead of a slow consumer.
const READ_AHEAD: usize = 64;
/// Maximum number of concurrent readers of whole galleries. Each occupies a thread and keeps old
/// pages of the database alive.
const MAX_STREAMS: usize = 16;
/// Timeout for one of these places.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(in crate::gallery) struct EmbeddedStore {
    environment: Arc<Environment>,
    streams: Arc<Semaphore>,
    /// `None` if the folder is open for reading only.
    serving: Option<Serving>,
}

#[derive(Debug)]
struct Serving {
    memory: Arc<Memory>,
    writer: Writer,
    indexer: Arc<Indexer>,
    /// One permit per core.
    searches: Arc<Semaphore>,
}

impl EmbeddedStore {
    /// Opens the folder. Blocks while all vectors are read into memory.
    pub(in crate::gallery) fn open(
        path: &Path,
        config: &GalleryConfig,
        mode: OpenMode,
    ) -> Result<Self> {
        let environment = Arc::new(Environment::open(path, config.max_bytes, mode)?);
        let serving = match mode {
            OpenMode::Read => None,
            OpenMode::Serve => Some(Serving::start(&environment, config)?),
        };
        Ok(Self {
            environment,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            serving,
        })
    }

    fn serving(&self) -> Result<&Serving> {
        self.serving
            .as_ref()
            .ok_or_else(|| Error::internal("the gallery was opened for reading only"))
    }

    fn writer(&self) -> Result<&Writer> {
        Ok(&self.serving()?.writer)
    }

    /// Runs a read on a thread that may block on the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Environment) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let environment = Arc::clone(&self.environment);
        tokio::task::spawn_blocking(move || read(&environment))
            .await
            .internal("reading the gallery")?
    }

    /// As [`Self::blocking`], with a snapshot of the database.
    async fn view<T: Send + 'static>(
        &self,
        read: impl FnOnce(View<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.blocking(move |environment| read(View::new(environment, &environment.read()?)))
            .await
    }

    fn info(&self, name: GalleryName, row: GalleryRow) -> GalleryInfo {
        let indexed = self
            .serving
            .as_ref()
            .and_then(|serving| serving.memory.gallery(&name)?.index.load_full())
            .map_or(0, |index| index.len() as u64);
        GalleryInfo {
            name,
            binding: row.binding,
            items: row.items,
            indexed: indexed.min(row.items),
        }
    }
}

impl Serving {
    fn start(environment: &Arc<Environment>, config: &GalleryConfig) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = Arc::new(Memory::load(environment, config.exact_up_to, cores)?);
        let indexer = Arc::new(Indexer::start(Arc::clone(&memory))?);
        let writer = Writer::start(WriterThread {
            environment: Arc::clone(environment),
            memory: Arc::clone(&memory),
            indexer: Arc::clone(&indexer),
            vectors: config.vectors,
        })?;
        Ok(Self {
            memory,
            writer,
            indexer,
            searches: Arc::new(Semaphore::new(cores)),
        })
    }
}

#[async_trait]
impl GalleryStore for EmbeddedStore {
    fn describe(&self) -> String {
        self.environment.folder().display().to_string()
    }

    async fn galleries(&self) -> Result<Vec<GalleryInfo>> {
        let rows = self
            .blocking(|environment| View::new(environment, &environment.read()?).galleries())
            .await?;
        let galleries = rows.into_iter().map(|(name, row)| self.info(name, row));
        Ok(galleries.collect())
    }

    async fn gallery(&self, name: &GalleryName) -> Result<Option<GalleryInfo>> {
        let requested = name.clone();
        let row = self.view(move |view| view.gallery(&requested)).await?;
        Ok(row.map(|row| self.info(name.clone(), row)))
    }

    async fn create(&self, name: &GalleryName, binding: &Binding) -> Result<GalleryInfo> {
        let created = name.clone();
        let binding = binding.clone();
        self.writer()?
            .write(move |transaction| transaction.create(&created, &binding))
            .await?;
        self.require_gallery(name).await
    }

    async fn remove(&self, name: &GalleryName) -> Result<bool> {
        let name = name.clone();
        self.writer()?
            .delete(move |transaction| transaction.remove(&name))
            .await
    }

    async fn rename(&self, from: &GalleryName, to: &GalleryName) -> Result<()> {
        let from = from.clone();
        let to = to.clone();
        self.writer()?
            .write(move |transaction| transaction.rename(&from, &to))
            .await
    }

    async fn put_batch(&self, name: &GalleryName, batch: ItemBatch) -> Result<Vec<Written>> {
        let name = name.clone();
        self.writer()?
            .write(move |transaction| transaction.put(&name, &batch))
            .await
    }

    async fn delete(&self, name: &GalleryName, ids: Vec<ItemId>) -> Result<Vec<bool>> {
        let name = name.clone();
        self.writer()?
            .delete(move |transaction| transaction.delete(&name, &ids))
            .await
    }

    async fn get(
        &self,
        name: &GalleryName,
        id: &ItemId,
        parts: Parts,
    ) -> Result<Option<StoredItem>> {
        let name = name.clone();
        let id = id.clone();
        self.view(move |view| reader::get(view, &name, &id, parts))
            .await
    }

    async fn page(
        &self,
        name: &GalleryName,
        after: u64,
        limit: usize,
        filter: Option<&ItemFilter>,
    ) -> Result<Vec<Item>> {
        let name = name.clone();
        let filter = filter.cloned();
        self.view(move |view| reader::page(view, &name, after, limit, filter.as_ref()))
            .await
    }

    async fn search(&self, name: &GalleryName, search: Search) -> Result<Vec<Neighbor>> {
        let serving = self.serving()?;
        let memory = Arc::clone(&serving.memory);
        let name = name.clone();
        let permit = Arc::clone(&serving.searches).acquire_owned().await;
        self.blocking(move |environment| {
            let _permit = permit;
            search::neighbors(environment, &memory, &name, &search)
        })
        .await
    }

    async fn read(&self, name: &GalleryName, parts: Parts) -> Result<ItemStream> {
        let acquired = timeout(STREAM_TIMEOUT, Arc::clone(&self.streams).acquire_owned()).await;
        let Ok(Ok(permit)) = acquired else {
            let detail = format!(
                "{MAX_STREAMS} requests are reading whole galleries already; try again shortly"
            );
            return Err(Error::new(Kind::Overloaded, detail));
        };
        let (sender, mut receiver) = mpsc::channel(READ_AHEAD);
        let (started, start) = oneshot::channel();
        let environment = Arc::clone(&self.environment);
        let name = name.clone();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            reader::send_all(&environment, &name, parts, started, &sender);
        });
        // The snapshot is taken before the stream is returned.
        start
            .await
            .map_err(|_| Error::internal("the gallery's reader has ended"))??;
        Ok(Box::pin(futures_util::stream::poll_fn(move |context| {
            receiver.poll_recv(context)
        })))
    }

    async fn check(&self, name: &GalleryName) -> Result<CheckReport> {
        let name = name.clone();
        self.view(move |view| check::check(view, &name)).await
    }

    async fn close(&self) {
        if let Some(serving) = &self.serving {
            serving.writer.stop().await;
            let indexer = Arc::clone(&serving.indexer);
            // The panic hook has logged a panic of the thread, and no data depends on it.
            let _ = tokio::task::spawn_blocking(move || indexer.stop()).await;
        }
    }
}

#[async_trait]
impl DocumentStore for EmbeddedStore {
    async fn put_document(&self, key: DocumentKey<'_>, document: Bytes) -> Result<()> {
        let key = table_key(key);
        self.writer()?
            .write(move |transaction| transaction.put_document(&key, &document))
            .await
    }

    async fn document(&self, key: DocumentKey<'_>) -> Result<Option<Bytes>> {
        let key = table_key(key);
        self.view(move |view| {
            let document = view.get(view.tables().documents, key.as_bytes())?;
            Ok(document.map(Bytes::copy_from_slice))
        })
        .await
    }

    async fn documents(&self, kind: DocumentKind) -> Result<Vec<String>> {
        self.view(move |view| {
            let prefix = format!("{kind}/");
            view.entries(view.tables().documents, prefix.as_bytes())?
                .map(|entry| Ok(String::from_utf8_lossy(&entry?.0[prefix.len()..]).into_owned()))
                .collect()
        })
        .await
    }

    async fn remove_document(&self, key: DocumentKey<'_>) -> Result<bool> {
        let key = table_key(key);
        self.writer()?
            .delete(move |transaction| transaction.remove_document(&key))
            .await
    }
}

fn table_key(key: DocumentKey<'_>) -> String {
    format!("{}/{}", key.kind(), key.name())
}
