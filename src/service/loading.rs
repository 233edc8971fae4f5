//! Loading and unloading models while requests run.

use std::{sync::Arc, time::Duration};

use tokio::{sync::MutexGuard, task::spawn_blocking, time::timeout};

use super::{
    model_source::{LoadPlan, ModelSource},
    models::{Models, Threads},
};
use crate::{
    engine::{Engine, EngineThread},
    error::{Error, Kind, Result, ResultExt},
};

/// What loading a model changed.
#[derive(Debug)]
pub struct Loaded {
    /// Engine of the new model.
    pub engine: Engine,
    /// Fingerprint of the model that it replaced, if there was one of that name.
    pub replaced: Option<String>,
}

impl Models {
    /// Waits until the first models are ready, and logs them.
    pub async fn ready(&self) -> Result<()> {
        for model in self.all().iter() {
            announce(model.engine()).await?;
        }
        Ok(())
    }

    /// Starts and warms up a model, then adds it, or replaces the one of its name. Requests that
    /// have begun end on the old model, which is dropped with the last of them. Continues after its
    /// caller has been dropped.
    ///
    /// # Errors
    /// [`Kind::ModelRejected`] with the reason why the model cannot be served; [`Kind::Conflict`]
    /// while another model is loaded, the first ones included, and if there are too many. What was
    /// served is still served.
    pub async fn load(self: &Arc<Self>, plan: LoadPlan) -> Result<Loaded> {
        let models = Arc::clone(self);
        let loading = tokio::spawn(async move { models.add(plan).await });
        loading.await.internal("loading a model")?
    }

    /// Removes a model. Requests that have begun end on it; returns when the last of them has, and
    /// the model's memory is free. Continues after its caller has been dropped. Returns the name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a model that is not served; [`Kind::Conflict`] for the default one,
    /// and while a model is loaded.
    pub async fn unload(self: &Arc<Self>, name: String) -> Result<String> {
        let models = Arc::clone(self);
        let unloading = tokio::spawn(async move {
            let (name, thread) = models.remove(&name)?;
            // The end of the server does not wait for it.
            drop(models);
            if let Some(thread) = thread {
                let joined = spawn_blocking(|| thread.join()).await;
                joined.internal("unloading a model")?;
            }
            tracing::info!(model = name, "unloaded");
            Ok(name)
        });
        unloading.await.internal("unloading a model")?
    }

    async fn add(&self, plan: LoadPlan) -> Result<Loaded> {
        let source = self.source()?;
        let mut threads = self.lock()?;
        let served = self.all();
        let is_new = !served.iter().any(|model| model.name() == plan.model);
        if is_new && served.len() >= self.max {
            let max = self.max;
            let detail = format!(
                "this server has its maximum of {max} models, {}; unload one of them with DELETE \
                 /v1/models/{{id}}",
                self.names()
            );
            let error = Error::new(Kind::Conflict, detail);
            return Err(error.with_limit("max_models", max as u64, "--max-models"));
        }
        let rejected =
            |error: Error| Error::new(Kind::ModelRejected, format!("{}: {error}", plan.model));
        let file = source.find(&plan).await.map_err(rejected)?;
        let (engine, thread) = Engine::start(&source.runtime, file, &source.config)?;
        if let Err(error) = announce(&engine).await {
            drop(engine);
            let _ = spawn_blocking(|| thread.join()).await;
            return Err(rejected(error));
        }
        if let Some(notice) = &engine.spec().notice {
            tracing::info!(model = engine.spec().name, "{notice}");
        }
        let name = engine.spec().name.clone();
        let model = served[0].with_engine(engine.clone());
        let mut models = served.to_vec();
        let place = models.iter().position(|model| model.name() == name);
        let old = place.map(|place| models.remove(place));
        let place = match plan.is_default {
            true => 0,
            false => place.unwrap_or(models.len()),
        };
        models.insert(place, model);
        self.served.store(Arc::new(models));
        drop(served);
        let replaced = old.map(|old| old.engine().fingerprint().to_owned());
        if let Some(old_thread) = threads.insert(name, thread) {
            // It ends after the last request on the old model.
            drop(spawn_blocking(|| old_thread.join()));
        }
        Ok(Loaded { engine, replaced })
    }

    /// Removes a model, and returns its name and the thread of its engine.
    fn remove(&self, name: &str) -> Result<(String, Option<EngineThread>)> {
        let mut threads = self.lock()?;
        let served = self.all();
        let place = self.place(&served, name)?;
        let name = served[place].name().to_owned();
        if place == 0 {
            let advice = match served.len() {
                1 => "it is the only one",
                _ => {
                    "make another one the default with POST /v1/models/load and `\"default\": true`"
                }
            };
            let detail = format!("{name} is the default model and cannot be unloaded; {advice}");
            return Err(Error::new(Kind::Conflict, detail));
        }
        let mut models = served.to_vec();
        drop(models.remove(place));
        drop(served);
        self.served.store(Arc::new(models));
        let thread = threads.remove(&name);
        Ok((name, thread))
    }

    fn source(&self) -> Result<&ModelSource> {
        self.source.as_ref().ok_or_else(|| {
            let detail = "this server was started with a model file and cannot load other models";
            Error::new(Kind::ModelRejected, detail)
        })
    }

    fn lock(&self) -> Result<MutexGuard<'_, Threads>> {
        let Ok(threads) = self.threads.try_lock() else {
            let detail = "another model is being loaded; wait for it";
            return Err(Error::new(Kind::Conflict, detail));
        };
        if self.is_loading() {
            let detail = "a model with which the server was started is still being loaded; wait \
                          for it";
            return Err(Error::new(Kind::Conflict, detail));
        }
        Ok(threads)
    }

    /// Waits up to 5 seconds for the engines. The caller must hold the last reference.
    pub(super) async fn close(self: Arc<Self>) {
        let Some(models) = Arc::into_inner(self) else {
            return;
        };
        drop(models.served);
        let threads = models.threads.into_inner();
        let join = || threads.into_values().for_each(EngineThread::join);
        let _ = timeout(Duration::from_secs(5), spawn_blocking(join)).await;
    }
}

/// Waits until an engine is ready, then logs its model.
async fn announce(engine: &Engine) -> Result<()> {
    let plan = engine.ready().await?;
    let model = engine.spec().name.as_str();
    let fingerprint = engine.model_id().fingerprint.short();
    let precision = engine.precision().to_string();
    tracing::info!(model, fingerprint, precision, %plan, "ready");
    Ok(())
}
