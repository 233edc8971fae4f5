//! `dinoserve bench`: measures the stages without HTTP, as a baseline for the server's overhead.

use std::{
    path::PathBuf,
    sync::Barrier,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::flags::{EngineFlags, ImageLimitFlags, ModelFlag};
use crate::{
    engine::{EnginePlan, Input, ModelSession, RequestedOutputs, Sessions},
    error::Result,
    features::pca::{self, Foreground},
    vision::{DecodeOptions, PatchSize, ResampleFilter, ResizeMode, RgbImage, Transform, decode},
};

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Image files to measure with, used in turn
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,

    /// Input sizes of the model, in pixels
    #[arg(long, value_delimiter = ',', default_values_t = [224, 518])]
    sizes: Vec<usize>,

    /// Number of runs of each stage, whose median is printed
    #[arg(long, default_value_t = 15)]
    rounds: usize,

    /// Time for which all workers are kept busy to measure the throughput, in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    model: ModelFlag,

    #[command(flatten)]
    engine: EngineFlags,

    #[command(flatten)]
    limits: ImageLimitFlags,
}

/// The medians of the stages, in milliseconds, and the throughput at one size.
#[derive(Debug, Serialize)]
struct Measurement {
    size: usize,
    decode_ms: f64,
    resize_ms: f64,
    inference_ms: f64,
    /// Decoding, resizing and inference.
    pipeline_ms: f64,
    pca_ms: f64,
    /// Images per second of the model alone while all workers are busy.
    session_rate: f64,
    /// Images per second from the file on while all workers are busy.
    pipeline_rate: f64,
    /// CLS of each image, `[images, dim]`.
    cls: Vec<Vec<f32>>,
}

impl Bench {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let files: Vec<Vec<u8>> = self
            .images
            .iter()
            .map(|path| std::fs::read(path).with_context(|| path.display().to_string()))
            .collect::<anyhow::Result<_>>()?;
        let runtime = self.engine.runtime()?;
        let model = self.engine.model_file(&self.model.model)?;
        let patch = model.spec.architecture.patch;
        let plan = self.engine.config().plan_here(model.precision, &runtime)?;
        let mut sessions = ModelSession::load(&runtime, &model, &plan)?;
        let mut rows = Vec::with_capacity(self.sizes.len());
        for &size in &self.sizes {
            rows.push(self.measure(size, patch, &files, &plan, &mut sessions)?);
        }
        if self.json {
            let report = serde_json::json!({
                "model": model.spec.name,
                "precision": model.precision,
                "plan": plan.to_string(),
                "rows": rows,
            });
            println!("{report}");
            return Ok(());
        }
        println!("{} {} on {plan}", model.spec.name, model.precision);
        println!(
            "{:>6} {:^53} {:^25}",
            "", "ms, medians of one image at a time", "images/s, workers busy"
        );
        println!(
            "{:>6} {:>8} {:>8} {:>10} {:>10} {:>8} {:>12} {:>12}",
            "size", "decode", "resize", "inference", "together", "pca", "model alone", "from file"
        );
        for row in rows {
            println!(
                "{:>6} {:>8.2} {:>8.2} {:>10.2} {:>10.2} {:>8.2} {:>12.2} {:>12.2}",
                row.size,
                row.decode_ms,
                row.resize_ms,
                row.inference_ms,
                row.pipeline_ms,
                row.pca_ms,
                row.session_rate,
                row.pipeline_rate
            );
        }
        Ok(())
    }

    fn measure(
        &self,
        size: usize,
        patch: PatchSize,
        files: &[Vec<u8>],
        plan: &EnginePlan,
        sessions: &mut Sessions,
    ) -> anyhow::Result<Measurement> {
        let limits = self.limits.limits();
        let transform = Transform {
            mode: ResizeMode::Crop,
            size,
            filter: ResampleFilter::Bicubic,
            patch,
            max_patches: limits.max_patches,
            shrinks: false,
        };
        let decode = |file: &[u8]| decode(file, DecodeOptions::default(), limits.decode);
        let resize = |image: &RgbImage| -> Result<Input> {
            let (pixels, grid) = transform.apply(image)?;
            Ok(Input { pixels, grid })
        };
        let prepare = |file: &[u8]| resize(&decode(file)?);
        let file = &files[0];
        let decoded = decode(file)?;
        let input = resize(&decoded)?;
        let session = sessions.single();
        let mut outputs = session.run(&[(&input, RequestedOutputs::PATCH_TOKENS)])?;
        let tokens = outputs.remove(0).patch_tokens.context("patch tokens")?;

        let decode_ms = self.median(|| decode(file).map(drop))?;
        let resize_ms = self.median(|| resize(&decoded).map(drop))?;
        let pca_ms =
            self.median(|| pca::maps(&[tokens.view()], &[], 3, Foreground::None).map(drop))?;
        let outputs = RequestedOutputs::default();
        let mut infer = |input: &Input| session.run(&[(input, outputs)]).map(drop);
        let inference_ms = self.median(|| infer(&input))?;
        let pipeline_ms = self.median(|| infer(&prepare(file)?))?;

        let inputs = files.iter().map(|file| prepare(file));
        let inputs: Vec<Input> = inputs.collect::<Result<_>>()?;
        let mut cls = Vec::with_capacity(inputs.len());
        for input in &inputs {
            let features = session.run(&[(input, outputs)])?;
            cls.extend(features.into_iter().map(|of_image| of_image.cls.to_vec()));
        }
        let session_rate = self.rate(&mut sessions.workers, plan.max_batch, |index| {
            Ok(inputs[index % inputs.len()].clone())
        })?;
        let pipeline_rate = self.rate(&mut sessions.workers, plan.max_batch, |index| {
            prepare(&files[index % files.len()])
        })?;
        Ok(Measurement {
            size,
            decode_ms,
            resize_ms,
            inference_ms,
            pipeline_ms,
            pca_ms,
            session_rate,
            pipeline_rate,
            cls,
        })
    }

    /// Returns the median time of `work`, in milliseconds.
    fn median(&self, mut work: impl FnMut() -> Result<()>) -> anyhow::Result<f64> {
        let mut times = Vec::new();
        for _ in 0..self.rounds.max(1) {
            let started = Instant::now();
            work()?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    /// Returns the images per second when every session, on its own thread, runs batches of
    /// `batch_size` inputs without a pause.
    fn rate(
        &self,
        sessions: &mut [ModelSession],
        batch_size: usize,
        input: impl Fn(usize) -> Result<Input> + Sync,
    ) -> anyhow::Result<f64> {
        let time = Duration::try_from_secs_f64(self.seconds).unwrap_or_default();
        let start = Barrier::new(sessions.len());
        let outputs = RequestedOutputs::default();
        let measure = &|session: &mut ModelSession, offset: usize| -> Result<f64> {
            start.wait();
            let started = Instant::now();
            let mut done = 0;
            while done == 0 || started.elapsed() < time {
                let inputs = (0..batch_size).map(|i| input(offset + done + i));
                let batch: Vec<Input> = inputs.collect::<Result<_>>()?;
                let requests = batch.iter().map(|input| (input, outputs));
                session.run(&requests.collect::<Vec<_>>())?;
                done += batch_size;
            }
            Ok(done as f64 / started.elapsed().as_secs_f64())
        };
        std::thread::scope(|scope| {
            let spawn = |(offset, session)| scope.spawn(move || measure(session, offset));
            let threads: Vec<_> = sessions.iter_mut().enumerate().map(spawn).collect();
            threads
                .into_iter()
                .map(|thread| Ok(thread.join().expect("a worker of the benchmark panicked")?))
                .sum()
        })
    }
}
