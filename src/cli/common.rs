//! Flags and steps that several commands share: the cache folder, the runtime library, the model,
//! the galleries.

use std::path::PathBuf;

use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser};
use strum::VariantNames;

use super::progress::{Progress, Unit};
use crate::{
    artifacts::{Home, ModelFile, ModelStore},
    engine::{Device, Engine, EngineConfig, EngineThread, Runtime},
    error::{Kind, Result},
    features::pool::Pooling,
    gallery::{self, Gallery, GalleryConfig, OpenMode, VectorFormat},
    model::PositionRule,
    onnx::Precision,
    service::{ImageLimits, ModelSource},
    vision::{DecodeLimits, ResizeMode},
};

/// Reads one of the names of a type, and lists them in the help.
pub(super) fn names<T>() -> impl TypedValueParser<Value = T>
where
    T: VariantNames + std::str::FromStr + Clone + Send + Sync + 'static,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    PossibleValuesParser::new(T::VARIANTS).try_map(|name| name.parse::<T>())
}

/// Where files lie and models come from.
#[derive(Debug, Clone, Args)]
pub(super) struct StoreFlags {
    /// Cache folder for the runtime library and models [default: ~/.cache/dinoserve]
    #[arg(long = "home", env = "DINOSERVE_HOME", value_name = "DIR")]
    home: Option<PathBuf>,

    /// Address of the model hub, for mirrors
    #[arg(
        long,
        env = "DINOSERVE_HUB",
        value_name = "URL",
        default_value = "https://huggingface.co"
    )]
    hub: String,
}

impl StoreFlags {
    pub(super) fn home(&self) -> Result<Home> {
        Home::new(self.home.clone())
    }

    pub(super) fn store(&self) -> Result<ModelStore> {
        ModelStore::new(self.home()?, &self.hub)
    }
}

/// Which runtime library is used.
#[derive(Debug, Clone, Args)]
pub(super) struct RuntimeFlags {
    /// ONNX Runtime's library [default: where `make setup` puts it]
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
}

impl RuntimeFlags {
    /// Where the library is, or should be.
    fn path(&self, store: &StoreFlags) -> Result<PathBuf> {
        let given = self
            .onnxruntime
            .clone()
            .filter(|path| !path.as_os_str().is_empty());
        given.map_or_else(|| store.home().map(|home| home.runtime_library()), Ok)
    }

    /// Loads the library, which fails at once if it is not as it should be.
    pub(super) fn load(&self, store: &StoreFlags) -> Result<Runtime> {
        Runtime::load(&self.path(store)?)
    }
}

/// In which precision a model is converted and runs.
#[derive(Debug, Clone, Args)]
pub(super) struct PrecisionFlag {
    /// Precision of the model: `fp32`, `int8` for CPUs (about half the time, nearly the same
    /// features), `fp16` for GPUs
    #[arg(long, env = "DINOSERVE_PRECISION", default_value = "fp32",
        value_parser = PossibleValuesParser::new(Precision::VARIANTS).map(|name| name.parse::<Precision>().unwrap_or_default()))]
    precision: Precision,
}

impl PrecisionFlag {
    pub(super) fn get(&self) -> Precision {
        self.precision
    }
}

/// Which model runs, and where.
#[derive(Debug, Clone, Args)]
pub(super) struct EngineFlags {
    #[command(flatten)]
    store: StoreFlags,

    #[command(flatten)]
    runtime: RuntimeFlags,

