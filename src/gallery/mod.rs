//! The stored gallery: vectors with labels and metadata, kept for years and searched by likeness.
//!
//! [`GalleryStore`] is what the use cases call; each backend is a folder, and one test suite runs
//! over both (`tests/store/contract`). Nothing here makes features: vectors come in, and a
//! gallery remembers of what kind they are ([`Binding`]).

mod binding;
pub mod embedded;
mod filter;
mod item;
mod open;
mod postgres;
mod snapshot;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use self::{
    binding::Binding,
    filter::{Bound, Condition, ItemFilter, Scalar},
    item::{GalleryName, Item, ItemId, Label, Metadata, NewItem, StoredItem},
    open::{GalleryConfig, OpenMode, VectorFormat, open},
    snapshot::{SnapshotSummary, restore_snapshot, verify_snapshot, write_snapshot},
};
use crate::error::{Error, Result};

/// A store that is open. Clones share it.
pub type Gallery = Arc<dyn GalleryStore>;

/// Items in the order in which they were first stored, as they were at one moment.
pub type ItemStream = BoxStream<'static, Result<StoredItem>>;

/// A place that keeps galleries.
///
/// **Durability.** When a write has been answered with `Ok` it survives the end of the process and
/// of the power. A write that was answered with an error has changed nothing.
///
/// **Visibility.** A read that begins after a write was answered sees it, also a search with an
/// approximate index.
///
/// # Errors
/// All methods: [`crate::error::Kind::NotFound`] that names the gallery or item that is not there,
/// [`crate::error::Kind::Unavailable`] if the store cannot be reached,
/// [`crate::error::Kind::StorageFull`] if it cannot take more, [`crate::error::Kind::Conflict`] if
/// a gallery holds features of another kind.
#[async_trait]
pub trait GalleryStore: Debug + Send + Sync {
    /// Where the items lie, for logs; without passwords.
    fn describe(&self) -> String;

    /// All galleries, by name.
    async fn galleries(&self) -> Result<Vec<GalleryInfo>>;

    /// One gallery.
    async fn gallery(&self, name: &GalleryName) -> Result<GalleryInfo>;

    /// Makes an empty gallery, or finds the one that is there with the same binding.
    async fn create(&self, name: &GalleryName, binding: &Binding) -> Result<GalleryInfo>;

    /// Deletes a gallery with all its items.
    async fn remove(&self, name: &GalleryName) -> Result<()>;

    /// Gives the gallery `from` the name `to`, in one step; what had that name before is deleted.
    async fn rename(&self, from: &GalleryName, to: &GalleryName) -> Result<()>;

    /// Stores items in one transaction; an item whose id is there already is replaced and keeps its
    /// place in the order. The gallery is made if there is none. Of several items with one id the
    /// last stays.
    ///
    /// Tells for each item whether it was new.
    async fn put(
        &self,
        name: &GalleryName,
        binding: &Binding,
        items: Vec<NewItem>,
    ) -> Result<Vec<bool>>;

    /// Deletes items in one transaction, and tells for each whether it was there.
    async fn delete(&self, name: &GalleryName, ids: Vec<ItemId>) -> Result<Vec<bool>>;

    /// One item with the `parts` that are asked for.
    async fn get(&self, name: &GalleryName, id: &ItemId, parts: Parts) -> Result<StoredItem>;

    /// At most `limit` items that pass the filter, in the order of [`ItemStream`], from the first
    /// whose place is after `after`. Pages are stable: items that stay are given once, whatever is
    /// written meanwhile.
    async fn page(
        &self,
        name: &GalleryName,
        after: u64,
        limit: usize,
        filter: Option<&ItemFilter>,
    ) -> Result<Vec<Item>>;

    /// The nearest items by falling score; of equal scores the one that was stored first.
    /// [`crate::error::Kind::Conflict`] if the gallery's vectors are not what the search says,
    /// [`crate::error::Kind::InvalidOption`] for a vector of another width.
    async fn search(&self, name: &GalleryName, search: Search) -> Result<Vec<Neighbor>>;

    /// All items as they are now, with the `parts` that are asked for. Writers are not held up.
    async fn read(&self, name: &GalleryName, parts: Parts) -> Result<ItemStream>;

