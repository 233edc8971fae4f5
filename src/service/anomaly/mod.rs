//! Anomaly banks in a store. They are made in the background, and used by all servers on the store.

mod documents;
mod learning;
mod options;
mod scoring;
mod stored;
mod work;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

pub(super) use self::learning::CONCURRENT;
use self::{documents::BankDocuments, learning::Recipe, stored::StoredInfo, work::Work};
pub use self::{
    options::{Augment, BankOptions},
    scoring::{AnomalyForms, AnomalyPicture, FoundDefect, ImageAnomaly},
    stored::BankInfo,
};
use super::{
    cache::FeatureCache,
    extractor::Extractor,
    galleries::GalleryLimits,
    images::{Decoding, ImageOptions, Preparation},
    jobs::{Job, JobState, Jobs},
    models::ModelChoice,
    stages::Timed,
};
use crate::{
    error::{Error, Kind, Result},
    features::anomaly::Detector,
    gallery::{BankName, DocumentKey, DocumentKind, Gallery},
};

/// The banks of a store. Clones share them.
#[derive(Debug, Clone)]
pub struct Banks {
    documents: BankDocuments,
    limits: GalleryLimits,
    jobs: Jobs,
    /// Banks in use, by their versions.
    detectors: FeatureCache<String, Detector>,
    /// Files of banks that are being read, by their versions, so that several readers share one.
    files: FeatureCache<String, Bytes>,
}

/// Time for which the file of a bank is kept for other readers.
const RECENT: Duration = Duration::from_secs(10);

/// Attempts to read the features of a bank that is replaced after its description was read.
#[derive(Default)]
struct Attempts(usize);

impl Attempts {
    /// Returns whether to read the description again: if the features are gone, five times.
    fn again(&mut self, error: &Error) -> bool {
        self.0 += 1;
        error.kind() == Kind::NotFound && self.0 <= 5
    }
}

impl Banks {
    /// Returns the banks of a store, which are made among `jobs`.
    pub(super) fn new(store: Gallery, limits: GalleryLimits, jobs: Jobs) -> Self {
        Self {
            documents: BankDocuments::new(store),
            limits,
            jobs,
            detectors: FeatureCache::new(limits.bank_cache_bytes, None, Detector::bytes),
            files: FeatureCache::new(limits.bank_cache_bytes, Some(RECENT), Bytes::len),
        }
    }

    /// Starts to make a bank of good images. An existing one is replaced when the new one is ready.
    ///
    /// # Errors
    /// Those of the images' headers; [`Kind::Overloaded`] during another training. Other errors of
    /// an image are those of the training.
    pub async fn learn(
        &self,
        extractor: &Extractor,
        name: &BankName,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: BankOptions,
    ) -> Result<Arc<Job>> {
        options.check()?;
        self.jobs.check_free()?;
        let recipe = Recipe {
            options,
            preparation: extractor.map_preparation(image),
            max_patches: self.limits.max_bank_patches,
        };
        self.start(extractor, name, files, recipe, None).await
    }

    /// Starts to add good images to a bank: the result is as if it had been made of all of them.
    ///
    /// # Errors
    /// As of [`Self::learn`].
    pub async fn add(
        &self,
        model: &ModelChoice,
        name: &BankName,
        files: Vec<Bytes>,
    ) -> Result<Arc<Job>> {
        self.jobs.check_free()?;
        let stored = self.documents.require(name).await?;
        let extractor = model.of_stored(&stored.info.model, holder(name))?;
        let recipe = Recipe {
            options: stored.info.options,
            preparation: Preparation {
                preprocessing: stored.info.preprocessing,
                decoding: Decoding::default(),
                shrinks: true,
                quarter_turns: 0,
            },
            max_patches: self.limits.max_bank_patches,
        };
        let before = Some(stored);
        self.start(&extractor, name, files, recipe, before).await
    }

    async fn start(
        &self,
        extractor: &Extractor,
        name: &BankName,
        files: Vec<Bytes>,
        recipe: Recipe,
        before: Option<StoredInfo>,
    ) -> Result<Arc<Job>> {
        let count = files.len();
        let learned = before.as_ref().map_or(0, |stored| stored.info.images);
        let max = self.limits.max_bank_images;
        if learned + count > max {
            let detail = format!(
                "a bank learns at most {max} images, and this one would have {}",
                learned + count
            );
            let error = Error::new(Kind::TooLarge, detail);
            return Err(error.with_limit("max_bank_images", max as u64, "--max-bank-images"));
        }
        extractor.check_headers(&files, recipe.preparation).await?;
        let work = Work {
            documents: self.documents.clone(),
            extractor: extractor.clone(),
            name: name.clone(),
            files,
            recipe,
            before,
        };
        self.jobs.start(name.into(), count, |job| work.run(job))
    }

