//! Stored galleries, the limits on their requests, and pages of their items.

use super::read_shares::ReadShares;
use crate::{
    engine::available_cores,
    error::{Error, Kind, Result},
    gallery::{
        Condition, Gallery, GalleryName, Item, ItemChange, ItemFilter, ItemId, Neighbor, Search,
        no_item,
    },
};

/// Limits on gallery requests.
#[derive(Debug, Clone, Copy)]
pub struct GalleryLimits {
    /// Maximum number of neighbors of a search.
    pub max_neighbors: usize,
    /// Maximum number of items of a page.
    pub max_page_items: usize,
    /// Maximum number of values that a filter names.
    pub max_filter_values: usize,
    /// Maximum number of conditions of a filter.
    pub max_filter_conditions: usize,
    /// Maximum number of searches and pages of one client that run at the same time.
    pub max_client_reads: usize,
    /// Longer side of new thumbnails, in pixels.
    pub thumbnail_side: usize,
    /// Maximum number of items that a probe is trained on. Their features are held in memory, 4
    /// bytes a number.
    pub max_probe_items: usize,
    /// Maximum number of classes of a probe. The optimizer holds about 30 copies of the weights, 8
    /// bytes a number.
    pub max_probe_classes: usize,
    /// Maximum number of items of a gallery that is audited or mapped. Their vectors are held in
    /// memory, 4 bytes a number, and the time grows with their square.
    pub max_compared_items: usize,
    /// Maximum number of images of an anomaly bank.
    pub max_bank_images: usize,
    /// Maximum number of patches that a bank learns, of one token each. They take 2 bytes a number
    /// in the store, and up to 10 in memory while it is made.
    pub max_bank_patches: usize,
    /// Maximum number of patches that a segmenter is trained on. Their tokens are held in memory, 4
    /// bytes a number.
    pub max_segmenter_patches: usize,
    /// Maximum memory of all banks that are ready to score images, in bytes.
    pub bank_cache_bytes: u64,
}

impl Default for GalleryLimits {
    fn default() -> Self {
        Self {
            max_neighbors: 1000,
            max_page_items: 1000,
            max_filter_values: 10_000,
            max_filter_conditions: 64,
            max_client_reads: (available_cores() / 2).max(1),
            thumbnail_side: 160,
            max_probe_items: 200_000,
            max_probe_classes: 1000,
            max_compared_items: 200_000,
            max_bank_images: 1000,
            max_bank_patches: 131_072,
            max_segmenter_patches: 65_536,
            bank_cache_bytes: 1 << 30,
        }
    }
}

impl GalleryLimits {
    /// Checks the number of neighbors of a search.
    pub(super) fn check_neighbors(&self, k: usize) -> Result<()> {
        let name = ("max_neighbors", "--max-neighbors");
        check_count("k", k, self.max_neighbors, name)
    }

    /// Checks the size of a filter.
    pub(in crate::service) fn check_filter(&self, filter: Option<&ItemFilter>) -> Result<()> {
        let Some(filter) = filter else { return Ok(()) };
        let conditions = filter.conditions().count();
        let values = filter.conditions().map(Condition::values).sum::<usize>();
        for (what, count, max, name, flag) in [
            (
                "conditions",
                conditions,
                self.max_filter_conditions,
                "max_filter_conditions",
                "--max-filter-conditions",
            ),
            (
                "values",
                values,
                self.max_filter_values,
                "max_filter_values",
                "--max-filter-values",
            ),
        ] {
            if count > max {
                let detail = format!(
                    "option `where`: {count} {what} are more than the limit of {max}; send several \
                     requests"
                );
                let error = Error::new(Kind::LimitExceeded, detail);
                return Err(error.with_limit(name, max as u64, flag));
            }
        }
        Ok(())
    }
}

/// Checks that `count` is 1 to `max`, the limit with a name and a flag.
fn check_count(
    option: &str,
    count: usize,
    max: usize,
    (name, flag): (&'static str, &'static str),
) -> Result<()> {
    if (1..=max).contains(&count) {
        return Ok(());
    }
    let kind = match count {
        0 => Kind::InvalidOption,
        _ => Kind::LimitExceeded,
    };
    let detail = format!("option `{option}`: {count} is out of range; it must be 1 to {max}");
    Err(Error::new(kind, detail).with_limit(name, max as u64, flag))
}

/// The galleries of a store. Clones share the store.
#[derive(Debug, Clone)]
pub struct Galleries {
    store: Gallery,
    limits: GalleryLimits,
    shares: ReadShares,
}

/// Items of a gallery in the order in which they were first stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Items of the page.
    pub items: Vec<Item>,
    /// Place after which the next page begins; `None` for the last page.
    pub next: Option<u64>,
}

impl Galleries {
    /// Combines a store with limits on requests.
    pub fn new(store: Gallery, limits: GalleryLimits) -> Self {
        let shares = ReadShares::new(limits.max_client_reads);
        Self {
            store,
            limits,
            shares,
        }
    }

    /// Returns the store.
    pub fn store(&self) -> &Gallery {
        &self.store
    }

    /// Returns the limits.
    pub(super) fn limits(&self) -> &GalleryLimits {
        &self.limits
    }

    /// Searches a gallery, after the other reads of the same client.
    pub(super) async fn search_store(
        &self,
        name: &GalleryName,
        search: Search,
    ) -> Result<Vec<Neighbor>> {
        let _share = self.shares.take().await;
        self.store.search(name, search).await
    }

    /// Returns up to `limit` items after a place.
    pub async fn page(
        &self,
        name: &GalleryName,
        after: u64,
        limit: usize,
        filter: Option<&ItemFilter>,
    ) -> Result<Page> {
        let limit_name = ("max_page_items", "--max-page-items");
        check_count("limit", limit, self.limits.max_page_items, limit_name)?;
        self.limits.check_filter(filter)?;
        let _share = self.shares.take().await;
        // One item more shows whether there is a next page.
        let mut items = self.store.page(name, after, limit + 1, filter).await?;
        let has_next = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_next).map(|item| item.place);
        Ok(Page { items, next })
    }

    /// Changes the label or the metadata of an item, and returns the changed item.
    pub async fn update_item(
        &self,
        name: &GalleryName,
        id: &ItemId,
        change: ItemChange,
    ) -> Result<Item> {
        let updated = self.store.update(name, id, change).await?;
        updated.ok_or_else(|| no_item(name, id))
    }

    /// Deletes an item.
    pub async fn delete_item(&self, name: &GalleryName, id: ItemId) -> Result<()> {
        match self.store.delete(name, vec![id.clone()]).await?[..] {
            [true] => Ok(()),
            _ => Err(no_item(name, &id)),
        }
    }
}
