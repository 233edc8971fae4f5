//! One training step: the student learns from the teacher's targets, and the teacher follows.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use super::{
    AdamW, Centering, LossConfig, StepReport, StepSettings,
    loss::{
        cross_view_loss, entropy, koleo, masked_patch_loss, sharpen, sinkhorn_knopp, spread,
        update_center,
    },
    optimizer::{add_gradients, clip_gradients, update_teacher},
};
use crate::{
    data::Batch,
    model::{DropPath, FlatTensors, Network, Tokens, gradients_of},
    seed,
};

/// Smallest shard for KoLeo, in images. KoLeo uses the nearest neighbor within a shard, and among
/// fewer images none is near.
const KOLEO_MIN_IMAGES: usize = 16;

/// The state that a run is resumed from.
#[derive(Debug)]
pub struct TrainerState {
    /// Network that learns by gradient descent.
    pub student: Network,
    /// Network that follows the student.
    pub teacher: Network,
    /// Running mean of the teacher's logits, `[1, prototypes]`.
    pub center: Tensor<2>,
    /// Running mean of the logits of the teacher's patch head, `[1, prototypes]`.
    pub patch_center: Option<Tensor<2>>,
    /// Optimizer with its moments of the student's gradients.
    pub optimizer: AdamW,
}

/// Trains the networks.
#[derive(Debug)]
pub struct Trainer {
    state: TrainerState,
    config: LossConfig,
    max_gradient: f64,
    shards: usize,
    device: Device,
}

/// The teacher's output for a shard. Rows are its global crops, first views before second ones.
struct TeacherOutput {
    /// `[2·images, dim]`.
    cls: Tensor<2>,
    /// `[2·images, prototypes]`.
    logits: Tensor<2>,
    /// Logits of the masked patches, `[masked, prototypes]`.
    patch_logits: Option<Tensor<2>>,
}

/// The targets of the student for a shard.
struct TeacherTargets {
    views: Tensor<2>,
    patches: Option<Tensor<2>>,
}

/// The student's gradients on a shard, and the shard's part of the batch's losses.
struct ShardGradients {
    gradients: FlatTensors,
    losses: StepReport,
}

impl Trainer {
    /// Starts from a state. `device` has no autodiff; `max_gradient` is the largest norm of a
    /// parameter's gradient. A batch is split into `shards` parts that are computed at the same
    /// time, because most operations of `burn` use one core.
    pub fn new(
        state: TrainerState,
        config: LossConfig,
        max_gradient: f64,
        shards: usize,
        device: Device,
    ) -> Self {
        Self {
            state,
            config,
            max_gradient,
            shards: shards.max(1),
            device,
        }
    }

    /// Returns the current state.
    pub fn state(&self) -> &TrainerState {
        &self.state
    }

    /// Updates the student by the mean gradient of `batches`, then the teacher. `seed` decides what
    /// drop path leaves out.
    pub fn step(&mut self, batches: &[Batch], settings: StepSettings, seed: u64) -> StepReport {
        let (mut gradients, mut report) = self.mean_gradients(batches, settings, seed);
        if settings.prototypes_frozen {
            gradients.retain(|name, _| !name.ends_with(".prototypes"));
        }
        let (gradients, norm) = clip_gradients(gradients, self.max_gradient);
        report.gradient = norm.map_or(0.0, number);
        let student = self.state.optimizer.step(
            self.state.student.clone(),
            gradients,
            settings.learning_rate,
            settings.weight_decay,
        );
        self.state.teacher =
            update_teacher(self.state.teacher.clone(), &student, settings.momentum);
        self.state.student = student;
        report
    }

    /// Computes the gradients of a step before clipping, by parameter name. Parameters without a
    /// gradient are left out. The centers are updated as in [`Trainer::step`], the networks are
    /// not.
    pub fn gradients(
        &mut self,
        batches: &[Batch],
        settings: StepSettings,
        seed: u64,
    ) -> FlatTensors {
        self.mean_gradients(batches, settings, seed).0
    }

