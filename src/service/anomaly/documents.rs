//! The documents of a bank: a small description, and the features, whose name has their hash.

use bytes::Bytes;

use super::stored::StoredInfo;
use crate::{
    error::{Error, Kind, Result},
    features::anomaly::{Bank, document},
    gallery::{BankName, DocumentKey, DocumentKind, Gallery},
    service::extractor::Extractor,
};

/// The documents of banks in a store. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct BankDocuments(Gallery);

impl BankDocuments {
    pub(super) fn new(store: Gallery) -> Self {
        Self(store)
    }

    /// Returns the names of all banks, sorted.
    pub(super) async fn names(&self) -> Result<Vec<String>> {
        self.0.documents(DocumentKind::Bank).await
    }

    /// Returns the description of a bank, if there is one.
    pub(super) async fn stored(&self, name: &BankName) -> Result<Option<StoredInfo>> {
        let bytes = self.0.document(name.into()).await?;
        let stored = bytes.map(|bytes| StoredInfo::of_bytes(name, &bytes));
        stored.transpose()
    }

    /// Stores a bank: first its features under a new name, then the description that names them.
    pub(super) async fn put(
        &self,
        name: &BankName,
        stored: &StoredInfo,
        features: Bytes,
    ) -> Result<()> {
        let before = self.stored(name).await.ok().flatten();
        self.put_features(name, stored, features).await?;
        self.0.put_document(name.into(), stored.to_bytes()?).await?;
        match before {
            Some(before) => self.remove_features_of(name, &before, stored).await,
            None => Ok(()),
        }
    }

    /// As [`Self::put`], but stores nothing and returns `false` if the bank is no longer `before`.
    pub(super) async fn replace(
        &self,
        name: &BankName,
        before: &StoredInfo,
        stored: &StoredInfo,
        features: Bytes,
    ) -> Result<bool> {
        let key = DocumentKey::from(name);
        let Some(bytes) = self.0.document(key).await? else {
            return Ok(false);
        };
        if StoredInfo::of_bytes(name, &bytes)?.version != before.version {
            return Ok(false);
        }
        self.put_features(name, stored, features).await?;
        let document = stored.to_bytes()?;
        let replaced = self.0.replace_document(key, &bytes, document).await?;
        if replaced {
            self.remove_features_of(name, before, stored).await?;
        } else if let Some(current) = self.stored(name).await? {
            self.remove_features_of(name, stored, &current).await?;
        } else {
            let features = stored.features_name(name);
            let key = DocumentKey::of_bank_features(&features);
            self.0.remove_document(key).await?;
        }
        Ok(replaced)
    }

    async fn put_features(
        &self,
        name: &BankName,
        stored: &StoredInfo,
        features: Bytes,
    ) -> Result<()> {
        let features_name = stored.features_name(name);
        let key = DocumentKey::of_bank_features(&features_name);
        self.0.put_document(key, features).await
    }

    /// Deletes the features of a version that another one has replaced.
    async fn remove_features_of(
        &self,
        name: &BankName,
        old: &StoredInfo,
        new: &StoredInfo,
    ) -> Result<()> {
        let old = old.features_name(name);
        if old != new.features_name(name) {
            let key = DocumentKey::of_bank_features(&old);
            self.0.remove_document(key).await?;
        }
        Ok(())
    }

    /// Deletes the features of a bank, of all versions.
    async fn remove_features(&self, name: &BankName) -> Result<()> {
        let prefix = format!("{name}/");
        for features in self.0.documents(DocumentKind::BankFeatures).await? {
            if features.starts_with(&prefix) {
                let key = DocumentKey::of_bank_features(&features);
                self.0.remove_document(key).await?;
            }
        }
        Ok(())
    }

    /// Returns the description of a bank.
    pub(super) async fn require(&self, name: &BankName) -> Result<StoredInfo> {
        let bytes = self.0.require_document(name.into()).await?;
        StoredInfo::of_bytes(name, &bytes)
    }

    /// Reads a bank.
    pub(super) async fn load(
        &self,
        extractor: &Extractor,
        name: &BankName,
        stored: &StoredInfo,
    ) -> Result<Bank> {
        let bytes = self.features(name, stored).await?;
        let decode = move || Ok(document::decode(&bytes)?.0);
        extractor.on_blocking_thread("reading a bank", decode).await
    }

    /// Reads the features of a bank.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the bank was replaced or deleted meanwhile.
    pub(super) async fn features(&self, name: &BankName, stored: &StoredInfo) -> Result<Bytes> {
        let features = stored.features_name(name);
        let key = DocumentKey::of_bank_features(&features);
        self.0.document(key).await?.ok_or_else(|| {
            let detail = format!("the tokens of the bank `{name}` are gone; make it again");
            Error::new(Kind::NotFound, detail)
        })
    }

    /// Deletes a bank, and returns whether it existed.
    pub(super) async fn remove(&self, name: &BankName) -> Result<bool> {
        let removed = self.0.remove_document(name.into()).await?;
        self.remove_features(name).await?;
        Ok(removed)
    }
}
