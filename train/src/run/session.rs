//! The training loop of a run, with its measurements and checkpoints.

use std::{
    fs::File,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use anyhow::bail;
use burn::tensor::Device;
use dinoserve::onnx::weights::Weights;

use super::{
    Checkpoint, Collapse, EvaluationSources, KnnMetrics, LabeledSet, RunFiles, RunMetrics,
    StepMetrics, curves, files,
    inputs::RunInputs,
    maps,
    progress::Progress,
    resume::read_resumable,
    shards_on,
    state::{initial_network, initial_state},
};
use crate::{
    config::Config,
    data::{Batch, Loader},
    method::{Schedules, Trainer},
    seed,
};

/// Outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOutcome {
    /// All epochs are done.
    Finished,
    /// The run was stopped after this many steps, and can be resumed.
    Stopped(usize),
}

/// A prepared run.
pub struct Run {
    config: Config,
    files: RunFiles,
    inputs: RunInputs,
    schedules: Schedules,
    trainer: Trainer,
    metrics: RunMetrics,
    device: Device,
    next_step: usize,
    /// Locked while this process runs.
    _lock: File,
}

impl Run {
    /// Prepares a run over the images of `source`, see
    /// [`list_images`](crate::data::list_images). It resumes from the checkpoint in `files` if
    /// there is one; otherwise it starts with `weights`, or random ones.
    ///
    /// # Errors
    /// If there are too few images, the configuration is wrong, the checkpoint is of other images,
    /// another process runs in the folder, or a file cannot be read.
    pub fn prepare(
        source: &str,
        files: RunFiles,
        mut config: Config,
        weights: Option<&Weights>,
        evaluation: &EvaluationSources,
        device: Device,
    ) -> anyhow::Result<Self> {
        config.check()?;
        config.run.shards = shards_on(&device, config.run.shards);
        let inputs = RunInputs::find(source, &files, &config, evaluation)?;
        let classes = inputs.classes.len();
        let network = initial_network(&config, classes, weights, &device)?;
        let lock = files.lock()?;
        let (next_step, state) = if files.checkpoint().exists() {
            let saved = read_resumable(&files, config.method, &inputs.dataset_id)?;
            (saved.checkpoint.step, saved.state(network, &device)?)
        } else {
            (0, initial_state(network, &config, &device))
        };
        files::write(&files.config(), config.to_toml().as_bytes())?;
        let metrics = RunMetrics::resume(&files.metrics(), next_step)?;
        let steps_per_epoch = inputs.dataset_id.steps_per_epoch();
        let schedules = Schedules::new(&config.optimizer, &config.loss, steps_per_epoch);
        let trainer = Trainer::new(
            state,
            config.loss.clone(),
            config.optimizer.clip,
            config.run.shards,
            device.clone(),
        );
        Ok(Self {
            config,
            files,
            inputs,
            schedules,
            trainer,
            metrics,
            device,
            next_step,
            _lock: lock,
        })
    }

