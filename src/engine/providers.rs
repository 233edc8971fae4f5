//! ONNX Runtime's library and execution providers.

use std::{
    fmt::Display,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};

use ort::{
    environment::Environment,
    ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider},
    logging::LogLevel,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
};

use super::{
    Device, OpenVinoDevice, Provider,
    cores::CoreBudget,
    hardware::{has_bf16, has_nvidia_gpu},
};
use crate::{
    error::{Error, Result, ResultExt},
    onnx::Precision,
};

/// Number of shapes of operators for which OpenVINO keeps what it compiled. By its default of 5000
/// a session grows by up to 2 MB with every new grid.
const OPENVINO_SHAPES: usize = 256;

/// Options of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// Number of threads within one operator.
    pub intra_threads: usize,
    /// Whether OpenVINO computes products in bfloat16.
    pub bf16: bool,
    /// Maximum size of the arena on a GPU, in bytes; `None` for no limit.
    pub cuda_memory: Option<usize>,
    /// Whether a GPU rounds the factors of products to TF32, which is faster and costs four digits
    /// of every feature.
    pub cuda_tf32: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            intra_threads: 1,
            bf16: false,
            cuda_memory: None,
            cuda_tf32: false,
        }
    }
}

/// The loaded runtime library. One per process; clones share it.
#[derive(Debug, Clone)]
pub struct Runtime {
    environment: Environment,
    /// Cores of the engines of this process.
    pub(super) cores: CoreBudget,
    /// Held while an engine is loaded, so that its memory can be measured.
    pub(super) loading: Arc<Mutex<()>>,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

impl Runtime {
    /// Loads the library at `path`. Later calls return the library of the first.
    pub fn load(path: &Path) -> Result<Self> {
        if let Some(runtime) = RUNTIME.get() {
            return Ok(runtime.clone());
        }
        if !path.is_file() {
            return Err(Error::artifact(format!(
                "ONNX Runtime is not at {}; run `make setup`, or set ORT_DYLIB_PATH to its library",
                path.display()
            )));
        }
        let builder = ort::init_from(path).map_err(|error| {
            let reason = match &error {
                ort::LoadDynamicError::BadVersion { version_str, .. } => format!(
                    "is ONNX Runtime {version_str}, but 1.{} or later is needed",
                    ort::MINOR_VERSION
                ),
                ort::LoadDynamicError::MissingApi { .. } => {
                    "is a library, but not ONNX Runtime".to_owned()
                }
                ort::LoadDynamicError::Dlopen { .. } => {
                    "cannot be loaded as a library of this machine".to_owned()
                }
                _ => "is not a usable ONNX Runtime".to_owned(),
            };
            Error::artifact(format!(
                "{} {reason}; run `make setup`, or set ORT_DYLIB_PATH to another",
                path.display()
            ))
            .with_source(error.to_string())
        })?;
        let environment = builder.with_telemetry(false).build().into_result()?;
        environment.set_log_level(LogLevel::Warning);
        let runtime = RUNTIME.get_or_init(|| Self {
            environment,
            cores: CoreBudget::new(),
            loading: Arc::default(),
        });
        Ok(runtime.clone())
    }

    /// Resolves `device` on this machine, for models of `precision`. `Auto` falls back to the CPU,
    /// with a warning if the machine has an NVIDIA GPU.
    ///
    /// # Errors
    /// [`Kind::Artifact`](crate::error::Kind::Artifact) if the device does not work, or does not
    /// run this precision.
    pub fn providers(&self, device: &Device, precision: Precision) -> Result<Vec<Provider>> {
        let device = device.for_precision(precision);
        device.conversion(precision)?;
        if precision == Precision::Bf16 {
            require_bf16()?;
        }
        let options = SessionOptions::default();
        match &device {
            Device::Cpu => Ok(vec![Provider::Cpu]),
            Device::OpenVino(kind) => {
                self.openvino(*kind, &options)?;
                Ok(vec![Provider::OpenVino(*kind)])
            }
            Device::Cuda(numbers) => numbers
                .iter()
                .map(|&index| self.cuda(index, &options).map(|_| Provider::Cuda(index)))
                .collect(),
            Device::Auto => Ok(match self.cuda(0, &options) {
                Ok(_) => vec![Provider::Cuda(0)],
                Err(error) => {
                    let reason = error.detail();
                    if has_nvidia_gpu() {
                        tracing::warn!(
                            reason,
                            "no CUDA, running on the CPU (--device cpu silences this)"
                        );
                    } else {
                        tracing::debug!(reason, "no CUDA, running on the CPU");
                    }
                    vec![Provider::Cpu]
                }
            }),
        }
    }

