//! One gallery as one file that checks itself, for any backend.
//!
//! ```text
//! "DINOGLRY"  version u32
//! length u32  header: JSON {"binding": …}
//! length u32  record: protobuf message `Record`      once per item, in the order of the gallery
//! 0 u32       items u64    SHA-256 of all before it
//! ```
//!
//! Numbers are little-endian. A record is never empty, so that a length of 0 ends them. The file is
//! written and read in one go, in constant memory. When items were stored is not kept: a store says
//! when it got them.
//!
//! A file is restored into a gallery of its own, named `restoring--…`, and takes the place of the
//! old one only when all of it was read and its checksum agrees. Names of that form are reserved
//! for this.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use futures_util::TryStreamExt;
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};

use super::{
    Binding, Gallery, GalleryInfo, GalleryName, ItemId, Label, Metadata, NewItem, Parts,
    StoredItem, read_whole,
};
use crate::{
    error::{Error, Kind, Result},
    hex,
};

const MAGIC: &[u8; 8] = b"DINOGLRY";
const VERSION: u32 = 1;
/// Most bytes of the header or of a record: a hundred times what an item with its thumbnail takes.
const MOST_RECORD_BYTES: usize = 16 << 20;
/// Bytes that are read or written at a time.
const BUFFER: usize = 256 << 10;
/// A batch that is restored has at most so many items, and ends when it has so many bytes.
const BATCH: (usize, usize) = (512, 8 << 20);
/// How the names of galleries begin that are being restored.
const RESTORING: &str = "restoring--";

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SnapshotSummary {
    /// How many items.
    pub items: u64,
    /// The length of the file.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    binding: Binding,
}

/// An item. Its place is that of the record.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, optional, tag = "2")]
    label: Option<String>,
    /// A JSON object.
    #[prost(string, tag = "3")]
    metadata: String,
    #[prost(float, repeated, tag = "4")]
    vector: Vec<f32>,
    /// Empty if there are none.
    #[prost(float, repeated, tag = "5")]
    features: Vec<f32>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    thumbnail: Option<Bytes>,
}

impl Record {
    fn of(stored: StoredItem) -> Result<Self> {
        let StoredItem {
            item,
            vector,
            features,
            thumbnail,
        } = stored;
        let metadata = serde_json::to_string(&item.metadata)
            .map_err(|error| Error::internal(format!("metadata of {}: {error}", item.id)))?;
        let (id, label) = (item.id.into(), item.label.map(String::from));
        Ok(Self {
            id,
            label,
            metadata,
            vector,
            features: features.unwrap_or_default(),
            thumbnail,
        })
    }

    fn into_item(self, dim: usize) -> Result<NewItem> {
        let Self {
            id,
            label,
            metadata,
            vector,
            features,
            thumbnail,
        } = self;
        // As a store may keep them: features in half precision, which larger numbers do not fit.
        let finite = vector
            .iter()
            .chain(&features)
            .all(|&value| half::f16::from_f32(value).is_finite());
        if vector.len() != dim || !finite {
            return Err(Error::option(
                "vector",
                format!("must be {dim} numbers that half precision holds"),
            ));
        }
        let (id, label) = (ItemId::new(id)?, label.map(Label::new).transpose()?);
        let features = Some(features).filter(|features| !features.is_empty());
        Ok(NewItem {
            id,
            label,
            metadata: Metadata::parse(&metadata)?,
            vector,
            features,
            thumbnail,
        })
    }
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Malformed, format!("the snapshot is damaged: {what}"))
}

/// Writes a gallery as it is now. Writers are not held up.
///
/// # Errors
/// As [`super::GalleryStore::read`]; [`Kind::Io`] if `to` does not take it.
pub async fn write_snapshot(
    store: &Gallery,
    name: &GalleryName,
    to: impl AsyncWrite + Unpin + Send,
) -> Result<SnapshotSummary> {
    let (GalleryInfo { binding, .. }, mut items) = read_whole(store, name, Parts::ALL).await?;
    let mut file = Writer {
        to: BufWriter::with_capacity(BUFFER, to),
        hash: Sha256::new(),
        bytes: 0,
    };
    file.put(MAGIC).await?;
    file.put(&VERSION.to_le_bytes()).await?;
    let header = serde_json::to_vec(&Header { binding });
    file.put_part(&header.map_err(|error| Error::internal(format!("a binding: {error}")))?)
        .await?;
    let mut count = 0u64;
    while let Some(stored) = items.try_next().await? {
        file.put_part(&Record::of(stored)?.encode_to_vec()).await?;
        count += 1;
    }
    file.put(&0u32.to_le_bytes()).await?;
    file.put(&count.to_le_bytes()).await?;
    let digest = file.hash.clone().finalize();
    file.put(&digest).await?;
    file.to.flush().await.map_err(writing)?;
    Ok(SnapshotSummary {
        items: count,
        bytes: file.bytes,
    })
}