    /// Returns the number of steps of an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.inputs.dataset_id.steps_per_epoch()
    }

    /// Returns the number of steps of the whole run.
    pub fn steps(&self) -> usize {
        self.steps_per_epoch() * self.config.optimizer.epochs
    }

    /// Returns the labels that are trained with, sorted; empty if the method does not use them.
    pub fn classes(&self) -> &[String] {
        &self.inputs.classes
    }

    /// Returns the number of steps that are done.
    pub fn steps_done(&self) -> usize {
        self.next_step
    }

    /// Returns the trainer with both networks.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// Returns the metrics so far.
    pub fn metrics(&self) -> &RunMetrics {
        &self.metrics
    }

    /// Trains until the end, or until `stop` is set, which is checked after every step. Either way
    /// it saves a checkpoint.
    ///
    /// # Errors
    /// If no image can be read, a file cannot be written, or the loss or its gradient is not
    /// finite.
    pub fn train(&mut self, threads: usize, stop: &AtomicBool) -> anyhow::Result<RunOutcome> {
        let steps = self.steps();
        let per_epoch = self.steps_per_epoch();
        let accumulate = self.config.optimizer.accumulate;
        let mut progress = Progress::new(self.next_step, steps);
        // Measures before the first step. In a resumed run, repeats a measurement that failed.
        if self.next_step.is_multiple_of(per_epoch) {
            self.evaluate_epoch(self.next_step / per_epoch, &progress)?;
        }
        let dataset = self.inputs.dataset.clone();
        let mut loader = Loader::start(dataset, self.batch_numbers(), threads)?;
        let mut interval_start = Instant::now();
        let mut interval_images = 0;
        let mut collapse = None;

        while self.next_step < steps {
            let step = self.next_step;
            let mut batches: Vec<Batch> = (0..accumulate)
                .map(|_| loader.next_batch())
                .collect::<anyhow::Result<_>>()?;
            self.mask(&mut batches, step);
            let settings = self.schedules.at(step);
            let seed = seed::mix([self.config.run.seed, step as u64, 1]);
            let report = self.trainer.step(&batches, settings, seed);
            self.next_step = step + 1;
            interval_images += batches.iter().map(|batch| batch.images).sum::<usize>();
            if !(report.loss.is_finite() && report.gradient.is_finite()) {
                progress.finish();
                bail!("step {step}: {}", Collapse::NotFinite);
            }
            if step.is_multiple_of(self.config.run.log_steps) {
                let time = interval_start.elapsed().as_secs_f64();
                let line = StepMetrics {
                    step,
                    epoch: step as f64 / per_epoch as f64,
                    report,
                    learning_rate: settings.learning_rate,
                    images_per_second: interval_images as f64 / time,
                    waited: loader.take_wait_time().as_secs_f64() / time,
                };
                progress.show(self.next_step, Some(&line));
                self.metrics.add_step(line)?;
                self.report_collapse(&mut collapse, &progress);
                interval_start = Instant::now();
                interval_images = 0;
            } else {
                progress.show(self.next_step, None);
            }
            for (origin, error) in loader.take_unreadable() {
                progress.println(&format!(
                    "skipped {origin}, replaced by another image: {error}"
                ));
            }
            if self.next_step.is_multiple_of(per_epoch) {
                self.end_epoch(self.next_step / per_epoch, &progress)?;
                interval_start = Instant::now();
                interval_images = 0;
                loader.take_wait_time();
            }
            if stop.load(Ordering::Relaxed) && self.next_step < steps {
                progress.finish();
                self.save()?;
                return Ok(RunOutcome::Stopped(self.next_step));
            }
        }
        progress.finish();
        self.save()?;
        Ok(RunOutcome::Finished)
    }

    /// Returns the numbers of the batches of the remaining steps. An epoch leaves out the batches
    /// after its last whole step.
    fn batch_numbers(&self) -> impl Iterator<Item = usize> + Send + use<> {
        let per_epoch = self.steps_per_epoch();
        let batches_per_epoch = self.inputs.dataset.batches_per_epoch();
        let accumulate = self.config.optimizer.accumulate;
        (self.next_step..self.steps()).flat_map(move |step| {
            let first = step / per_epoch * batches_per_epoch + step % per_epoch * accumulate;
            first..first + accumulate
        })
    }

    /// Reports a collapse once, when it is first detected. `last` is that of the previous call.
    fn report_collapse(&self, last: &mut Option<Collapse>, progress: &Progress) {
        let found = Collapse::detect(&self.metrics.steps, self.config.head.prototypes);
        if let Some(collapse) = found
            && *last != found
        {
            progress.println(&collapse.to_string());
        }
        *last = found;
    }

    /// Draws the masks of a step, if the masked-patch loss is used.
    fn mask(&self, batches: &mut [Batch], step: usize) {
        if !self.config.masks_patches() {
            return;
        }
        let mut random = seed::random([self.config.run.seed, step as u64, 2]);
        let side = self.config.crops.global_grid();
        for batch in batches {
            batch.masks = Some(
                self.config
                    .loss
                    .mask
                    .draw(2 * batch.images, side, &mut random),
            );
        }
    }

    fn end_epoch(&mut self, epoch: usize, progress: &Progress) -> anyhow::Result<()> {
        // Removes the maps of an earlier run in this folder whose checkpoint was deleted.
        let _ = std::fs::remove_file(self.files.maps(epoch));
        let evaluated = self.evaluate_epoch(epoch, progress);
        // A failed measurement must not lose the trained weights.
        if epoch.is_multiple_of(self.config.run.checkpoint_epochs) || evaluated.is_err() {
            self.save()?;
        }
        evaluated
    }

    /// Measures the accuracy and draws the maps that are due after an epoch and do not exist yet.
    fn evaluate_epoch(&mut self, epoch: usize, progress: &Progress) -> anyhow::Result<()> {
        let last = epoch == self.config.optimizer.epochs;
        let measured = self
            .metrics
            .knn
            .last()
            .is_some_and(|line| line.step == self.next_step);
        let knn_due = last || epoch.is_multiple_of(self.config.run.knn_epochs);
        if knn_due && !measured {
            self.measure_knn(progress)?;
        }
        let path = self.files.maps(epoch);
        let maps_due = last || epoch.is_multiple_of(self.config.run.map_epochs);
        if maps_due && epoch > 0 && !path.exists() {
            let backbone = &self.trainer.state().teacher.backbone;
            maps::draw(&path, backbone, &self.inputs.map_images, &self.device)?;
        }
        Ok(())
    }

    /// Measures the k-NN accuracy of the teacher, if there are labeled images.
    fn measure_knn(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let Some(evaluation) = &self.inputs.evaluation else {
            return Ok(());
        };
        let backbone = &self.trainer.state().teacher.backbone;
        let knn = evaluation.accuracy(|set| set.embed(backbone, &self.device))?;
        let mut knn_of_pixels = None;
        let mut pixels = String::new();
        if self.next_step == 0 {
            let accuracy = evaluation.accuracy(LabeledSet::pixels)?;
            knn_of_pixels = Some(accuracy);
            pixels = format!(" (pixels {:.1} %)", 100.0 * accuracy);
        }
        let epoch = self.next_step as f64 / self.steps_per_epoch() as f64;
        progress.println(&format!(
            "epoch {epoch:.0}: {}-NN accuracy {:.1} %{pixels}",
            evaluation.neighbors,
            100.0 * knn
        ));
        self.metrics.add_knn(KnnMetrics {
            step: self.next_step,
            epoch,
            knn,
            knn_of_pixels,
        })
    }

    /// Writes the checkpoint and the curves.
    fn save(&self) -> anyhow::Result<()> {
        let checkpoint = Checkpoint {
            step: self.next_step,
            dataset: self.inputs.dataset_id.clone(),
        };
        checkpoint.save(&self.files.checkpoint(), self.trainer.state())?;
        curves::draw(
            &self.files.curves(),
            &self.metrics,
            self.config.head.prototypes,
        )
    }
}