    /// Returns the builder of a session on `provider`.
    pub(super) fn session_builder(
        &self,
        provider: Provider,
        options: &SessionOptions,
    ) -> Result<SessionBuilder> {
        match provider {
            Provider::Cpu => {
                // The arena would keep the memory of the largest batch forever. The process's
                // allocator releases it.
                let cpu = ep::CPU::default().with_arena_allocator(false).build();
                self.builder(options.intra_threads)?
                    .with_execution_providers([cpu])
                    .into_result()
            }
            Provider::OpenVino(kind) => self.openvino(kind, options),
            Provider::Cuda(index) => self.cuda(index, options),
        }
    }

    fn builder(&self, intra_threads: usize) -> Result<SessionBuilder> {
        Session::builder(&self.environment)
            .into_result()?
            .with_optimization_level(GraphOptimizationLevel::All)
            .into_result()?
            .with_intra_threads(intra_threads)
            .into_result()?
            // Shapes change from request to request, so a memory plan is never used again.
            .with_memory_pattern(false)
            .into_result()
    }

    /// The session does not fall back to another provider, for all or for a part of the graph.
    fn openvino(&self, kind: OpenVinoDevice, options: &SessionOptions) -> Result<SessionBuilder> {
        if !ep::OpenVINO::is_available().into_result()? {
            return Err(Error::artifact(
                "the loaded ONNX Runtime has no OpenVINO; run `python3 deploy/setup.py --runtime \
                 openvino` and start with --device openvino, without ORT_DYLIB_PATH",
            ));
        }
        let config = serde_json::json!({
            kind.to_string(): match kind {
                OpenVinoDevice::Cpu => serde_json::json!({
                    "INFERENCE_PRECISION_HINT": if options.bf16 { "bf16" } else { "f32" },
                    "INFERENCE_NUM_THREADS": options.intra_threads,
                    // Sessions would all choose the same cores.
                    "ENABLE_CPU_PINNING": false,
                    "CPU_RUNTIME_CACHE_CAPACITY": OPENVINO_SHAPES,
                    "PERFORMANCE_HINT": "LATENCY",
                }),
                OpenVinoDevice::Gpu | OpenVinoDevice::Npu => serde_json::json!({}),
            }
        });
        let provider = ep::OpenVINO::default()
            .with_device_type(kind)
            .with_arbitrary_config("load_config", config.to_string())
            .build()
            .error_on_failure();
        self.builder(options.intra_threads)?
            // OpenVINO does not know what the runtime would fuse.
            .with_optimization_level(GraphOptimizationLevel::Disable)
            .into_result()?
            .with_disable_cpu_fallback()
            .into_result()?
            .with_execution_providers([provider])
            .map_err(|error| unusable(format_args!("OpenVINO's {kind}"), &error))
    }

    fn cuda(&self, index: u16, options: &SessionOptions) -> Result<SessionBuilder> {
        let mut provider = ep::CUDA::default()
            .with_device_id(i32::from(index))
            .with_tf32(options.cuda_tf32)
            // Grids differ from batch to batch, so growth by powers of two would soon reserve twice
            // the memory that is needed.
            .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested);
        if let Some(bytes) = options.cuda_memory {
            provider = provider.with_memory_limit(bytes);
        }
        let provider = provider.build().error_on_failure();
        self.builder(options.intra_threads)?
            .with_execution_providers([provider])
            .map_err(|error| unusable(format_args!("CUDA device {index}"), &error))
    }
}

/// Refuses bf16 where the processor would emulate it, which is slower than anything else.
pub(super) fn require_bf16() -> Result<()> {
    if has_bf16() {
        return Ok(());
    }
    Err(Error::artifact(
        "this processor has no units for bf16 (avx512_bf16); use --precision fp32 or int8",
    ))
}

fn unusable(device: impl Display, error: &impl Display) -> Error {
    let text = error.to_string();
    let reason = text.lines().next().unwrap_or_default();
    Error::artifact(format!("{device} cannot be used: {reason}"))
}

/// Converts the results of ONNX Runtime.
pub(super) trait OrtResult<T> {
    /// Turns an error into a [`Kind::Internal`](crate::error::Kind::Internal) error.
    fn into_result(self) -> Result<T>;
}

impl<T, E: Into<ort::Error>> OrtResult<T> for Result<T, E> {
    fn into_result(self) -> Result<T> {
        self.map_err(Into::into).internal("ONNX Runtime")
    }
}
