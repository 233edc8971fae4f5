//! Reads large objects.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use bytes::Bytes;
use tokio::{runtime::Handle, task::JoinHandle};

use super::{identity::Identity, store::ObjectPlace};
use crate::error::{Error, Kind, Result};

/// Bytes that one request reads.
const CHUNK: u64 = 8 << 20;

/// Reads a large object in chunks, the next one ahead, on a thread that may block.
pub(super) struct ObjectReader {
    place: ObjectPlace,
    pub(super) identity: Identity,
    runtime: Handle,
    chunk: Bytes,
    /// Where the next chunk begins.
    next: u64,
    ahead: Option<JoinHandle<Result<Bytes>>>,
}

impl ObjectReader {
    pub(super) fn open(place: &ObjectPlace) -> Result<Self> {
        let runtime = Handle::current();
        let identity = runtime.block_on(place.identity())?;
        let missing = || Error::new(Kind::NotFound, format!("there is no object {place}"));
        Ok(Self {
            place: place.clone(),
            identity: identity.ok_or_else(missing)?,
            runtime,
            chunk: Bytes::new(),
            next: 0,
            ahead: None,
        })
    }

    /// Returns a reader of the same object from `start` on.
    pub(super) fn from(&self, start: u64) -> Self {
        Self {
            place: self.place.clone(),
            identity: self.identity.clone(),
            runtime: self.runtime.clone(),
            chunk: Bytes::new(),
            next: start,
            ahead: None,
        }
    }

    /// Reads a part of the object.
    pub(super) fn read_part(&self, start: u64, length: u64) -> Result<Bytes> {
        let _entered = self.runtime.enter();
        let version = &self.identity.version;
        let part = self.place.read_range(start, start + length, version);
        self.wait(part)
    }

    fn wait(&self, part: JoinHandle<Result<Bytes>>) -> Result<Bytes> {
        let part = self.runtime.block_on(part);
        part.map_err(|error| Error::internal(format!("reading {}: {error}", self.place)))?
    }

    fn fetch(&mut self) -> Option<JoinHandle<Result<Bytes>>> {
        let end = self.identity.bytes.min(self.next + CHUNK);
        if self.next >= end {
            return None;
        }
        let _entered = self.runtime.enter();
        let start = std::mem::replace(&mut self.next, end);
        Some(self.place.read_range(start, end, &self.identity.version))
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            let Some(chunk) = self.ahead.take().or_else(|| self.fetch()) else {
                return Ok(0);
            };
            self.ahead = self.fetch();
            self.chunk = self.wait(chunk).map_err(io::Error::other)?;
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

impl ObjectPlace {
    /// Copies this object to a local file.
    pub(crate) async fn download(&self, file: &Path) -> Result<()> {
        let this = self.clone();
        let path = file.to_owned();
        let copied = tokio::task::spawn_blocking(move || {
            let mut from = ObjectReader::open(&this)?;
            let writing = |error| Error::writing(&path, error);
            let mut to = File::create(&path).map_err(writing)?;
            io::copy(&mut from, &mut to).map(drop).map_err(writing)
        });
        copied
            .await
            .map_err(|error| Error::internal(format!("reading {self}: {error}")))?
    }
}
