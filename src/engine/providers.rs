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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// CUDA where it works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this number, or an error.
    Cuda(u16),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(index)) => Ok(Self::Cuda(index)),
                _ => Err("must be `auto`, `cpu`, `cuda` or `cuda:N`".to_owned()),
            },
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Where the model really runs.
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
    /// [`crate::error::Kind::Artifact`] in one sentence if it is missing, no ONNX Runtime, or too old.
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
                    format!("is ONNX Runtime {version_str}, but 1.{} or later is needed", ort::MINOR_VERSION)
                }
                ort::LoadDynamicError::MissingApi { .. } => "is a library, but not ONNX Runtime".to_owned(),
                ort::LoadDynamicError::Dlopen { .. } => "cannot be loaded as a library of this machine".to_owned(),
                _ => "is no usable ONNX Runtime".to_owned(),
            };
            let advice = "run `make setup`, or set ORT_DYLIB_PATH to another";
            Error::artifact(format!("{} {reason}; {advice}", path.display())).with_source(error.to_string())
        })?;
        let environment = builder.with_telemetry(false).build().map_err(of_runtime)?;
        environment.set_log_level(LogLevel::Warning);
        Ok(RUNTIME.get_or_init(|| Self { environment }).clone())
    }

    /// A session of the model at `path`, and the provider that runs it.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if the model cannot be loaded, or if `device` is a GPU that cannot be used.
    pub(super) fn session(&self, path: &Path, device: Device, intra_threads: usize) -> Result<(Session, Provider)> {
        let (mut builder, provider) = match device {
            Device::Cpu => (self.builder(intra_threads)?, Provider::Cpu),
            Device::Cuda(index) => (self.cuda(index, intra_threads)?, Provider::Cuda(index)),
            Device::Auto => match self.cuda(0, intra_threads) {
                Ok(builder) => (builder, Provider::Cuda(0)),
                Err(error) => {
                    tracing::warn!(reason = error.detail(), "no CUDA, running on the CPU (--device cpu silences this)");
                    (self.builder(intra_threads)?, Provider::Cpu)
                }
            },
        };
        let session = builder
            .commit_from_file(path)
            .map_err(|error| Error::artifact(format!("{} cannot be loaded: {error}", path.display())))?;
        Ok((session, provider))
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

    fn cuda(&self, index: u16, intra_threads: usize) -> Result<SessionBuilder> {
        let provider = ep::CUDA::default()
            .with_device_id(i32::from(index))
            // TF32 would cost four digits of every feature.
            .with_tf32(false)
            .build()
            .error_on_failure();
        self.builder(intra_threads)?.with_execution_providers([provider]).map_err(|error| {
            let text = error.to_string();
            let reason = text.lines().next().unwrap_or_default();
            Error::artifact(format!("CUDA device {index} cannot be used: {reason}"))
        })
    }
}

fn of_builder(error: ort::Error<SessionBuilder>) -> Error {
    of_runtime(error.into())
}

pub(super) fn of_runtime(error: ort::Error) -> Error {
    Error::internal(format!("ONNX Runtime: {error}"))
}
