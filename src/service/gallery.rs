//! What is stored: pages and deletion, and what the other use cases of galleries share.

use super::Service;
use crate::{
    error::{Error, Kind, Result},
    gallery::{GalleryName, Item, ItemFilter, ItemId, no_item},
};

/// Limits of requests about galleries.
#[derive(Debug, Clone, Copy)]
pub struct GalleryLimits {
    /// Most neighbors of a search.
    pub max_neighbors: usize,
    /// Most items of a page.
    pub max_page_items: usize,
    /// Longer side of the thumbnails that are made, in pixels.
    pub thumbnail_side: usize,
    /// Most items that a probe is trained on. Their features are held in memory, 4 bytes a number.
    pub max_probe_items: usize,
    /// Most classes of a probe. The search for its weights holds about 30 copies of them, 8 bytes a
    /// number.
    pub max_probe_classes: usize,
}

impl Default for GalleryLimits {
    fn default() -> Self {
        Self {
            max_neighbors: 1000,
            max_page_items: 1000,
            thumbnail_side: 160,
            max_probe_items: 200_000,
            max_probe_classes: 1000,
        }
    }
}

impl GalleryLimits {
    /// Checks how many neighbors are asked for.
    pub(super) fn check_neighbors(&self, k: usize) -> Result<()> {
        check_count(
            "k",
            k,
            ("max_neighbors", self.max_neighbors, "--max-neighbors"),
        )
    }
}

/// Checks that a count is from 1 to a limit with a name and a flag.
fn check_count(
    name: &str,
    count: usize,
    (limit, most, flag): (&'static str, usize, &'static str),
) -> Result<()> {
    if (1..=most).contains(&count) {
        return Ok(());
    }
    let kind = if count == 0 {
        Kind::InvalidOption
    } else {
        Kind::LimitExceeded
    };
    let detail = format!("option `{name}`: {count} is out of range; it must be 1 to {most}");
    Err(Error::new(kind, detail).with_limit(limit, most as u64, flag))
}

/// Items of a gallery in the order in which they were first stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The items.
    pub items: Vec<Item>,
    /// The place after which the next page begins; `None` if this is the last.
    pub next: Option<u64>,
}

impl Service {
    /// At most `limit` items after a place.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such gallery, [`Kind::InvalidOption`] or
    /// [`Kind::LimitExceeded`] for a bad limit.
    pub async fn page(
        &self,
        name: &GalleryName,
        after: u64,
        limit: usize,
        filter: Option<&ItemFilter>,
    ) -> Result<Page> {
        let store = self.gallery()?;
        let most = self.gallery_limits.max_page_items;
        check_count("limit", limit, ("max_page_items", most, "--max-page-items"))?;
        // One more tells whether there is a next page.
        let mut items = store.page(name, after, limit + 1, filter).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more {
            items.last().map(|item| item.place)
        } else {
            None
        };
        Ok(Page { items, next })
    }

    /// Deletes an item.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such gallery or item.
    pub async fn delete_item(&self, name: &GalleryName, id: ItemId) -> Result<()> {
        let deleted = self.gallery()?.delete(name, vec![id.clone()]).await?;
        match deleted[..] {
            [true] => Ok(()),
            _ => Err(no_item(name, &id)),
        }
    }
}
