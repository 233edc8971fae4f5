//! AdamW with clipped gradients, and the update of the teacher.
//!
//! The update rule is `burn`'s. It is called per tensor instead of through `burn`'s loop, so that
//! weight decay can follow a schedule, parameters without a gradient stay unchanged, and the
//! moments can be saved.

use std::collections::BTreeMap;

use anyhow::bail;
use burn::{
    optim::{AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer},
    tensor::Tensor,
};
use serde::{Deserialize, Serialize};

use crate::{
    check,
    model::{FlatTensors, Network, flatten, map_parameters},
};

const EPSILON: f32 = 1e-8;
/// Constant that keeps the factor of a zero gradient finite (`clip_gradients` of main_dino.py).
const CLIP_EPSILON: f64 = 1e-6;

/// Section `optimiser`: how the loss is minimized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Number of epochs.
    pub epochs: usize,
    /// Number of images in a batch.
    pub batch: usize,
    /// Number of batches whose gradients are accumulated in one step.
    pub accumulate: usize,
    /// Peak learning rate for 256 images in a step; scaled by the actual number of images.
    pub learning_rate: f64,
    /// Learning rate at the end.
    pub final_learning_rate: f64,
    /// Number of epochs until the peak learning rate.
    pub warmup_epochs: f64,
    /// Weight decay at the start and at the end, with a cosine between.
    pub weight_decay: [f64; 2],
    /// Share of the teacher that each step keeps, at the start and at the end, with a cosine
    /// between.
    pub teacher_momentum: [f64; 2],
    /// Largest norm of a parameter's gradient.
    pub clip: f64,
    /// Number of epochs in which the prototypes are frozen.
    pub freeze_prototypes_epochs: f64,
}

/// AdamW (Loshchilov & Hutter, 2019) with PyTorch's defaults: β = 0.9 and 0.999, ε = 1e-8.
#[derive(Debug, Default)]
pub struct AdamW {
    moments: BTreeMap<String, AdamMoments>,
}

/// AdamW's state of one parameter.
#[derive(Debug, Clone)]
pub struct AdamMoments {
    /// Number of updates of this parameter.
    pub steps: usize,
    /// Running mean of the gradient.
    pub first: Tensor<1>,
    /// Running mean of the squared gradient.
    pub second: Tensor<1>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            epochs: 100,
            batch: 64,
            accumulate: 1,
            learning_rate: 5e-4,
            final_learning_rate: 1e-6,
            warmup_epochs: 10.0,
            weight_decay: [0.04, 0.4],
            teacher_momentum: [0.996, 1.0],
            clip: 3.0,
            freeze_prototypes_epochs: 1.0,
        }
    }
}

impl OptimizerConfig {
    /// Returns the number of images whose gradients make up one step.
    pub fn images_per_step(&self) -> usize {
        self.batch * self.accumulate
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        check::at_least_one(&[
            ("optimiser.epochs", self.epochs),
            ("optimiser.batch", self.batch),
            ("optimiser.accumulate", self.accumulate),
        ])?;
        if self.batch.checked_mul(self.accumulate).is_none() {
            bail!("optimiser.batch times optimiser.accumulate is too large");
        }
        if self.warmup_epochs >= self.epochs as f64 {
            bail!(
                "optimiser.warmup_epochs is {} with optimiser.epochs {}; the warm-up must end \
                 before the run does: use for example `--set optimiser.warmup_epochs={}`",
                self.warmup_epochs,
                self.epochs,
                self.epochs as f64 / 10.0
            );
        }
        check::shares(&[
            ("optimiser.teacher_momentum", self.teacher_momentum[0]),
            ("optimiser.teacher_momentum", self.teacher_momentum[1]),
        ])?;
        check::above_zero(&[
            ("optimiser.learning_rate", self.learning_rate),
            ("optimiser.clip", self.clip),
        ])?;
        check::not_negative(&[
            ("optimiser.final_learning_rate", self.final_learning_rate),
            ("optimiser.warmup_epochs", self.warmup_epochs),
            (
                "optimiser.freeze_prototypes_epochs",
                self.freeze_prototypes_epochs,
            ),
            ("optimiser.weight_decay", self.weight_decay[0]),
            ("optimiser.weight_decay", self.weight_decay[1]),
        ])
    }
}

impl AdamW {
    /// Creates an optimizer with saved moments, by parameter name.
    pub fn with_moments(moments: BTreeMap<String, AdamMoments>) -> Self {
        Self { moments }
    }

    /// Returns the moments by parameter name.
    pub fn moments(&self) -> &BTreeMap<String, AdamMoments> {
        &self.moments
    }

    /// Updates every parameter that has a gradient. Biases and other one-dimensional parameters do
    /// not decay.
    pub fn step(
        &mut self,
        network: Network,
        mut gradients: FlatTensors,
        learning_rate: f64,
        weight_decay: f64,
    ) -> Network {
        let adamw = |decay: f64| {
            AdamWConfig::new()
                .with_epsilon(EPSILON)
                .with_weight_decay(decay as f32)
                .build()
        };
        let with_decay = adamw(weight_decay);
        let without_decay = adamw(0.0);
        map_parameters(network, |name, shape, tensor| {
            let Some(gradient) = gradients.remove(name) else {
                return tensor;
            };
            let rule = if shape.len() == 1 {
                &without_decay
            } else {
                &with_decay
            };
            let state = self.moments.remove(name).map(AdamMoments::into_state);
            let (tensor, state) = rule.step(learning_rate, tensor, gradient, state);
            if let Some(state) = state {
                self.moments.insert(name.to_owned(), AdamMoments::of(state));
            }
            tensor
        })
    }
}

impl AdamMoments {
    fn of(state: AdamWState<1>) -> Self {
        let AdaptiveMomentumState {
            time,
            moment_1,
            moment_2,
            ..
        } = state.momentum;
        Self {
            steps: time,
            first: moment_1,
            second: moment_2,
        }
    }

    fn into_state(self) -> AdamWState<1> {
        AdamWState::new(AdaptiveMomentumState {
            time: self.steps,
            moment_1: self.first,
            moment_2: self.second,
            max_moment_2: None,
        })
    }
}

/// Scales each parameter's gradient down to a norm of at most `max_norm`. Also returns the norm of
/// all gradients together, before clipping.
pub(super) fn clip_gradients(
    gradients: FlatTensors,
    max_norm: f64,
) -> (FlatTensors, Option<Tensor<1>>) {
    let mut total: Option<Tensor<1>> = None;
    let clipped = gradients
        .into_iter()
        .map(|(name, gradient)| {
            let square = gradient.clone().square().sum();
            total = Some(match total.take() {
                Some(total) => total + square.clone(),
                None => square.clone(),
            });
            let factor = ((square.sqrt() + CLIP_EPSILON).recip() * max_norm).clamp_max(1.0);
            (name, gradient * factor)
        })
        .collect();
    (clipped, total.map(Tensor::sqrt))
}

/// Adds gradients by parameter name.
pub(super) fn add_gradients(mut sum: FlatTensors, more: FlatTensors) -> FlatTensors {
    for (name, gradient) in more {
        let total = match sum.remove(&name) {
            Some(total) => total + gradient,
            None => gradient,
        };
        sum.insert(name, total);
    }
    sum
}

/// Updates the teacher after a step: m·teacher + (1 − m)·student, for every parameter.
pub fn update_teacher(teacher: Network, student: &Network, momentum: f64) -> Network {
    let mut student = flatten(student);
    map_parameters(teacher, |name, _, tensor| match student.remove(name) {
        Some(student) => tensor * momentum + student * (1.0 - momentum),
        None => tensor,
    })
}
