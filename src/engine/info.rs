//! What is known of the model of an engine.

use std::{sync::OnceLock, time::SystemTime};

use crate::{
    artifacts::ModelFile,
    model::{ModelId, ModelSpec},
    onnx::Precision,
};

/// Facts that an engine shares with its threads.
#[derive(Debug)]
pub(super) struct ModelInfo {
    pub(super) spec: ModelSpec,
    pub(super) id: ModelId,
    pub(super) precision: Precision,
    /// Time at which the engine was started.
    pub(super) started: SystemTime,
    /// Growth of the process while the sessions were loaded, in bytes.
    pub(super) memory: OnceLock<u64>,
    /// Size of the weights, in bytes.
    pub(super) weights: u64,
}

impl ModelInfo {
    /// Describes a model whose engine starts now.
    pub(super) fn new(model: &ModelFile) -> Self {
        Self {
            spec: model.spec.clone(),
            id: ModelId {
                name: model.spec.name.clone(),
                fingerprint: model.fingerprint.as_str().into(),
            },
            precision: model.precision,
            started: SystemTime::now(),
            memory: OnceLock::new(),
            weights: model.weight_bytes(),
        }
    }
}
