//! Documents, in one table for all kinds.

use async_trait::async_trait;
use bytes::Bytes;

use super::store::EmbeddedStore;
use crate::{
    error::Result,
    gallery::{DocumentKey, DocumentKind, DocumentStore},
};

#[async_trait]
impl DocumentStore for EmbeddedStore {
    async fn put_document(&self, key: DocumentKey<'_>, document: Bytes) -> Result<()> {
        let key = table_key(key);
        self.writer()?
            .write(move |transaction| transaction.put_document(&key, &document))
            .await
    }

    async fn document(&self, key: DocumentKey<'_>) -> Result<Option<Bytes>> {
        let key = table_key(key);
        self.view(move |view| {
            let document = view.get(view.tables().documents, key.as_bytes())?;
            Ok(document.map(Bytes::copy_from_slice))
        })
        .await
    }

    async fn documents(&self, kind: DocumentKind) -> Result<Vec<String>> {
        self.view(move |view| {
            let prefix = format!("{kind}/");
            view.entries(view.tables().documents, prefix.as_bytes())?
                .map(|entry| Ok(String::from_utf8_lossy(&entry?.0[prefix.len()..]).into_owned()))
                .collect()
        })
        .await
    }

    async fn remove_document(&self, key: DocumentKey<'_>) -> Result<bool> {
        let key = table_key(key);
        self.writer()?
            .delete(move |transaction| transaction.remove_document(&key))
            .await
    }
}

fn table_key(key: DocumentKey<'_>) -> String {
    format!("{}/{}", key.kind(), key.name())
}
