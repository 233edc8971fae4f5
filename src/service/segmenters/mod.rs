//! Segmenters in a store. They are trained in the background, and used by all servers on the store.

mod labeled;
mod learning;
mod segments;
mod stored;

use std::{future::ready, sync::Arc};

use bytes::Bytes;

use self::learning::{Recipe, check_mask_size};
pub use self::{
    labeled::LabeledPatches,
    learning::{MaskedImage, SegmenterOptions},
    segments::{ImageSegments, Segment, SegmentForms, SegmentPicture},
    stored::{Segmenter, SegmenterInfo},
};
use super::{
    extractor::Extractor,
    galleries::GalleryLimits,
    images::{Decoding, ImageOptions, at_image},
    jobs::{Job, JobState, Jobs, on_low_priority_thread},
    models::ModelChoice,
    stages::Timed,
};
use crate::{
    error::Result,
    features::mask::class_mask_size,
    gallery::{DocumentKey, DocumentKind, Gallery, SegmenterName},
    vision::upright_size,
};

/// The segmenters of a store. Clones share them.
#[derive(Debug, Clone)]
pub struct Segmenters {
    store: Gallery,
    limits: GalleryLimits,
    jobs: Jobs,
}

impl Segmenters {
    /// Returns the segmenters of a store, which are trained among `jobs`.
    pub(super) fn new(store: Gallery, limits: GalleryLimits, jobs: Jobs) -> Self {
        Self {
            store,
            limits,
            jobs,
        }
    }

    /// Starts to train a segmenter. An existing one is replaced when the new one is ready.
    ///
    /// # Errors
    /// Those of the headers of images and masks; [`crate::error::Kind::Overloaded`] during another
    /// training. Other errors of an image are those of the training.
    pub async fn learn(
        &self,
        extractor: &Extractor,
        name: &SegmenterName,
        files: Vec<MaskedImage>,
        image: &ImageOptions,
        options: SegmenterOptions,
    ) -> Result<Arc<Job>> {
        extractor.check_options(&options)?;
        self.jobs.check_free()?;
        let count = files.len();
        let recipe = Recipe {
            options,
            preparation: extractor.map_preparation(image),
            max_patches: self.limits.max_segmenter_patches,
            max_classes: self.limits.max_probe_classes,
        };
        extractor.check_masked(&files, &recipe).await?;
        let work = Work {
            store: self.store.clone(),
            extractor: extractor.clone(),
            name: name.clone(),
            files,
            recipe,
        };
        self.jobs.start(name.into(), count, |job| work.run(job))
    }

    /// Returns the state of a segmenter, and the stored one if there is one.
    pub async fn get(
        &self,
        model: &ModelChoice,
        name: &SegmenterName,
    ) -> Result<(JobState, Option<Segmenter>)> {
        // The state is read first: a training that ends after that has stored its segmenter.
        let state = self.jobs.state(name.into());
        let stored = self.stored(&model.of_new(), name).await?;
        if let Some(stored) = &stored {
            model.allow(&stored.info.model, holder(name))?;
        }
        match (state, stored) {
            (None, None) => Err(DocumentKey::from(name).missing()),
            (state, stored) => Ok((state.unwrap_or(JobState::Ready), stored)),
        }
    }

    /// Returns the states of all segmenters, by name.
    pub async fn list(&self) -> Result<Vec<(String, JobState)>> {
        let stored = self.store.documents(DocumentKind::Segmenter).await?;
        Ok(self.jobs.list(DocumentKind::Segmenter, stored))
    }

    /// Deletes a segmenter, and cancels its training.
    pub async fn remove(&self, name: &SegmenterName) -> Result<()> {
        let key = DocumentKey::from(name);
        // After this no training stores the segmenter any more.
        let known = self.jobs.forget(key).await;
        let removed = self.store.remove_document(key).await?;
        if known || removed {
            return Ok(());
        }
        Err(key.missing())
    }

    /// Segments an image. Also returns the model that saw it.
    pub async fn segment(
        &self,
        model: &ModelChoice,
        name: &SegmenterName,
        file: Bytes,
        decoding: Decoding,
        forms: SegmentForms,
    ) -> Result<(Extractor, Timed<ImageSegments>)> {
        // Read each time, because another server on the store can replace it.
        let Some(segmenter) = self.stored(&model.of_new(), name).await? else {
            return Err(self.jobs.not_ready(name.into()));
        };
        let extractor = model.of_stored(&segmenter.info.model, holder(name))?;
        let segments = extractor.segment(Arc::new(segmenter), file, decoding, forms);
        let segments = segments.await?;
        Ok((extractor, segments))
    }

    async fn stored(
        &self,
        extractor: &Extractor,
        name: &SegmenterName,
    ) -> Result<Option<Segmenter>> {
        let Some(document) = self.store.document(name.into()).await? else {
            return Ok(None);
        };
        // A segmenter of many classes has megabytes.
        let decode = move || Segmenter::decode(&document).map(Some);
        let decoded = extractor.on_blocking_thread("reading a segmenter", decode);
        decoded.await
    }
}

impl Extractor {
    /// Checks the headers of images and masks, so that most mistakes are an answer to the request.
    async fn check_masked(&self, files: &[MaskedImage], recipe: &Recipe) -> Result<()> {
        let images: Vec<Bytes> = files.iter().map(|file| file.image.clone()).collect();
        self.check_headers(&images, recipe.preparation).await?;
        let files = files.to_vec();
        let count = files.len();
        let limits = self.limits().decode;
        let options = recipe.preparation.preprocessing.decode_options();
        let check = move || {
            for (index, MaskedImage { image, mask }) in files.iter().enumerate() {
                let check = || {
                    let photograph = upright_size(image, options, limits)?;
                    check_mask_size(class_mask_size(mask, limits)?.0, photograph)
                };
                check().map_err(|error| at_image(error, index, count))?;
            }
            Ok(())
        };
        self.on_blocking_thread("reading the headers of masks", check)
            .await
    }
}

/// A training with all that it needs.
struct Work {
    store: Gallery,
    extractor: Extractor,
    name: SegmenterName,
    files: Vec<MaskedImage>,
    recipe: Recipe,
}

impl Work {
    async fn run(self, job: Arc<Job>) -> Result<()> {
        let count = self.files.len();
        let files = self.files.into_iter().map(|file| ready(Ok(file))).collect();
        let (extractor, recipe) = (self.extractor, self.recipe);
        let watch = |progress| job.advance(progress);
        let about = |error, index| at_image(error, index, count);
        let patches = extractor
            .read_labeled(files, &recipe, about, &watch)
            .await?;
        let observer = Arc::clone(&job);
        let fit = move || {
            recipe.train(&extractor, patches, &mut |progress| {
                observer.advance(progress)
            })
        };
        let segmenter = on_low_priority_thread(fit).await??;
        let segmenter = segmenter
            .filter(|_| !job.is_stopped())
            .ok_or_else(|| job.cancelled())?;
        if !segmenter.probe.converged {
            tracing::warn!(
                segmenter = %self.name,
                l2 = segmenter.probe.l2,
                "the training was cut short; a larger l2 makes it easier"
            );
        }
        let key = DocumentKey::from(&self.name);
        self.store.put_document(key, segmenter.encode()?).await
    }
}

/// Begins a message on the features that a segmenter takes.
fn holder(name: &SegmenterName) -> String {
    format!("the segmenter `{name}` takes")
}