struct Writer<W> {
    to: BufWriter<W>,
    hash: Sha256,
    bytes: u64,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    async fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes).await.map_err(writing)
    }

    /// The length of a part, then the part.
    async fn put_part(&mut self, part: &[u8]) -> Result<()> {
        if part.len() > MOST_RECORD_BYTES {
            let detail = format!(
                "an item takes {} bytes; a snapshot holds items of {MOST_RECORD_BYTES}",
                part.len()
            );
            return Err(Error::new(Kind::TooLarge, detail));
        }
        self.put(&(part.len() as u32).to_le_bytes()).await?;
        self.put(part).await
    }
}

fn writing(error: std::io::Error) -> Error {
    Error::io("writing the snapshot", error)
}

/// Reads a snapshot, and gives the gallery `name` its content instead of what was there. A file
/// that is damaged or ends early changes nothing. A restore of the same gallery that begins while
/// another is under way makes the other fail.
///
/// # Errors
/// [`Kind::Malformed`] if it is no snapshot, or not as it was written; [`Kind::Conflict`] if
/// another restore of the gallery took over; an [`Error`] that reading `from` gave; as
/// [`super::GalleryStore::put`].
pub async fn restore_snapshot(
    store: &Gallery,
    name: &GalleryName,
    from: impl AsyncRead + Unpin + Send,
) -> Result<SnapshotSummary> {
    let mut file = Reader::new(from);
    let binding = file.header().await?;
    let mut aside = Aside::make(store, name, &binding).await?;
    let restored = async {
        let summary = fill(&aside, &binding, &mut file).await?;
        store.rename(&aside.name, name).await?;
        Ok(summary)
    }
    .await;
    if restored.is_ok() {
        aside.pending = false;
    } else {
        aside.remove().await;
    }
    restored
}

/// Compares a snapshot with its checksum.
///
/// # Errors
/// [`Kind::Malformed`] if it is no snapshot, or not as it was written; an [`Error`] that reading
/// `from` gave.
pub async fn verify_snapshot(from: impl AsyncRead + Unpin + Send) -> Result<SnapshotSummary> {
    let mut file = Reader::new(from);
    file.header().await?;
    let mut items = 0;
    while file.part().await?.is_some() {
        items += 1;
    }
    file.trailer(items).await?;
    Ok(SnapshotSummary {
        items,
        bytes: file.bytes,
    })
}

/// Puts the items of the file into the gallery aside, and checks that all of them are there.
async fn fill<R: AsyncRead + Unpin>(
    aside: &Aside,
    binding: &Binding,
    file: &mut Reader<R>,
) -> Result<SnapshotSummary> {
    let (mut items, mut batch, mut batch_bytes) = (0u64, Vec::new(), 0);
    while let Some(record) = file.part().await? {
        batch_bytes += record.len();
        let record = Record::decode(record)
            .map_err(|error| damaged(format_args!("item {items}: {error}")))?;
        let item = record.into_item(binding.dim);
        batch.push(item.map_err(|error| damaged(format_args!("item {items}: {error}")))?);
        items += 1;
        if batch.len() == BATCH.0 || batch_bytes >= BATCH.1 {
            aside
                .store
                .put(&aside.name, binding, std::mem::take(&mut batch))
                .await?;
            batch_bytes = 0;
        }
    }
    if !batch.is_empty() {
        aside.store.put(&aside.name, binding, batch).await?;
    }
    file.trailer(items).await?;
    let stored = aside.store.gallery(&aside.name).await?.items;
    if stored == items {
        return Ok(SnapshotSummary {
            items,
            bytes: file.bytes,
        });
    }
    let detail = format!(
        "of {items} items {stored} are there: another restore of the gallery began meanwhile"
    );
    Err(Error::new(Kind::Conflict, detail))
}

