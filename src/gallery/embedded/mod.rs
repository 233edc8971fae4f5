//! Galleries in a folder on this machine.
//!
//! LMDB stores them ([`environment`]). One thread writes and syncs ([`writer`]). Vectors are also
//! in memory ([`rows`]), where searches scan them ([`scan`]). Large galleries have an approximate
//! index ([`index`]), which a background thread keeps up to date ([`indexer`]).
//!
//! ```text
//! data.mdb, lock.mdb    the database
//! serving.lock          lock of the process that serves the folder
//! ballast               reserved space; given back on a full disk so that deletions succeed
//! index/                approximate indexes; only a cache, safe to delete
//! ```

mod attributes;
mod check;
mod codec;
mod consistent_state;
mod documents;
mod environment;
mod format;
mod index;
mod indexer;
mod memory;
mod reader;
mod readers;
mod restores;
mod rows;
mod scan;
mod search;
mod store;
mod tables;
mod transaction;
mod update;
mod vectors;
mod view;
mod writer;

pub(super) use self::{format::set_vectors, store::EmbeddedStore};
