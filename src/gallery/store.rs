//! The interface of a store, with the arguments and results of its methods.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::{
    Binding, DocumentStore, GalleryName, Item, ItemChange, ItemFilter, ItemId, Neighbor, NewItem,
    Parts, Search, StoredItem, VectorFormat, check_width,
};
use crate::error::{Error, Kind, Result};

/// An open store of galleries and documents. Clones share it.
pub type Gallery = Arc<dyn Store>;

/// Items in the order in which they were first stored, from one snapshot of the gallery.
pub type ItemStream = BoxStream<'static, Result<StoredItem>>;

/// A store of galleries and of documents.
pub trait Store: GalleryStore + DocumentStore {}

impl<S: GalleryStore + DocumentStore> Store for S {}

/// A store of galleries.
///
/// **Durability.** A write that returned `Ok` survives a crash of the process and a power failure.
/// A write that returned an error has changed nothing.
///
/// **Visibility.** A read that begins after a write returned sees that write; so does a search with
/// an approximate index.
///
/// # Errors
/// All methods: [`Kind::Unavailable`] if the store cannot be reached, [`Kind::StorageFull`] if it
/// is full. Methods that need an existing gallery: [`Kind::NotFound`]. Methods that take vectors:
/// [`Kind::Conflict`] if the gallery's vectors were made in another way, [`Kind::InvalidOption`]
/// for a vector of another width.
#[async_trait]
pub trait GalleryStore: Debug + Send + Sync {
    /// Returns where the items are stored, for logs; without passwords.
    fn describe(&self) -> String;

    /// Returns all galleries, by name.
    async fn galleries(&self) -> Result<Vec<GalleryInfo>>;

    /// Returns the names of the galleries that are being restored, and of those whose restore was
    /// interrupted. No other method lists them.
    async fn staging_galleries(&self) -> Result<Vec<GalleryName>>;

    /// Locks the restores of a target against all other restores of it, also of other servers on
    /// the store. Returns `None` if it is locked.
    async fn lock_restore(&self, target: &str) -> Result<Option<RestoreLock>>;

    /// Looks up a gallery.
    async fn gallery(&self, name: &GalleryName) -> Result<Option<GalleryInfo>>;

    /// Creates an empty gallery, or returns an existing one of the same binding.
    async fn create(&self, name: &GalleryName, binding: &Binding) -> Result<GalleryInfo>;

    /// Deletes a gallery with all its items, its audit and its map, and returns whether it existed.
    async fn remove(&self, name: &GalleryName) -> Result<bool>;

    /// Gives a gallery another name.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if a gallery has the new name.
    async fn rename(&self, from: &GalleryName, to: &GalleryName) -> Result<()> {
        self.move_gallery(from, to, false).await
    }

    /// Replaces a gallery, if it exists, by another one, which gets its name.
    async fn replace(&self, name: &GalleryName, by: &GalleryName) -> Result<()> {
        self.move_gallery(by, name, true).await
    }

    /// Implements [`GalleryStore::rename`] and [`GalleryStore::replace`].
    async fn move_gallery(
        &self,
        from: &GalleryName,
        to: &GalleryName,
        replaces: bool,
    ) -> Result<()>;

    /// Stores items in one transaction, and creates the gallery if it does not exist. An item with
    /// the id of a stored one replaces it and keeps its place in the order. Of several items with
    /// one id the last is kept.
    ///
    /// Returns one entry per item.
    async fn put(
        &self,
        name: &GalleryName,
        binding: &Binding,
        items: Vec<NewItem>,
    ) -> Result<Vec<Written>> {
        self.put_batch(name, ItemBatch::new(binding, items)?).await
    }

    /// As [`GalleryStore::put`], but keeps stored items: an item whose id is stored already changes
    /// nothing. Of several items with one id the first is stored.
    async fn put_new(
        &self,
        name: &GalleryName,
        binding: &Binding,
        items: Vec<NewItem>,
    ) -> Result<Vec<Written>> {
        let batch = ItemBatch {
            keeps_stored: true,
            ..ItemBatch::new(binding, items)?
        };
        self.put_batch(name, batch).await
    }

    /// Implements [`GalleryStore::put`] and [`GalleryStore::put_new`].
    async fn put_batch(&self, name: &GalleryName, batch: ItemBatch) -> Result<Vec<Written>>;

    /// Changes the label or the metadata of an item, and the time of its last write. Its vector,
    /// features, thumbnail and place stay. Returns the changed item, or `None` if there is no such
    /// item.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if a part of the item is damaged.
    async fn update(
        &self,
        name: &GalleryName,
        id: &ItemId,
        change: ItemChange,
    ) -> Result<Option<Item>>;

    /// Deletes items in one transaction, and returns for each id whether an item was deleted.
    async fn delete(&self, name: &GalleryName, ids: Vec<ItemId>) -> Result<Vec<bool>>;

    /// Reads an item with the requested `parts`.
    async fn get(
        &self,
        name: &GalleryName,
        id: &ItemId,
        parts: Parts,
    ) -> Result<Option<StoredItem>>;

    /// Returns up to `limit` items that pass the filter and whose place is above `after`, by place.
    /// Pages are stable: concurrent writes neither repeat nor skip an item that stays.
    async fn page(
        &self,
        name: &GalleryName,
        after: u64,
        limit: usize,
        filter: Option<&ItemFilter>,
    ) -> Result<Vec<Item>>;

