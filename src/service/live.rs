//! The service as it is at the moment, and the replacement of its model while requests run.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

use super::Service;
use crate::{
    artifacts::{ModelFile, ModelStore},
    engine::{Engine, EngineConfig, EngineState, EngineThread, Runtime},
    error::{Error, Kind, Result},
    model::PositionRule,
    onnx::Precision,
    telemetry,
};

/// Where models come from, and how they are run.
#[derive(Clone)]
pub struct ModelSource {
    /// The models.
    pub store: ModelStore,
    /// The runtime library.
    pub runtime: Runtime,
    /// How an engine is to run.
    pub config: EngineConfig,
    /// How positions are interpolated.
    pub positions: PositionRule,
    /// The precision that is meant if none is named.
    pub precision: Precision,
    /// Models that are not in the store are not pulled.
    pub offline: bool,
}

impl fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelSource")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Which model is to be served.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Its name in the catalog.
    pub model: String,
    /// Precision of its weights.
    pub precision: Option<Precision>,
}

/// What was served before, and what is now.
#[derive(Debug, Clone)]
pub struct Replaced {
    /// The engine that took over.
    pub engine: Engine,
    /// The fingerprint of the features before.
    pub before: String,
}

/// A [`Service`] whose model can be replaced. A request takes the service that is there when it
/// begins, and keeps it to its end, so no request meets two models.
#[derive(Debug)]
pub struct LiveService {
    current: ArcSwap<Service>,
    source: Option<ModelSource>,
    /// The thread of the current engine; held while a model is loaded.
    thread: Mutex<Option<EngineThread>>,
}

impl LiveService {
    /// The service on an engine that `thread` runs. Without a source its model stays.
    pub fn new(service: Service, thread: EngineThread, source: Option<ModelSource>) -> Self {
        Self {
            current: ArcSwap::from_pointee(service),
            source,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// The service as it is now.
    pub fn current(&self) -> Service {
        Service::clone(&self.current.load())
    }

    /// Where the engine is in its life.
    pub fn engine_state(&self) -> EngineState {
        self.current.load().engine().state()
    }

    /// Waits until the first model answers, and tells of it.
    ///
    /// # Errors
    /// [`Kind::Artifact`] if it cannot run.
    pub async fn ready(&self) -> Result<()> {
        announce(self.current().engine()).await
    }

    /// Brings up a model beside the one that is served, warms it up, and lets it take over.
    /// Requests that have begun end with the old one, which goes with the last of them. Goes on
    /// when its caller has gone.
    ///
    /// # Errors
    /// [`Kind::ModelRejected`] that says why the model cannot be served, [`Kind::Conflict`] while
    /// another is loaded, the first included; the old one is served on.
    pub async fn load(self: &Arc<Self>, plan: LoadPlan) -> Result<Replaced> {
        let live = Arc::clone(self);
        let loading = tokio::spawn(async move { live.replace(plan).await });
        loading
            .await
            .map_err(|error| Error::internal(format!("loading a model: {error}")))?
    }

    async fn replace(&self, plan: LoadPlan) -> Result<Replaced> {
        let source = self.source.as_ref().ok_or_else(|| {
            Error::new(
                Kind::ModelRejected,
                "this server was started with a model of its own, and knows no others",
            )
        })?;
        let Ok(mut thread) = self.thread.try_lock() else {
            return Err(Error::new(
                Kind::Conflict,
                "another model is being loaded; wait for it",
            ));
        };
        if self.engine_state() == EngineState::Loading {
            return Err(Error::new(
                Kind::Conflict,
                "the server's first model is still being loaded; wait for it",
            ));
        }
        let rejected =
            |error: Error| Error::new(Kind::ModelRejected, format!("{}: {error}", plan.model));
        let file = source.find(&plan).await.map_err(rejected)?;
        let (engine, new_thread) = Engine::start(&source.runtime, file, &source.config)?;
        if let Err(error) = announce(&engine).await {
            drop(engine);
            let _ = spawn_blocking(|| new_thread.join()).await;
            return Err(rejected(error));
        }
        let old = self
            .current
            .swap(Arc::new(self.current.load().with_engine(engine.clone())));
        if let Some(notice) = &engine.spec().notice {
            tracing::warn!(model = engine.spec().name, "{notice}");
        }
        let before = old.engine().fingerprint().to_owned();
        drop(old);
        if let Some(old_thread) = thread.replace(new_thread) {
            // It ends when the last request on the old model has.
            drop(spawn_blocking(|| old_thread.join()));
        }
        Ok(Replaced { engine, before })
    }

    /// Ends what goes on beside requests, and waits a little for the engine. Nobody else may use
    /// the service any more. Its gallery stays open, as it may have been somebody's before.
    pub async fn close(self: Arc<Self>) {
        let service = self.current();
        service.stop_training().await;
        drop(service);
        let Some(live) = Arc::into_inner(self) else {
            return;
        };
        let thread = live.thread.into_inner();
        drop(live.current);
        if let Some(thread) = thread {
            let _ = timeout(Duration::from_secs(5), spawn_blocking(|| thread.join())).await;
        }
    }
}

impl ModelSource {
    /// The converted model, pulled and converted first if need be.
    async fn find(&self, plan: &LoadPlan) -> Result<ModelFile> {
        let (source, plan) = (self.clone(), plan.clone());
        let find = move || {
            let precision = plan.precision.unwrap_or(source.precision);
            // Descriptions may have come since the start.
            let store = source.store.reread()?;
            store.ensure(
                &plan.model,
                precision,
                source.positions,
                source.offline,
                &mut (),
            )
        };
        spawn_blocking(find)
            .await
            .map_err(|error| Error::internal(format!("finding a model: {error}")))?
    }
}

/// Waits until an engine is ready, and tells which model it runs.
async fn announce(engine: &Engine) -> Result<()> {
    let plan = engine.ready().await?;
    let model = engine.spec().name.as_str();
    let precision = engine.precision().to_string();
    telemetry::metrics().set_model(model, engine.fingerprint(), &precision, &plan.provider());
    tracing::info!(model, fingerprint = engine.model_id().fingerprint.short(), precision, %plan, "ready");
    Ok(())
}
