//! Writes snapshots.

use futures_util::TryStreamExt;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};

use super::format::{
    BUFFER_BYTES, Header, MAGIC, MAX_RECORD_BYTES, SnapshotRecord, SnapshotSummary, VERSION,
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    gallery::{Binding, Gallery, GalleryInfo, GalleryName, ItemStream, Parts, read_whole},
};

/// Writes a snapshot of a gallery, without blocking writers.
///
/// # Errors
/// As [`crate::gallery::GalleryStore::read`]; [`Kind::Io`] if writing to `to` fails.
pub async fn write_snapshot(
    store: &Gallery,
    name: &GalleryName,
    to: impl AsyncWrite + Unpin + Send,
) -> Result<SnapshotSummary> {
    GalleryReader::open(store, name).await?.write_to(to).await
}

/// A gallery at one moment, which is ready to be written.
pub struct GalleryReader {
    binding: Binding,
    items: ItemStream,
}

impl std::fmt::Debug for GalleryReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GalleryReader")
            .field("binding", &self.binding)
            .finish_non_exhaustive()
    }
}

impl GalleryReader {
    /// Takes a permit to read the gallery, and begins.
    ///
    /// # Errors
    /// As [`crate::gallery::GalleryStore::read`].
    pub async fn open(store: &Gallery, name: &GalleryName) -> Result<Self> {
        let (GalleryInfo { binding, .. }, items) = read_whole(store, name, Parts::ALL).await?;
        Ok(Self { binding, items })
    }

    /// Writes the snapshot.
    ///
    /// # Errors
    /// [`Kind::Io`] if writing to `to` fails, or an error of the store.
    pub async fn write_to(self, to: impl AsyncWrite + Unpin + Send) -> Result<SnapshotSummary> {
        let Self { binding, mut items } = self;
        let mut file = SnapshotWriter {
            to: BufWriter::with_capacity(BUFFER_BYTES, to),
            hash: Sha256::new(),
            bytes: 0,
        };
        file.put(MAGIC).await?;
        file.put(&VERSION.to_le_bytes()).await?;
        let header = serde_json::to_vec(&Header { binding }).internal("encoding a binding")?;
        file.put_part(&header).await?;
        let mut count = 0u64;
        while let Some(stored) = items.try_next().await? {
            file.put_part(&SnapshotRecord::new(stored)?.encode_to_vec())
                .await?;
            count += 1;
        }
        file.put(&0u32.to_le_bytes()).await?;
        file.put(&count.to_le_bytes()).await?;
        let digest = file.hash.clone().finalize();
        file.put(&digest).await?;
        file.to.flush().await.map_err(write_error)?;
        Ok(SnapshotSummary {
            items: count,
            bytes: file.bytes,
        })
    }
}

struct SnapshotWriter<W> {
    to: BufWriter<W>,
    hash: Sha256,
    bytes: u64,
}

impl<W: AsyncWrite + Unpin> SnapshotWriter<W> {
    async fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes).await.map_err(write_error)
    }

    /// Writes the length of a part, then the part.
    async fn put_part(&mut self, part: &[u8]) -> Result<()> {
        if part.len() > MAX_RECORD_BYTES {
            let detail = format!(
                "an item takes {} bytes; a snapshot holds items of up to {MAX_RECORD_BYTES}",
                part.len()
            );
            return Err(Error::new(Kind::TooLarge, detail));
        }
        self.put(&(part.len() as u32).to_le_bytes()).await?;
        self.put(part).await
    }
}

fn write_error(error: std::io::Error) -> Error {
    Error::io("writing the snapshot", error)
}
