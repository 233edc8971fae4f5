//! A training run from its folder of images to a model that can be served.

mod checkpoint;
mod collapse;
mod evaluate;
mod export;
mod files;
mod metrics;
mod pictures;
mod progress;
mod session;

pub use self::{
    checkpoint::{Checkpoint, Material},
    collapse::Collapse,
    evaluate::{LabeledSet, knn_accuracy},
    export::export,
    files::RunFiles,
    metrics::{KnnLine, Metrics, StepLine},
    session::{Ended, Evaluation, Run, device_of},
};
pub(crate) use self::{
    progress::say,
    session::{first_state, fresh_network, shards_on, teacher_of},
};
