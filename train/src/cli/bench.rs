//! `dinoserve-train bench`: the time of training steps on random images.

use std::time::Instant;

use anyhow::bail;
use clap::Args;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::flags::{ConfigFlags, DeviceFlag};
use crate::{
    config::Config,
    data::Batch,
    method::{Method, Schedules, Trainer},
    run::{initial_network, initial_state, shards_on},
};

/// Number of labels of the random images.
const CLASSES: usize = 10;

#[derive(Debug, Args)]
pub(super) struct Bench {
    #[command(flatten)]
    config: ConfigFlags,

    /// Number of measured steps, after one warm-up step
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
        let device = self.device.open()?;
        let config = self.config.read(None)?;
        let mut config = Config::parse(&config.to_toml(), &self.config.set)?;
        config.check()?;
        // In most steps of a run, the prototypes are not frozen.
        config.optimizer.freeze_prototypes_epochs = 0.0;
        let network = initial_network(&config, CLASSES, None, &device)?;
        let state = initial_state(network, &config, &device);
        let shards = shards_on(&device, config.run.shards);
        let mut trainer = Trainer::new(
            state,
            config.loss.clone(),
            config.optimizer.clip,
            shards,
            device,
        );
        let batches = vec![random_batch(&config); config.optimizer.accumulate];
        let schedules = Schedules::new(&config.optimizer, &config.loss, 100);
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
            config.optimizer.images_per_step() as f64 / median
        );
        Ok(())
    }
}

fn random_batch(config: &Config) -> Batch {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let crops = &config.crops;
    let images = config.optimizer.batch;
    let mut pixels = |views: usize, side: usize| {
        (0..views * images * 3 * side * side)
            .map(|_| random.random_range(-2.0..2.0))
            .collect::<Vec<f32>>()
    };
    let global = pixels(2, crops.global_size);
    let local = pixels(crops.local_count, crops.local_size);
    let mask = &config.loss.mask;
    let masks = config
        .masks_patches()
        .then(|| mask.draw(2 * images, crops.global_grid(), &mut random));
    let labels = (config.method == Method::Supervised)
        .then(|| (0..images).map(|image| image % CLASSES).collect());
    Batch {
        images,
        global,
        global_side: crops.global_size,
        local,
        local_side: crops.local_size,
        masks,
        labels,
    }
}
