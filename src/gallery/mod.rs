//! Galleries: stored vectors with labels and metadata, searched by cosine similarity.
//!
//! Use cases call [`GalleryStore`] and [`DocumentStore`]. Each backend is a folder, and one test
//! suite runs over both. Features are not computed here: callers pass vectors, and a gallery
//! records how they were made ([`Binding`]).

mod binding;
mod config;
mod document;
mod embedded;
mod filter;
mod item;
mod name;
mod open;
mod postgres;
mod search;
mod snapshot;
mod store;

pub use self::{
    binding::Binding,
    config::{GalleryConfig, OpenMode, StoreLocation, VectorFormat},
    document::{DocumentKey, DocumentKind, DocumentName, DocumentStore},
    filter::{Bound, Condition, ItemFilter, Scalar},
    item::{Item, ItemChange, Metadata, NewItem, Parts, StoredItem},
    name::{BankName, BasisName, GalleryName, ItemId, Label, ProbeName, SegmenterName},
    open::{open, set_vectors},
    search::{Neighbor, Query, Search},
    snapshot::{
        GalleryReader, SnapshotSummary, restore_checked_snapshot, restore_snapshot,
        verify_snapshot, write_snapshot,
    },
    store::{
        CheckReport, Gallery, GalleryInfo, GalleryStore, ItemBatch, ItemStream, RestoreLock, Store,
        Written, read_whole,
    },
};
pub(crate) use self::{
    item::check_width,
    store::{name_is_taken, no_gallery, no_item},
};
