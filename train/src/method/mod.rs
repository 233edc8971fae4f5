//! The methods: DINO's loss between views with DINOv2's additions, or cross-entropy with labels;
//! the schedules, the optimizer, and the training step that combines them.

mod dino;
pub mod loss;
pub mod mask;
mod optimizer;
mod report;
mod schedule;
mod shards;
mod state;
mod step;
mod supervised;

use serde::{Deserialize, Serialize};

pub use self::{
    loss::{Centering, LossConfig},
    optimizer::{AdamMoments, AdamW, OptimizerConfig, update_teacher},
    report::StepReport,
    schedule::{Cosine, Ramp, Schedules, StepSettings},
    state::TrainerState,
    step::Trainer,
};

/// What the student learns from.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Method {
    /// The teacher's output for other views of the same image, without labels.
    #[default]
    Dino,
    /// The labels of the images.
    Supervised,
}
