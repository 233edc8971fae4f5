//! The documents of a store.

use async_trait::async_trait;
use bytes::Bytes;

use super::{documents, store::PostgresStore};
use crate::{
    error::Result,
    gallery::{DocumentKey, DocumentKind, DocumentStore},
};

#[async_trait]
impl DocumentStore for PostgresStore {
    async fn put_document(&self, key: DocumentKey<'_>, document: Bytes) -> Result<()> {
        self.writer()
            .write(&[], async |txn| documents::put(txn, key, &document).await)
            .await
    }

    async fn replace_document(
        &self,
        key: DocumentKey<'_>,
        before: &Bytes,
        document: Bytes,
    ) -> Result<bool> {
        self.writer()
            .write(&[], async |txn| {
                documents::replace(txn, key, before, &document).await
            })
            .await
    }

    async fn document(&self, key: DocumentKey<'_>) -> Result<Option<Bytes>> {
        Ok(documents::get(&self.database().connection().await?, key).await?)
    }

    async fn documents(&self, kind: DocumentKind) -> Result<Vec<String>> {
        Ok(documents::list(&self.database().connection().await?, kind).await?)
    }

    async fn remove_document(&self, key: DocumentKey<'_>) -> Result<bool> {
        self.writer()
            .write(&[], async |txn| documents::remove(txn, key).await)
            .await
    }
}
