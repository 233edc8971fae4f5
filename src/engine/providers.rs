//! ONNX Runtime's library, and the devices it computes on.

use std::{fmt, path::Path, str::FromStr, sync::OnceLock};

use ort::{
    environment::Environment,
    ep,
    logging::LogLevel,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
};

use crate::error::{Error, Result};

/// Where a user wants the model to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Device {
    /// The first GPU that CUDA works on, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPUs with these numbers, or an error.
    Cuda(Vec<u16>),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(vec![0])),
            _ => {
                let numbers = text
                    .strip_prefix("cuda:")
                    .map(|list| list.split(',').map(str::parse).collect());
                let Some(Ok(numbers)) = numbers else {
                    return Err(
                        "must be `auto`, `cpu`, `cuda`, `cuda:N` or `cuda:N,M,…`".to_owned()
                    );
                };
                let numbers: Vec<u16> = numbers;
                match (1..numbers.len()).find(|&i| numbers[..i].contains(&numbers[i])) {
                    Some(i) => Err(format!("names GPU {} twice", numbers[i])),
                    None => Ok(Self::Cuda(numbers)),
                }
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

/// Where a session really runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// ONNX Runtime's CPU kernels.
    Cpu,
    /// The GPU with this number.
    Cuda(u16),
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// How a session uses its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads within one operator.
    pub intra_threads: usize,
    /// Most bytes of a GPU's memory that its arena takes; `None` for all there is.
    pub cuda_memory: Option<usize>,
    /// Let a GPU round the factors of products to TF32: faster, and four digits less of every
    /// feature.
    pub cuda_tf32: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            intra_threads: 1,
            cuda_memory: None,
            cuda_tf32: false,
        }
    }
}

/// The loaded runtime library. One per process; clones share it.
#[derive(Debug, Clone)]
pub struct Runtime {
    environment: Environment,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

impl Runtime {
    /// Loads the library at `path`. A second call gives what the first loaded.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] in one sentence if it is missing, no ONNX Runtime, or too
    /// old.
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
                ort::LoadDynamicError::BadVersion { version_str, .. } => {
                    format!(
                        "is ONNX Runtime {version_str}, but 1.{} or later is needed",
                        ort::MINOR_VERSION
                    )
                }
                ort::LoadDynamicError::MissingApi { .. } => {
                    "is a library, but not ONNX Runtime".to_owned()
                }
                ort::LoadDynamicError::Dlopen { .. } => {
                    "cannot be loaded as a library of this machine".to_owned()
                }
                _ => "is no usable ONNX Runtime".to_owned(),
            };
            let advice = "run `make setup`, or set ORT_DYLIB_PATH to another";
            Error::artifact(format!("{} {reason}; {advice}", path.display()))
                .with_source(error.to_string())
        })?;
        let environment = builder.with_telemetry(false).build().map_err(of_runtime)?;
        environment.set_log_level(LogLevel::Warning);
        Ok(RUNTIME.get_or_init(|| Self { environment }).clone())
    }

    /// The GPUs or the CPU that `device` stands for on this machine. `Auto` falls back to the CPU
    /// with one warning.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if `device` names a GPU that cannot be used.
    pub fn providers(&self, device: &Device) -> Result<Vec<Provider>> {
        let options = SessionOptions::default();
        match device {
            Device::Cpu => Ok(vec![Provider::Cpu]),
            Device::Cuda(numbers) => {
                let usable =
                    |&index: &u16| self.cuda(index, &options).map(|_| Provider::Cuda(index));
                numbers.iter().map(usable).collect()
            }
            Device::Auto => Ok(match self.cuda(0, &options) {
                Ok(_) => vec![Provider::Cuda(0)],
                Err(error) => {
                    tracing::warn!(
                        reason = error.detail(),
                        "no CUDA, running on the CPU (--device cpu silences this)"
                    );
                    vec![Provider::Cpu]
                }
            }),
        }
    }

    /// What a session on `provider` is built with.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if it is a GPU that cannot be used.
    pub(super) fn session_builder(
        &self,
        provider: Provider,
        options: &SessionOptions,
    ) -> Result<SessionBuilder> {
        match provider {
            Provider::Cpu => {
                // Its arena would keep the memory of the largest batch there ever was. The
                // process's allocator gives back.
                let cpu = ep::CPU::default().with_arena_allocator(false).build();
                self.builder(options.intra_threads)?
                    .with_execution_providers([cpu])
                    .map_err(of_builder)
            }
            Provider::Cuda(index) => self.cuda(index, options),
        }
    }

    fn builder(&self, intra_threads: usize) -> Result<SessionBuilder> {
        Session::builder(&self.environment)
            .map_err(of_runtime)?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(of_builder)?
            .with_intra_threads(intra_threads)
            .map_err(of_builder)?
            // Shapes change from request to request; a plan for one is of no use to the next.
            .with_memory_pattern(false)
            .map_err(of_builder)
    }

    fn cuda(&self, index: u16, options: &SessionOptions) -> Result<SessionBuilder> {
        let mut provider = ep::CUDA::default()
            .with_device_id(i32::from(index))
            .with_tf32(options.cuda_tf32)
            // Grids differ from batch to batch; growing by powers of two would soon hold twice what
            // is needed.
            .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested);
        if let Some(bytes) = options.cuda_memory {
            provider = provider.with_memory_limit(bytes);
        }
        let provider = provider.build().error_on_failure();
        self.builder(options.intra_threads)?
            .with_execution_providers([provider])
            .map_err(|error| {
                let text = error.to_string();
                let reason = text.lines().next().unwrap_or_default();
                Error::artifact(format!("CUDA device {index} cannot be used: {reason}"))
            })
    }
}

pub(super) fn of_builder(error: ort::Error<SessionBuilder>) -> Error {
    of_runtime(error.into())
}

pub(super) fn of_runtime(error: ort::Error) -> Error {
    Error::internal(format!("ONNX Runtime: {error}"))
}
