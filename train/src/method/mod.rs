//! The method: DINO's loss between views, DINOv2's additions, the schedules, the optimizer, and the
//! training step that combines them.

pub mod loss;
pub mod mask;
mod optimizer;
mod report;
mod schedule;
mod step;

pub use self::{
    loss::{Centering, LossConfig},
    optimizer::{AdamMoments, AdamW, OptimizerConfig, update_teacher},
    report::StepReport,
    schedule::{Cosine, Ramp, Schedules, StepSettings},
    step::{Trainer, TrainerState},
};
