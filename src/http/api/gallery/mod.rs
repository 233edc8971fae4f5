//! Operations on galleries and their items, and on what galleries answer.

mod answer;
pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod classify;
pub(crate) mod galleries;
pub(crate) mod item;
pub(crate) mod knn;
pub(crate) mod list;
pub(crate) mod map;
pub(crate) mod params;
pub(crate) mod snapshot;
pub(crate) mod thumbnail;
