//! Embeddings: one vector per image.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use ndarray::{Array2, ArrayView2};
use serde::Deserialize;

use super::{
    ImageOptions, Service, Stages,
    images::{Inference, Preparation},
};
use crate::{
    engine::{Features, RequestedOutputs},
    error::{Error, Result},
    features::pool::{Pooling, normalize},
    model::ModelSpec,
    vision::Grid,
};

/// What kind of embedding is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EmbedOptions {
    /// How the tokens become one vector.
    pub pooling: Pooling,
    /// Scale the vector to length 1.
    pub normalize: bool,
    /// The pooled vectors of this many last blocks are joined, the last block last.
    pub layers: usize,
    /// Give the patch tokens of the last block, too.
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
    /// Width of the embedding.
    pub fn dim(&self, spec: &ModelSpec) -> usize {
        self.layers * self.pooling.dim(spec.dim)
    }

    /// Refuses options that the model cannot fulfil.
    pub(crate) fn check(&self, spec: &ModelSpec) -> Result<()> {
        if (1..=spec.layers()).contains(&self.layers) {
            return Ok(());
        }
        Err(Error::option(
            "layers",
            format!(
                "{} is out of range; it must be 1 to {}",
                self.layers,
                spec.layers()
            ),
        ))
    }

    pub(super) fn wanted(&self) -> RequestedOutputs {
        let several = self.layers > 1;
        RequestedOutputs {
            patch_tokens: self.tokens || (self.pooling.needs_patches() && !several),
            layers_cls: several,
            layers_patch: several && self.pooling.needs_patches(),
            ..RequestedOutputs::default()
        }
    }

    pub(super) fn vector(&self, features: &Features) -> Vec<f32> {
        let empty = Array2::zeros((0, features.cls.len()));
        let mut vector = Vec::with_capacity(self.layers * self.pooling.dim(features.cls.len()));
        match &features.layers_cls {
            Some(layers) => {
                for index in layers.nrows() - self.layers..layers.nrows() {
                    let patches = features.layers_patch.as_ref();
                    let patches: ArrayView2<'_, f32> = patches.map_or(empty.view(), |patches| {
                        patches.index_axis(ndarray::Axis(0), index)
                    });
                    self.pooling.pool(layers.row(index), patches, &mut vector);
                }
            }
            None => {
                let patches = features.patch_tokens.as_ref().unwrap_or(&empty);
                self.pooling
                    .pool(features.cls.view(), patches.view(), &mut vector);
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
    /// `[patches, dim]`, if asked for.
    pub tokens: Option<Array2<f32>>,
}

impl Service {
    /// The embedding of each image file, or what is wrong with it, in their order.
    ///
    /// # Errors
    /// [`crate::error::Kind::InvalidOption`] for an option that no image could satisfy.
    pub async fn embed(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: &EmbedOptions,
    ) -> Result<(Vec<Result<Embedding>>, Stages)> {
        let base = self.engine.spec().embed_preprocessing();
        self.embed_prepared(files, image.over(&base), options).await
    }

    /// Embeds files that are prepared in a given way, such as that of a gallery.
    pub(super) async fn embed_prepared(
        &self,
        files: Vec<Bytes>,
        preparation: Preparation,
        options: &EmbedOptions,
    ) -> Result<(Vec<Result<Embedding>>, Stages)> {
        options.check(self.engine.spec())?;
        let mut stages = Stages::default();
        let mut finish = |seen: Inference| {
            let started = Instant::now();
            let vector = options.vector(&seen.view.features);
            let grid = seen.view.features.grid;
            // Copied only if the cache keeps them, too.
            let tokens = if options.tokens {
                Arc::unwrap_or_clone(seen.view).features.patch_tokens
            } else {
                None
            };
            let of_image = Stages {
                post: started.elapsed(),
                ..seen.stages
            };
            of_image.observe();
            stages = stages.longest(of_image);
            Embedding {
                vector,
                grid,
                tokens,
            }
        };
        let seen = self.see_for_embedding(files, preparation, options.wanted());
        let embeddings = seen.map(|seen| seen.map(&mut finish)).collect().await;
        Ok((embeddings, stages))
    }
}
