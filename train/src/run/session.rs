//! The run itself: batch after batch, and what is written on the way.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use anyhow::bail;
use burn::tensor::{Device, Tensor};
use dinoserve::{
    artifacts::{hex, images_of},
    onnx::weights::Weights,
    vision::RgbImage,
};
use ndarray::Array2;
use rand::{SeedableRng, rngs::ChaCha8Rng};
use sha2::{Digest, Sha256};

use super::{
    Checkpoint, Collapse, KnnLine, LabeledSet, Material, Metrics, RunFiles, StepLine,
    evaluate::read_all,
    files, knn_accuracy, pictures,
    progress::{Progress, say},
};
use crate::{
    config::Config,
    data::{Loader, Pictures, mixed},
    method::{AdamW, Batch, Schedules, Trainer, TrainerState},
    model::{Backbone, Network, initialize_from},
};

/// The device of a name: `cpu`, or `cuda` where the program was built for it.
///
/// # Errors
/// If there is no such device, or none is found.
pub fn device_of(name: &str) -> anyhow::Result<Device> {
    match name {
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => cuda(),
        #[cfg(not(feature = "cuda"))]
        "cuda" => {
            bail!("this program was built for the CPU alone; build it with `--features cuda`")
        }
        other => bail!("there is no device {other:?}; it must be `cpu` or `cuda`"),
    }
}

/// The first GPU, tried out: opening the driver's libraries fails with a panic where they are
/// missing.
#[cfg(feature = "cuda")]
fn cuda() -> anyhow::Result<Device> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let tried = std::panic::catch_unwind(|| {
        let device = Device::cuda(0);
        let two: f32 = (Tensor::<1>::ones([1], &device) + 1.0).into_scalar();
        (two == 2.0).then_some(device)
    });
    std::panic::set_hook(hook);
    match tried {
        Ok(Some(device)) => Ok(device),
        _ => bail!(
            "no CUDA device was found: is there an NVIDIA GPU, and its driver with the CUDA libraries? Use `--device cpu`"
        ),
    }
}

/// Labeled images to measure on.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// Whose images are classified.
    pub set: Option<PathBuf>,
    /// By whose images; without one by the others of the set.
    pub gallery: Option<PathBuf>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All epochs are done.
    Finished,
    /// It was asked to stop after this many steps; it goes on from there when it is started again.
    Stopped(usize),
}

/// A run, ready to go.
pub struct Run {
    config: Config,
    files: RunFiles,
    pictures: Pictures,
    material: Material,
    schedules: Schedules,
    trainer: Trainer,
    metrics: Metrics,
    device: Device,
    next: usize,
    sets: Vec<LabeledSet>,
    classes: usize,
    shown: Vec<RgbImage>,
    _lock: File,
}