    /// Reads everything that is stored of a gallery and compares it with its checksums.
    async fn check(&self, name: &GalleryName) -> Result<CheckReport>;

    /// Stores a document under a name, or replaces it.
    async fn put_document(
        &self,
        kind: DocumentKind,
        name: &GalleryName,
        document: Bytes,
    ) -> Result<()>;

    /// The document of that name.
    async fn document(&self, kind: DocumentKind, name: &GalleryName) -> Result<Bytes>;

    /// Names of all documents of a kind, sorted.
    async fn documents(&self, kind: DocumentKind) -> Result<Vec<GalleryName>>;

    /// Deletes a document.
    async fn remove_document(&self, kind: DocumentKind, name: &GalleryName) -> Result<()>;

    /// Ends background work and writes what only saves time at the next start. Nothing that was
    /// acknowledged depends on it.
    async fn close(&self);
}

/// What a gallery is.
#[derive(Debug, Clone, PartialEq)]
pub struct GalleryInfo {
    /// Its name.
    pub name: GalleryName,
    /// What its vectors are.
    pub binding: Binding,
    /// How many items it has.
    pub items: u64,
    /// How many of them the approximate index holds; the others are compared one by one.
    pub indexed: u64,
}

/// Which parts of an item are read beside its id, label and metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    /// The vector that is searched.
    pub vector: bool,
    /// The features of probes.
    pub features: bool,
    /// The small picture.
    pub thumbnail: bool,
}

impl Parts {
    /// Only id, label and metadata.
    pub const NONE: Self = Self {
        vector: false,
        features: false,
        thumbnail: false,
    };
    /// Everything that is stored.
    pub const ALL: Self = Self {
        vector: true,
        features: true,
        thumbnail: true,
    };
}

/// What is sought.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// `[dim]`, of length 1.
    pub vector: Vec<f32>,
    /// What the vector is. A gallery that has got the name since it was looked up may hold others.
    pub binding: Option<Binding>,
    /// How many neighbors; fewer are found in a gallery that has fewer.
    pub k: usize,
    /// Which items may be found.
    pub filter: Option<ItemFilter>,
    /// Compare with every item that passes the filter, without the approximate index.
    pub exact: bool,
    /// An item that is not to be found: the one that the vector is of.
    pub except: Option<ItemId>,
}

impl Search {
    /// The `k` nearest of all items.
    pub fn new(vector: Vec<f32>, k: usize) -> Self {
        Self {
            vector,
            binding: None,
            k,
            filter: None,
            exact: false,
            except: None,
        }
    }

    /// Checks that it can be answered by a gallery of that name and kind.
    fn check(&self, name: &GalleryName, binding: &Binding) -> Result<()> {
        if let Some(own) = &self.binding {
            binding.check(name, own)?;
        }
        if self.vector.len() != binding.dim {
            let detail = format!(
                "{} numbers, and the gallery's vectors have {}",
                self.vector.len(),
                binding.dim
            );
            return Err(Error::option("vector", detail));
        }
        Ok(())
    }
}

/// All items of a gallery as they are now, and what it is then.
///
/// # Errors
/// As [`GalleryStore::read`].
pub async fn read_whole(
    store: &Gallery,
    name: &GalleryName,
    parts: Parts,
) -> Result<(GalleryInfo, ItemStream)> {
    loop {
        let info = store.gallery(name).await?;
        let items = store.read(name, parts).await?;
        // Between the two calls another gallery may have got the name.
        if store.gallery(name).await?.binding == info.binding {
            return Ok((info, items));
        }
    }
}

/// An item that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbor {
    /// The item.
    pub item: Item,
    /// Cosine of the angle between its vector and the one that was sought: -1 to 1, 1 for the same
    /// direction.
    pub score: f32,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckReport {
    /// Items that were read.
    pub items: u64,
    /// What is wrong, a sentence each; empty if all is as it was written.
    pub damage: Vec<String>,
}

/// What else is stored beside the galleries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum DocumentKind {
    /// A trained linear probe.
    Probe,
    /// A PCA basis.
    Basis,
}
