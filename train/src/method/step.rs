//! One training step: the student learns, and the teacher follows.

use burn::tensor::Device;

use super::{
    LossConfig, Method, StepReport, StepSettings, TrainerState,
    dino::Dino,
    optimizer::{add_gradients, clip_gradients, update_teacher},
    shards::number,
    supervised,
};
use crate::{data::Batch, model::FlatTensors};

/// Trains the networks.
#[derive(Debug)]
pub struct Trainer {
    state: TrainerState,
    config: LossConfig,
    max_gradient: f64,
    shards: usize,
    device: Device,
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

    /// Computes the gradients on a batch, and updates the centers.
    fn batch_gradients(
        &mut self,
        batch: &Batch,
        settings: StepSettings,
        seed: u64,
    ) -> (FlatTensors, StepReport) {
        if self.state.method() == Method::Supervised {
            let student = &self.state.student;
            return supervised::batch_gradients(student, batch, self.shards, seed, &self.device);
        }
        let center = self.state.center.as_ref();
        let center = center.expect("a network with prototypes has a center of their logits");
        let dino = Dino {
            state: &self.state,
            config: &self.config,
            device: &self.device,
        };
        let found = dino.batch_gradients(batch, self.shards, center, settings, seed);
        self.state.center = Some(found.center);
        self.state.patch_center = found.patch_center;
        (found.gradients, found.report)
    }
}
