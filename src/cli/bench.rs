//! `dinoserve bench`: what the machine can do without HTTP, so that the server's overhead can be seen.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use clap::Args;

use super::common::{EngineFlags, LimitFlags};
use crate::{
    engine::{Input, ModelSession, Wanted, available_cores},
    features::pca::{self, Foreground},
    vision::{DecodeOptions, Filter, ResizeMode, Transform, decode},
};

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Image file to measure with
    image: PathBuf,

    /// Sizes in pixels
    #[arg(long, value_delimiter = ',', default_values_t = [224, 518])]
    sizes: Vec<usize>,

    /// Runs of each; the median is shown
    #[arg(long, default_value_t = 15)]
    rounds: usize,

    #[command(flatten)]
    engine: EngineFlags,

    #[command(flatten)]
    limits: LimitFlags,
}

impl Bench {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let file = std::fs::read(&self.image).with_context(|| self.image.display().to_string())?;
        let runtime = self.engine.runtime()?;
        let model = self.engine.model_file()?;
        let config = self.engine.config();
        let plan = config.plan(&runtime.providers(&config.device)?, available_cores());
        let mut session = ModelSession::load(&runtime, &model, &plan)?.remove(0);
        let limits = self.limits.limits();
        println!("{} on {}, medians of {} runs, ms", model.spec.name, session.provider(), self.rounds);
        println!("{:>6} {:>8} {:>8} {:>10} {:>8}", "size", "decode", "resize", "inference", "pca");
        for &size in &self.sizes {
            let transform =
                Transform { mode: ResizeMode::Crop, size, filter: Filter::Bicubic, max_patches: limits.max_patches };
            let decoded = decode(&file, DecodeOptions::default(), limits.decode)?;
            let (pixels, grid) = transform.apply(&decoded)?;
            let input = Input { pixels, grid };
            let wanted = Wanted { patch_tokens: true, ..Wanted::default() };
            let tokens = session.run(&[(&input, wanted)])?.remove(0).patch_tokens.context("patch tokens")?;

            let decode_ms = self.median(|| decode(&file, DecodeOptions::default(), limits.decode).map(drop))?;
            let resize_ms = self.median(|| transform.apply(&decoded).map(drop))?;
            let inference_ms = self.median(|| session.run(&[(&input, Wanted::default())]).map(drop))?;
            let pca_ms = self.median(|| pca::maps(&[tokens.view()], &[], 3, Foreground::None).map(drop))?;
            println!("{size:>6} {decode_ms:>8.2} {resize_ms:>8.2} {inference_ms:>10.2} {pca_ms:>8.2}");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Median time of `work` in milliseconds.
    fn median(&self, mut work: impl FnMut() -> crate::error::Result<()>) -> anyhow::Result<f64> {
        let mut times = Vec::with_capacity(self.rounds);
        for _ in 0..self.rounds.max(1) {
            let started = Instant::now();
            work()?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }
}
