//! Reads and verifies the file of a snapshot.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

use super::format::{
    BUFFER_BYTES, Header, MAGIC, MAX_RECORD_BYTES, SnapshotSummary, VERSION, damaged,
};
use crate::{
    error::{Error, Kind, Result},
    gallery::Binding,
};

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

pub(super) struct SnapshotReader<R> {
    from: BufReader<R>,
    hash: Sha256,
    bytes: u64,
}

impl<R: AsyncRead + Unpin> SnapshotReader<R> {
    pub(super) fn new(from: R) -> Self {
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
    pub(super) async fn part(&mut self) -> Result<Option<Bytes>> {
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

    pub(super) async fn header(&mut self) -> Result<Binding> {
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
        let possible = header.binding.check_possible();
        possible.map_err(|error| damaged(format_args!("its header: {error}")))?;
        Ok(header.binding)
    }

    /// Compares the content with the count and the checksum at the end of the file.
    pub(super) async fn trailer(&mut self, items: u64) -> Result<SnapshotSummary> {
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