    /// Returns the nearest items by falling score; of equal scores the one with the lower place
    /// comes first.
    async fn search(&self, name: &GalleryName, search: Search) -> Result<Vec<Neighbor>>;

    /// Streams all items of a snapshot with the requested `parts`, without blocking writers.
    async fn read(&self, name: &GalleryName, parts: Parts) -> Result<ItemStream>;

    /// Reads everything that is stored of a gallery and verifies its checksums.
    async fn check(&self, name: &GalleryName) -> Result<CheckReport>;

    /// Stops background work and saves caches that speed up the next start. Acknowledged writes do
    /// not depend on it.
    async fn close(&self);

    /// Looks up a gallery that must exist.
    async fn require_gallery(&self, name: &GalleryName) -> Result<GalleryInfo> {
        self.gallery(name).await?.ok_or_else(|| no_gallery(name))
    }

    /// Reads an item that must exist.
    async fn require_item(
        &self,
        name: &GalleryName,
        id: &ItemId,
        parts: Parts,
    ) -> Result<StoredItem> {
        let item = self.get(name, id, parts).await?;
        item.ok_or_else(|| no_item(name, id))
    }
}

/// Description of a gallery.
#[derive(Debug, Clone, PartialEq)]
pub struct GalleryInfo {
    /// Number that no other gallery of the store has or had. A renamed gallery keeps it.
    pub number: u64,
    /// Name of the gallery.
    pub name: GalleryName,
    /// How its vectors were made.
    pub binding: Binding,
    /// Precision of its vectors in memory, or in the index of a database.
    pub vectors: VectorFormat,
    /// Number of items.
    pub items: u64,
    /// Number of items in the approximate index; searches compare the others one by one.
    pub indexed: u64,
}

/// Lock of a restore; see [`GalleryStore::lock_restore`]. Dropping it unlocks.
pub struct RestoreLock {
    _lock: Box<dyn Send + Sync>,
}

impl RestoreLock {
    /// Wraps a value whose drop unlocks.
    pub(super) fn new(lock: impl Send + Sync + 'static) -> Self {
        let lock = Box::new(lock);
        Self { _lock: lock }
    }
}

impl Debug for RestoreLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RestoreLock")
    }
}

/// Items whose vectors have the width of their binding.
#[derive(Debug)]
pub struct ItemBatch {
    pub(super) binding: Binding,
    pub(super) items: Vec<NewItem>,
    /// Whether stored items stay, instead of being replaced.
    pub(super) keeps_stored: bool,
}

impl ItemBatch {
    fn new(binding: &Binding, items: Vec<NewItem>) -> Result<Self> {
        binding.check_possible()?;
        for item in &items {
            item.id.clone().of_new_item()?;
            check_width(&item.vector, binding.dim)
                .map_err(|error| error.context(format_args!("item {:?}", item.id.as_str())))?;
        }
        Ok(Self {
            binding: binding.clone(),
            items,
            keeps_stored: false,
        })
    }
}

/// Effect of storing an item, with its place in the order of the gallery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The id is new.
    Created {
        /// Place of the item.
        place: u64,
    },
    /// The item replaced another of its id.
    Replaced {
        /// Place of both items.
        place: u64,
    },
    /// The id is stored already, and [`GalleryStore::put_new`] kept its item.
    Kept {
        /// Place of the stored item.
        place: u64,
    },
}

impl Written {
    /// Returns the place of the item.
    pub fn place(self) -> u64 {
        match self {
            Self::Created { place } | Self::Replaced { place } | Self::Kept { place } => place,
        }
    }

    /// Returns whether the id is new.
    pub fn is_created(self) -> bool {
        matches!(self, Self::Created { .. })
    }
}

/// Result of [`GalleryStore::check`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckReport {
    /// Number of items that were read.
    pub items: u64,
    /// Damage that was found, one sentence each; empty for an intact gallery.
    pub damage: Vec<String>,
}

/// Streams all items of a gallery, along with its description at that time.
pub async fn read_whole(
    store: &Gallery,
    name: &GalleryName,
    parts: Parts,
) -> Result<(GalleryInfo, ItemStream)> {
    loop {
        let info = store.require_gallery(name).await?;
        let items = store.read(name, parts).await?;
        // Between the two calls another gallery may have taken the name.
        if store.require_gallery(name).await?.binding == info.binding {
            return Ok((info, items));
        }
    }
}

pub(crate) fn no_gallery(name: &GalleryName) -> Error {
    let detail = format!("there is no gallery `{name}`; see GET /v1/galleries");
    Error::new(Kind::NotFound, detail)
}

/// Returns the error for a new name that a gallery has already.
pub(crate) fn name_is_taken(name: &GalleryName) -> Error {
    let detail =
        format!("there is a gallery `{name}` already; give another name, or delete it first");
    Error::new(Kind::Conflict, detail)
}

pub(crate) fn no_item(name: &GalleryName, id: &ItemId) -> Error {
    let detail = format!("the gallery `{name}` has no item {:?}", id.as_str());
    Error::new(Kind::NotFound, detail)
}
