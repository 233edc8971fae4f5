//! From an image file to a vector: limits of files, and the options of an embedding.

use clap::Args;
use serde_json::{Map, Value, json};

use super::{EngineFlags, ModelFlag, names};
use crate::{
    artifacts::ModelStore,
    features::pool::Pooling,
    service::{CacheBytes, EmbedOptions, Extractor, ImageLimits, ImageOptions, VectorOptions},
    vision::{DecodeLimits, Levels, ResizeMode},
};

/// Limits of images.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits of images")]
pub(in crate::cli) struct ImageLimitFlags {
    /// Maximum number of pixels (width × height) of an image file
    #[arg(long, env = "DINOSERVE_MAX_IMAGE_PIXELS")]
    #[arg(default_value_t = DecodeLimits::default().max_pixels)]
    max_image_pixels: u64,

    /// Maximum width and height of an image file, in pixels
    #[arg(long, env = "DINOSERVE_MAX_IMAGE_SIDE")]
    #[arg(default_value_t = DecodeLimits::default().max_side)]
    max_image_side: u64,

    /// Maximum number of patches of the model's input
    #[arg(long, env = "DINOSERVE_MAX_PATCHES")]
    #[arg(default_value_t = ImageLimits::default().max_patches)]
    max_patches: usize,

    /// Maximum memory of all images that are decoded at the same time, in bytes. Other images wait;
    /// one that takes more is refused
    #[arg(long, env = "DINOSERVE_MAX_DECODING_BYTES")]
    #[arg(default_value_t = ImageLimits::default().max_decoding_bytes)]
    max_decoding_bytes: u64,
}

impl ImageLimitFlags {
    pub(in crate::cli) fn limits(&self) -> ImageLimits {
        ImageLimits {
            decode: DecodeLimits {
                max_pixels: self.max_image_pixels,
                max_side: self.max_image_side,
            },
            max_patches: self.max_patches,
            max_decoding_bytes: self.max_decoding_bytes,
        }
    }
}

/// How a command embeds images.
#[derive(Debug, Args)]
pub(in crate::cli) struct EmbedFlags {
    #[command(flatten)]
    model: ModelFlag,

    #[command(flatten)]
    pub(in crate::cli) run: RunFlags,
}

/// How images are embedded, by any model.
#[derive(Debug, Args)]
pub(in crate::cli) struct RunFlags {
    #[command(flatten)]
    pub(in crate::cli) vector: VectorFlags,

    #[command(flatten)]
    engine: EngineFlags,

    #[command(flatten)]
    limits: ImageLimitFlags,
}

impl EmbedFlags {
    /// Does the same as [`RunFlags::with_extractor`] for the model of the command.
    pub(in crate::cli) async fn with_extractor<T>(
        &self,
        work: impl AsyncFnOnce(Extractor) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.run.with_extractor(self.name(), work).await
    }

    /// Returns the name of the model.
    pub(in crate::cli) fn name(&self) -> &str {
        &self.model.model
    }
}

impl RunFlags {
    /// Starts the engine of a model, runs `work` with an extractor on it, and stops the engine.
    /// `work` must drop all handles of the extractor. The model is prepared on the calling thread,
    /// so this belongs directly under [`block_on`](crate::cli::executor::block_on).
    pub(in crate::cli) async fn with_extractor<T>(
        &self,
        model: &str,
        work: impl AsyncFnOnce(Extractor) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let runtime = self.engine.runtime()?;
        let limits = self.limits.limits();
        self.engine
            .with_engine(model, &runtime, async |engine| {
                work(Extractor::new(engine, limits, CacheBytes::default())).await
            })
            .await?
    }

    /// Returns the limits of images.
    pub(in crate::cli) fn limits(&self) -> ImageLimits {
        self.limits.limits()
    }

    /// Opens the store of the models.
    pub(in crate::cli) fn store(&self) -> crate::error::Result<ModelStore> {
        self.engine.store()
    }
}

