//! The making of a bank in the background.

use std::{future::ready, sync::Arc};

use bytes::Bytes;

use super::{documents::BankDocuments, learning::Recipe, stored::StoredInfo};
use crate::{
    error::{Error, Kind, Result},
    gallery::BankName,
    service::{
        extractor::Extractor,
        images::at_image,
        jobs::{Job, on_low_priority_thread},
    },
};

/// The making of a bank, with all that it needs.
pub(super) struct Work {
    pub(super) documents: BankDocuments,
    pub(super) extractor: Extractor,
    pub(super) name: BankName,
    pub(super) files: Vec<Bytes>,
    pub(super) recipe: Recipe,
    pub(super) before: Option<StoredInfo>,
}

impl Work {
    pub(super) async fn run(self, job: Arc<Job>) -> Result<()> {
        let Self {
            documents,
            extractor,
            name,
            files,
            recipe,
            before,
        } = self;
        let good = match &before {
            Some(stored) => Some(documents.load(&extractor, &name, stored).await?.good),
            None => None,
        };
        let count = files.len();
        let files = files.into_iter().map(|file| ready(Ok(file))).collect();
        let watch = |progress| job.advance(progress);
        let about = |error, index| at_image(error, index, count);
        let good = extractor
            .add_good_images(good, files, &recipe, about, &watch)
            .await?;
        let observer = Arc::clone(&job);
        let learn = move || recipe.learn(good, &mut |progress| observer.advance(progress));
        let bank = on_low_priority_thread(learn).await?;
        let bank = bank
            .filter(|_| !job.is_stopped())
            .ok_or_else(|| job.cancelled())?;
        let info = recipe.describe(&extractor, &bank);
        let encode = move || StoredInfo::encode(info, &bank);
        let (stored, features) = extractor
            .on_blocking_thread("encoding a bank", encode)
            .await?;
        let Some(before) = before else {
            return documents.put(&name, &stored, features).await;
        };
        let replaced = documents.replace(&name, &before, &stored, features).await?;
        if replaced {
            return Ok(());
        }
        let detail =
            format!("the bank `{name}` was replaced or deleted meanwhile; add the images again");
        Err(Error::new(Kind::Conflict, detail))
    }
}
