//! How an engine uses its machine: what the user set, and defaults for the rest.

use std::fmt;

use super::{Device, Provider, Runtime, SessionOptions};
use crate::{
    error::{Error, Result},
    onnx::Precision,
};

/// How an engine is to run. What is `None` is chosen from the cores and the device.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where it computes.
    pub device: Device,
    /// Sessions that compute at the same time; on GPUs, on each.
    pub workers: Option<usize>,
    /// Threads of a session within one operator.
    pub intra_threads: Option<usize>,
    /// On the CPU, threads of a session of its own for an image that is alone in the engine; 0
    /// makes none.
    pub solo_threads: Option<usize>,
    /// Most images of a batch.
    pub max_batch: Option<usize>,
    /// Jobs that may wait.
    pub queue_depth: usize,
    /// Most bytes of a GPU's memory that a session takes.
    pub cuda_memory: Option<usize>,
    /// Let GPUs compute products in TF32.
    pub cuda_tf32: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            workers: None,
            intra_threads: None,
            solo_threads: None,
            max_batch: None,
            queue_depth: 64,
            cuda_memory: None,
            cuda_tf32: false,
        }
    }
}

/// How an engine does run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnginePlan {
    /// The devices.
    pub providers: Vec<Provider>,
    /// Sessions on each of them.
    pub workers: usize,
    /// On the CPU, threads of the session for an image that is alone in the engine.
    pub solo_threads: Option<usize>,
    /// Most images of a batch.
    pub max_batch: usize,
    /// How each session uses its device.
    pub session: SessionOptions,
}

/// Sessions on the CPU, beyond which each gets more threads: every one takes some memory to work
/// in.
const CPU_WORKERS: usize = 16;
/// Threads of a single image, beyond which more bring little.
const SOLO_THREADS: usize = 16;
/// Images of a batch on a GPU, which has idle units otherwise.
const GPU_BATCH: usize = 32;

/// Cores that this process may use.
pub fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl EngineConfig {
    /// The plan for a model of this precision on this machine.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if a GPU is asked for that cannot be used, or that the
    /// precision is not for.
    pub fn plan_here(&self, precision: Precision, runtime: &Runtime) -> Result<EnginePlan> {
        let providers = match (precision, &self.device) {
            (Precision::Int8, Device::Auto) => runtime.providers(&Device::Cpu),
            (Precision::Int8, Device::Cuda(_)) => Err(Error::artifact(
                "int8 models run on the CPU; on a GPU use --precision fp16",
            )),
            (_, device) => runtime.providers(device),
        }?;
        if precision == Precision::Fp16 && providers.contains(&Provider::Cpu) {
            tracing::warn!("fp16 is for GPUs: the CPU turns each value into fp32 and back");
        }
        Ok(self.plan(precision, &providers, available_cores()))
    }

    /// The plan for a model of this precision on these devices and this number of cores.
    pub fn plan(&self, precision: Precision, providers: &[Provider], cores: usize) -> EnginePlan {
        let on_cpu = providers.contains(&Provider::Cpu);
        let positive = |given: Option<usize>| given.filter(|&count| count > 0);
        let (workers, intra_threads) = match (positive(self.workers), positive(self.intra_threads))
        {
            (Some(workers), Some(threads)) => (workers, threads),
            // A GPU's kernels queue up anyway, and need no threads of ours.
            (workers, threads) if !on_cpu => (workers.unwrap_or(1), threads.unwrap_or(1)),
            (Some(workers), None) => (workers, (cores / workers).max(1)),
            (None, Some(threads)) => ((cores / threads).max(1), threads),
            // Threads that share an image wait for each other, and workers do not.
            (None, None) => {
                let workers = cores.clamp(1, CPU_WORKERS);
                (workers, (cores / workers).max(1))
            }
        };
        let solo_threads = self.solo_threads.unwrap_or(cores.min(SOLO_THREADS));
        let solo_threads =
            (on_cpu && workers > 1 && solo_threads > intra_threads).then_some(solo_threads);
        let max_batch = match precision {
            // Activations are scaled by the range of the whole batch: an image's features would
            // depend on its company.
            Precision::Int8 => 1,
            // A CPU is busy with a single image already; a batch would only make the first of it
            // wait for the last.
            _ => positive(self.max_batch).unwrap_or(if on_cpu { 1 } else { GPU_BATCH }),
        };
        let session = SessionOptions {
            intra_threads,
            cuda_memory: self.cuda_memory,
            cuda_tf32: self.cuda_tf32,
        };
        EnginePlan {
            providers: providers.to_vec(),
            workers,
            solo_threads,
            max_batch,
            session,
        }
    }
}

/// Requests under way together for each core: the last of them waits for as many images' time, and
/// for less than twice as long as the slowest in a hundred at nine tenths of the load.
const REQUESTS_PER_CORE: usize = 10;
/// Requests under way together for each place in a GPU's batch: one batch runs, others are
/// prepared.
const REQUESTS_PER_PLACE: usize = 4;

impl EnginePlan {
    /// As many requests as it makes sense to have under way together; with more, all would only
    /// wait longer.
    pub fn requests(&self) -> usize {
        if self.providers.contains(&Provider::Cpu) {
            (self.workers * self.session.intra_threads * REQUESTS_PER_CORE).max(16)
        } else {
            self.workers * self.providers.len() * self.max_batch * REQUESTS_PER_PLACE
        }
    }

    /// Images of one request that it makes sense to have under way together: each worker has one,
    /// and the next is ready.
    pub fn images_at_once(&self) -> usize {
        (2 * self.workers * self.providers.len() * self.max_batch).max(4)
    }

    /// One session that uses all cores.
    pub fn single(precision: Precision, provider: Provider) -> Self {
        let config = EngineConfig {
            workers: Some(1),
            ..EngineConfig::default()
        };
        config.plan(precision, &[provider], available_cores())
    }

    /// The devices in short: `cpu`, `cuda:0` or `cuda:0,1`.
    pub fn provider(&self) -> String {
        let names: Vec<String> = self.providers.iter().map(Provider::to_string).collect();
        names.join(",").replace(",cuda:", ",")
    }
}

impl fmt::Display for EnginePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize, what: &str| {
            format!("{count} {what}{}", if count == 1 { "" } else { "s" })
        };
        let each = if self.providers.len() > 1 {
            " each"
        } else {
            ""
        };
        let (workers, threads) = (
            plural(self.workers, "worker"),
            plural(self.session.intra_threads, "thread"),
        );
        write!(f, "{}: {workers}{each} of {threads}", self.provider())?;
        if let Some(threads) = self.solo_threads {
            write!(f, ", one of {} for lone images", plural(threads, "thread"))?;
        }
        write!(f, ", batches of up to {}", plural(self.max_batch, "image"))
    }
}
