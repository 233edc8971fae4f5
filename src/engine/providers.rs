//! ONNX Runtime's library and execution providers.

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

use crate::error::{Error, Result, ResultExt};

/// The device that the user selects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Device {
    /// GPU 0 if CUDA works on it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPUs with these numbers; an error if CUDA does not work.
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
                    .and_then(|list| list.split(',').map(|number| number.parse().ok()).collect());
                let Some::<Vec<u16>>(numbers) = numbers else {
                    return Err(
                        "must be `auto`, `cpu`, `cuda`, `cuda:N` or `cuda:N,M,…`".to_owned()
                    );
                };
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

/// The execution provider of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Provider {
    /// The CPU.
    #[strum(to_string = "cpu")]
    Cpu,
    /// The GPU with this number.
    #[strum(to_string = "cuda:{0}")]
    Cuda(u16),
}

/// Options of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// Number of threads within one operator.
    pub intra_threads: usize,
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
            cuda_memory: None,
            cuda_tf32: false,
        }
    }
}

/// The loaded runtime library. One per process; clones share it.
#[derive(Debug, Clone)]
pub struct Runtime(Environment);

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
        Ok(RUNTIME.get_or_init(|| Self(environment)).clone())
    }

    /// Resolves `device` on this machine. `Auto` falls back to the CPU, with a warning if the
    /// machine has an NVIDIA GPU.
    pub fn providers(&self, device: &Device) -> Result<Vec<Provider>> {
        let options = SessionOptions::default();
        match device {
            Device::Cpu => Ok(vec![Provider::Cpu]),
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
            Provider::Cuda(index) => self.cuda(index, options),
        }
    }

    fn builder(&self, intra_threads: usize) -> Result<SessionBuilder> {
        Session::builder(&self.0)
            .into_result()?
            .with_optimization_level(GraphOptimizationLevel::All)
            .into_result()?
            .with_intra_threads(intra_threads)
            .into_result()?
            // Shapes change from request to request, so a memory plan is never used again.
            .with_memory_pattern(false)
            .into_result()
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
            .map_err(|error| {
                let text = error.to_string();
                let reason = text.lines().next().unwrap_or_default();
                Error::artifact(format!("CUDA device {index} cannot be used: {reason}"))
            })
    }
}

/// Returns whether the machine shows a driver for NVIDIA GPUs, also inside of WSL.
fn has_nvidia_gpu() -> bool {
    ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"]
        .iter()
        .any(|device| Path::new(device).exists())
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