impl Run {
    /// Prepares a run over the images of `folder`. Goes on from the checkpoint in `files` if there
    /// is one; otherwise begins with `weights`, or random ones.
    ///
    /// # Errors
    /// If there are too few images, the configuration is wrong, the run has learned from others or
    /// goes on in another process, or a file cannot be read; the message says what to do.
    pub fn prepare(
        folder: &Path,
        files: RunFiles,
        mut config: Config,
        weights: Option<&Weights>,
        evaluation: &Evaluation,
        device: Device,
    ) -> anyhow::Result<Self> {
        config.check()?;
        config.run.shards = shards_on(&device, config.run.shards);
        let (mut paths, bad) = images_of(folder)?;
        for (path, error) in bad {
            say(format_args!("skipped {path}: {error}"));
        }
        leave_out(&mut paths, folder, files.root());
        let per_step = config.optimiser.images_per_step();
        if paths.len() < per_step {
            bail!(
                "{} holds {} images, and a step takes {per_step}; lower optimiser.batch or optimiser.accumulate",
                folder.display(),
                paths.len()
            );
        }
        let shown = shown(&paths, &config);
        let pictures = Pictures {
            paths,
            crops: config.crops.clone(),
            batch: config.optimiser.batch,
            seed: config.run.seed,
        };
        let (sets, classes) = labeled(evaluation, config.crops.global_size)?;
        if let Some(set) = sets.last() {
            let among = set.labels.len() - usize::from(sets.len() == 1);
            if among < config.run.knn_neighbours {
                bail!(
                    "run.knn_neighbours is {}, and there are {among} images to vote",
                    config.run.knn_neighbours
                );
            }
        }

        let material = Material {
            images: pictures.paths.len(),
            names: hash_of_names(&pictures.paths, folder),
            images_per_step: per_step,
        };
        let fresh = fresh_network(&config, weights, &device)?;
        let lock = files.lock()?;
        let (next, state) = if files.checkpoint().exists() {
            let (before, state) = Checkpoint::read(&files.checkpoint(), fresh, &device)?;
            if before.material != material {
                let Material {
                    images,
                    images_per_step,
                    ..
                } = before.material;
                let root = files.root().display();
                bail!(
                    "the run in {root} has learned from {images} images, {images_per_step} in a step, and is now given {} and \
                     {per_step}, or others, which moves its epochs: keep them, or begin another run from its export \
                     (`dinoserve-train export {root}`) with another --out, `--config {}` and `--init {}`",
                    material.images,
                    files.config().display(),
                    files.export().join("model.safetensors").display()
                );
            }
            (before.step, state)
        } else {
            (0, first_state(fresh, &config, &device))
        };
        files::write(&files.config(), config.to_toml().as_bytes())?;
        let metrics = Metrics::resume(&files.metrics(), next)?;
        let schedules = Schedules::new(
            &config.optimiser,
            &config.loss,
            pictures.paths.len() / per_step,
        );
        let trainer = Trainer::new(
            state,
            config.loss.clone(),
            config.optimiser.clip,
            config.run.shards,
            device.clone(),
        );
        Ok(Self {
            config,
            files,
            pictures,
            material,
            schedules,
            trainer,
            metrics,
            device,
            next,
            sets,
            classes,
            shown,
            _lock: lock,
        })
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.pictures.paths.len() / self.config.optimiser.images_per_step()
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> usize {
        self.steps_per_epoch() * self.config.optimiser.epochs
    }

    /// Steps that are done.
    pub fn done(&self) -> usize {
        self.next
    }

    /// What is being taught.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// What was measured.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Trains until the end, or until `stop` is set, which is looked at after every step. A
    /// checkpoint is there at either.
    ///
    /// # Errors
    /// If no image can be read, a file cannot be written, or the loss or its gradient is no number
    /// any more.
    pub fn train(&mut self, threads: usize, stop: &AtomicBool) -> anyhow::Result<Ended> {
        let (steps, per_epoch, accumulate) = (
            self.steps(),
            self.steps_per_epoch(),
            self.config.optimiser.accumulate,
        );
        let mut progress = Progress::new(self.next, steps);
        // At the beginning, and what was missed if the run ended with an error of it.
        if self.next.is_multiple_of(per_epoch) {
            self.show_epoch(self.next / per_epoch, &progress)?;
        }
        // Batches that no whole step is left for are skipped at the end of an epoch.
        let pictures = self.pictures.clone();
        let per_epoch_batches = pictures.batches_per_epoch();
        let first_of =
            move |step: usize| step / per_epoch * per_epoch_batches + step % per_epoch * accumulate;
        let numbers = (self.next..steps)
            .flat_map(move |step| (0..accumulate).map(move |part| first_of(step) + part));
        let mut loader = Loader::start(pictures, numbers, threads)?;
        let (mut since, mut images) = (Instant::now(), 0);
        let mut collapsed = None;

        while self.next < steps {
            let step = self.next;
            let mut batches: Vec<Batch> = (0..accumulate)
                .map(|_| loader.next_batch())
                .collect::<anyhow::Result<_>>()?;
            self.hide(&mut batches, step);
            let settings = self.schedules.at(step);
            let seed = mixed([self.config.run.seed, step as u64, 1]);
            let report = self.trainer.step(&batches, settings, seed);
            self.next = step + 1;
            images += batches.iter().map(|batch| batch.images).sum::<usize>();
            if !(report.loss.is_finite() && report.gradient.is_finite()) {
                progress.finish();
                bail!("step {step}: {}", Collapse::NotANumber);
            }
            if step.is_multiple_of(self.config.run.log_steps) {
                let time = since.elapsed().as_secs_f64();
                let epoch = step as f64 / per_epoch as f64;
                let waited = loader.waited().as_secs_f64() / time;
                let line =
                    StepLine::new(step, epoch, report, settings, images as f64 / time, waited);
                progress.show(self.next, Some(&line));
                self.metrics.add_step(line)?;
                let found = Collapse::of(&self.metrics.steps, self.config.head.prototypes);
                if found.is_some() && found != collapsed {
                    progress.say(
                        &found
                            .map(|collapse| collapse.to_string())
                            .unwrap_or_default(),
                    );
                }
                collapsed = found;
                (since, images) = (Instant::now(), 0);
            } else {
                progress.show(self.next, None);
            }
            for (path, error) in loader.newly_unreadable() {
                progress.say(&format!(
                    "skipped {}, for which another stands in: {error}",
                    path.display()
                ));
            }
            if self.next.is_multiple_of(per_epoch) {
                self.end_epoch(self.next / per_epoch, &progress)?;
                (since, images) = (Instant::now(), 0);
                loader.waited();
            }
            if stop.load(Ordering::Relaxed) && self.next < steps {
                progress.finish();
                self.save()?;
                return Ok(Ended::Stopped(self.next));
            }
        }
        progress.finish();
        self.save()?;
        Ok(Ended::Finished)
    }

    /// Chooses the patches that are hidden in a step, if any are to be.
    fn hide(&self, batches: &mut [Batch], step: usize) {
        if self.config.loss.patch_weight == 0.0 {
            return;
        }
        let mut random = ChaCha8Rng::seed_from_u64(mixed([self.config.run.seed, step as u64, 2]));
        let side = self.config.crops.global_size / dinoserve::vision::PATCH;
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
        // Of a run before, whose checkpoint was removed.
        let _ = std::fs::remove_file(self.files.maps(epoch));
        let shown = self.show_epoch(epoch, progress);
        // What was learned is not lost with a file that is not there to measure on.
        if epoch.is_multiple_of(self.config.run.checkpoint_epochs) || shown.is_err() {
            self.save()?;
        }
        shown
    }

    /// Measures and draws what is due after an epoch and not there yet.
    fn show_epoch(&mut self, epoch: usize, progress: &Progress) -> anyhow::Result<()> {
        let run = &self.config.run;
        let last = epoch == self.config.optimiser.epochs;
        let measured = self
            .metrics
            .knn
            .last()
            .is_some_and(|line| line.step == self.next);
        let drawn = epoch == 0 || self.files.maps(epoch).exists();
        let measure = !measured && (last || epoch.is_multiple_of(run.knn_epochs));
        let draw = !drawn && (last || epoch.is_multiple_of(run.picture_epochs));
        if measure {
            self.measure(progress)?;
        }
        if draw {
            let backbone = &self.trainer.state().teacher.backbone;
            pictures::maps(&self.files.maps(epoch), backbone, &self.shown, &self.device)?;
        }
        Ok(())
    }

    /// Measures the teacher on the labeled images, if there are any.
    fn measure(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let Some(set) = self.sets.first() else {
            return Ok(());
        };
        let gallery = self.sets.get(1);
        let k = self.config.run.knn_neighbours;
        let accuracy = |vectors_of: &dyn Fn(&LabeledSet) -> anyhow::Result<Array2<f32>>| -> anyhow::Result<f64> {
            let vectors = vectors_of(set)?;
            let among = gallery.map(vectors_of).transpose()?;
            let among = among.as_ref().zip(gallery).map(|(vectors, set)| (vectors.view(), set.labels.as_slice()));
            knn_accuracy(vectors.view(), &set.labels, among, self.classes, k)
        };
        let backbone = &self.trainer.state().teacher.backbone;
        let knn = accuracy(&|set| set.embed(backbone, &self.device))?;
        let knn_of_pixels = (self.next == 0)
            .then(|| accuracy(&LabeledSet::pixels))
            .transpose()?;
        let epoch = self.next as f64 / self.steps_per_epoch() as f64;
        let pixels = knn_of_pixels.map_or(String::new(), |pixels| {
            format!(" (pixels {:.1} %)", 100.0 * pixels)
        });
        progress.say(&format!(
            "epoch {epoch:.0}: {k}-NN accuracy {:.1} %{pixels}",
            100.0 * knn
        ));
        self.metrics.add_knn(KnnLine {
            step: self.next,
            epoch,
            knn,
            knn_of_pixels,
        })
    }

    fn save(&self) -> anyhow::Result<()> {
        let checkpoint = Checkpoint {
            step: self.next,
            material: self.material.clone(),
        };
        checkpoint.save(&self.files.checkpoint(), self.trainer.state())?;
        pictures::curves(
            &self.files.curves(),
            &self.metrics,
            self.config.head.prototypes,
        )
    }
}

/// The teacher's backbone of a checkpoint.
///
/// # Errors
/// As [`Checkpoint::read`].
pub(crate) fn teacher_of(
    path: &Path,
    config: &Config,
    device: &Device,
) -> anyhow::Result<Backbone> {
    let (_, state) = Checkpoint::read(path, fresh_network(config, None, device)?, device)?;
    Ok(state.teacher.backbone)
}

/// A network with the weights that a run begins with.
pub(crate) fn fresh_network(
    config: &Config,
    weights: Option<&Weights>,
    device: &Device,
) -> anyhow::Result<Network> {
    let spec = config.spec("training")?;
    let mut random = ChaCha8Rng::seed_from_u64(config.run.seed);
    let with_patch_head = config.loss.patch_weight > 0.0;
    let (drop_path, layer_scale) = (config.model.drop_path, config.model.layer_scale);
    let network = Network::new(
        &spec,
        drop_path,
        layer_scale,
        &config.head,
        with_patch_head,
        &mut random,
        device,
    );
    Ok(match weights {
        Some(weights) => {
            weights.check(&spec)?;
            let backbone = initialize_from(network.backbone, weights)?;
            Network {
                backbone,
                ..network
            }
        }
        None => network,
    })
}

/// How many shards a batch is cut into, if it is left open: two for each core, of which one
/// computes while the other waits for a product, and which fit its cache better; but a GPU wants
/// one large batch.
pub(crate) fn shards_on(device: &Device, wanted: usize) -> usize {
    match wanted {
        0 if *device == Device::flex() => {
            2 * std::thread::available_parallelism().map_or(1, usize::from)
        }
        0 => 1,
        wanted => wanted,
    }
}

/// The teacher begins as the student does.
pub(crate) fn first_state(network: Network, config: &Config, device: &Device) -> TrainerState {
    let center = || Tensor::zeros([1, config.head.prototypes], device);
    TrainerState {
        patch_center: network.patch_head.as_ref().map(|_| center()),
        student: network.clone(),
        teacher: network,
        center: center(),
        optimiser: AdamW::default(),
    }
}

/// Takes out the images of a run itself, whose folder may lie in that of its images.
fn leave_out(paths: &mut Vec<PathBuf>, folder: &Path, run: &Path) {
    if let (Ok(whole), Ok(run)) = (folder.canonicalize(), run.canonicalize())
        && let Ok(below) = run.strip_prefix(&whole)
    {
        let run = folder.join(below);
        paths.retain(|path| !path.starts_with(&run));
    }
}

/// A hash of the names of images within their folder, which may be moved.
fn hash_of_names(paths: &[PathBuf], folder: &Path) -> String {
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(
            path.strip_prefix(folder)
                .unwrap_or(path)
                .as_os_str()
                .as_encoded_bytes(),
        );
        hash.update([0]);
    }
    hex(&hash.finalize())
}

/// A few images from all over the folder, as the teacher sees them for maps.
fn shown(paths: &[PathBuf], config: &Config) -> Vec<RgbImage> {
    let count = config.run.pictures.min(paths.len());
    let some: Vec<PathBuf> = (0..count)
        .map(|index| paths[index * paths.len() / count].clone())
        .collect();
    read_all(&some, 2 * config.crops.global_size)
        .into_iter()
        .flatten()
        .collect()
}

fn labeled(evaluation: &Evaluation, size: usize) -> anyhow::Result<(Vec<LabeledSet>, usize)> {
    let Some(set) = &evaluation.set else {
        return Ok((Vec::new(), 0));
    };
    let mut folders = vec![set.as_path()];
    folders.extend(evaluation.gallery.as_deref());
    let mut skipped =
        |path: &Path, error: &str| say(format_args!("skipped {}: {error}", path.display()));
    let (sets, classes) = LabeledSet::find(&folders, size, &mut skipped)?;
    Ok((sets, classes.len()))
}
