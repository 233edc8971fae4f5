//! Search queries and their results.

use super::{Binding, GalleryName, Item, ItemFilter, ItemId, check_width};
use crate::error::Result;

/// What a search compares with the items of a gallery.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// A vector: `[dim]`, of length 1.
    Vector(Vec<f32>),
    /// The vector of a stored item, at the moment of the search.
    Item(ItemId),
}

/// A nearest-neighbor query.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// Query vector.
    pub query: Query,
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
    /// Returns a query for the `k` items nearest to a vector, of all items.
    pub fn new(vector: Vec<f32>, k: usize) -> Self {
        Self::of(Query::Vector(vector), k)
    }

    /// Returns a query for the `k` nearest of all items.
    pub fn of(query: Query, k: usize) -> Self {
        Self {
            query,
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
        match &self.query {
            Query::Vector(vector) => check_width(vector, binding.dim),
            Query::Item(_) => Ok(()),
        }
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
