//! Search queries and their results.

use super::{Binding, GalleryName, Item, ItemFilter, ItemId};
use crate::error::{Error, Result};

/// A nearest-neighbor query.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// Query vector: `[dim]`, of length 1.
    pub vector: Vec<f32>,
    /// Binding of the query vector, compared with the gallery's within the search: a gallery of
    /// another binding may have taken the name since it was looked up.
    pub binding: Option<Binding>,
    /// Maximum number of neighbors.
    pub k: usize,
    /// Condition on the items that are returned.
    pub filter: Option<ItemFilter>,
    /// Whether to compare all items that pass the filter, without the approximate index.
    pub exact: bool,
    /// Item to leave out, usually the one that the query vector belongs to.
    pub except: Option<ItemId>,
}

impl Search {
    /// Returns a query for the `k` nearest of all items.
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

    /// Checks that a gallery with this name and binding can answer the query.
    pub(super) fn check(&self, name: &GalleryName, binding: &Binding) -> Result<()> {
        if let Some(own) = &self.binding {
            binding.check(name, own)?;
        }
        check_width(&self.vector, binding.dim)
    }
}

/// An item that a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbor {
    /// The item.
    pub item: Item,
    /// Cosine similarity to the query vector: -1 to 1, 1 for the same direction.
    pub score: f32,
}

pub(crate) fn check_width(vector: &[f32], dim: usize) -> Result<()> {
    if vector.len() == dim {
        return Ok(());
    }
    let width = vector.len();
    let detail = format!("has {width} values; the vectors of this gallery have {dim}");
    Err(Error::option("vector", detail))
}
