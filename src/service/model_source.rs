//! Models to load, and the way to run them.

use std::fmt;

use tokio::task::spawn_blocking;

use crate::{
    artifacts::{ModelFile, ModelStore},
    engine::{EngineConfig, Runtime},
    error::{Result, ResultExt},
    model::PositionRule,
    onnx::Precision,
};

/// Source of models, and the configuration of their engines.
#[derive(Clone)]
pub struct ModelSource {
    /// Store of the models.
    pub store: ModelStore,
    /// Runtime library.
    pub runtime: Runtime,
    /// Configuration of engines.
    pub config: EngineConfig,
    /// Interpolation of positions.
    pub positions: PositionRule,
    /// Default precision.
    pub precision: Precision,
    /// Whether models must be in the store already, because none is downloaded.
    pub offline: bool,
}

/// Model to load.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Name in the catalog.
    pub model: String,
    /// Precision of the weights.
    pub precision: Option<Precision>,
}

impl ModelSource {
    /// Returns the converted model. Downloads and converts it first if necessary.
    pub(super) async fn find(&self, plan: &LoadPlan) -> Result<ModelFile> {
        let source = self.clone();
        let plan = plan.clone();
        let find = move || {
            let precision = plan.precision.unwrap_or(source.precision);
            // Model descriptions can be added after the start.
            let store = source.store.reread()?;
            store.ensure(
                &plan.model,
                precision,
                source.positions,
                source.offline,
                &mut (),
            )
        };
        spawn_blocking(find).await.internal("finding a model")?
    }
}

impl fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelSource")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