/// A gallery that is being restored. It is removed if that comes to nothing, also when the work is
/// dropped half way.
struct Aside {
    store: Gallery,
    name: GalleryName,
    pending: bool,
}

impl Aside {
    /// Makes it, and removes what is left of restores of the same gallery whose process has ended.
    async fn make(store: &Gallery, of: &GalleryName, binding: &Binding) -> Result<Self> {
        let of = hex::encode(&Sha256::digest(of.as_str())[..8]);
        let begin = format!("{RESTORING}{of}-");
        for left in store
            .galleries()
            .await?
            .into_iter()
            .filter(|found| found.name.as_str().starts_with(&begin))
        {
            ignore_missing(store.remove(&left.name).await)?;
        }
        // The standard library's random keys are as good as another source of random numbers.
        let name = GalleryName::new(format!("{begin}{:016x}", RandomState::new().hash_one(())))?;
        let aside = Self {
            store: store.clone(),
            name,
            pending: true,
        };
        store.create(&aside.name, binding).await?;
        Ok(aside)
    }

    async fn remove(&mut self) {
        if let Err(error) = ignore_missing(self.store.remove(&self.name).await) {
            tracing::warn!(gallery = %self.name, %error, "what was restored so far could not be removed");
        }
        self.pending = false;
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let (true, Ok(tokio)) = (self.pending, tokio::runtime::Handle::try_current()) {
            let mut aside = Self {
                store: self.store.clone(),
                name: self.name.clone(),
                pending: false,
            };
            tokio.spawn(async move { aside.remove().await });
        }
    }
}

fn ignore_missing(removed: Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != Kind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn reading(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return damaged("it ends early");
    }
    // Whoever gives the bytes may have an error of ours to tell, such as a limit that was hit.
    error
        .downcast::<Error>()
        .unwrap_or_else(|error| Error::io("reading the snapshot", error))
}

struct Reader<R> {
    from: BufReader<R>,
    hash: Sha256,
    bytes: u64,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    fn new(from: R) -> Self {
        Self {
            from: BufReader::with_capacity(BUFFER, from),
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    async fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.from.read_exact(bytes).await.map_err(reading)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    async fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).await?;
        self.hash.update(bytes);
        Ok(bytes)
    }

    /// The next part; `None` when the records have ended.
    async fn part(&mut self) -> Result<Option<Bytes>> {
        let length = u32::from_le_bytes(self.take().await?) as usize;
        if length == 0 {
            return Ok(None);
        }
        if length > MOST_RECORD_BYTES {
            return Err(damaged(format_args!(
                "an item of {length} bytes; the most is {MOST_RECORD_BYTES}"
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
                "this is no snapshot of a gallery; `dinoserve gallery snapshot` writes them";
            return Err(Error::new(Kind::Malformed, detail));
        }
        let version = u32::from_le_bytes(self.take().await?);
        if version != VERSION {
            let detail = format!(
                "this is a snapshot of version {version}; this program reads version {VERSION}"
            );
            return Err(Error::new(Kind::Malformed, detail));
        }
        let header = self
            .part()
            .await?
            .ok_or_else(|| damaged("its header is empty"))?;
        let header: Header = serde_json::from_slice(&header)
            .map_err(|error| damaged(format_args!("its header: {error}")))?;
        if header.binding.dim == 0 {
            return Err(damaged("its vectors have no values"));
        }
        Ok(header.binding)
    }

    /// Compares what was read with what the end of the file says.
    async fn trailer(&mut self, items: u64) -> Result<()> {
        let count = u64::from_le_bytes(self.take().await?);
        let expected = self.hash.clone().finalize();
        let mut digest = [0; 32];
        self.read_exact(&mut digest).await?;
        if count != items || digest[..] != expected[..] {
            return Err(damaged("its content does not agree with its checksum"));
        }
        match self.from.read(&mut [0]).await {
            Ok(0) => Ok(()),
            Ok(_) => Err(damaged("it goes on after its end")),
            Err(error) => Err(reading(error)),
        }
    }
}
