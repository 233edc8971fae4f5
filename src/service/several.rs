//! Several features of one image from one inference, for work over many images.

use bytes::Bytes;
use ndarray::Array2;

use super::{
    embed::EmbedOptions,
    extractor::{ExtractRequest, Extractor},
    images::ImageOptions,
    stages::Timed,
};
use crate::{
    engine::RequestedOutputs, error::Result, features::pool::Pooling, model::ModelSpec,
    vision::Grid,
};

/// Which features of an image are computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeveralOptions {
    /// A vector for each.
    pub poolings: Vec<Pooling>,
    /// Whether the patch tokens of the last block are kept, too.
    pub tokens: bool,
    /// See [`EmbedOptions::layers`].
    pub layers: usize,
    /// Whether vectors are scaled to length 1. Tokens are not.
    pub normalize: bool,
}

/// Features of an image.
#[derive(Debug, Clone)]
pub struct SeveralFeatures {
    /// One for each of [`SeveralOptions::poolings`].
    pub vectors: Vec<Vec<f32>>,
    /// `[patches, dim]`, if they are kept.
    pub tokens: Option<Array2<f32>>,
    /// Grid of the image for the model.
    pub grid: Grid,
}

impl SeveralOptions {
    fn embed(&self, pooling: Pooling) -> EmbedOptions {
        EmbedOptions {
            pooling,
            normalize: self.normalize,
            layers: self.layers,
            tokens: false,
        }
    }

    /// Rejects options that the model does not support.
    pub fn check(&self, spec: &ModelSpec) -> Result<()> {
        self.embed(Pooling::Cls).check(spec)
    }

    fn outputs(&self) -> RequestedOutputs {
        let poolings = self.poolings.iter();
        let outputs = poolings.map(|&pooling| self.embed(pooling).outputs());
        let own = RequestedOutputs {
            patch_tokens: self.tokens,
            ..RequestedOutputs::default()
        };
        outputs.fold(own, RequestedOutputs::and)
    }
}

impl Extractor {
    /// Computes features of an image file. Waits where a request would be refused because others
    /// have the memory or the queue.
    pub async fn several(
        &self,
        file: Bytes,
        image: &ImageOptions,
        options: &SeveralOptions,
    ) -> Result<Timed<SeveralFeatures>> {
        let request = ExtractRequest {
            preparation: image.over(&self.engine().spec().embed_preprocessing()),
            outputs: options.outputs(),
            with_image: false,
        };
        let extracted = self.extract_patiently(file, request).await?;
        let features = &extracted.value.features;
        let poolings = options.poolings.iter();
        let vectors = poolings.map(|&pooling| options.embed(pooling).vector(features));
        let tokens = features.patch_tokens.as_ref().filter(|_| options.tokens);
        Ok(Timed {
            value: SeveralFeatures {
                vectors: vectors.collect(),
                tokens: tokens.cloned(),
                grid: extracted.value.grid(),
            },
            stages: extracted.stages,
        })
    }
}
