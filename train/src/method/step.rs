//! One step: the student is taught by the teacher, and the teacher follows.

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use rand::{SeedableRng, rngs::ChaCha8Rng};

use super::{
    AdamW, Centring, StepSettings, follow,
    loss::{
        across_views, entropy, koleo, masked_patches, moved_center, sharpened, sinkhorn_knopp,
        spread,
    },
    optimiser::{added, clip},
};
use crate::{
    config::LossConfig,
    data::mixed,
    model::{DropPath, FlatTensors, Masked, Network, Tokens, gradients_of},
};

/// KoLeo looks for the nearest in a shard, and among fewer images than this there is none near.
const KOLEO_AMONG: usize = 16;

/// Crops of some images, view by view: all first views, then all second ones, and so on.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// How many images they are of.
    pub images: usize,
    /// Both global crops: `[2·images, 3, side, side]`.
    pub global: Vec<f32>,
    /// Side of a global crop in pixels.
    pub global_side: usize,
    /// The local crops: `[views·images, 3, side, side]`; may be empty.
    pub local: Vec<f32>,
    /// Side of a local crop in pixels.
    pub local_side: usize,
    /// Patches of the global crops that are hidden from the student, if any are to be.
    pub masks: Option<MaskedPatches>,
}

/// For each global crop and each of its patches, whether it is hidden.
pub type MaskedPatches = Vec<Vec<bool>>;

/// What a run goes on from.
#[derive(Debug)]
pub struct TrainerState {
    /// Learns by gradient.
    pub student: Network,
    /// Follows the student.
    pub teacher: Network,
    /// Running mean of the teacher's logits, `[1, prototypes]`.
    pub center: Tensor<2>,
    /// The same of its patch head.
    pub patch_center: Option<Tensor<2>>,
    /// Moments of the student's gradients.
    pub optimiser: AdamW,
}

/// What one step showed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepReport {
    /// What was minimized: the sum of the parts below by their weights.
    pub loss: f64,
    /// Cross-entropy between views.
    pub view_loss: f64,
    /// Cross-entropy of hidden patches, if they are taught.
    pub patch_loss: Option<f64>,
    /// KoLeo, if it is used.
    pub koleo: Option<f64>,
    /// Mean entropy of the teacher's targets, in nats.
    pub teacher_entropy: f64,
    /// Entropy of the mean of the targets of the batch: how many prototypes are in use.
    pub usage_entropy: f64,
    /// How far the teacher's embeddings lie apart: see [`spread`].
    pub spread: f64,
    /// Length of the gradient before clipping.
    pub gradient: f64,
}

/// Teaches.
#[derive(Debug)]
pub struct Trainer {
    state: TrainerState,
    config: LossConfig,
    clip: f64,
    shards: usize,
    device: Device,
}

/// What the teacher made of a shard: rows are its global crops, first views before second ones.
struct Taught {
    /// `[2·images, dim]`.
    cls: Tensor<2>,
    /// `[2·images, prototypes]`.
    logits: Tensor<2>,
    /// Of the patches that are hidden from the student, `[hidden, prototypes]`.
    patch_logits: Option<Tensor<2>>,
}

/// What the student is to answer for a shard.
struct Targets {
    views: Tensor<2>,
    patches: Option<Tensor<2>>,
}

/// What the student made of a shard.
struct Lesson {
    gradients: FlatTensors,
    /// Loss, loss between views, loss of hidden patches, KoLeo: the shard's part of the batch's.
    parts: [Option<f64>; 4],
}

impl Trainer {
    /// Goes on from a state. `device` has no autodiff; `clip` is the most length of a parameter's
    /// gradient; a batch is cut into `shards` parts that are computed at the same time, as most of
    /// `burn`'s operations take one core.
    pub fn new(
        state: TrainerState,
        config: LossConfig,
        clip: f64,
        shards: usize,
        device: Device,
    ) -> Self {
        Self {
            state,
            config,
            clip,
            shards: shards.max(1),
            device,
        }
    }

    /// What it would go on from.
    pub fn state(&self) -> &TrainerState {
        &self.state
    }

