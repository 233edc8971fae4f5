//! `dinoserve-train bench`: how long a step takes, on noise.

use std::{path::PathBuf, time::Instant};

use anyhow::bail;
use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser};
use dinoserve::vision::PATCH;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use strum::VariantNames;

use super::{DeviceFlag, run::read};
use crate::{
    config::{Arch, Config},
    method::{Batch, Schedules, Trainer},
    run::{device_of, first_state, fresh_network, shards_on},
};

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Sizes of the backbone
    #[arg(long, value_parser = PossibleValuesParser::new(Arch::VARIANTS).try_map(|name| name.parse::<Arch>()))]
    arch: Option<Arch>,

    /// Configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A key of the configuration, such as `optimiser.batch=32`; may be given several times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,

    /// Steps that are measured, after one that is not
    #[arg(long, default_value_t = 5)]
    steps: usize,

    #[command(flatten)]
    device: DeviceFlag,
}

impl Bench {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if self.steps == 0 {
            bail!("--steps is 0; it must be at least 1");
        }
        let device = device_of(&self.device.device)?;
        let mut config = Config::parse(&read(self.config.as_deref())?, &[])?;
        if let Some(arch) = self.arch {
            config.model.take(arch);
        }
        let mut config = Config::parse(&config.to_toml(), &self.set)?;
        config.check()?;
        // A step as most are.
        config.optimiser.freeze_prototypes_epochs = 0.0;
        let state = first_state(fresh_network(&config, None, &device)?, &config, &device);
        let shards = shards_on(&device, config.run.shards);
        let mut trainer = Trainer::new(
            state,
            config.loss.clone(),
            config.optimiser.clip,
            shards,
            device,
        );
        let batches = vec![noise(&config); config.optimiser.accumulate];
        let schedules = Schedules::new(&config.optimiser, &config.loss, 100);
        let mut times: Vec<f64> = (0..=self.steps)
            .map(|step| {
                let started = Instant::now();
                trainer.step(&batches, schedules.at(step), 0);
                started.elapsed().as_secs_f64()
            })
            .skip(1)
            .collect();
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        println!(
            "{median:.3} s a step (median of {}), {:.1} images/s",
            times.len(),
            config.optimiser.images_per_step() as f64 / median
        );
        Ok(())
    }
}

fn noise(config: &Config) -> Batch {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let crops = &config.crops;
    let images = config.optimiser.batch;
    let mut pixels = |views: usize, side: usize| {
        (0..views * images * 3 * side * side)
            .map(|_| random.random_range(-2.0..2.0))
            .collect::<Vec<f32>>()
    };
    let (global, local) = (
        pixels(2, crops.global_size),
        pixels(crops.local_count, crops.local_size),
    );
    let masks = (config.loss.patch_weight > 0.0).then(|| {
        config
            .loss
            .mask
            .draw(2 * images, crops.global_size / PATCH, &mut random)
    });
    Batch {
        images,
        global,
        global_side: crops.global_size,
        local,
        local_side: crops.local_size,
        masks,
    }
}
