//! Flags and steps that several commands share: the cache folder, the runtime library, the model.

use std::path::PathBuf;

use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser};
use strum::VariantNames;

use super::progress::{Progress, Unit};
use crate::{
    artifacts::{Home, ModelFile, ModelStore},
    engine::{Device, Engine, EngineConfig, EngineThread, Runtime},
    error::{Kind, Result},
    model::PositionRule,
    service::Limits,
    vision::DecodeLimits,
};

/// Where files lie and models come from.
#[derive(Debug, Clone, Args)]
pub(super) struct StoreFlags {
    /// Cache folder for the runtime library and models [default: ~/.cache/dinoserve]
    #[arg(long = "home", env = "DINOSERVE_HOME", value_name = "DIR")]
    home: Option<PathBuf>,

    /// Address of the model hub, for mirrors
    #[arg(long, env = "DINOSERVE_HUB", value_name = "URL", default_value = "https://huggingface.co")]
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
    /// Loads the library, which fails at once if it is not as it should be.
    pub(super) fn load(&self, store: &StoreFlags) -> Result<Runtime> {
        let given = self.onnxruntime.clone().filter(|path| !path.as_os_str().is_empty());
        let path = given.map_or_else(|| store.home().map(|home| home.runtime_library()), Ok)?;
        Runtime::load(&path)
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
    #[arg(long, env = "DINOSERVE_MODEL", value_name = "NAME", default_value = "dinov2-small")]
    pub(super) model: String,

    /// Never use the network; a model that is not in the cache is an error
    #[arg(long, env = "DINOSERVE_OFFLINE")]
    offline: bool,

    /// Where to compute: `auto` (CUDA where it works, else the CPU), `cpu`, `cuda` or `cuda:N`
    #[arg(long, env = "DINOSERVE_DEVICE", default_value_t = Device::Auto)]
    device: Device,

    /// How positions are interpolated: as Meta's code does (`hub`) or as Hugging Face's (`hf`)
    #[arg(long, env = "DINOSERVE_POS_EMBED", default_value = "hub",
        value_parser = PossibleValuesParser::new(PositionRule::VARIANTS).map(|name| name.parse::<PositionRule>().unwrap_or_default()))]
    pos_embed: PositionRule,

    /// Threads of the model within one operator; 0 is one per physical core
    #[arg(long, env = "DINOSERVE_INTRA_THREADS", default_value_t = 0)]
    intra_threads: usize,

    /// Images that may wait for the model
    #[arg(long, env = "DINOSERVE_QUEUE_DEPTH", default_value_t = 64)]
    queue_depth: usize,
}

impl EngineFlags {
    /// Loads the runtime library.
    pub(super) fn runtime(&self) -> Result<Runtime> {
        self.runtime.load(&self.store)
    }

    /// The converted model, pulled and converted first if need be.
    pub(super) fn model_file(&self) -> Result<ModelFile> {
        let mut progress = Progress::new(Unit::BytesOrSteps);
        let mut show = |step: &str, done, total| progress.show(step, done, total);
        let model = self.store.store()?.ensure(&self.model, self.pos_embed, self.offline, &mut show);
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

    pub(super) fn device(&self) -> Device {
        self.device
    }

    pub(super) fn intra_threads(&self) -> usize {
        self.intra_threads
    }

    /// Starts the engine.
    pub(super) fn start(&self, runtime: &Runtime, model: ModelFile) -> Result<(Engine, EngineThread)> {
        let config =
            EngineConfig { device: self.device, intra_threads: self.intra_threads, queue_depth: self.queue_depth };
        Engine::start(runtime, model, &config)
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
    #[arg(long, env = "DINOSERVE_MAX_PATCHES", default_value_t = Limits::default().max_patches)]
    max_patches: usize,
}

impl LimitFlags {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            decode: DecodeLimits { max_pixels: self.max_image_pixels, max_side: self.max_image_side },
            max_patches: self.max_patches,
        }
    }
}
