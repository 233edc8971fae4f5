//! Models to load, and the way to run them.

use tokio::task::spawn_blocking;

use crate::{
    artifacts::{ModelFile, ModelStore},
    engine::{EngineConfig, Runtime},
    error::{Result, ResultExt},
    model::PositionRule,
    onnx::Precision,
};

/// Source of models, and the configuration of their engines.
#[derive(Debug, Clone)]
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
    /// Whether requests that name no model are answered by it from now on.
    pub is_default: bool,
}

impl ModelSource {
    /// Returns the converted model. Downloads and converts it first if necessary.
    pub(super) async fn find(&self, plan: &LoadPlan) -> Result<ModelFile> {
        let Self {
            positions, offline, ..
        } = *self;
        let precision = plan.precision.unwrap_or(self.precision);
        let conversion = self.config.device.conversion(precision)?;
        let store = self.store.clone();
        let model = plan.model.clone();
        let find = move || {
            // Model descriptions can be added after the start.
            let store = store.reread()?;
            store.ensure(&model, conversion, positions, offline, &mut ())
        };
        spawn_blocking(find).await.internal("finding a model")?
    }
}
