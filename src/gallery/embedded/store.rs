//! The store: hands reads to the readers' threads and writes to the writer thread.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
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
    reader,
    readers::{Caller, Read, Readers},
    restores::Restores,
    search,
    view::View,
    writer::{Writer, WriterThread},
};
use crate::{
    background::{self, Priority},
    error::{Error, Kind, Result, ResultExt},
    gallery::{
        Binding, CheckReport, GalleryConfig, GalleryInfo, GalleryName, GalleryStore, Item,
        ItemBatch, ItemChange, ItemFilter, ItemId, ItemStream, Neighbor, OpenMode, Parts,
        RestoreLock, Search, StoredItem, Written,
    },
};

/// Number of items that are read ahead of a slow consumer.
const READ_AHEAD: usize = 64;
/// Timeout for the permit of a reader of a whole gallery.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(in crate::gallery) struct EmbeddedStore {
    environment: Arc<Environment>,
    readers: Readers,
    /// Permits for readers of whole galleries. Each occupies a thread and keeps old pages of the
    /// database alive.
    streams: Arc<Semaphore>,
    max_streams: usize,
    restores: Restores,
    /// `None` if the folder is open for reading only.
    serving: Option<Serving>,
}

#[derive(Debug)]
struct Serving {
    memory: Arc<Memory>,
    writer: Writer,
    indexer: Arc<Indexer>,
}

impl EmbeddedStore {
    /// Opens the folder. Blocks while all vectors are read into memory.
    pub(in crate::gallery) fn open(
        path: &Path,
        config: &GalleryConfig,
        mode: OpenMode,
    ) -> Result<Self> {
        let environment = Arc::new(Environment::open(path, config.max_bytes, mode)?);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let serving = match mode {
            OpenMode::Read => None,
            OpenMode::Serve => Some(Serving::start(&environment, config, cores)?),
        };
        let max_streams = config.readers.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            environment,
            readers: Readers::start(cores)?,
            streams: Arc::new(Semaphore::new(max_streams)),
            max_streams,
            restores: Restores::default(),
            serving,
        })
    }

    fn serving(&self) -> Result<&Serving> {
        self.serving
            .as_ref()
            .ok_or_else(|| Error::internal("the gallery was opened for reading only"))
    }

    pub(super) fn writer(&self) -> Result<&Writer> {
        Ok(&self.serving()?.writer)
    }

    /// Runs a read of a few values, on a thread that may block on the disk.
    pub(super) async fn view<T: Send + 'static>(
        &self,
        read: impl FnOnce(View<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let environment = Arc::clone(&self.environment);
        let read = move || read(View::new(&environment, &environment.read()?));
        tokio::task::spawn_blocking(read)
            .await
            .internal("reading the gallery")?
    }

    /// Runs a read that may take long, with the permits of its kind.
    async fn long_read<T: Send + 'static>(
        &self,
        kind: Read,
        read: impl FnOnce(&Environment, Caller<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let environment = Arc::clone(&self.environment);
        let read = move |caller: Caller<'_>| read(&environment, caller);
        self.readers.run(kind, read).await
    }

    /// Returns the galleries that can be used, those that are being restored, too.
    async fn rows(&self) -> Result<Vec<(GalleryName, GalleryRow)>> {
        let rows = self
            .long_read(Read::Page, |environment, _| {
                View::new(environment, &environment.read()?).galleries()
            })
            .await?;
        let usable = |(name, row): (GalleryName, Result<GalleryRow>)| Some((name, row.ok()?));
        Ok(rows.into_iter().filter_map(usable).collect())
    }

    fn info(&self, name: GalleryName, row: GalleryRow) -> GalleryInfo {
        let indexed = self
            .serving
            .as_ref()
            .and_then(|serving| serving.memory.gallery(&name)?.index.load_full())
            .map_or(0, |index| index.len() as u64);
        GalleryInfo {
            number: row.number.into(),
            name,
            binding: row.binding,
            vectors: row.vectors,
            items: row.items,
            indexed: indexed.min(row.items),
        }
    }
}

