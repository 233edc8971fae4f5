//! The cache folder, the runtime library, the precision and the device.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    ffi::OsString,
    path::PathBuf,
    sync::OnceLock,
};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use strum::VariantNames;

use crate::{
    artifacts::{Home, Hub, ModelStore},
    engine::{
        Device, OpenVinoDevice, Runtime, Setting, Tuned, Tuning, has_nvidia_gpu, prefers_bf16,
    },
    error::{Error, Result},
    onnx::{Conversion, Precision},
};

/// Where files are cached and models are downloaded from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cache folder")]
pub(in crate::cli) struct StoreFlags {
    /// Cache folder for the runtime library and models [default: ~/.cache/dinoserve]
    #[arg(long = "home", env = "DINOSERVE_HOME", value_name = "DIR")]
    home: Option<PathBuf>,

    /// Address of the model hub or of a mirror [default: HF_ENDPOINT, or https://huggingface.co]
    #[arg(long, env = "DINOSERVE_HUB", value_name = "URL")]
    hub: Option<String>,
}

impl StoreFlags {
    pub(in crate::cli) fn store(&self) -> Result<ModelStore> {
        ModelStore::new(self.home()?, Hub::from_environment(self.hub.as_deref()))
    }

    pub(in crate::cli) fn home(&self) -> Result<Home> {
        Home::new(self.home.clone())
    }

    /// Returns the flags that a child process needs for the same folder and hub.
    pub(in crate::cli) fn flags(&self) -> Result<Vec<OsString>> {
        let home = self.home()?;
        let mut flags = vec!["--home".into(), home.root().into()];
        if let Some(hub) = &self.hub {
            flags.extend(["--hub".into(), hub.into()]);
        }
        Ok(flags)
    }
}

/// Where a model runs and in which precision, which decides how it is converted.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model and device")]
pub(in crate::cli) struct TargetFlags {
    /// Library file of ONNX Runtime [default: that of the Python environment that the program is
    /// installed in, else where `make setup` puts it]
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,

    /// Precision of the model: `fp32`, `bf16` for CPUs that are faster in it, by OpenVINO (nearly
    /// the same features), `int8` for other CPUs (half the time, less exact), `fp16` for GPUs;
    /// `auto` is what `dinoserve tune` found fastest, else bf16 where it is faster, else fp32
    #[arg(long, env = "DINOSERVE_PRECISION", default_value = "fp32")]
    #[arg(value_parser = precision())]
    precision: PrecisionChoice,

    /// Device that computes: `auto` (CUDA if it works, else the CPU, as `dinoserve tune` found it
    /// fastest), `cpu`, `openvino` (the CPU, by OpenVINO), `openvino:GPU`, `openvino:NPU`, `cuda`,
    /// or `cuda:N,M` for these GPUs
    #[arg(long, env = "DINOSERVE_DEVICE", default_value_t = Device::Auto)]
    device: Device,

    /// What was measured for these flags, read once.
    #[arg(skip)]
    tuned: OnceLock<Option<Tuned>>,

    #[command(flatten)]
    store: StoreFlags,
}

/// A precision, or the choice of one by a look at the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PrecisionChoice {
    Auto,
    Given(Precision),
}

/// Parses a precision or `auto`.
fn precision() -> impl TypedValueParser<Value = PrecisionChoice> {
    let names = ["auto"].iter().chain(Precision::VARIANTS).copied();
    PossibleValuesParser::new(names).map(|name| {
        name.parse()
            .map_or(PrecisionChoice::Auto, PrecisionChoice::Given)
    })
}

impl TargetFlags {
    pub(in crate::cli) fn store(&self) -> Result<ModelStore> {
        self.store.store()
    }

    /// Returns the device; `auto` is resolved if `dinoserve tune` was run on this machine.
    pub(in crate::cli) fn device(&self) -> Device {
        let tuned = self.tuned().map(|setting| setting.device.clone());
        tuned.unwrap_or_else(|| self.device.clone())
    }

    /// Returns the precision; `auto` is resolved by what was measured, or by a look at the machine.
    pub(in crate::cli) fn precision(&self) -> Result<Precision> {
        Ok(match (self.precision, self.tuned()) {
            (PrecisionChoice::Given(precision), _) => precision,
            (PrecisionChoice::Auto, Some(setting)) => setting.precision,
            (PrecisionChoice::Auto, None) if self.reason_against_bf16()?.is_none() => {
                Precision::Bf16
            }
            (PrecisionChoice::Auto, None) => Precision::Fp32,
        })
    }

