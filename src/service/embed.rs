//! Embeddings: one vector per image.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use ndarray::{Array2, ArrayView2, Axis};

use super::{
    extractor::{ExtractRequest, Extractor},
    images::{ImageOptions, Preparation},
    stages::Timed,
};
use crate::{
    engine::{Features, RequestedOutputs},
    error::{Error, Result},
    features::pool::{Pooling, normalize},
    model::ModelSpec,
    vision::Grid,
};

/// Options of an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedOptions {
    /// Way from the tokens to one vector.
    pub pooling: Pooling,
    /// Whether the vector is scaled to length 1.
    pub normalize: bool,
    /// Number of last blocks whose pooled vectors are joined, the last block last.
    pub layers: usize,
    /// Whether the patch tokens of the last block are returned, too.
    pub tokens: bool,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self {
            pooling: Pooling::Cls,
            normalize: true,
            layers: 1,
            tokens: false,
        }
    }
}

impl EmbedOptions {
    /// Returns the width of the embedding.
    pub fn dim(&self, spec: &ModelSpec) -> usize {
        self.layers * self.pooling.dim(spec.architecture.dim)
    }

    /// Rejects options that the model does not support.
    pub(crate) fn check(&self, spec: &ModelSpec) -> Result<()> {
        let layers = 1..=spec.architecture.layers();
        if layers.contains(&self.layers) {
            return Ok(());
        }
        let range = format_args!("1 to {}", layers.end());
        Err(Error::out_of_range("layers", self.layers, range))
    }

    /// Returns the model outputs that the embedding needs.
    pub(super) fn outputs(&self) -> RequestedOutputs {
        let several = self.layers > 1;
        RequestedOutputs {
            patch_tokens: self.tokens || (self.pooling.needs_patches() && !several),
            layers_cls: several,
            layers_patch: several && self.pooling.needs_patches(),
            ..RequestedOutputs::default()
        }
    }

    /// Pools the features.
    pub(super) fn vector(&self, features: &Features) -> Vec<f32> {
        let empty = Array2::zeros((0, features.cls.len()));
        let mut vector = Vec::with_capacity(self.layers * self.pooling.dim(features.cls.len()));
        match &features.layers_cls {
            Some(layers) => {
                for index in layers.nrows() - self.layers..layers.nrows() {
                    let patches = features.layers_patch.as_ref();
                    let patches: ArrayView2<'_, f32> =
                        patches.map_or(empty.view(), |all| all.index_axis(Axis(0), index));
                    self.pooling.pool(layers.row(index), patches, &mut vector);
                }
            }
            None => {
                let patches = features.patch_tokens.as_ref().unwrap_or(&empty);
                let cls = features.cls.view();
                self.pooling.pool(cls, patches.view(), &mut vector);
            }
        }
        if self.normalize {
            normalize(&mut vector);
        }
        vector
    }
}

/// The embedding of an image.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// `[EmbedOptions::dim]`.
    pub vector: Vec<f32>,
    /// Grid of the image for the model.
    pub grid: Grid,
    /// `[patches, dim]`, if requested.
    pub tokens: Option<Array2<f32>>,
}

impl Extractor {
    /// Embeds image files. Returns the embedding or the error of each file, in their order.
    pub async fn embed(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: &EmbedOptions,
    ) -> Result<Timed<Vec<Result<Embedding>>>> {
        options.check(self.engine().spec())?;
        let preparation = image.over(&self.engine().spec().embed_preprocessing());
        let embeddings = stream::iter(files)
            .map(|file| self.embed_file(file, preparation, options))
            .buffered(self.engine().max_concurrent_images());
        Ok(Timed::collect(embeddings).await)
    }

    /// Embeds a file that is prepared in a given way, such as that of a gallery.
    pub(super) async fn embed_file(
        &self,
        file: Bytes,
        preparation: Preparation,
        options: &EmbedOptions,
    ) -> Result<Timed<Embedding>> {
        options.check(self.engine().spec())?;
        let request = ExtractRequest {
            preparation,
            outputs: options.outputs(),
            with_image: false,
        };
        let extracted = self.extract(file, request).await?;
        let started = Instant::now();
        let vector = options.vector(&extracted.value.features);
        let grid = extracted.value.grid();
        // The tokens are copied only if the cache keeps them, too.
        let tokens = if options.tokens {
            Arc::unwrap_or_clone(extracted.value).features.patch_tokens
        } else {
            None
        };
        let embedding = Embedding {
            vector,
            grid,
            tokens,
        };
        Ok(extracted.stages.finish(started, embedding))
    }
}
