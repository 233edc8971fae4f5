//! What `dinoserve tune` measured: the ways to run models on this machine, and how fast they are.

use std::{fmt, io::Write, path::Path};

use serde::{Deserialize, Serialize};

use super::{Device, hardware::processor};
use crate::{
    artifacts::write_atomically,
    error::{Error, Result},
    onnx::Precision,
};

/// A way to run models on the processor. Numbers that are `None` are the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Precision of the model.
    pub precision: Precision,
    /// Device.
    pub device: Device,
    /// As in [`EngineConfig`](super::EngineConfig).
    pub workers: Option<usize>,
    /// As in [`EngineConfig`](super::EngineConfig).
    pub intra_threads: Option<usize>,
    /// As in [`EngineConfig`](super::EngineConfig).
    pub solo_threads: Option<usize>,
    /// As in [`EngineConfig`](super::EngineConfig).
    pub max_batch: Option<usize>,
}

/// A setting, and what it reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// The setting.
    pub setting: Setting,
    /// Time of an image that is alone, in milliseconds.
    pub lone_ms: f64,
    /// Images per second while all workers are busy.
    pub rate: f64,
    /// Lowest cosine similarity of CLS to fp32.
    pub cosine: f64,
}

/// The settings that were measured on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// Processor that they were measured on.
    pub processor: String,
    /// Name of the model.
    pub model: String,
    /// Size of the model's input, in pixels.
    pub size: usize,
    /// Least cosine similarity of a precision that `auto` may choose.
    pub min_cosine: f64,
    /// The settings, the fastest first.
    pub settings: Vec<Tuned>,
}

impl Tuning {
    /// Keeps what was measured on this machine.
    pub fn new(model: String, size: usize, min_cosine: f64, mut settings: Vec<Tuned>) -> Self {
        settings.sort_by(|a, b| b.speed().total_cmp(&a.speed()));
        Self {
            processor: processor(),
            model,
            size,
            min_cosine,
            settings,
        }
    }

    /// Reads what was measured on this machine; `None` if nothing was.
    ///
    /// # Errors
    /// [`Kind::Artifact`](crate::error::Kind::Artifact) if the file cannot be used.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::reading(path, error)),
        };
        let tuning: Self = serde_json::from_slice(&text).map_err(|error| {
            let path = path.display();
            Error::artifact(format!(
                "{path} is damaged ({error}); run `dinoserve tune` again, or remove it"
            ))
        })?;
        Ok((tuning.processor == processor()).then_some(tuning))
    }

    /// Writes the file that [`Self::read`] reads.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, |file| {
            let text = serde_json::to_vec_pretty(self).expect("numbers and text");
            file.write_all(&text)
                .map_err(|error| Error::writing(path, error))
        })
    }

    /// Returns the fastest setting of a precision, or of all that are exact enough.
    pub fn best(&self, precision: Option<Precision>) -> Option<&Tuned> {
        self.settings.iter().find(|tuned| match precision {
            Some(precision) => tuned.setting.precision == precision,
            None => tuned.cosine >= self.min_cosine,
        })
    }
}

impl Tuned {
    /// Returns the speed for one client and for many, as one number.
    fn speed(&self) -> f64 {
        self.rate / self.lone_ms
    }
}

/// Precision, device and the numbers that are not the defaults.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.precision, self.device)?;
        for (flag, value) in self.numbers() {
            write!(f, " {flag} {value}")?;
        }
        Ok(())
    }
}

impl Setting {
    /// Returns the flags of `dinoserve` that ask for this setting.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            "--precision".to_owned(),
            self.precision.to_string(),
            "--device".to_owned(),
            self.device.to_string(),
        ];
        for (flag, value) in self.numbers() {
            flags.extend([flag.to_owned(), value.to_string()]);
        }
        flags
    }

    fn numbers(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let numbers = [
            ("--workers", self.workers),
            ("--intra-threads", self.intra_threads),
            ("--solo-threads", self.solo_threads),
            ("--max-batch", self.max_batch),
        ];
        let given = |(flag, value): (_, Option<usize>)| value.map(|value| (flag, value));
        numbers.into_iter().filter_map(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuned(precision: Precision, lone_ms: f64, rate: f64, cosine: f64) -> Tuned {
        let setting = Setting {
            precision,
            device: Device::Cpu,
            workers: Some(1),
            intra_threads: None,
            solo_threads: Some(0),
            max_batch: None,
        };
        Tuned {
            setting,
            lone_ms,
            rate,
            cosine,
        }
    }

    #[test]
    fn the_best_setting_is_the_fastest_that_is_exact_enough() {
        let settings = vec![
            tuned(Precision::Fp32, 80.0, 12.0, 1.0),
            tuned(Precision::Bf16, 40.0, 30.0, 0.99995),
            tuned(Precision::Int8, 20.0, 40.0, 0.998),
            tuned(Precision::Fp32, 70.0, 13.0, 1.0),
        ];
        let tuning = Tuning::new("m".to_owned(), 224, 0.9999, settings);
        let best = |precision| tuning.best(precision).map(|tuned| tuned.lone_ms);
        assert_eq!(best(None), Some(40.0));
        assert_eq!(best(Some(Precision::Fp32)), Some(70.0));
        assert_eq!(best(Some(Precision::Int8)), Some(20.0));
        assert_eq!(best(Some(Precision::Fp16)), None);
        let setting = &tuning.settings[0].setting;
        assert_eq!(
            setting.to_string(),
            "int8 by cpu --workers 1 --solo-threads 0"
        );
        let flags = "--precision int8 --device cpu --workers 1 --solo-threads 0";
        assert_eq!(setting.flags().join(" "), flags);
    }

    #[test]
    fn a_tuning_is_read_on_its_machine_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tuning.json");
        assert_eq!(Tuning::read(&path).expect("no file"), None);
        let settings = vec![tuned(Precision::Fp32, 80.0, 12.0, 1.0)];
        let tuning = Tuning::new("m".to_owned(), 224, 0.9999, settings);
        tuning.write(&path).expect("written");
        assert_eq!(Tuning::read(&path).expect("read"), Some(tuning.clone()));
        let elsewhere = Tuning {
            processor: "another".to_owned(),
            ..tuning
        };
        elsewhere.write(&path).expect("written");
        assert_eq!(Tuning::read(&path).expect("read"), None);
        std::fs::write(&path, "{").expect("written");
        let error = Tuning::read(&path).expect_err("damaged");
        assert!(error.detail().contains("dinoserve tune"), "{error}");
    }
}
