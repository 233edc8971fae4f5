//! Galleries in PostgreSQL with pgvector: for several servers that share them.
//!
//! Nothing is cached here between two calls, so changes by other servers are seen at once.
//! Conflicting writes are serialized by locks in the database ([`galleries`]).

mod commit;
mod connection;
mod document_store;
mod documents;
mod failure;
mod filtering;
mod galleries;
mod gallery_row;
mod index;
mod index_kind;
mod item_row;
mod read;
mod scan;
mod schema;
mod search;
mod standbys;
mod store;
mod tasks;
mod write;
mod writer;

pub(super) use self::store::PostgresStore;
