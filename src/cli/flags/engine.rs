//! The model and the engine.

use std::path::PathBuf;

use clap::Args;

use super::{TargetFlags, names};
use crate::{
    artifacts::{ModelFile, ModelState, ModelStore},
    cli::progress::with_progress,
    engine::{Engine, EngineConfig, Runtime},
    error::{Kind, Result},
    model::{ModelSpec, PositionRule},
    onnx::Conversion,
    service::ModelSource,
};

/// The one model of a command.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ModelFlag {
    /// Name of the model, or a list as for `serve`, of which it is the first; `dinoserve models
    /// list` shows all
    #[arg(long, env = "DINOSERVE_MODEL", value_name = "NAME")]
    #[arg(default_value = "dinov2-small", value_parser = first_name)]
    pub(in crate::cli) model: String,
}

/// Returns the first name of a list, so that commands of one model take the setting of a server.
#[expect(clippy::unnecessary_wraps, reason = "clap asks for it")]
pub(in crate::cli) fn first_name(
    names: &str,
) -> std::result::Result<String, std::convert::Infallible> {
    Ok(names.split(',').next().unwrap_or(names).to_owned())
}

/// How and where models run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model and device")]
pub(in crate::cli) struct EngineFlags {
    /// Never use the network; a model that is not in the cache is an error
    #[arg(long, env = "DINOSERVE_OFFLINE")]
    pub(in crate::cli) offline: bool,

    /// Interpolation of position embeddings: as in Meta's code (`hub`) or as in Hugging Face's
    /// (`hf`)
    #[arg(long, env = "DINOSERVE_POS_EMBED", default_value = "hub")]
    #[arg(value_parser = names::<PositionRule>())]
    pos_embed: PositionRule,

    /// Number of sessions that compute at the same time, each on its own thread; on GPUs, per GPU
    /// [default: by the cores]
    #[arg(long, env = "DINOSERVE_WORKERS", value_name = "COUNT")]
    workers: Option<usize>,

    /// Number of threads of a session within one operator [default: the cores divided by the
    /// workers]
    #[arg(long, env = "DINOSERVE_INTRA_THREADS", value_name = "COUNT")]
    intra_threads: Option<usize>,

    /// Number of threads for an image that is alone in the server; 0 leaves it to a worker
    /// [default: all cores, on CPUs]
    #[arg(long, env = "DINOSERVE_SOLO_THREADS", value_name = "COUNT")]
    solo_threads: Option<usize>,

    /// Maximum number of images in a batch [default: 1 on CPUs, 32 on GPUs]
    #[arg(long, env = "DINOSERVE_MAX_BATCH", value_name = "COUNT")]
    max_batch: Option<usize>,

    /// Maximum number of images that wait for the model
    #[arg(long, env = "DINOSERVE_QUEUE_DEPTH", value_name = "COUNT")]
    #[arg(default_value_t = 64)]
    queue_depth: usize,

    /// Maximum GPU memory of a session, in megabytes [default: what it needs]
    #[arg(long, env = "DINOSERVE_CUDA_MEMORY_MB", value_name = "MB")]
    cuda_memory_mb: Option<usize>,

    /// Let GPUs round the factors of products to TF32: faster, but every feature loses four digits
    #[arg(long, env = "DINOSERVE_CUDA_TF32")]
    cuda_tf32: bool,

    #[command(flatten)]
    target: TargetFlags,
}

impl EngineFlags {
    /// Starts the engine, runs `work` with it, and waits for the engine's end. `work` must drop all
    /// handles of the engine.
    pub(in crate::cli) async fn with_engine<T>(
        &self,
        model: &str,
        runtime: &Runtime,
        work: impl AsyncFnOnce(Engine) -> T,
    ) -> Result<T> {
        let (engine, thread) = Engine::start(runtime, self.model_file(model)?, &self.config())?;
        let result = work(engine).await;
        thread.join();
        Ok(result)
    }

    /// Loads the runtime library.
    pub(in crate::cli) fn runtime(&self) -> Result<Runtime> {
        self.target.runtime()
    }

    /// Opens the converted model; pulls and converts it first if it is not in the cache. Logs what
    /// to know about a model that is new on this machine.
    pub(in crate::cli) fn model_file(&self, name: &str) -> Result<ModelFile> {
        let (model, is_new) = self.open_model(name)?;
        if is_new {
            log_notice(&model.spec);
        }
        Ok(model)
    }

    /// Opens models as [`EngineFlags::model_file`] does, and always logs what to know about them.
    pub(in crate::cli) fn served_model_files(&self, names: &[String]) -> Result<Vec<ModelFile>> {
        self.target.report()?;
        let open = |name: &String| {
            let (model, _) = self.open_model(name)?;
            log_notice(&model.spec);
            Ok(model)
        };
        names.iter().map(open).collect()
    }

    /// Returns the model, and whether it was pulled or converted now.
    fn open_model(&self, name: &str) -> Result<(ModelFile, bool)> {
        let store = self.store()?;
        let conversion = self.conversion()?;
        let is_new = store
            .catalog()
            .get(name)
            .is_ok_and(|spec| store.state(spec, conversion) != ModelState::Converted);
        let model = with_progress(|progress| {
            store.ensure(name, conversion, self.pos_embed, self.offline, progress)
        })
        .map_err(|error| match error.kind() {
            Kind::Download if name == "dinov2-small" => error.context(
                "pulling dinov2-small (for a model without a hub run `make setup` and pass \
                 --model dinov2-small-focus)",
            ),
            _ => error,
        })?;
        Ok((model, is_new))
    }

    pub(in crate::cli) fn config(&self) -> EngineConfig {
        let given = [
            self.workers,
            self.intra_threads,
            self.solo_threads,
            self.max_batch,
        ];
        // Measured numbers belong together, so a given one replaces all of them.
        let tuned = self.target.tuned();
        let [workers, intra_threads, solo_threads, max_batch] = match tuned {
            Some(tuned) if given.iter().all(Option::is_none) => [
                tuned.workers,
                tuned.intra_threads,
                tuned.solo_threads,
                tuned.max_batch,
            ],
            _ => given,
        };
        EngineConfig {
            device: self.target.device(),
            workers,
            intra_threads,
            solo_threads,
            max_batch,
            queue_depth: self.queue_depth,
            cuda_memory: self.cuda_memory_mb.map(|mb| mb << 20),
            cuda_tf32: self.cuda_tf32,
        }
    }

    /// Returns the source of models that are loaded while the server runs.
    pub(in crate::cli) fn source(&self, runtime: &Runtime) -> Result<ModelSource> {
        Ok(ModelSource {
            store: self.store()?,
            runtime: runtime.clone(),
            config: self.config(),
            positions: self.pos_embed,
            precision: self.target.precision()?,
            offline: self.offline,
        })
    }

    pub(in crate::cli) fn store(&self) -> Result<ModelStore> {
        self.target.store()
    }

    pub(in crate::cli) fn conversion(&self) -> Result<Conversion> {
        self.target.conversion()
    }

    /// Path where the runtime library is expected.
    pub(in crate::cli) fn runtime_library(&self) -> Result<PathBuf> {
        self.target.library()
    }
}

/// Logs what to know before relying on the features of a model, if there is anything.
pub(in crate::cli) fn log_notice(spec: &ModelSpec) {
    if let Some(notice) = &spec.notice {
        tracing::info!(model = spec.name, "{notice}");
    }
}
