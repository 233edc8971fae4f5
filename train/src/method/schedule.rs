//! What changes over a run: learning rate, weight decay, the teacher's momentum and temperature.

use std::f64::consts::PI;

use crate::config::{LossConfig, OptimiserConfig};

/// From a value to another along half a cosine, after a linear warm-up from 0 (`cosine_scheduler`
/// of main_dino.py).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cosine {
    /// Value after the warm-up.
    pub from: f64,
    /// Value that is neared at the end.
    pub to: f64,
    /// Steps of the warm-up.
    pub warmup: usize,
    /// Steps in all.
    pub steps: usize,
}

impl Cosine {
    /// The value at a step, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.from * step as f64 / (self.warmup.max(2) - 1) as f64;
        }
        let done = (step - self.warmup) as f64 / (self.steps - self.warmup).max(1) as f64;
        self.to + 0.5 * (self.from - self.to) * (1.0 + (PI * done.min(1.0)).cos())
    }
}

/// From a value to another along a line, and then that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ramp {
    /// First value.
    pub from: f64,
    /// Last value.
    pub to: f64,
    /// Steps until the last value.
    pub steps: usize,
}

impl Ramp {
    /// The value at a step, counted from 0.
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
    /// Steps in which the prototypes are not changed.
    frozen: usize,
}

/// The values of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSettings {
    /// Of AdamW.
    pub learning_rate: f64,
    /// Of AdamW, of parameters with more than one dimension.
    pub weight_decay: f64,
    /// How much of the teacher remains.
    pub momentum: f64,
    /// By which the teacher's logits are divided.
    pub teacher_temperature: f64,
    /// Whether the prototypes stay as they are.
    pub prototypes_frozen: bool,
}

impl Schedules {
    /// The schedules of a run of `steps_per_epoch`·epochs steps.
    pub fn new(optimiser: &OptimiserConfig, loss: &LossConfig, steps_per_epoch: usize) -> Self {
        let steps = optimiser.epochs * steps_per_epoch;
        let in_steps =
            |epochs: f64| ((epochs * steps_per_epoch as f64).round() as usize).min(steps);
        let images = optimiser.images_per_step();
        let peak = optimiser.learning_rate * images as f64 / 256.0;
        let cosine = |[from, to]: [f64; 2]| Cosine {
            from,
            to,
            warmup: 0,
            steps,
        };
        let [cold, warm] = loss.teacher_temperature;
        Self {
            learning_rate: Cosine {
                from: peak,
                to: optimiser.final_learning_rate.min(peak),
                warmup: in_steps(optimiser.warmup_epochs),
                steps,
            },
            weight_decay: cosine(optimiser.weight_decay),
            momentum: cosine(optimiser.teacher_momentum),
            teacher_temperature: Ramp {
                from: cold,
                to: warm,
                steps: in_steps(loss.teacher_warmup_epochs),
            },
            frozen: in_steps(optimiser.freeze_prototypes_epochs),
        }
    }

    /// The values of a step, counted from 0.
    pub fn at(&self, step: usize) -> StepSettings {
        StepSettings {
            learning_rate: self.learning_rate.at(step),
            weight_decay: self.weight_decay.at(step),
            momentum: self.momentum.at(step),
            teacher_temperature: self.teacher_temperature.at(step),
            prototypes_frozen: step < self.frozen,
        }
    }
}
