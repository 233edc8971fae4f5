//! How an engine uses its machine: the user's settings, and defaults for the rest.

use std::fmt;

use super::{Device, Provider, Runtime, SessionOptions, available_cores};
use crate::{error::Result, names::plural, onnx::Precision};

/// Settings of an engine. The cores and the device determine those that are `None`.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Device to run on.
    pub device: Device,
    /// Number of sessions that run concurrently, on each device.
    pub workers: Option<usize>,
    /// Number of threads of a session within one operator.
    pub intra_threads: Option<usize>,
    /// Number of threads of the solo session on the CPU, which runs an image that is alone in the
    /// engine; 0 for no such session.
    pub solo_threads: Option<usize>,
    /// Maximum number of images in a batch.
    pub max_batch: Option<usize>,
    /// Maximum number of queued jobs.
    pub queue_depth: usize,
    /// Maximum GPU memory of a session, in bytes.
    pub cuda_memory: Option<usize>,
    /// Whether GPUs compute products in TF32.
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

/// How an engine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnginePlan {
    /// Devices.
    pub providers: Vec<Provider>,
    /// Number of sessions on each device.
    pub workers: usize,
    /// Number of threads of the solo session on the CPU, if there is one.
    pub solo_threads: Option<usize>,
    /// Maximum number of images in a batch.
    pub max_batch: usize,
    /// Maximum number of patches in a batch of several images, which limits the memory of a batch
    /// of large images to that of a batch of small ones.
    pub max_batch_patches: usize,
    /// Options of each session.
    pub session: SessionOptions,
}

/// Default maximum number of sessions on the CPU. Above it each session gets more threads, because
/// every session needs working memory.
const MAX_CPU_WORKERS: usize = 16;
/// The same for OpenVINO, whose sessions each have weights of their own.
const MAX_OPENVINO_WORKERS: usize = 4;
/// Default maximum number of threads of the solo session; more bring little.
const MAX_SOLO_THREADS: usize = 16;
/// Default maximum number of images in a batch on a GPU; smaller batches leave units idle.
const DEFAULT_GPU_BATCH: usize = 32;
/// Maximum number of patches in a batch on a GPU: 128 images of 224×224, or 23 of 518×518.
const MAX_GPU_BATCH_PATCHES: usize = 32_768;
/// The same on the processor: 16 images of 224×224, or 2 of 518×518.
const MAX_PROCESSOR_BATCH_PATCHES: usize = 4096;
/// Concurrent requests for each core. The last of them waits for ten images' time, which is less
/// than twice the 99th percentile at 90 % load.
const REQUESTS_PER_CORE: usize = 10;
/// Concurrent requests for each image of a GPU's batch: one batch runs while others are prepared.
const REQUESTS_PER_BATCH_IMAGE: usize = 4;

impl EngineConfig {
    /// Plans for a model of this precision on this machine.
    pub fn plan_here(&self, precision: Precision, runtime: &Runtime) -> Result<EnginePlan> {
        let providers = runtime.providers(&self.device, precision)?;
        if precision == Precision::Fp16 && providers.contains(&Provider::Cpu) {
            tracing::warn!("fp16 is for GPUs: the CPU converts each value to fp32 and back");
        }
        Ok(self.plan(precision, &providers, available_cores()))
    }

