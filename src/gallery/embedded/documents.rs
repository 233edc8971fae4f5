//! Documents, in one table for all kinds.

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    store::EmbeddedStore,
    transaction::{Outcome, WriteTransaction},
};
use crate::{
    error::Result,
    gallery::{DocumentKey, DocumentKind, DocumentStore, GalleryName},
};

#[async_trait]
impl DocumentStore for EmbeddedStore {
    async fn put_document(&self, key: DocumentKey<'_>, document: Bytes) -> Result<()> {
        let key = key.to_owned();
        self.writer()?
            .write(move |transaction| transaction.put_document(key.key(), &document))
            .await
    }

    async fn replace_document(
        &self,
        key: DocumentKey<'_>,
        before: &Bytes,
        document: Bytes,
    ) -> Result<bool> {
        let (key, before) = (key.to_owned(), before.clone());
        self.writer()?
            .write(move |transaction| transaction.replace_document(key.key(), &before, &document))
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
        let key = key.to_owned();
        self.writer()?
            .delete(move |transaction| transaction.remove_document(key.key()))
            .await
    }
}

impl WriteTransaction<'_> {
    fn put_document(&mut self, key: DocumentKey<'_>, document: &[u8]) -> Outcome<()> {
        let documents = self.view().tables().documents;
        self.write(|txn| documents.put(txn, table_key(key).as_bytes(), document))
    }

    /// Replaces a document that is still `before`, and returns whether it was.
    fn replace_document(
        &mut self,
        key: DocumentKey<'_>,
        before: &[u8],
        document: &[u8],
    ) -> Outcome<bool> {
        let documents = self.view().tables().documents;
        let stored = self.view().get(documents, table_key(key).as_bytes())?;
        let replaces = stored == Some(before);
        if replaces {
            self.put_document(key, document)?;
        }
        Ok(replaces)
    }

    /// Deletes the documents of a gallery.
    pub(super) fn remove_documents_of(&mut self, gallery: &GalleryName) -> Outcome<()> {
        for key in DocumentKey::of_gallery(gallery) {
            self.remove_document(key)?;
        }
        Ok(())
    }

    /// Gives the documents of a gallery its new name.
    pub(super) fn rename_documents_of(
        &mut self,
        from: &GalleryName,
        to: &GalleryName,
    ) -> Outcome<()> {
        let keys = DocumentKey::of_gallery(from).into_iter();
        for (from, to) in keys.zip(DocumentKey::of_gallery(to)) {
            self.rename_document(from, to)?;
        }
        Ok(())
    }

    /// Deletes a document, and returns whether it existed.
    fn remove_document(&mut self, key: DocumentKey<'_>) -> Outcome<bool> {
        let documents = self.view().tables().documents;
        self.write(|txn| documents.delete(txn, table_key(key).as_bytes()))
    }

    /// Gives a document, if it exists, another name.
    fn rename_document(&mut self, from: DocumentKey<'_>, to: DocumentKey<'_>) -> Outcome<()> {
        let documents = self.view().tables().documents;
        let document = self.view().get(documents, table_key(from).as_bytes())?;
        if let Some(document) = document.map(<[u8]>::to_vec) {
            self.put_document(to, &document)?;
            self.remove_document(from)?;
        }
        Ok(())
    }
}

fn table_key(key: DocumentKey<'_>) -> String {
    format!("{}/{}", key.kind(), key.name())
}
