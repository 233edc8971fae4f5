//! A training run, from a folder of images to a model that can be served.

mod checkpoint;
mod collapse;
mod config;
mod curves;
mod device;
mod evaluate;
mod export;
mod files;
mod inputs;
mod listing;
mod maps;
mod metrics;
mod progress;
mod resume;
mod session;
mod state;

pub use self::{
    checkpoint::{Checkpoint, DatasetId, SavedRun},
    collapse::Collapse,
    config::RunConfig,
    device::open_device,
    evaluate::{EvaluationSources, LabeledSet, knn_accuracy},
    export::export,
    files::RunFiles,
    metrics::{KnnMetrics, RunMetrics, StepMetrics},
    session::{Run, RunOutcome},
};
pub(crate) use self::{
    device::shards_on,
    progress::log_line,
    state::{initial_network, initial_state, read_teacher},
};