    /// Returns gradients and report, each averaged over `batches`.
    fn mean_gradients(
        &mut self,
        batches: &[Batch],
        settings: StepSettings,
        seed: u64,
    ) -> (FlatTensors, StepReport) {
        let mut gradients = FlatTensors::new();
        let mut report = StepReport::default();
        for (index, batch) in batches.iter().enumerate() {
            let seed = seed.wrapping_add(index as u64);
            let (batch_gradients, batch_report) = self.batch_gradients(batch, settings, seed);
            gradients = add_gradients(gradients, batch_gradients);
            report = report.plus(batch_report);
        }
        let share = 1.0 / batches.len() as f64;
        if batches.len() > 1 {
            gradients = gradients
                .into_iter()
                .map(|(name, gradient)| (name, gradient * share))
                .collect();
        }
        (gradients, report.times(share))
    }

    fn batch_gradients(
        &mut self,
        batch: &Batch,
        settings: StepSettings,
        seed: u64,
    ) -> (FlatTensors, StepReport) {
        let max_shards = if self.config.koleo_weight > 0.0 {
            batch.images / KOLEO_MIN_IMAGES
        } else {
            batch.images
        };
        let shards = batch.shards(self.shards.min(max_shards).max(1));
        let outputs = map_shards(&shards, |_, shard| self.teacher_forward(shard));
        let logits: Vec<_> = outputs.iter().map(|output| output.logits.clone()).collect();
        let logits = Tensor::cat(logits, 0);
        let patch_logits: Vec<_> = outputs
            .iter()
            .filter_map(|output| output.patch_logits.clone())
            .collect();
        let patch_logits = (!patch_logits.is_empty()).then(|| Tensor::cat(patch_logits, 0));

        let view_targets = self.targets(logits.clone(), &self.state.center, settings);
        let patch_targets = patch_logits
            .clone()
            .zip(self.state.patch_center.as_ref())
            .map(|(logits, center)| self.targets(logits, center, settings));
        let targets = split_targets(&view_targets, patch_targets.as_ref(), &outputs);

        let results = map_shards(&shards, |index, shard| {
            let mut drop = Some(DropPath(seed::random([seed, index as u64, 3])));
            self.shard_gradients(shard, &targets[index], batch.images, &mut drop)
        });

        let momentum = self.config.center_momentum;
        self.state.center = update_center(self.state.center.clone(), logits, momentum);
        if let (Some(logits), Some(center)) = (patch_logits, self.state.patch_center.clone()) {
            self.state.patch_center = Some(update_center(center, logits, momentum));
        }
        let cls = Tensor::cat(outputs.into_iter().map(|output| output.cls).collect(), 0);
        let mut report = StepReport {
            teacher_entropy: number(entropy(view_targets.clone())),
            usage_entropy: number(entropy(view_targets.mean_dim(0))),
            spread: number(spread(cls)),
            ..StepReport::default()
        };
        let mut gradients = FlatTensors::new();
        for result in results {
            gradients = add_gradients(gradients, result.gradients);
            report = report.plus(result.losses);
        }
        (gradients, report)
    }

    fn targets(&self, logits: Tensor<2>, center: &Tensor<2>, settings: StepSettings) -> Tensor<2> {
        match self.config.centering {
            Centering::Mean => sharpen(logits, center.clone(), settings.teacher_temperature),
            Centering::SinkhornKnopp => sinkhorn_knopp(logits, settings.teacher_temperature),
        }
    }

    fn teacher_forward(&self, shard: &Batch) -> TeacherOutput {
        let teacher = &self.state.teacher;
        let global = shard.global_crops(&self.device);
        let Tokens { cls, patches, .. } = teacher.backbone.forward(global, None, &mut None);
        let masks = shard.masks.as_ref();
        let masked = masks.and_then(|masks| masks.select(&patches));
        TeacherOutput {
            logits: teacher.head.forward(cls.clone()),
            patch_logits: teacher
                .patch_head
                .as_ref()
                .zip(masked)
                .map(|(head, masked)| head.forward(masked)),
            cls,
        }
    }

