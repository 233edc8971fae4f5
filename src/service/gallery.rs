//! What is stored: pages and deletion, and what the other use cases of galleries share.

use bytes::Bytes;

use super::Service;
use crate::{
    error::{Error, Kind, Result},
    gallery::{GalleryName, Item, ItemFilter, ItemId},
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

/// What an item, or a question, is about.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryInput {
    /// An image file.
    Image(Bytes),
    /// A vector of the kind that the gallery holds, of any length but 0.
    Vector(Vec<f32>),
}

impl QueryInput {
    /// Whether it has to go through the model.
    pub(super) fn is_image(&self) -> bool {
        matches!(self, Self::Image(_))
    }
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
        match self
            .gallery()?
            .delete(name, vec![id.clone()])
            .await?
            .first()
        {
            Some(true) => Ok(()),
            _ => Err(Error::new(
                Kind::NotFound,
                format!("the gallery `{name}` has no item {:?}", id.as_str()),
            )),
        }
    }
}

/// What a model made of an image, scaled to length 1.
///
/// # Errors
/// [`Kind::Internal`] if it has no direction: half precision overflows on some GPUs.
pub(super) fn vector_of_model(vector: Vec<f32>, dim: usize) -> Result<Vec<f32>> {
    unit_vector(vector, dim)
        .map_err(|error| Error::internal(format!("the model's output is no vector: {error}")))
}

/// A client's vector, scaled to length 1.
///
/// # Errors
/// [`Kind::InvalidOption`] for one of another width than `dim`, with values that are no numbers, or
/// of length 0.
pub(super) fn unit_vector(mut vector: Vec<f32>, dim: usize) -> Result<Vec<f32>> {
    let wrong = |what: String| Err(Error::option("vector", what));
    if vector.len() != dim {
        return wrong(format!(
            "has {} values; the vectors of this gallery have {dim}",
            vector.len()
        ));
    }
    if let Some(index) = vector.iter().position(|value| !value.is_finite()) {
        return wrong(format!(
            "value {index} is not finite, or too large for single precision"
        ));
    }
    // Squares of the largest and of the smallest f32 are within f64.
    let length = vector
        .iter()
        .map(|&value| f64::from(value).powi(2))
        .sum::<f64>()
        .sqrt();
    if length == 0.0 {
        return wrong("all values are 0, so it has no direction to compare".to_owned());
    }
    vector
        .iter_mut()
        .for_each(|value| *value = (f64::from(*value) / length) as f32);
    Ok(vector)
}