    /// Plans for a model of this precision on these devices and this number of cores.
    pub fn plan(&self, precision: Precision, providers: &[Provider], cores: usize) -> EnginePlan {
        let on_cpu = providers.contains(&Provider::Cpu);
        let on_processor = providers.iter().any(|provider| provider.is_processor());
        let positive = |given: Option<usize>| given.filter(|&count| count > 0);
        let (workers, intra_threads) = match (positive(self.workers), positive(self.intra_threads))
        {
            (Some(workers), Some(threads)) => (workers, threads),
            // A GPU runs its kernels in order, and they need no threads of ours.
            (workers, threads) if !on_processor => (workers.unwrap_or(1), threads.unwrap_or(1)),
            (Some(workers), None) => (workers, (cores / workers).max(1)),
            (None, Some(threads)) => ((cores / threads).max(1), threads),
            (None, None) => {
                // Threads of one session wait for each other; sessions do not.
                let max_workers = match on_cpu {
                    true => MAX_CPU_WORKERS,
                    false => MAX_OPENVINO_WORKERS,
                };
                let workers = cores.clamp(1, max_workers);
                (workers, (cores / workers).max(1))
            }
        };
        let solo_threads = self.solo_threads.unwrap_or(cores.min(MAX_SOLO_THREADS));
        let solo_threads =
            (on_processor && workers > 1 && solo_threads > intra_threads).then_some(solo_threads);
        let max_batch = match precision {
            // Activations are scaled by the range of the whole batch, so an image's features would
            // depend on the other images in it.
            Precision::Int8 => 1,
            _ => positive(self.max_batch).unwrap_or(if on_processor {
                // One image keeps a CPU busy; in a batch the first image would wait for the last.
                1
            } else {
                DEFAULT_GPU_BATCH
            }),
        };
        let max_batch_patches = if on_processor {
            MAX_PROCESSOR_BATCH_PATCHES
        } else {
            MAX_GPU_BATCH_PATCHES
        };
        EnginePlan {
            providers: providers.to_vec(),
            workers,
            solo_threads,
            max_batch,
            max_batch_patches,
            session: SessionOptions {
                intra_threads,
                bf16: precision == Precision::Bf16,
                cuda_memory: self.cuda_memory,
                cuda_tf32: self.cuda_tf32,
            },
        }
    }
}

impl EnginePlan {
    /// Returns the maximum number of requests to process concurrently; with more, all would only
    /// wait longer.
    pub fn max_concurrent_requests(&self) -> usize {
        if self
            .providers
            .iter()
            .any(|provider| provider.is_processor())
        {
            (self.workers * self.session.intra_threads * REQUESTS_PER_CORE).max(16)
        } else {
            self.workers * self.providers.len() * self.max_batch * REQUESTS_PER_BATCH_IMAGE
        }
    }

    /// Returns the maximum number of images of one request to process concurrently: each worker
    /// runs a batch, and the next batch is ready.
    pub fn max_concurrent_images(&self) -> usize {
        (2 * self.workers * self.providers.len() * self.max_batch).max(4)
    }

    /// Returns the maximum number of cores in use at a time; `None` if the model runs elsewhere.
    pub(super) fn max_cores(&self) -> Option<usize> {
        let on_processor = self.providers.iter().any(|p| p.is_processor());
        let regular = self.workers * self.session.intra_threads;
        let cores = regular.max(self.solo_threads.unwrap_or(0));
        on_processor.then_some(cores)
    }

    /// Plans one session that uses all cores.
    pub fn single(precision: Precision, provider: Provider) -> Self {
        let config = EngineConfig {
            workers: Some(1),
            ..EngineConfig::default()
        };
        config.plan(precision, &[provider], available_cores())
    }

    /// Returns the devices as text: `cpu`, `cuda:0` or `cuda:0,1`.
    pub fn provider(&self) -> String {
        let names: Vec<String> = self.providers.iter().map(Provider::to_string).collect();
        names.join(",").replace(",cuda:", ",")
    }
}

impl fmt::Display for EnginePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = self.providers.len() > 1;
        let each = if several { " each" } else { "" };
        let workers = plural(self.workers, "worker");
        let threads = plural(self.session.intra_threads, "thread");
        write!(f, "{}: {workers}{each} of {threads}", self.provider())?;
        if let Some(threads) = self.solo_threads {
            write!(f, ", one of {} for lone images", plural(threads, "thread"))?;
        }
        write!(f, ", batches of up to {}", plural(self.max_batch, "image"))
    }
}