    /// Teaches the student on `batches`, whose gradients are averaged. `seed` decides what drop
    /// path leaves out.
    pub fn step(&mut self, batches: &[Batch], settings: StepSettings, seed: u64) -> StepReport {
        let (mut gradients, mut report) = self.study(batches, settings, seed);
        if settings.prototypes_frozen {
            gradients.retain(|name, _| !name.ends_with(".prototypes"));
        }
        let (gradients, length) = clip(gradients, self.clip);
        report.gradient = length.map_or(0.0, number);
        let student = self.state.student.clone();
        let student = self.state.optimiser.step(
            student,
            gradients,
            settings.learning_rate,
            settings.weight_decay,
        );
        self.state.teacher = follow(self.state.teacher.clone(), &student, settings.momentum);
        self.state.student = student;
        report
    }

    /// The gradients of a step before they are clipped, by the names of the parameters that have
    /// one. Moves the centers as the step does, and nothing else.
    pub fn gradients(
        &mut self,
        batches: &[Batch],
        settings: StepSettings,
        seed: u64,
    ) -> FlatTensors {
        self.study(batches, settings, seed).0
    }

    /// Gradients and report, each the mean over `batches`.
    fn study(
        &mut self,
        batches: &[Batch],
        settings: StepSettings,
        seed: u64,
    ) -> (FlatTensors, StepReport) {
        let mut gradients = FlatTensors::new();
        let mut report = StepReport::default();
        for (index, batch) in batches.iter().enumerate() {
            let (of_batch, lesson) =
                self.study_batch(batch, settings, seed.wrapping_add(index as u64));
            gradients = added(gradients, of_batch);
            report = report.plus(lesson);
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

    fn study_batch(
        &mut self,
        batch: &Batch,
        settings: StepSettings,
        seed: u64,
    ) -> (FlatTensors, StepReport) {
        let most = if self.config.koleo_weight > 0.0 {
            batch.images / KOLEO_AMONG
        } else {
            batch.images
        };
        let shards = batch.shards(self.shards.min(most).max(1));
        let taught: Vec<Taught> = at_once(&shards, |_, shard| self.ask_teacher(shard));
        let joined = |part: &dyn Fn(&Taught) -> Option<Tensor<2>>| {
            let parts: Vec<Tensor<2>> = taught.iter().filter_map(part).collect();
            (!parts.is_empty()).then(|| Tensor::cat(parts, 0))
        };
        let logits = joined(&|taught| Some(taught.logits.clone())).expect("a batch has images");
        let patch_logits = joined(&|taught| taught.patch_logits.clone());

        let all = self.targets(logits.clone(), &self.state.center, settings);
        let patch_targets = patch_logits
            .clone()
            .zip(self.state.patch_center.as_ref())
            .map(|(logits, center)| self.targets(logits, center, settings));
        let (mut row, mut patch_row) = (0, 0);
        let targets: Vec<Targets> = taught
            .iter()
            .map(|taught| {
                let views = next_rows(&all, &mut row, taught.logits.dims()[0]);
                let hidden = taught.patch_logits.as_ref().map(|logits| logits.dims()[0]);
                let patches = patch_targets
                    .as_ref()
                    .zip(hidden)
                    .map(|(all, count)| next_rows(all, &mut patch_row, count));
                Targets { views, patches }
            })
            .collect();

        let lessons: Vec<Lesson> = at_once(&shards, |index, shard| {
            let mut drop = Some(DropPath(ChaCha8Rng::seed_from_u64(mixed([
                seed,
                index as u64,
                3,
            ]))));
            let share = shard.images as f64 / batch.images as f64;
            self.teach(shard, &targets[index], share, 2 * batch.images, &mut drop)
        });

        self.state.center = moved_center(
            self.state.center.clone(),
            logits,
            self.config.center_momentum,
        );
        if let (Some(logits), Some(center)) = (patch_logits, self.state.patch_center.clone()) {
            self.state.patch_center =
                Some(moved_center(center, logits, self.config.center_momentum));
        }
        let cls = Tensor::cat(taught.into_iter().map(|taught| taught.cls).collect(), 0);
        let mut gradients = FlatTensors::new();
        let mut sums = [None::<f64>; 4];
        for lesson in lessons {
            gradients = added(gradients, lesson.gradients);
            for (sum, part) in sums.iter_mut().zip(lesson.parts) {
                *sum = part.map_or(*sum, |part| Some(sum.unwrap_or(0.0) + part));
            }
        }
        let [loss, view_loss, patch_loss, koleo] = sums;
        let report = StepReport {
            loss: loss.unwrap_or(0.0),
            view_loss: view_loss.unwrap_or(0.0),
            patch_loss,
            koleo,
            teacher_entropy: number(entropy(all.clone())),
            usage_entropy: number(entropy(all.mean_dim(0))),
            spread: number(spread(cls)),
            gradient: 0.0,
        };
        (gradients, report)
    }

    fn targets(&self, logits: Tensor<2>, center: &Tensor<2>, settings: StepSettings) -> Tensor<2> {
        match self.config.centring {
            Centring::Mean => sharpened(logits, center.clone(), settings.teacher_temperature),
            Centring::SinkhornKnopp => sinkhorn_knopp(logits, settings.teacher_temperature),
        }
    }

    fn ask_teacher(&self, shard: &Batch) -> Taught {
        let teacher = &self.state.teacher;
        let global = images(&shard.global, shard.global_side, &self.device);
        let Tokens { cls, patches, .. } = teacher.backbone.forward(global, None, &mut None);
        let hidden = shard.hidden_patches(&patches);
        Taught {
            logits: teacher.head.forward(cls.clone()),
            patch_logits: teacher
                .patch_head
                .as_ref()
                .zip(hidden)
                .map(|(head, hidden)| head.forward(hidden)),
            cls,
        }
    }

    /// The student's gradients on a shard, which is a `share` of the batch, that has `crops` global
    /// crops.
    fn teach(
        &self,
        shard: &Batch,
        targets: &Targets,
        share: f64,
        crops: usize,
        drop: &mut Option<DropPath>,
    ) -> Lesson {
        let config = &self.config;
        // Its own leaves, so that the graphs of shards have nothing in common and need not wait for
        // each other.
        let student = self.state.student.clone().train();
        let learning = |tensor: Tensor<4>| Tensor::from_inner(tensor);
        let global = learning(images(&shard.global, shard.global_side, &self.device));
        let seen = student
            .backbone
            .forward(global, shard.masks.as_deref().map(Masked), drop);
        let of_global = student.head.forward(seen.cls.clone());
        let of_local = (!shard.local.is_empty()).then(|| {
            let local = learning(images(&shard.local, shard.local_side, &self.device));
            student
                .head
                .forward(student.backbone.forward(local, None, drop).cls)
        });
        let views = Tensor::from_inner(targets.views.clone());
        let view_loss =
            across_views(views, of_global, of_local, config.student_temperature) * share;
        let mut loss = view_loss.clone();

        let hidden = shard.hidden_patches(&seen.patches);
        let patch_loss = targets
            .patches
            .clone()
            .zip(hidden)
            .zip(student.patch_head.as_ref())
            .map(|((targets, hidden), head)| {
                let weights = Tensor::from_inner(shard.patch_weights(&self.device));
                let targets = Tensor::from_inner(targets);
                masked_patches(
                    targets,
                    head.forward(hidden),
                    weights,
                    crops,
                    config.student_temperature,
                )
            });
        if let Some(patch_loss) = &patch_loss {
            loss = loss + patch_loss.clone() * config.patch_weight;
        }
        // Of both views, each among the images of the shard, as in DINOv2 among those of a GPU.
        let koleo = (config.koleo_weight > 0.0 && shard.images > 1).then(|| {
            let of_view = |view: usize| {
                koleo(
                    seen.cls
                        .clone()
                        .narrow(0, view * shard.images, shard.images),
                )
            };
            (of_view(0) + of_view(1)) * share
        });
        if let Some(koleo) = &koleo {
            loss = loss + koleo.clone() * config.koleo_weight;
        }
        let mut found = loss.backward();
        let host = |part: Option<Tensor<1>>| part.map(|part| number(part.inner()));
        Lesson {
            gradients: gradients_of(&student, &mut found),
            parts: [
                host(Some(loss)),
                host(Some(view_loss)),
                host(patch_loss),
                host(koleo),
            ],
        }
    }
}

impl Batch {
    /// Cuts it into `count` batches of nearly as many images, of which it has at least so many.
    fn shards(&self, count: usize) -> Vec<Self> {
        if count == 1 {
            return vec![self.clone()];
        }
        let edges: Vec<usize> = (0..=count)
            .map(|shard| shard * self.images / count)
            .collect();
        let cut = |values: &[f32], from: usize, to: usize, length: usize| -> Vec<f32> {
            let views = values.chunks_exact((self.images * length).max(1));
            views
                .flat_map(|view| &view[from * length..to * length])
                .copied()
                .collect()
        };
        let pixels = |side: usize| 3 * side * side;
        let shard = |edge: &[usize]| {
            let (from, to) = (edge[0], edge[1]);
            let masks = self.masks.as_ref().map(|masks| {
                masks
                    .chunks(self.images)
                    .flat_map(|view| view[from..to].iter().cloned())
                    .collect()
            });
            Self {
                images: to - from,
                global: cut(&self.global, from, to, pixels(self.global_side)),
                local: cut(&self.local, from, to, pixels(self.local_side)),
                masks,
                ..*self
            }
        };
        edges.windows(2).map(shard).collect()
    }

    /// Those of `patches` `[2·images, patches, dim]` that are hidden, `[hidden, dim]`; `None` if
    /// none is.
    fn hidden_patches(&self, patches: &Tensor<3>) -> Option<Tensor<2>> {
        let masked = Masked(self.masks.as_ref()?);
        if !masked.0.iter().flatten().any(|&hidden| hidden) {
            return None;
        }
        let [batch, count, dim] = patches.dims();
        Some(
            patches
                .clone()
                .reshape([batch * count, dim])
                .select(0, masked.indices(&patches.device())),
        )
    }

    /// One over the number of hidden patches of the same crop, for each of them: `[hidden, 1]`.
    fn patch_weights(&self, device: &Device) -> Tensor<2> {
        let mut weights = Vec::new();
        for mask in self.masks.iter().flatten() {
            let count = mask.iter().filter(|hidden| **hidden).count();
            weights.extend(std::iter::repeat_n(1.0 / count.max(1) as f32, count));
        }
        let rows = weights.len();
        Tensor::from_data(TensorData::new(weights, [rows, 1]), device)
    }
}

impl StepReport {
    fn plus(self, other: Self) -> Self {
        let sum = |a: Option<f64>, b: Option<f64>| a.map_or(b, |a| Some(a + b.unwrap_or(0.0)));
        Self {
            loss: self.loss + other.loss,
            view_loss: self.view_loss + other.view_loss,
            patch_loss: sum(self.patch_loss, other.patch_loss),
            koleo: sum(self.koleo, other.koleo),
            teacher_entropy: self.teacher_entropy + other.teacher_entropy,
            usage_entropy: self.usage_entropy + other.usage_entropy,
            spread: self.spread + other.spread,
            gradient: self.gradient + other.gradient,
        }
    }

    fn times(self, factor: f64) -> Self {
        Self {
            loss: self.loss * factor,
            view_loss: self.view_loss * factor,
            patch_loss: self.patch_loss.map(|loss| loss * factor),
            koleo: self.koleo.map(|koleo| koleo * factor),
            teacher_entropy: self.teacher_entropy * factor,
            usage_entropy: self.usage_entropy * factor,
            spread: self.spread * factor,
            gradient: self.gradient * factor,
        }
    }
}

/// Does something with each shard, each on a thread of its own. Plain threads: within `rayon` one
/// would take up another's work while it waits for a product, and wait for itself.
fn at_once<T: Send>(shards: &[Batch], work: impl Fn(usize, &Batch) -> T + Sync) -> Vec<T> {
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

fn next_rows(all: &Tensor<2>, row: &mut usize, count: usize) -> Tensor<2> {
    let rows = all.clone().narrow(0, *row, count);
    *row += count;
    rows
}

fn number(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}

/// Crops on the device: `[n, 3, side, side]`.
fn images(pixels: &[f32], side: usize, device: &Device) -> Tensor<4> {
    let count = pixels.len() / (3 * side * side);
    Tensor::from_data(
        TensorData::new(pixels.to_vec(), [count, 3, side, side]),
        device,
    )
}
