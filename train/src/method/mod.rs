//! The method: DINO's loss between views, DINOv2's additions, the schedules, the optimiser, and a
//! step that joins them.

pub mod loss;
pub mod mask;
mod optimiser;
mod schedule;
mod step;

pub use self::{
    loss::Centring,
    optimiser::{AdamW, Moments, follow},
    schedule::{Cosine, Ramp, Schedules, StepSettings},
    step::{Batch, MaskedPatches, StepReport, Trainer, TrainerState},
};