    /// Returns the state of a bank, and its description if there is one.
    pub async fn get(
        &self,
        model: &ModelChoice,
        name: &BankName,
    ) -> Result<(JobState, Option<BankInfo>)> {
        // The state is read first: a training that ends after that has stored its bank.
        let state = self.jobs.state(name.into());
        let stored = self.documents.stored(name).await?;
        if let Some(stored) = &stored {
            model.allow(&stored.info.model, holder(name))?;
        }
        match (state, stored) {
            (None, None) => Err(DocumentKey::from(name).missing()),
            (state, stored) => Ok((
                state.unwrap_or(JobState::Ready),
                stored.map(|stored| stored.info),
            )),
        }
    }

    /// Returns the states of all banks, by name.
    pub async fn list(&self) -> Result<Vec<(String, JobState)>> {
        let stored = self.documents.names().await?;
        Ok(self.jobs.list(DocumentKind::Bank, stored))
    }

    /// Deletes a bank, and cancels its training.
    pub async fn remove(&self, name: &BankName) -> Result<()> {
        let key = DocumentKey::from(name);
        // After this no training stores the bank any more.
        let known = self.jobs.forget(key).await;
        let removed = self.documents.remove(name).await?;
        if known || removed {
            return Ok(());
        }
        Err(key.missing())
    }

    /// Scores an image. Also returns the model that saw it.
    pub async fn score(
        &self,
        model: &ModelChoice,
        name: &BankName,
        file: Bytes,
        decoding: Decoding,
        forms: AnomalyForms,
    ) -> Result<(Extractor, Timed<ImageAnomaly>)> {
        let mut attempts = Attempts::default();
        let (extractor, info, detector) = loop {
            let stored = self.ready(name).await?;
            let extractor = model.of_stored(&stored.info.model, holder(name))?;
            match self.detector(&extractor, name, &stored).await {
                Err(error) if attempts.again(&error) => {}
                detector => break (extractor, stored.info, detector?),
            }
        };
        let scored = extractor
            .score(detector, &info, file, decoding, forms)
            .await?;
        Ok((extractor, scored))
    }

    /// Returns the file of a bank, which [`BankInfo::decode`] reads.
    pub async fn file(&self, model: &ModelChoice, name: &BankName) -> Result<Bytes> {
        let mut attempts = Attempts::default();
        loop {
            let stored = self.ready(name).await?;
            model.allow(&stored.info.model, holder(name))?;
            let read = async { Ok(Arc::new(self.documents.features(name, &stored).await?)) };
            match self
                .files
                .get_or_compute(stored.version.clone(), read)
                .await
            {
                Err(error) if attempts.again(&error) => {}
                features => return Ok(Bytes::clone(&*features?)),
            }
        }
    }

    /// Returns a bank that is prepared to score images, from memory or from the store.
    async fn detector(
        &self,
        extractor: &Extractor,
        name: &BankName,
        stored: &StoredInfo,
    ) -> Result<Arc<Detector>> {
        let load = async {
            let bank = self.documents.load(extractor, name, stored).await?;
            let prepare = move || Ok(Arc::new(Detector::new(&bank)));
            let prepared = extractor.on_blocking_thread("preparing a bank", prepare);
            let detector = prepared.await?;
            let (bytes, limit) = (detector.bytes() as u64, self.limits.bank_cache_bytes);
            if bytes > limit {
                tracing::warn!(
                    bank = %name,
                    "takes {bytes} bytes, more than --bank-cache-bytes ({limit}), so it is read \
                     for each image"
                );
            }
            Ok(detector)
        };
        self.detectors
            .get_or_compute(stored.version.clone(), load)
            .await
    }

    /// Returns a stored bank for use.
    async fn ready(&self, name: &BankName) -> Result<StoredInfo> {
        if let Some(stored) = self.documents.stored(name).await? {
            return Ok(stored);
        }
        let key = DocumentKey::from(name);
        Err(self.jobs.not_ready(key))
    }
}

/// Begins a message on the features of a bank.
fn holder(name: &BankName) -> String {
    format!("the bank `{name}` holds")
}
