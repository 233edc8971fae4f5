//! The use cases on the current model, and the replacement of the model while requests run.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

use super::{
    bases::Bases,
    binding::check_makes,
    extractor::Extractor,
    galleries::{Galleries, GalleryLimits},
    images::ImageOptions,
    maps::{MapFormat, Rendered},
    model_source::{LoadPlan, ModelSource},
    pca::{PcaAnswer, PcaOptions},
    probes::Probes,
    stages::Timed,
};
use crate::{
    engine::{Engine, EngineState, EngineThread},
    error::{Error, Kind, Result, ResultExt},
    gallery::{Binding, Gallery, GalleryName},
    telemetry,
};

/// The use cases on one model. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Service {
    /// Feature extraction by the model.
    pub extractor: Extractor,
    stored: Option<Arc<Stored>>,
}

/// The use cases that need a gallery store.
#[derive(Debug)]
struct Stored {
    galleries: Galleries,
    bases: Bases,
    probes: Probes,
}

impl Service {
    /// Combines feature extraction with the use cases of a gallery store, if there is one.
    pub fn new(extractor: Extractor, store: Option<Gallery>, limits: GalleryLimits) -> Self {
        let stored = store.map(|store| {
            Arc::new(Stored {
                galleries: Galleries::new(Arc::clone(&store), limits),
                bases: Bases::new(Arc::clone(&store)),
                probes: Probes::new(store, limits),
            })
        });
        Self { extractor, stored }
    }

    /// Returns the engine of the model.
    pub fn engine(&self) -> &Engine {
        self.extractor.engine()
    }

    /// Returns the galleries.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the server was started without a gallery store.
    pub fn galleries(&self) -> Result<&Galleries> {
        Ok(&self.stored()?.galleries)
    }

    /// Checks a binding that a file states for the gallery `name`, as far as this server runs its
    /// model.
    pub fn check_stored_binding(&self, name: &GalleryName, binding: &Binding) -> Result<()> {
        let served = self.engine().model_id();
        match served.fingerprint == binding.model.fingerprint {
            true => check_makes(&self.extractor, name, binding),
            false => Ok(()),
        }
    }

    /// Returns the PCA bases.
    pub fn bases(&self) -> Result<&Bases> {
        Ok(&self.stored()?.bases)
    }

    /// Returns the linear probes.
    pub fn probes(&self) -> Result<&Probes> {
        Ok(&self.stored()?.probes)
    }

    /// Computes PCA maps of the images in one joint basis, or in the stored basis that the options
    /// name.
    pub async fn pca(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: PcaOptions,
        format: MapFormat,
    ) -> Result<Timed<Rendered<PcaAnswer>>> {
        format.check()?;
        let basis = match &options.basis {
            Some(name) => {
                let stored = self.bases()?.get(name).await?;
                stored.require_model(self.engine())?;
                Some(stored.basis)
            }
            None => None,
        };
        self.extractor
            .pca(files, image, &options, basis, format)
            .await
    }

    fn stored(&self) -> Result<&Stored> {
        self.stored.as_deref().ok_or_else(|| {
            let detail = "this server keeps no gallery; start it with --gallery DIR or \
                          --gallery postgres://…";
            Error::new(Kind::NotFound, detail)
        })
    }
}

/// A [`Service`] whose model can be replaced. A request keeps the service that is current when it
/// begins, so it uses one model from its beginning to its end.
#[derive(Debug)]
pub struct LiveService {
    current: ArcSwap<Service>,
    source: Option<ModelSource>,
    /// Thread of the current engine; locked while a model is loaded.
    thread: Mutex<Option<EngineThread>>,
}

impl LiveService {
    /// Creates a live service on the engine that `thread` runs. Without a source its model cannot
    /// be replaced.
    pub fn new(service: Service, thread: EngineThread, source: Option<ModelSource>) -> Self {
        Self {
            current: ArcSwap::from_pointee(service),
            source,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Returns the current service.
    pub fn current(&self) -> Service {
        Service::clone(&self.current.load())
    }

    /// Returns the state of the current engine.
    pub fn engine_state(&self) -> EngineState {
        self.current.load().engine().state()
    }

    /// Waits until the first model is ready, and logs it.
    pub async fn ready(&self) -> Result<()> {
        announce(self.current().engine()).await
    }

    /// Starts and warms up another model, then replaces the current one with it. Requests that have
    /// begun end on the old model, which is dropped with the last of them. Continues after its
    /// caller has been dropped. Returns the new engine and the fingerprint of the old model.
    ///
    /// # Errors
    /// [`Kind::ModelRejected`] with the reason why the model cannot be served; [`Kind::Conflict`]
    /// while another model is loaded, the first included. The old model stays.
    pub async fn load(self: &Arc<Self>, plan: LoadPlan) -> Result<(Engine, String)> {
        let live = Arc::clone(self);
        let loading = tokio::spawn(async move { live.replace(plan).await });
        loading.await.internal("loading a model")?
    }

    async fn replace(&self, plan: LoadPlan) -> Result<(Engine, String)> {
        let source = self.source.as_ref().ok_or_else(|| {
            let detail = "this server was started with a model file and cannot load other models";
            Error::new(Kind::ModelRejected, detail)
        })?;
        let Ok(mut thread) = self.thread.try_lock() else {
            let detail = "another model is being loaded; wait for it";
            return Err(Error::new(Kind::Conflict, detail));
        };
        if self.engine_state() == EngineState::Loading {
            let detail = "the server's first model is still being loaded; wait for it";
            return Err(Error::new(Kind::Conflict, detail));
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
        let current = self.current();
        let replaced = Service {
            extractor: current.extractor.with_engine(engine.clone()),
            ..current
        };
        let old = self.current.swap(Arc::new(replaced));
        if let Some(notice) = &engine.spec().notice {
            tracing::warn!(model = engine.spec().name, "{notice}");
        }
        let before = old.engine().fingerprint().to_owned();
        drop(old);
        if let Some(old_thread) = thread.replace(new_thread) {
            // It ends after the last request on the old model.
            drop(spawn_blocking(|| old_thread.join()));
        }
        Ok((engine, before))
    }

    /// Cancels background work, and waits up to 5 seconds for the engine. The caller must hold the
    /// last reference. The gallery store stays open, because the caller may have opened it.
    pub async fn close(self: Arc<Self>) {
        let service = self.current();
        if let Ok(probes) = service.probes() {
            probes.stop_training().await;
        }
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

/// Waits until an engine is ready, then logs its model and sets the metrics.
async fn announce(engine: &Engine) -> Result<()> {
    let plan = engine.ready().await?;
    let model = engine.spec().name.as_str();
    let fingerprint = engine.model_id().fingerprint.short();
    let precision = engine.precision().to_string();
    telemetry::metrics().set_model(model, engine.fingerprint(), &precision, &plan.provider());
    tracing::info!(model, fingerprint, precision, %plan, "ready");
    Ok(())
}