    /// Returns the fastest setting for these flags, if `dinoserve tune` was run on this machine.
    pub(in crate::cli) fn tuned(&self) -> Option<&Setting> {
        let tuned = self.tuned.get_or_init(|| {
            self.read_tuned().unwrap_or_else(|error| {
                tracing::warn!(%error, "what `dinoserve tune` measured cannot be used");
                None
            })
        });
        tuned.as_ref().map(|tuned| &tuned.setting)
    }

    /// Tuning is about the processor and about the libraries of `make setup`.
    fn read_tuned(&self) -> Result<Option<Tuned>> {
        if self.device != Device::Auto || self.given_library().is_some() || has_nvidia_gpu() {
            return Ok(None);
        }
        let home = self.store.home()?;
        let precision = match self.precision {
            PrecisionChoice::Given(precision) => Some(precision),
            PrecisionChoice::Auto => None,
        };
        let tuning = Tuning::read(&home.tuning())?;
        let tuned = tuning.and_then(|tuning| tuning.best(precision).cloned());
        Ok(tuned.filter(|tuned| {
            let needs_openvino = matches!(tuned.setting.device, Device::OpenVino(_));
            !needs_openvino || home.openvino_library().exists()
        }))
    }

    /// Returns how a model is converted for this precision and device.
    pub(in crate::cli) fn conversion(&self) -> Result<Conversion> {
        self.device().conversion(self.precision()?)
    }

    /// Loads the runtime library.
    pub(in crate::cli) fn runtime(&self) -> Result<Runtime> {
        let library = self.library()?;
        let home = self.store.home()?;
        if library.exists() || self.given_library().is_some() {
            return Runtime::load(&library);
        }
        let (name, package, setup) = if library == home.openvino_library() {
            let setup = "python3 deploy/setup.py --runtime openvino";
            ("OpenVINO", "onnxruntime-openvino", setup)
        } else {
            ("ONNX Runtime", "onnxruntime", "make setup")
        };
        let advice = match home.packages() {
            Some(_) => format!("pip install {package}"),
            None => setup.to_owned(),
        };
        Err(Error::artifact(format!(
            "{name} is not at {}; run `{advice}`, or set ORT_DYLIB_PATH to its library",
            library.display()
        )))
    }

    /// Returns the path where the runtime library is expected.
    pub(in crate::cli) fn library(&self) -> Result<PathBuf> {
        if let Some(path) = self.given_library() {
            return Ok(path);
        }
        let home = self.store.home()?;
        let device = self.device().for_precision(self.precision()?);
        let plain = home.runtime_library();
        let openvino = home.openvino_library();
        // The library with OpenVINO has all other things, too.
        let only_openvino = !plain.exists() && openvino.exists();
        let needs_openvino = matches!(device, Device::OpenVino(_));
        Ok(if needs_openvino || only_openvino {
            openvino
        } else {
            plain
        })
    }

    /// Logs what `--precision auto` and `--device auto` chose, and why.
    pub(in crate::cli) fn report(&self) -> Result<()> {
        if let Some(tuned) = self.tuned.get().and_then(Option::as_ref) {
            let Tuned {
                setting,
                lone_ms,
                rate,
                ..
            } = tuned;
            tracing::info!(%setting, lone_ms, rate, "the fastest that `dinoserve tune` measured");
        } else if self.precision == PrecisionChoice::Auto {
            let precision = self.precision()?;
            let reason = self.reason_against_bf16()?;
            let reason = reason.unwrap_or("the processor is faster in bf16");
            tracing::info!(%precision, reason, "chosen by --precision auto");
        }
        Ok(())
    }

    /// Returns why `auto` does not choose bf16 here, if it does not.
    fn reason_against_bf16(&self) -> Result<Option<&'static str>> {
        let on_processor = matches!(
            self.device,
            Device::Auto | Device::OpenVino(OpenVinoDevice::Cpu)
        );
        let library = match self.given_library() {
            Some(path) => path,
            None => self.store.home()?.openvino_library(),
        };
        let provider = format!("{DLL_PREFIX}onnxruntime_providers_openvino{DLL_SUFFIX}");
        Ok(if !on_processor {
            Some("bf16 is for --device auto or openvino")
        } else if !prefers_bf16() {
            Some("the processor is not faster in bf16")
        } else if !library.with_file_name(provider).exists() {
            Some("OpenVINO is not installed (`python3 deploy/setup.py --runtime openvino`)")
        } else {
            None
        })
    }

    fn given_library(&self) -> Option<PathBuf> {
        let given = self.onnxruntime.clone();
        given.filter(|path| !path.as_os_str().is_empty())
    }
}
