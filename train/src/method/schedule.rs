//! Schedules over a run: learning rate, weight decay, the teacher's momentum and temperature.

use std::f64::consts::PI;

use super::{LossConfig, OptimizerConfig};

/// Half a cosine from one value to another, after a linear warm-up from 0 (`cosine_scheduler` of
/// main_dino.py).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cosine {
    /// Value after the warm-up.
    pub from: f64,
    /// Value that is approached at the end.
    pub to: f64,
    /// Number of warm-up steps.
    pub warmup: usize,
    /// Total number of steps.
    pub steps: usize,
}

impl Cosine {
    /// Returns the value at a step, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.from * step as f64 / (self.warmup.max(2) - 1) as f64;
        }
        let done = (step - self.warmup) as f64 / (self.steps - self.warmup).max(1) as f64;
        self.to + 0.5 * (self.from - self.to) * (1.0 + (PI * done.min(1.0)).cos())
    }
}

/// A line from one value to another, constant after that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ramp {
    /// First value.
    pub from: f64,
    /// Last value.
    pub to: f64,
    /// Number of steps until the last value.
    pub steps: usize,
}

impl Ramp {
    /// Returns the value at a step, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        let done = if self.steps == 0 {
            1.0
        } else {
            (step as f64 / self.steps as f64).min(1.0)
        };
        self.from + (self.to - self.from) * done
    }
}

/// All schedules of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedules {
    learning_rate: Cosine,
    weight_decay: Cosine,
    momentum: Cosine,
    teacher_temperature: Ramp,
    /// Number of steps at the start in which the prototypes are frozen.
    frozen_steps: usize,
}

/// The values of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSettings {
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Weight decay of AdamW, for parameters with more than one dimension.
    pub weight_decay: f64,
    /// Share of the teacher that the update keeps.
    pub momentum: f64,
    /// Temperature of the teacher's softmax.
    pub teacher_temperature: f64,
    /// Whether the prototypes are frozen.
    pub prototypes_frozen: bool,
}

impl Schedules {
    /// Builds the schedules of a run of `steps_per_epoch`·epochs steps.
    pub fn new(optimizer: &OptimizerConfig, loss: &LossConfig, steps_per_epoch: usize) -> Self {
        let steps = optimizer.epochs * steps_per_epoch;
        let in_steps =
            |epochs: f64| ((epochs * steps_per_epoch as f64).round() as usize).min(steps);
        let images = optimizer.images_per_step();
        let peak = optimizer.learning_rate * images as f64 / 256.0;
        let cosine = |[from, to]: [f64; 2]| Cosine {
            from,
            to,
            warmup: 0,
            steps,
        };
        let [from, to] = loss.teacher_temperature;
        Self {
            learning_rate: Cosine {
                from: peak,
                to: optimizer.final_learning_rate.min(peak),
                warmup: in_steps(optimizer.warmup_epochs),
                steps,
            },
            weight_decay: cosine(optimizer.weight_decay),
            momentum: cosine(optimizer.teacher_momentum),
            teacher_temperature: Ramp {
                from,
                to,
                steps: in_steps(loss.teacher_warmup_epochs),
            },
            frozen_steps: in_steps(optimizer.freeze_prototypes_epochs),
        }
    }

    /// Returns the values of a step, counted from 0.
    pub fn at(&self, step: usize) -> StepSettings {
        StepSettings {
            learning_rate: self.learning_rate.at(step),
            weight_decay: self.weight_decay.at(step),
            momentum: self.momentum.at(step),
            teacher_temperature: self.teacher_temperature.at(step),
            prototypes_frozen: step < self.frozen_steps,
        }
    }
}