    /// Computes the student's gradients on a shard of a batch of `batch_images` images.
    fn shard_gradients(
        &self,
        shard: &Batch,
        targets: &TeacherTargets,
        batch_images: usize,
        drop: &mut Option<DropPath>,
    ) -> ShardGradients {
        let config = &self.config;
        let temperature = config.student_temperature;
        let share = shard.images as f64 / batch_images as f64;
        let masks = shard.masks.as_ref();
        // Each shard uses a copy with separate leaves. The graphs of shards share nothing, so that
        // shards do not wait for each other.
        let student = self.state.student.clone().train();
        let global = Tensor::from_inner(shard.global_crops(&self.device));
        let tokens = student.backbone.forward(global, masks, drop);
        let global_logits = student.head.forward(tokens.cls.clone());
        let local_logits = shard.local_crops(&self.device).map(|local| {
            let local = student
                .backbone
                .forward(Tensor::from_inner(local), None, drop);
            student.head.forward(local.cls)
        });
        let view_targets = Tensor::from_inner(targets.views.clone());
        let view_loss =
            cross_view_loss(view_targets, global_logits, local_logits, temperature) * share;
        let mut loss = view_loss.clone();

        let mut patch_loss = None;
        if let (Some(patch_targets), Some(masks), Some(head)) =
            (&targets.patches, masks, &student.patch_head)
            && let Some(masked) = masks.select(&tokens.patches)
        {
            let part = masked_patch_loss(
                Tensor::from_inner(patch_targets.clone()),
                head.forward(masked),
                Tensor::from_inner(masks.weights(&self.device)),
                2 * batch_images,
                temperature,
            );
            loss = loss + part.clone() * config.patch_weight;
            patch_loss = Some(part);
        }
        // The sum over both views. Neighbors are those in the shard; DINOv2 uses those on a GPU.
        let mut koleo_loss = None;
        if config.koleo_weight > 0.0 && shard.images > 1 {
            let first = tokens.cls.clone().narrow(0, 0, shard.images);
            let second = tokens.cls.narrow(0, shard.images, shard.images);
            let part = (koleo(first) + koleo(second)) * share;
            loss = loss + part.clone() * config.koleo_weight;
            koleo_loss = Some(part);
        }
        let mut gradients = loss.backward();
        ShardGradients {
            gradients: gradients_of(&student, &mut gradients),
            losses: StepReport {
                loss: number(loss.inner()),
                view_loss: number(view_loss.inner()),
                patch_loss: patch_loss.map(|loss| number(loss.inner())),
                koleo: koleo_loss.map(|loss| number(loss.inner())),
                ..StepReport::default()
            },
        }
    }
}

/// Splits the targets of a batch into those of its shards.
fn split_targets(
    views: &Tensor<2>,
    patches: Option<&Tensor<2>>,
    outputs: &[TeacherOutput],
) -> Vec<TeacherTargets> {
    let mut row = 0;
    let mut patch_row = 0;
    outputs
        .iter()
        .map(|output| TeacherTargets {
            views: next_rows(views, &mut row, &output.logits),
            patches: patches
                .zip(output.patch_logits.as_ref())
                .map(|(all, logits)| next_rows(all, &mut patch_row, logits)),
        })
        .collect()
}

/// Returns as many rows from `row` on as `like` has, and moves `row` past them.
fn next_rows(all: &Tensor<2>, row: &mut usize, like: &Tensor<2>) -> Tensor<2> {
    let [count, _] = like.dims();
    let rows = all.clone().narrow(0, *row, count);
    *row += count;
    rows
}

/// Runs `work` for each shard on a thread per shard. These are plain threads: a thread of `rayon`
/// that waits for a product may start another shard, and then wait for itself.
fn map_shards<T: Send>(shards: &[Batch], work: impl Fn(usize, &Batch) -> T + Sync) -> Vec<T> {
    if let [only] = shards {
        return vec![work(0, only)];
    }
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = shards
            .iter()
            .enumerate()
            .map(|(index, shard)| scope.spawn(move || work(index, shard)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

fn number(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}
