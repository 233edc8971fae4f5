//! Object stores: S3, Google Cloud Storage, Azure and HTTP, through the crate `object_store`, which
//! signs requests and repeats those that a store refuses.

mod failure;
mod settings;

use std::{
    collections::HashMap,
    fmt, io,
    path::Path,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    Error as StoreError, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    buffered::BufWriter, path::Path as Key,
};
use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt, task::JoinHandle};

use self::{
    failure::{failed, shortened},
    settings::open_store,
};
use super::identity::Identity;
use crate::error::{Error, Kind, Result};

/// Bytes of a part of a file that is written.
const PART: usize = 8 << 20;

/// The stores in use, by scheme and host: clients keep connections.
static STORES: LazyLock<Mutex<HashMap<String, Arc<dyn ObjectStore>>>> =
    LazyLock::new(Mutex::default);

/// An object or a prefix in a store.
#[derive(Clone)]
pub struct ObjectPlace {
    store: Arc<dyn ObjectStore>,
    key: Key,
    /// Scheme and host, such as `s3://bucket`.
    base: String,
}

impl ObjectPlace {
    /// Parses an address, such as `s3://bucket/folder/file`. Settings and credentials come from
    /// the environment.
    pub(super) fn parse(address: &str) -> Result<Self> {
        let invalid = |detail: &dyn fmt::Display| {
            Error::new(Kind::InvalidOption, format!("{address}: {detail}"))
        };
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(invalid(&"the address names no bucket or host"));
        }
        let is_http = matches!(scheme, "http" | "https");
        if is_http && path.contains(['?', '#']) {
            return Err(invalid(
                &"an address with `?` or `#` is not supported; download the file first",
            ));
        }
        let path = path.trim_end_matches('/');
        let key = match is_http {
            true => Key::from_url_path(path),
            // Keys are written as they are, without escapes.
            false => Key::parse(path),
        };
        let key = key.map_err(|error| invalid(&error))?;
        let base = format!("{scheme}://{host}");
        let mut stores = STORES.lock();
        let store = match stores.get(&base) {
            Some(store) => store.clone(),
            None => {
                let store = open_store(scheme, &base)
                    .map_err(|error| error.context(format_args!("opening {base}")))?;
                stores.insert(base.clone(), store.clone());
                store
            }
        };
        Ok(Self { store, key, base })
    }

    fn at(&self, key: Key) -> Self {
        Self {
            store: self.store.clone(),
            key,
            base: self.base.clone(),
        }
    }

    /// Returns the object of a path below this prefix; of the bucket, if the path begins with `/`.
    pub(super) fn join(&self, path: &str) -> Result<Self> {
        let joined = match path.strip_prefix('/') {
            Some(path) => path.to_owned(),
            None if self.key.as_ref().is_empty() => path.to_owned(),
            None => format!("{}/{path}", self.key),
        };
        match Key::parse(joined) {
            Ok(key) => Ok(self.at(key)),
            Err(error) => Err(Error::option("path", format_args!("{path}: {error}"))),
        }
    }

    pub(super) fn parent(&self) -> Self {
        let mut parts: Vec<_> = self.key.parts().collect();
        parts.pop();
        self.at(parts.into_iter().collect())
    }

    pub(super) fn name(&self) -> &str {
        self.key.filename().unwrap_or_default()
    }

    /// Lists the objects below this prefix, in the order of the store: most sort by key.
    pub(crate) fn list(&self) -> BoxStream<'static, Result<(Self, Identity)>> {
        let prefix = (!self.key.as_ref().is_empty()).then_some(&self.key);
        let this = self.clone();
        let objects = self.store.list(prefix);
        objects
            .map(move |meta| match meta {
                Ok(meta) => Ok((this.at(meta.location.clone()), identity_of(&meta))),
                Err(error) => Err(this.failed("listing", error)),
            })
            .boxed()
    }

    /// Returns the names of objects and prefixes directly below this prefix.
    pub(super) async fn names(&self) -> Result<Vec<String>> {
        let prefix = (!self.key.as_ref().is_empty()).then_some(&self.key);
        let listed = self.store.list_with_delimiter(prefix).await;
        let listed = listed.map_err(|error| self.failed("listing", error))?;
        let objects = listed.objects.iter().map(|meta| &meta.location);
        let keys = objects.chain(&listed.common_prefixes);
        let names = keys.filter_map(|key| key.filename().map(str::to_owned));
        Ok(names.collect())
    }

    /// Returns the path of an object below this prefix.
    pub(super) fn below(&self, object: &Self) -> String {
        let key = object.key.as_ref();
        let below = key.strip_prefix(self.key.as_ref()).unwrap_or(key);
        below.trim_start_matches('/').to_owned()
    }

    /// Returns the identity of the object; `None` if there is none.
    pub(crate) async fn identity(&self) -> Result<Option<Identity>> {
        match self.store.head(&self.key).await {
            Ok(meta) => Ok(Some(identity_of(&meta))),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("reading", error)),
        }
    }

    /// Reads the whole object.
    pub(crate) async fn read(&self) -> Result<Bytes> {
        let read = async { self.store.get(&self.key).await?.bytes().await };
        // The caller names the object.
        read.await.map_err(|error| failed("reading", error))
    }

    pub(super) async fn read_if_exists(&self) -> Result<Option<Bytes>> {
        match self.read().await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error.context(self)),
        }
    }

    /// Reads a part of the object, which must be of the given version.
    pub(super) fn read_range(
        &self,
        start: u64,
        end: u64,
        version: &str,
    ) -> JoinHandle<Result<Bytes>> {
        let this = self.clone();
        let options = GetOptions::new()
            .with_range(Some(start..end))
            .with_if_match(Some(version).filter(|version| !version.is_empty()));
        tokio::spawn(async move {
            let read = async { this.store.get_opts(&this.key, options).await?.bytes().await };
            read.await.map_err(|error| match error {
                StoreError::Precondition { .. } => {
                    Error::new(Kind::Conflict, format!("{this} was changed meanwhile"))
                }
                error => this.failed("reading", error),
            })
        })
    }

    /// Writes an object as a whole.
    pub(crate) async fn write(&self, bytes: Bytes) -> Result<()> {
        let written = self.store.put(&self.key, bytes.into()).await;
        written
            .map(drop)
            .map_err(|error| self.failed("writing", error))
    }

    /// Writes an object unless there is one. Returns whether it was written.
    pub(crate) async fn write_new(&self, bytes: Bytes) -> Result<bool> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&self.key, bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed("writing", error)),
        }
    }

    /// Copies a local file to this object, in parts if it is large. The object appears as a whole
    /// or not at all.
    pub(crate) async fn upload(&self, file: &Path) -> Result<()> {
        let reading = |error| Error::reading(file, error);
        let mut from = tokio::fs::File::open(file).await.map_err(reading)?;
        let mut to = BufWriter::with_capacity(self.store.clone(), self.key.clone(), PART);
        let copied = async {
            tokio::io::copy(&mut from, &mut to).await?;
            to.shutdown().await
        };
        copied.await.map_err(|error: io::Error| {
            let detail = format!("writing {self}: {}", shortened(&error));
            Error::new(Kind::Download, detail).with_source(error)
        })
    }

    /// Deletes the objects below this prefix.
    pub(crate) async fn delete_below(&self) -> Result<()> {
        let objects = self.store.list(Some(&self.key));
        let keys = objects.map_ok(|meta| meta.location).boxed();
        let deleted = self.store.delete_stream(keys);
        let done = deleted.try_for_each(async |_| Ok(()));
        done.await.map_err(|error| self.failed("deleting", error))
    }

    /// Deletes the object, if there is one.
    pub(crate) async fn delete(&self) -> Result<()> {
        match self.store.delete(&self.key).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("deleting", error)),
        }
    }

    fn failed(&self, action: &str, error: StoreError) -> Error {
        failed(&format!("{action} {self}"), error)
    }
}

impl fmt::Display for ObjectPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.key)
    }
}

impl fmt::Debug for ObjectPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn identity_of(meta: &ObjectMeta) -> Identity {
    let version = meta.e_tag.clone();
    Identity {
        bytes: meta.size,
        version: version.unwrap_or_else(|| meta.last_modified.timestamp_millis().to_string()),
    }
}
