//! DINO with DINOv2's additions: the student learns the teacher's targets for other views of the
//! same image.

use burn::tensor::{Device, Tensor};

use super::{
    Centering, LossConfig, StepReport, StepSettings, TrainerState,
    loss::{
        cross_view_loss, entropy, koleo, masked_patch_loss, sharpen, sinkhorn_knopp, spread,
        update_center,
    },
    shards::{ShardGradients, map_shards, number, trained_copy},
};
use crate::{
    data::Batch,
    model::{DropPath, FlatTensors, Tokens},
    seed,
};

/// Smallest shard for KoLeo, in images. KoLeo uses the nearest neighbor within a shard, and among
/// fewer images none is near.
const KOLEO_MIN_IMAGES: usize = 16;

/// DINO's losses of a state.
pub(super) struct Dino<'a> {
    pub(super) state: &'a TrainerState,
    pub(super) config: &'a LossConfig,
    pub(super) device: &'a Device,
}

/// The gradients on a batch, and what it changes besides the weights.
pub(super) struct DinoGradients {
    /// The student's gradients, by parameter name.
    pub(super) gradients: FlatTensors,
    pub(super) report: StepReport,
    pub(super) center: Tensor<2>,
    pub(super) patch_center: Option<Tensor<2>>,
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

impl Dino<'_> {
    /// Computes the student's gradients on a batch in at most `shards` shards.
    pub(super) fn batch_gradients(
        &self,
        batch: &Batch,
        shards: usize,
        center: &Tensor<2>,
        settings: StepSettings,
        seed: u64,
    ) -> DinoGradients {
        let max_shards = if self.config.koleo_weight > 0.0 {
            batch.images / KOLEO_MIN_IMAGES
        } else {
            batch.images
        };
        let shards = batch.shards(shards.min(max_shards).max(1));
        let outputs = map_shards(&shards, |_, shard| self.teacher_forward(shard));
        let logits: Vec<_> = outputs.iter().map(|output| output.logits.clone()).collect();
        let logits = Tensor::cat(logits, 0);
        let patch_logits: Vec<_> = outputs
            .iter()
            .filter_map(|output| output.patch_logits.clone())
            .collect();
        let patch_logits = (!patch_logits.is_empty()).then(|| Tensor::cat(patch_logits, 0));

        let view_targets = self.targets(logits.clone(), center, settings);
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
        let patch_center = self.state.patch_center.clone();
        let patch_center = match (patch_center, patch_logits) {
            (Some(center), Some(logits)) => Some(update_center(center, logits, momentum)),
            (center, _) => center,
        };
        let cls = Tensor::cat(outputs.into_iter().map(|output| output.cls).collect(), 0);
        let report = StepReport {
            teacher_entropy: Some(number(entropy(view_targets.clone()))),
            usage_entropy: Some(number(entropy(view_targets.mean_dim(0)))),
            spread: Some(number(spread(cls))),
            ..StepReport::default()
        };
        let (gradients, report) = ShardGradients::sum(results, report);
        DinoGradients {
            gradients,
            report,
            center: update_center(center.clone(), logits, momentum),
            patch_center,
        }
    }

    fn targets(&self, logits: Tensor<2>, center: &Tensor<2>, settings: StepSettings) -> Tensor<2> {
        match self.config.centering {
            Centering::Mean => sharpen(logits, center.clone(), settings.teacher_temperature),
            Centering::SinkhornKnopp => sinkhorn_knopp(logits, settings.teacher_temperature),
        }
    }

    fn teacher_forward(&self, shard: &Batch) -> TeacherOutput {
        let teacher = &self.state.teacher;
        let global = shard.global_crops(self.device);
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
        let student = trained_copy(&self.state.student);
        let global = Tensor::from_inner(shard.global_crops(self.device));
        let tokens = student.backbone.forward(global, masks, drop);
        let global_logits = student.head.forward(tokens.cls.clone());
        let local_logits = shard.local_crops(self.device).map(|local| {
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
                Tensor::from_inner(masks.weights(self.device)),
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
        let losses = StepReport {
            view_loss: Some(number(view_loss.inner())),
            patch_loss: patch_loss.map(|loss| number(loss.inner())),
            koleo: koleo_loss.map(|loss| number(loss.inner())),
            ..StepReport::default()
        };
        ShardGradients::backward(&student, &loss, losses)
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
