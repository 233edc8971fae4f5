//! Fitting of a PCA basis, image by image.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{
    extractor::{ExtractRequest, Extractor},
    images::{ImageOptions, Preparation},
    stages::Stages,
};
use crate::{
    engine::RequestedOutputs,
    error::{Error, Result},
    features::pca::Moments,
    vision::{Preprocessing, ResizeMode},
};

/// A basis that is being fitted. Only the images in flight take memory.
#[derive(Debug)]
pub struct Fitting<'a> {
    pub(super) extractor: &'a Extractor,
    request: ExtractRequest,
    pub(super) components: usize,
    moments: Arc<Mutex<Moments>>,
}

impl<'a> Fitting<'a> {
    /// Rejects a number of components that the model does not have.
    pub(super) fn new(
        extractor: &'a Extractor,
        preparation: Preparation,
        components: usize,
    ) -> Result<Self> {
        let dim = extractor.engine().spec().architecture.dim;
        if !(1..=dim).contains(&components) {
            let range = format_args!("1 to {dim}");
            return Err(Error::out_of_range("components", components, range));
        }
        Ok(Self {
            extractor,
            components,
            request: ExtractRequest {
                preparation,
                outputs: RequestedOutputs::PATCH_TOKENS,
                with_image: false,
            },
            moments: Arc::new(Mutex::new(Moments::new(dim))),
        })
    }

    /// Adds the patch tokens of an image file, which is not kept.
    pub async fn add(&self, file: Bytes) -> Result<Stages> {
        let image = self.extractor.extract(file, self.request).await?;
        let all = Arc::clone(&self.moments);
        let merge = move || {
            let added = Moments::of(image.value.patch_tokens());
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.merge(added);
            Ok(image.stages)
        };
        self.extractor
            .on_blocking_thread("adding to a basis", merge)
            .await
    }

    /// Returns how the images are prepared.
    pub(super) fn preprocessing(&self) -> Preprocessing {
        self.request.preparation.preprocessing
    }

    /// Returns the number of images to add at the same time.
    pub fn max_concurrent_images(&self) -> usize {
        self.extractor.engine().max_concurrent_images()
    }

    pub(super) fn moments(self) -> Result<Moments> {
        let moments = Arc::into_inner(self.moments)
            .ok_or_else(|| Error::internal("an image is still being added"))?;
        Ok(moments.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How image files are prepared.
pub(super) fn of_files(extractor: &Extractor, image: &ImageOptions) -> Preparation {
    let size = extractor.engine().spec().map_size;
    Preparation {
        shrinks: false,
        ..image.over(&Preprocessing::new(ResizeMode::Fit, size))
    }
}
