//! `dinoserve tune`: measures the ways to run a model on this machine, and keeps the fastest.
//!
//! Each way is measured by `dinoserve bench` in a process of its own, because a process has one
//! runtime library.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;

use super::{
    flags::{StoreFlags, first_name},
    output::print_json,
};
use crate::{
    engine::{
        Device, OpenVinoDevice, Setting, Tuned, Tuning, available_cores, has_bf16, has_nvidia_gpu,
    },
    error::Error,
    http::samples,
    onnx::Precision,
};

/// Measures which precision, provider and sessions are fastest on this processor, which takes some
/// minutes, and keeps the result in the cache folder. From then on `--precision auto` and `--device
/// auto` follow it. Run it on an idle machine.
#[derive(Debug, Args)]
pub(super) struct Tune {
    /// Image files to measure with [default: the samples of the web page]
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,

    /// Name of the model, the first of a list; the choice is for all models
    #[arg(long, env = "DINOSERVE_MODEL", value_name = "NAME")]
    #[arg(default_value = "dinov2-small", value_parser = first_name)]
    model: String,

    /// Never use the network
    #[arg(long, env = "DINOSERVE_OFFLINE")]
    offline: bool,

    /// Size of the model's input, in pixels
    #[arg(long, default_value_t = 224)]
    size: usize,

    /// Least cosine similarity of CLS to fp32 that `--precision auto` may choose; 0.998 allows int8
    #[arg(long, default_value_t = 0.9999)]
    min_cosine: f64,

    /// Number of times that everything is measured, in turns; the medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Time for which all workers are kept busy for each measurement, in seconds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    store: StoreFlags,
}

/// What is read of the output of `dinoserve bench --json`.
#[derive(Deserialize)]
struct Report {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    inference_ms: f64,
    session_rate: f64,
    cls: Vec<Vec<f64>>,
}

impl Tune {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty()) {
            bail!("ORT_DYLIB_PATH sets one library for everything; unset it to compare providers");
        }
        if has_nvidia_gpu() {
            bail!("this machine has an NVIDIA GPU, which --device auto uses; tuning is for CPUs");
        }
        let home = self.store.home()?;
        let folder = tempfile::tempdir().context("a folder for the sample images")?;
        let images = match self.images.is_empty() {
            true => write_samples(folder.path())?,
            false => self.images.clone(),
        };
        let settings = settings(home.openvino_library().exists());
        let mut rows: BTreeMap<usize, Vec<Row>> = BTreeMap::new();
        for round in 1..=self.rounds.max(1) {
            for (index, setting) in settings.iter().enumerate() {
                // A setting that failed is not tried again.
                if round > 1 && !rows.contains_key(&index) {
                    continue;
                }
                tracing::info!(round, %setting, "measuring");
                match self.measure(setting, &images) {
                    Ok(row) => rows.entry(index).or_default().push(row),
                    // All others are compared with the first.
                    Err(error) if index == 0 => return Err(error),
                    Err(error) => tracing::warn!(%setting, "{error:#}"),
                }
            }
        }
        let reference = rows[&0][0].cls.clone();
        let tuned = rows.into_iter().map(|(index, rows)| Tuned {
            setting: settings[index].clone(),
            lone_ms: median(rows.iter().map(|row| row.inference_ms)),
            rate: median(rows.iter().map(|row| row.session_rate)),
            cosine: lowest_cosine(&reference, &rows[0].cls),
        });
        let tuning = Tuning::new(
            self.model.clone(),
            self.size,
            self.min_cosine,
            tuned.collect(),
        );
        tuning.write(&home.tuning())?;
        if self.json {
            return print_json(&tuning);
        }
        print(&tuning);
        println!("\nkept in {}", home.tuning().display());
        Ok(())
    }

    fn measure(&self, setting: &Setting, images: &[PathBuf]) -> anyhow::Result<Row> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["bench", "--json", "--log", "error", "--model", &self.model])
            .args(["--sizes", &self.size.to_string(), "--rounds", "9"])
            .args(["--seconds", &self.seconds.to_string()])
            .args(setting.flags())
            .args(self.store.flags()?);
        if self.offline {
            command.arg("--offline");
        }
        let output = command.args(images).output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let reason = errors.trim().trim_start_matches("error: ").to_owned();
            return Err(Error::artifact(reason).into());
        }
        let report: Report = serde_json::from_slice(&output.stdout)?;
        report.rows.into_iter().next().context("no measurement")
    }
}

/// Returns the settings to compare; the first is the reference.
fn settings(has_openvino: bool) -> Vec<Setting> {
    let default = |precision, device| Setting {
        precision,
        device,
        workers: None,
        intra_threads: None,
        solo_threads: None,
        max_batch: None,
    };
    let single = |setting: Setting| Setting {
        workers: Some(1),
        solo_threads: Some(0),
        ..setting
    };
    let openvino = Device::OpenVino(OpenVinoDevice::Cpu);
    let mut settings = vec![default(Precision::Fp32, Device::Cpu)];
    if has_openvino {
        settings.push(default(Precision::Fp32, openvino.clone()));
    }
    if has_openvino && has_bf16() {
        settings.push(default(Precision::Bf16, openvino.clone()));
        let batches = Setting {
            max_batch: Some(8),
            ..single(default(Precision::Bf16, openvino))
        };
        settings.push(batches);
    }
    settings.push(default(Precision::Int8, Device::Cpu));
    if available_cores() > 1 {
        settings.push(single(default(Precision::Fp32, Device::Cpu)));
    }
    settings
}

/// Writes the samples of the web page into a folder.
fn write_samples(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (name, file) in samples() {
        let path = folder.join(&*name);
        std::fs::write(&path, file).with_context(|| path.display().to_string())?;
        paths.push(path);
    }
    Ok(paths)
}

fn print(tuning: &Tuning) {
    println!("{}, {} at {}", tuning.processor, tuning.model, tuning.size);
    println!(
        "{:>14} {:>12} {:>12}  SETTING",
        "ONE IMAGE, MS", "IMAGES/S", "CLS COSINE"
    );
    let chosen = tuning.best(None).map(|tuned| &tuned.setting);
    for tuned in &tuning.settings {
        let is_chosen = chosen == Some(&tuned.setting);
        let mark = if is_chosen { ", chosen by auto" } else { "" };
        println!(
            "{:>14.2} {:>12.2} {:>12.5}  {}{mark}",
            tuned.lone_ms, tuned.rate, tuned.cosine, tuned.setting
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn lowest_cosine(reference: &[Vec<f64>], found: &[Vec<f64>]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let pairs = reference.iter().zip(found);
    let cosines = pairs.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
    cosines.fold(1.0, f64::min)
}