impl Serving {
    fn start(environment: &Arc<Environment>, config: &GalleryConfig, cores: usize) -> Result<Self> {
        let memory = Arc::new(Memory::load(environment, config.exact_up_to, cores)?);
        let indexer = Arc::new(Indexer::start(
            Arc::clone(environment),
            Arc::clone(&memory),
        )?);
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
        })
    }
}

#[async_trait]
impl GalleryStore for EmbeddedStore {
    fn describe(&self) -> String {
        self.environment.folder().display().to_string()
    }

    async fn galleries(&self) -> Result<Vec<GalleryInfo>> {
        let rows = self.rows().await?.into_iter();
        let visible = rows.filter(|(name, _)| !name.is_staging());
        Ok(visible.map(|(name, row)| self.info(name, row)).collect())
    }

    async fn staging_galleries(&self) -> Result<Vec<GalleryName>> {
        let names = self.view(|view| {
            let rows = view.galleries()?.into_iter();
            Ok(rows.map(|(name, _)| name).collect::<Vec<_>>())
        });
        let names = names.await?.into_iter();
        Ok(names.filter(GalleryName::is_staging).collect())
    }

    async fn lock_restore(&self, target: &str) -> Result<Option<RestoreLock>> {
        Ok(self.restores.lock(target))
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

    async fn move_gallery(
        &self,
        from: &GalleryName,
        to: &GalleryName,
        replaces: bool,
    ) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.writer()?
            .write(move |transaction| transaction.rename(&from, &to, replaces))
            .await
    }

    async fn put_batch(&self, name: &GalleryName, batch: ItemBatch) -> Result<Vec<Written>> {
        let name = name.clone();
        self.writer()?
            .write(move |transaction| transaction.put(&name, &batch))
            .await
    }

    async fn update(
        &self,
        name: &GalleryName,
        id: &ItemId,
        change: ItemChange,
    ) -> Result<Option<Item>> {
        let name = name.clone();
        let id = id.clone();
        self.writer()?
            .write(move |transaction| transaction.update(&name, &id, &change))
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
        let memory = self
            .serving
            .as_ref()
            .map(|serving| Arc::clone(&serving.memory));
        self.long_read(Read::Page, move |environment, caller| {
            if let (Some(memory), Some(filter)) = (&memory, &filter) {
                return reader::filtered_page(
                    environment,
                    memory,
                    &name,
                    after,
                    limit,
                    filter,
                    caller,
                );
            }
            let txn = environment.read()?;
            let view = View::new(environment, &txn);
            reader::page(view, &name, after, limit, filter.as_ref(), caller)
        })
        .await
    }

    async fn search(&self, name: &GalleryName, search: Search) -> Result<Vec<Neighbor>> {
        let serving = self.serving()?;
        let memory = Arc::clone(&serving.memory);
        let name = name.clone();
        self.long_read(Read::Search, move |environment, caller| {
            search::neighbors(environment, &memory, &name, &search, caller)
        })
        .await
    }

    async fn read(&self, name: &GalleryName, parts: Parts) -> Result<ItemStream> {
        let acquired = timeout(STREAM_TIMEOUT, Arc::clone(&self.streams).acquire_owned()).await;
        let Ok(Ok(permit)) = acquired else {
            let max = self.max_streams;
            let detail =
                format!("{max} requests are reading whole galleries already; try again shortly");
            let error = Error::new(Kind::Overloaded, detail);
            return Err(error.with_limit("gallery_readers", max as u64, "--gallery-readers"));
        };
        let (sender, mut receiver) = mpsc::channel(READ_AHEAD);
        let (started, start) = oneshot::channel();
        let environment = Arc::clone(&self.environment);
        let name = name.clone();
        background::spawn("gallery stream", Priority::Low, move || {
            let _permit = permit;
            reader::send_all(&environment, &name, parts, started, &sender);
        })
        .internal("cannot start a thread of the gallery")?;
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