/// How a command computes maps of images, which it sees at the size of maps.
#[derive(Debug, Args)]
pub(in crate::cli) struct MapFlags {
    /// Size to which --resize brings the image, in pixels [default: the model's for maps]
    #[arg(long)]
    size: Option<usize>,

    /// Method that brings the image to the model's size [default: fit]
    #[arg(long, value_parser = names::<ResizeMode>())]
    resize: Option<ResizeMode>,

    /// Range of samples with 16 bits that becomes black to white [default: type]
    #[arg(long, value_parser = names::<Levels>())]
    levels: Option<Levels>,

    #[command(flatten)]
    model: ModelFlag,

    #[command(flatten)]
    engine: EngineFlags,

    #[command(flatten)]
    limits: ImageLimitFlags,
}

impl MapFlags {
    /// Does the same as [`RunFlags::with_extractor`]. The features of recent images are kept, so
    /// that one that is compared with others is inferred once.
    pub(in crate::cli) async fn with_extractor<T>(
        &self,
        work: impl AsyncFnOnce(Extractor) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let cache = CacheBytes {
            all: 64 << 20,
            recent: 0,
        };
        let runtime = self.engine.runtime()?;
        let limits = self.limits.limits();
        self.engine
            .with_engine(&self.model.model, &runtime, async |engine| {
                work(Extractor::new(engine, limits, cache)).await
            })
            .await?
    }

    pub(in crate::cli) fn image_options(&self) -> ImageOptions {
        let mut options = ImageOptions::default();
        options.overrides.size = self.size;
        options.overrides.resize = self.resize;
        options.overrides.levels = self.levels;
        options
    }
}

/// How an image becomes a vector. A flag that is not given takes the gallery's value if the command
/// has a gallery, else the default.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Embedding")]
pub(in crate::cli) struct VectorFlags {
    /// Pooling of the tokens into one vector [default: cls; for linear probes cls_mean]
    #[arg(long, value_parser = names::<Pooling>())]
    pooling: Option<Pooling>,

    /// Number of last blocks whose vectors are joined [default: 1]
    #[arg(long)]
    layers: Option<usize>,

    /// Size to which --resize brings the image, in pixels [default: the model's]
    #[arg(long)]
    size: Option<usize>,

    /// Method that brings the image to the model's size [default: crop]
    #[arg(long, value_parser = names::<ResizeMode>())]
    resize: Option<ResizeMode>,

    /// Range of samples with 16 bits that becomes black to white [default: type]
    #[arg(long, value_parser = names::<Levels>())]
    levels: Option<Levels>,
}

impl VectorFlags {
    pub(in crate::cli) fn image_options(&self) -> ImageOptions {
        let mut options = ImageOptions::default();
        options.overrides.size = self.size;
        options.overrides.resize = self.resize;
        options.overrides.levels = self.levels;
        options
    }

    /// Returns the flags that are given, by the names that requests have for them.
    pub(in crate::cli) fn given(&self) -> Map<String, Value> {
        let flags = [
            ("pooling", json!(self.pooling)),
            ("layers", json!(self.layers)),
            ("size", json!(self.size)),
            ("resize", json!(self.resize)),
            ("levels", json!(self.levels)),
        ];
        let given = flags.into_iter().filter(|(_, value)| !value.is_null());
        given
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// Returns whether the flags say what is pooled.
    pub(in crate::cli) fn has_pooling(&self) -> bool {
        self.pooling.is_some() || self.layers.is_some()
    }

    /// Returns the options without a gallery; `pooling` is the default.
    pub(in crate::cli) fn embed_options(&self, pooling: Pooling, normalize: bool) -> EmbedOptions {
        EmbedOptions {
            pooling: self.pooling.unwrap_or(pooling),
            normalize,
            layers: self.layers.unwrap_or(1),
            tokens: false,
        }
    }

    /// Returns the options for a gallery, which supplies what is not given.
    pub(in crate::cli) fn vector_options(&self) -> VectorOptions {
        VectorOptions {
            pooling: self.pooling,
            layers: self.layers,
            ..VectorOptions::default()
        }
    }
}
