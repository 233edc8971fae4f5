//! Restores and verifies snapshots.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

use super::format::{
    BUFFER_BYTES, Header, MAGIC, MAX_RECORD_BYTES, SnapshotRecord, SnapshotSummary, VERSION,
    damaged,
};
use crate::{
    error::{Error, Kind, Result},
    gallery::{Binding, Gallery, GalleryName},
    hex,
};

const BATCH_ITEMS: usize = 512;
/// Size of the records after which a batch ends, in bytes.
const BATCH_BYTES: usize = 8 << 20;
/// Prefix of the names of galleries that are being restored.
const STAGING_PREFIX: &str = "restoring--";

/// Reads a snapshot and replaces the gallery `name` with its content. A file that is damaged or
/// ends early changes nothing. Of two concurrent restores of one gallery the earlier one fails.
///
/// # Errors
/// [`Kind::Malformed`] if the file is not a snapshot or is damaged; [`Kind::Conflict`] if another
/// restore of the gallery took over; an [`Error`] that reading `from` returned; as
/// [`crate::gallery::GalleryStore::put`].
pub async fn restore_snapshot(
    store: &Gallery,
    name: &GalleryName,
    from: impl AsyncRead + Unpin + Send,
) -> Result<SnapshotSummary> {
    let mut file = SnapshotReader::new(from);
    let binding = file.header().await?;
    let mut staging = StagingGallery::create(store, name, &binding).await?;
    let restored = async {
        let summary = staging.fill(&binding, &mut file).await?;
        store.rename(&staging.name, name).await?;
        Ok(summary)
    }
    .await;
    if restored.is_ok() {
        staging.pending = false;
    } else {
        staging.remove().await;
    }
    restored
}

/// Compares a snapshot with its checksum.
///
/// # Errors
/// [`Kind::Malformed`] if the file is not a snapshot or is damaged; an [`Error`] that reading
/// `from` returned.
pub async fn verify_snapshot(from: impl AsyncRead + Unpin + Send) -> Result<SnapshotSummary> {
    let mut file = SnapshotReader::new(from);
    file.header().await?;
    let mut items = 0;
    while file.part().await?.is_some() {
        items += 1;
    }
    file.trailer(items).await
}

/// A gallery that is being restored. It is removed if the restore fails or is dropped.
struct StagingGallery {
    store: Gallery,
    name: GalleryName,
    pending: bool,
}

impl StagingGallery {
    /// Creates the gallery, and removes those of interrupted restores of the same gallery.
    async fn create(store: &Gallery, of: &GalleryName, binding: &Binding) -> Result<Self> {
        let of = hex::encode(&Sha256::digest(of.as_str())[..8]);
        let prefix = format!("{STAGING_PREFIX}{of}-");
        for gallery in store.galleries().await? {
            if gallery.name.as_str().starts_with(&prefix) {
                store.remove(&gallery.name).await?;
            }
        }
        // The standard library's random keys are random enough for a name.
        let name = GalleryName::new(format!("{prefix}{:016x}", RandomState::new().hash_one(())))?;
        let staging = Self {
            store: store.clone(),
            name,
            pending: true,
        };
        store.create(&staging.name, binding).await?;
        Ok(staging)
    }

    /// Stores the items of the file, and checks that all of them are there.
    async fn fill<R: AsyncRead + Unpin>(
        &self,
        binding: &Binding,
        file: &mut SnapshotReader<R>,
    ) -> Result<SnapshotSummary> {
        let mut items = 0u64;
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while let Some(record) = file.part().await? {
            batch_bytes += record.len();
            let item_damaged =
                |error: &dyn std::fmt::Display| damaged(format_args!("item {items}: {error}"));
            let record = SnapshotRecord::decode(record).map_err(|error| item_damaged(&error))?;
            let item = record.into_item(binding.dim);
            batch.push(item.map_err(|error| item_damaged(&error))?);
            items += 1;
            if batch.len() == BATCH_ITEMS || batch_bytes >= BATCH_BYTES {
                let batch = std::mem::take(&mut batch);
                self.store.put(&self.name, binding, batch).await?;
                batch_bytes = 0;
            }
        }
        if !batch.is_empty() {
            self.store.put(&self.name, binding, batch).await?;
        }
        let summary = file.trailer(items).await?;
        let stored = self.store.require_gallery(&self.name).await?.items;
        if stored == items {
            return Ok(summary);
        }
        let detail = format!(
            "{stored} of {items} items are there: another restore of the gallery began meanwhile"
        );
        Err(Error::new(Kind::Conflict, detail))
    }

