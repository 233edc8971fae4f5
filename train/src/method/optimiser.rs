//! AdamW with clipped gradients, and the teacher's slow following.
//!
//! The update is `burn`'s. That its weight decay can follow a schedule, that parameters without a
//! gradient are left alone, and that its moments can be saved is why it is called per tensor here
//! and not through `burn`'s own loop.

use std::collections::BTreeMap;

use burn::{
    optim::{AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer},
    tensor::Tensor,
};

use crate::model::{FlatTensors, Network, change, flatten};

const EPSILON: f32 = 1e-8;
/// Keeps the factor of an empty gradient finite (`clip_gradients` of main_dino.py).
const CLIP_EPSILON: f64 = 1e-6;

/// AdamW (Loshchilov & Hutter, 2019) with PyTorch's defaults: β = 0.9 and 0.999, ε = 1e-8.
#[derive(Debug, Default)]
pub struct AdamW {
    moments: BTreeMap<String, Moments>,
}

/// The running means of one parameter's gradient and of its square, and over how many steps they
/// run.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Steps that this parameter has taken.
    pub steps: usize,
    /// Of the gradient.
    pub first: Tensor<1>,
    /// Of its square.
    pub second: Tensor<1>,
}

impl AdamW {
    /// An optimiser that goes on from moments that were saved.
    pub fn with(moments: BTreeMap<String, Moments>) -> Self {
        Self { moments }
    }

    /// What it has to be given to go on.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// Changes every parameter that has a gradient. Biases and other one-dimensional parameters do
    /// not decay.
    pub fn step(
        &mut self,
        network: Network,
        mut gradients: FlatTensors,
        rate: f64,
        weight_decay: f64,
    ) -> Network {
        let adamw = |decay: f64| {
            AdamWConfig::new()
                .with_epsilon(EPSILON)
                .with_weight_decay(decay as f32)
                .build()
        };
        let (decaying, steady) = (adamw(weight_decay), adamw(0.0));
        change(network, |name, shape, tensor| {
            let Some(gradient) = gradients.remove(name) else {
                return tensor;
            };
            let rule = if shape.len() == 1 { &steady } else { &decaying };
            let state = self.moments.remove(name).map(Moments::into_state);
            let (tensor, state) = rule.step(rate, tensor, gradient, state);
            if let Some(state) = state {
                self.moments.insert(name.to_owned(), Moments::of(state));
            }
            tensor
        })
    }
}

impl Moments {
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

/// Scales each gradient down to a length of at most `most`, each parameter's by itself, and gives
/// the length that all had together.
pub(super) fn clip(gradients: FlatTensors, most: f64) -> (FlatTensors, Option<Tensor<1>>) {
    let mut total: Option<Tensor<1>> = None;
    let clipped = gradients
        .into_iter()
        .map(|(name, gradient)| {
            let square = gradient.clone().square().sum();
            total = Some(match total.take() {
                Some(total) => total + square.clone(),
                None => square.clone(),
            });
            let factor = ((square.sqrt() + CLIP_EPSILON).recip() * most).clamp_max(1.0);
            (name, gradient * factor)
        })
        .collect();
    (clipped, total.map(Tensor::sqrt))
}

/// The sum of gradients of several batches.
pub(super) fn added(mut sum: FlatTensors, more: FlatTensors) -> FlatTensors {
    for (name, gradient) in more {
        let total = match sum.remove(&name) {
            Some(total) => total + gradient,
            None => gradient,
        };
        sum.insert(name, total);
    }
    sum
}

/// The teacher after a step: m·teacher + (1 − m)·student, for every parameter.
pub fn follow(teacher: Network, student: &Network, momentum: f64) -> Network {
    let mut student = flatten(student);
    change(teacher, |name, _, tensor| match student.remove(name) {
        Some(of_student) => tensor * momentum + of_student * (1.0 - momentum),
        None => tensor,
    })
}
