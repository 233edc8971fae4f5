//! Galleries that are being restored, under names that no client can use.

use std::hash::{BuildHasher, RandomState};

use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Kind, Result},
    gallery::{Binding, Gallery, GalleryName, RestoreLock},
    hex,
};

/// Length of the target in the name of a staging gallery, and of the random part after it, in
/// digits.
const DIGITS: usize = 16;

/// A gallery that is being restored. It is removed if the restore fails or is dropped.
pub(super) struct StagingGallery {
    pub(super) store: Gallery,
    pub(super) name: GalleryName,
    is_pending: bool,
    /// Held until the gallery has been renamed or removed.
    lock: Option<RestoreLock>,
}

impl StagingGallery {
    /// Creates the gallery, and removes those of interrupted restores of the same gallery.
    pub(super) async fn create(
        store: &Gallery,
        of: &GalleryName,
        binding: &Binding,
    ) -> Result<Self> {
        let target = hex::encode(&Sha256::digest(of.as_str())[..DIGITS / 2]);
        let lock = store.lock_restore(&target).await?.ok_or_else(|| {
            let detail = format!("the gallery `{of}` is being restored already; wait for its end");
            Error::new(Kind::Conflict, detail)
        })?;
        remove_of(store, &target).await?;
        // The standard library's random keys are random enough for a name.
        let random = RandomState::new().hash_one(());
        let prefix = GalleryName::STAGING_PREFIX;
        let name = GalleryName::stored(format!("{prefix}{target}-{random:016x}"))?;
        let staging = Self {
            store: store.clone(),
            name,
            is_pending: true,
            lock: Some(lock),
        };
        store.create(&staging.name, binding).await?;
        Ok(staging)
    }

    /// Keeps the gallery, which has another name now.
    pub(super) fn keep(&mut self) {
        self.is_pending = false;
    }

    pub(super) async fn remove(&mut self) {
        if let Err(error) = self.store.remove(&self.name).await {
            tracing::warn!(
                gallery = %self.name,
                %error,
                "a partly restored gallery could not be removed"
            );
        }
        self.is_pending = false;
    }
}

impl Drop for StagingGallery {
    fn drop(&mut self) {
        if let (true, Ok(tokio)) = (self.is_pending, tokio::runtime::Handle::try_current()) {
            let mut staging = Self {
                store: self.store.clone(),
                name: self.name.clone(),
                is_pending: false,
                lock: self.lock.take(),
            };
            tokio.spawn(async move { staging.remove().await });
        }
    }
}

/// Removes what interrupted restores of all galleries have left, except where one is in progress,
/// by another server on the store.
pub(in crate::gallery) async fn remove_interrupted_restores(store: &Gallery) -> Result<()> {
    for name in store.staging_galleries().await? {
        if let Some(target) = target_of(&name)
            && let Some(_lock) = store.lock_restore(target).await?
        {
            store.remove(&name).await?;
            tracing::info!(gallery = %name, "removed what an interrupted restore had left");
        }
    }
    Ok(())
}

/// Removes what interrupted restores of a target have left. The caller holds its lock.
async fn remove_of(store: &Gallery, target: &str) -> Result<()> {
    for name in store.staging_galleries().await? {
        if target_of(&name) == Some(target) {
            store.remove(&name).await?;
        }
    }
    Ok(())
}

/// Returns the target in the name of a staging gallery; `None` for other names of that prefix,
/// which earlier versions let clients use.
fn target_of(name: &GalleryName) -> Option<&str> {
    let rest = name.as_str().strip_prefix(GalleryName::STAGING_PREFIX)?;
    let (target, random) = rest.split_once('-')?;
    let is_hex = |text: &str| text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    (is_hex(target) && is_hex(random)).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_restores_have_a_target() {
        let target = |name: &str| {
            let name = GalleryName::stored(name).expect("a name");
            target_of(&name).map(str::to_owned)
        };
        let name = "restoring--0123456789abcdef-fedcba9876543210";
        assert_eq!(target(name).as_deref(), Some("0123456789abcdef"));
        for other in [
            "restoring--mine",
            "restoring--0123456789abcdef-1",
            "default",
        ] {
            assert_eq!(target(other), None, "{other}");
        }
    }
}
