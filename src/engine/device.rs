//! The devices that a user can select, and the execution providers that run on them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    error::{Error, Result},
    onnx::{Conversion, Dialect, Precision},
};

/// The device that the user selects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Device {
    /// GPU 0 if CUDA works on it, else the CPU, by the provider that has the model's precision.
    #[default]
    Auto,
    /// The CPU, by ONNX Runtime's own kernels.
    Cpu,
    /// A device of OpenVINO; an error if it does not work.
    OpenVino(OpenVinoDevice),
    /// The GPUs with these numbers; an error if CUDA does not work.
    Cuda(Vec<u16>),
}

/// A kind of device that OpenVINO drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "UPPERCASE")]
pub enum OpenVinoDevice {
    /// The CPU.
    Cpu,
    /// Intel's GPU.
    Gpu,
    /// Intel's NPU.
    Npu,
}

/// The execution provider of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Provider {
    /// The CPU, by ONNX Runtime's own kernels.
    #[strum(to_string = "cpu")]
    Cpu,
    /// A device of OpenVINO.
    #[strum(to_string = "openvino:{0}")]
    OpenVino(OpenVinoDevice),
    /// The GPU with this number.
    #[strum(to_string = "cuda:{0}")]
    Cuda(u16),
}

impl Device {
    /// Returns the device that runs models of `precision`: `Auto` leaves only one for some.
    #[must_use]
    pub fn for_precision(&self, precision: Precision) -> Self {
        match (self, precision) {
            (Self::Auto, Precision::Bf16) => Self::OpenVino(OpenVinoDevice::Cpu),
            (Self::Auto, Precision::Int8) => Self::Cpu,
            _ => self.clone(),
        }
    }

    /// Returns the conversion of a model of `precision` that runs on this device.
    ///
    /// # Errors
    /// [`Kind::Artifact`](crate::error::Kind::Artifact) if the device does not run that precision.
    pub fn conversion(&self, precision: Precision) -> Result<Conversion> {
        let device = self.for_precision(precision);
        let advice = match (&device, precision) {
            (Self::OpenVino(OpenVinoDevice::Gpu | OpenVinoDevice::Npu), Precision::Bf16) => {
                "OpenVINO runs bf16 models on the CPU alone; use --device openvino"
            }
            (Self::OpenVino(_), Precision::Int8 | Precision::Fp16) => {
                "OpenVINO runs fp32 and bf16 models; for others use --device cpu or cuda"
            }
            (Self::Cpu, Precision::Bf16) => "bf16 models run by OpenVINO; use --device openvino",
            (Self::Cuda(_), Precision::Int8 | Precision::Bf16) => {
                "int8 and bf16 models run on the CPU; on a GPU use --precision fp16"
            }
            (Self::OpenVino(_), _) => {
                let dialect = Dialect::Plain;
                return Ok(Conversion { precision, dialect });
            }
            _ => {
                let dialect = Dialect::Fused;
                return Ok(Conversion { precision, dialect });
            }
        };
        Err(Error::artifact(advice))
    }
}

impl Provider {
    /// Returns the provider that runs graphs of `dialect` on the processor.
    pub fn of_processor(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Plain => Self::OpenVino(OpenVinoDevice::Cpu),
            Dialect::Fused => Self::Cpu,
        }
    }

    /// Returns whether models run on the processor, whose cores they share with everything else.
    pub fn is_processor(self) -> bool {
        matches!(self, Self::Cpu | Self::OpenVino(OpenVinoDevice::Cpu))
    }

    /// Returns the dialect of the graphs that this provider runs.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::OpenVino(_) => Dialect::Plain,
            Self::Cpu | Self::Cuda(_) => Dialect::Fused,
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, detail) = match text.split_once(':') {
            Some((name, detail)) => (name, Some(detail)),
            None => (text, None),
        };
        match (name, detail) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("openvino", None) => Ok(Self::OpenVino(OpenVinoDevice::Cpu)),
            ("openvino", Some(kind)) => kind
                .parse()
                .map(Self::OpenVino)
                .map_err(|_| "must be `openvino:CPU`, `openvino:GPU` or `openvino:NPU`".to_owned()),
            ("cuda", None) => Ok(Self::Cuda(vec![0])),
            ("cuda", Some(list)) => gpus(list).map(Self::Cuda),
            _ => Err(
                "must be `auto`, `cpu`, `openvino`, `openvino:GPU`, `openvino:NPU`, `cuda`, \
                 `cuda:N` or `cuda:N,M,…`"
                    .to_owned(),
            ),
        }
    }
}

/// The displayed text.
impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Reads the numbers of GPUs.
fn gpus(list: &str) -> Result<Vec<u16>, String> {
    let numbers: Option<Vec<u16>> = list.split(',').map(|number| number.parse().ok()).collect();
    let numbers = numbers.ok_or("must be `cuda`, `cuda:N` or `cuda:N,M,…`")?;
    match (1..numbers.len()).find(|&i| numbers[..i].contains(&numbers[i])) {
        Some(i) => Err(format!("names GPU {} twice", numbers[i])),
        None => Ok(numbers),
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::OpenVino(OpenVinoDevice::Cpu) => f.write_str("openvino"),
            Self::OpenVino(kind) => write!(f, "openvino:{kind}"),
            Self::Cuda(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}
