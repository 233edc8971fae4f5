//! The operations, one file per resource.

pub(crate) mod bases;
pub(crate) mod features;
pub(crate) mod gallery;
pub(crate) mod health;
pub(crate) mod index;
pub(crate) mod job;
pub(crate) mod mask;
pub(crate) mod models;
pub(crate) mod probes;
pub(crate) mod schema;