    /// Model to run; see `dinoserve models list`
    #[arg(
        long,
        env = "DINOSERVE_MODEL",
        value_name = "NAME",
        default_value = "dinov2-small"
    )]
    pub(super) model: String,

    /// Never use the network; a model that is not in the cache is an error
    #[arg(long, env = "DINOSERVE_OFFLINE")]
    offline: bool,

    #[command(flatten)]
    precision: PrecisionFlag,

    /// Where to compute: `auto` (CUDA where it works, else the CPU), `cpu`, `cuda`, or `cuda:N,M`
    /// for these GPUs
    #[arg(long, env = "DINOSERVE_DEVICE", default_value_t = Device::Auto)]
    device: Device,

    /// How positions are interpolated: as Meta's code does (`hub`) or as Hugging Face's (`hf`)
    #[arg(long, env = "DINOSERVE_POS_EMBED", default_value = "hub",
        value_parser = PossibleValuesParser::new(PositionRule::VARIANTS).map(|name| name.parse::<PositionRule>().unwrap_or_default()))]
    pos_embed: PositionRule,

    /// Sessions that compute at the same time, each on its own thread; on GPUs, on each [default:
    /// by the cores]
    #[arg(long, env = "DINOSERVE_WORKERS", value_name = "COUNT")]
    workers: Option<usize>,

    /// Threads of a session within one operator [default: the cores divided by the workers]
    #[arg(long, env = "DINOSERVE_INTRA_THREADS", value_name = "COUNT")]
    intra_threads: Option<usize>,

    /// Threads for an image that is alone in the server; 0 leaves it to a worker [default: all
    /// cores, on CPUs]
    #[arg(long, env = "DINOSERVE_SOLO_THREADS", value_name = "COUNT")]
    solo_threads: Option<usize>,

    /// Most images that run through the model together [default: 1 on CPUs, 32 on GPUs]
    #[arg(long, env = "DINOSERVE_MAX_BATCH", value_name = "COUNT")]
    max_batch: Option<usize>,

    /// Images that may wait for the model
    #[arg(
        long,
        env = "DINOSERVE_QUEUE_DEPTH",
        value_name = "COUNT",
        default_value_t = 64
    )]
    queue_depth: usize,

    /// Most megabytes of a GPU's memory that a session takes [default: what it needs]
    #[arg(long, env = "DINOSERVE_CUDA_MEMORY_MB", value_name = "MB")]
    cuda_memory_mb: Option<usize>,

    /// Let GPUs round the factors of products to TF32: faster, and four digits less of every
    /// feature
    #[arg(long, env = "DINOSERVE_CUDA_TF32")]
    cuda_tf32: bool,
}

impl EngineFlags {
    /// Where models are.
    pub(super) fn store(&self) -> Result<ModelStore> {
        self.store.store()
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision.get()
    }

    pub(super) fn offline(&self) -> bool {
        self.offline
    }

    /// Where the runtime library is, or should be.
    pub(super) fn runtime_library(&self) -> Result<PathBuf> {
        self.runtime.path(&self.store)
    }

    /// Loads the runtime library.
    pub(super) fn runtime(&self) -> Result<Runtime> {
        self.runtime.load(&self.store)
    }

    /// The converted model, pulled and converted first if need be.
    pub(super) fn model_file(&self) -> Result<ModelFile> {
        let mut progress = Progress::new(Unit::BytesOrSteps);
        let mut show = |step: &str, done, total| progress.show(step, done, total);
        let model = self.store.store()?.ensure(
            &self.model,
            self.precision.get(),
            self.pos_embed,
            self.offline,
            &mut show,
        );
        progress.finish();
        let model = model.map_err(|error| match error.kind() {
            Kind::Download if self.model == "dinov2-small" => error.context(
                "pulling dinov2-small (for a model without a hub run `make setup` and pass --model dinov2-small-focus)",
            ),
            _ => error,
        })?;
        if let Some(notice) = &model.spec.notice {
            tracing::warn!(model = model.spec.name, "{notice}");
        }
        Ok(model)
    }

    /// How the engine is to run.
    pub(super) fn config(&self) -> EngineConfig {
        EngineConfig {
            device: self.device.clone(),
            workers: self.workers,
            intra_threads: self.intra_threads,
            solo_threads: self.solo_threads,
            max_batch: self.max_batch,
            queue_depth: self.queue_depth,
            cuda_memory: self.cuda_memory_mb.map(|mb| mb << 20),
            cuda_tf32: self.cuda_tf32,
        }
    }

    /// Where further models come from while the server runs.
    pub(super) fn source(&self, runtime: &Runtime) -> Result<ModelSource> {
        Ok(ModelSource {
            store: self.store()?,
            runtime: runtime.clone(),
            config: self.config(),
            positions: self.pos_embed,
            precision: self.precision(),
            offline: self.offline,
        })
    }