    async fn remove(&mut self) {
        if let Err(error) = self.store.remove(&self.name).await {
            tracing::warn!(
                gallery = %self.name,
                %error,
                "a partly restored gallery could not be removed"
            );
        }
        self.pending = false;
    }
}

impl Drop for StagingGallery {
    fn drop(&mut self) {
        if let (true, Ok(tokio)) = (self.pending, tokio::runtime::Handle::try_current()) {
            let mut staging = Self {
                store: self.store.clone(),
                name: self.name.clone(),
                pending: false,
            };
            tokio.spawn(async move { staging.remove().await });
        }
    }
}

struct SnapshotReader<R> {
    from: BufReader<R>,
    hash: Sha256,
    bytes: u64,
}

impl<R: AsyncRead + Unpin> SnapshotReader<R> {
    fn new(from: R) -> Self {
        Self {
            from: BufReader::with_capacity(BUFFER_BYTES, from),
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    async fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.from.read_exact(bytes).await.map_err(read_error)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    async fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).await?;
        self.hash.update(bytes);
        Ok(bytes)
    }

    /// Reads the next part; returns `None` at the end of the records.
    async fn part(&mut self) -> Result<Option<Bytes>> {
        let length = u32::from_le_bytes(self.take().await?) as usize;
        if length == 0 {
            return Ok(None);
        }
        if length > MAX_RECORD_BYTES {
            return Err(damaged(format_args!(
                "an item of {length} bytes; the limit is {MAX_RECORD_BYTES}"
            )));
        }
        let mut part = vec![0; length];
        self.read_exact(&mut part).await?;
        self.hash.update(&part);
        Ok(Some(part.into()))
    }

    async fn header(&mut self) -> Result<Binding> {
        let magic: [u8; 8] = self.take().await?;
        if &magic != MAGIC {
            let detail =
                "this is not a snapshot of a gallery; `dinoserve gallery snapshot` writes them";
            return Err(Error::new(Kind::Malformed, detail));
        }
        let version = u32::from_le_bytes(self.take().await?);
        if version != VERSION {
            let detail = format!(
                "this is a snapshot of version {version}; this program reads version {VERSION}"
            );
            return Err(Error::new(Kind::Malformed, detail));
        }
        let header = self.part().await?;
        let header = header.ok_or_else(|| damaged("its header is empty"))?;
        let header: Header = serde_json::from_slice(&header)
            .map_err(|error| damaged(format_args!("its header: {error}")))?;
        if header.binding.dim == 0 {
            return Err(damaged("its vectors have no values"));
        }
        Ok(header.binding)
    }

    /// Compares the content with the count and the checksum at the end of the file.
    async fn trailer(&mut self, items: u64) -> Result<SnapshotSummary> {
        let count = u64::from_le_bytes(self.take().await?);
        let expected = self.hash.clone().finalize();
        let mut digest = [0; 32];
        self.read_exact(&mut digest).await?;
        if count != items || digest[..] != expected[..] {
            return Err(damaged("its checksum differs from its content"));
        }
        match self.from.read(&mut [0]).await {
            Ok(0) => Ok(SnapshotSummary {
                items,
                bytes: self.bytes,
            }),
            Ok(_) => Err(damaged("there are bytes after its end")),
            Err(error) => Err(read_error(error)),
        }
    }
}

fn read_error(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return damaged("it ends early");
    }
    // The reader may wrap an error of ours.
    error
        .downcast::<Error>()
        .unwrap_or_else(|error| Error::io("reading the snapshot", error))
}