    /// Starts the engine.
    pub(super) fn start(
        &self,
        runtime: &Runtime,
        model: ModelFile,
    ) -> Result<(Engine, EngineThread)> {
        Engine::start(runtime, model, &self.config())
    }
}

/// Limits of images.
#[derive(Debug, Clone, Args)]
pub(super) struct LimitFlags {
    /// Most pixels (width × height) of an image file
    #[arg(long, env = "DINOSERVE_MAX_IMAGE_PIXELS", default_value_t = DecodeLimits::default().max_pixels)]
    max_image_pixels: u64,

    /// Most pixels of a side of an image file
    #[arg(long, env = "DINOSERVE_MAX_IMAGE_SIDE", default_value_t = DecodeLimits::default().max_side)]
    max_image_side: u64,

    /// Most patches of an image for the model
    #[arg(long, env = "DINOSERVE_MAX_PATCHES", default_value_t = ImageLimits::default().max_patches)]
    max_patches: usize,
}

impl LimitFlags {
    pub(super) fn limits(&self) -> ImageLimits {
        ImageLimits {
            decode: DecodeLimits {
                max_pixels: self.max_image_pixels,
                max_side: self.max_image_side,
            },
            max_patches: self.max_patches,
        }
    }
}

/// From an image to its vector. What is not given is the gallery's if there is one, else the
/// default.
#[derive(Debug, Clone, Args)]
pub(super) struct VectorFlags {
    /// How the tokens become one vector [default: cls; for linear probes cls_mean]
    #[arg(long, alias = "features", value_parser = names::<Pooling>())]
    pub(super) pooling: Option<Pooling>,

    /// Join the vectors of this many last blocks [default: 1]
    #[arg(long)]
    pub(super) layers: Option<usize>,

    /// The size that --resize speaks of, in pixels [default: the model's]
    #[arg(long)]
    pub(super) size: Option<usize>,

    /// The way to the model's size [default: crop]
    #[arg(long, value_parser = names::<ResizeMode>())]
    pub(super) resize: Option<ResizeMode>,
}

/// Where galleries are kept, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct GalleryFlags {
    /// Where galleries are kept: a folder, or a PostgreSQL database with pgvector as `postgres://…`
    #[arg(
        long = "gallery",
        env = "DINOSERVE_GALLERY",
        hide_env_values = true,
        value_name = "DIR|URL"
    )]
    pub(super) location: Option<String>,

    /// How vectors of new galleries are kept in a folder: `f16` takes half the memory, scores
    /// differ in the fourth digit
    #[arg(long = "gallery-vectors", env = "DINOSERVE_GALLERY_VECTORS", default_value_t,
        value_parser = names::<VectorFormat>())]
    vectors: VectorFormat,

    /// Galleries of up to this many items are searched exactly, larger ones by an approximate index
    #[arg(long = "gallery-exact-up-to", env = "DINOSERVE_GALLERY_EXACT_UP_TO", value_name = "COUNT",
        default_value_t = GalleryConfig::default().exact_up_to)]
    exact_up_to: usize,

    /// Most bytes of a folder's database
    #[arg(long = "gallery-max-bytes", env = "DINOSERVE_GALLERY_MAX_BYTES", value_name = "BYTES",
        default_value_t = GalleryConfig::default().max_bytes)]
    max_bytes: u64,

    /// Most connections to a PostgreSQL database, 4 or more
    #[arg(long = "gallery-connections", env = "DINOSERVE_GALLERY_CONNECTIONS", value_name = "COUNT",
        default_value_t = GalleryConfig::default().connections)]
    connections: usize,
}

impl GalleryFlags {
    /// How the store is to work.
    pub(super) fn config(&self) -> GalleryConfig {
        let Self {
            vectors,
            exact_up_to,
            max_bytes,
            connections,
            ..
        } = *self;
        GalleryConfig {
            vectors,
            exact_up_to,
            max_bytes,
            connections,
        }
    }

    /// The store, if its place is given.
    pub(super) async fn open(&self, mode: OpenMode) -> Result<Option<Gallery>> {
        match &self.location {
            Some(location) => gallery::open(location, &self.config(), mode)
                .await
                .map(Some),
            None => Ok(None),
        }
    }
}
