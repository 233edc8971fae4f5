//! The served models, and which of them answers a request.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::{extractor::Extractor, model_source::ModelSource};
use crate::{
    engine::{EnginePlan, EngineState, EngineThread},
    error::{Error, Kind, Result, shortened},
    model::ModelId,
    names::{did_you_mean, quoted},
    telemetry::{self, ModelFacts},
};

/// The threads of engines, by the names of their models.
pub(super) type Threads = BTreeMap<String, EngineThread>;

/// The models of a server, the default one first. Models come and go while requests run.
#[derive(Debug)]
pub struct Models {
    pub(super) served: ArcSwap<Vec<Extractor>>,
    pub(super) source: Option<ModelSource>,
    /// Maximum number of models.
    pub(super) max: usize,
    /// Threads of the engines; locked while a model is loaded or unloaded.
    pub(super) threads: Mutex<Threads>,
}

/// The model of a request: the one that it names, or else the one of the stored features that it
/// asks for, or else the default one.
#[derive(Debug, Clone)]
pub struct ModelChoice {
    models: Arc<Models>,
    named: Option<Extractor>,
}

impl Models {
    /// Serves models, each with the thread that runs its engine. The first is the default one.
    /// Without a source there are never others. There are at most `max` models at a time.
    ///
    /// # Panics
    /// If there is no model.
    pub fn new(
        models: Vec<(Extractor, EngineThread)>,
        source: Option<ModelSource>,
        max: usize,
    ) -> Arc<Self> {
        assert!(!models.is_empty(), "a server has a model");
        let (served, threads): (Vec<_>, Vec<_>) = models.into_iter().unzip();
        let names = served.iter().map(|model| model.name().to_owned());
        let threads = names.zip(threads).collect();
        Arc::new(Self {
            served: ArcSwap::from_pointee(served),
            source,
            max,
            threads: Mutex::new(threads),
        })
    }

    /// Serves one model whose engine belongs to the caller.
    pub fn only(model: Extractor) -> Arc<Self> {
        Arc::new(Self {
            served: ArcSwap::from_pointee(vec![model]),
            source: None,
            max: 1,
            threads: Mutex::default(),
        })
    }

    /// Returns the models that are served now, the default one first.
    pub fn all(&self) -> Arc<Vec<Extractor>> {
        self.served.load_full()
    }

    /// Returns the model of requests that name none.
    pub fn default_model(&self) -> Extractor {
        self.served.load()[0].clone()
    }

    /// Returns the model that is called `name`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] that lists the models.
    pub fn get(&self, name: &str) -> Result<Extractor> {
        let served = self.all();
        Ok(served[self.place(&served, name)?].clone())
    }

    /// Returns the place of the model that is called `name`. A name comes before the names of
    /// weights, which several models may share.
    pub(super) fn place(&self, served: &[Extractor], name: &str) -> Result<usize> {
        let mut models = served.iter();
        let exact = models.position(|model| model.name() == name);
        let by_weights = || {
            let mut models = served.iter();
            models.position(|model| model.engine().spec().is_called(name))
        };
        exact.or_else(by_weights).ok_or_else(|| {
            let suggestion = did_you_mean(name, served.iter().map(Extractor::name));
            let name = shortened(name);
            let served = self.names();
            let detail = format!("unknown model {name:?}; this server runs {served}{suggestion}");
            Error::new(Kind::NotFound, detail)
        })
    }

    /// Returns the model with these features, if it is served.
    pub(super) fn with_features_of(&self, id: &ModelId) -> Option<Extractor> {
        let served = self.served.load();
        let mut models = served.iter();
        let found = models.find(|model| model.id().fingerprint == id.fingerprint);
        found.cloned()
    }

    /// Returns whether the model with these features is served.
    pub fn is_served(&self, id: &ModelId) -> bool {
        self.with_features_of(id).is_some()
    }

    /// Returns the names of the models, in quotes.
    pub(super) fn names(&self) -> String {
        quoted(self.served.load().iter().map(Extractor::name))
    }

    /// Returns the plan with the most concurrent requests of those that run.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if no model can run yet or any more.
    pub fn any_ready(&self) -> Result<Arc<EnginePlan>> {
        let served = self.served.load();
        let states = served.iter().map(|model| model.engine().state());
        let plans = states
            .clone()
            .filter_map(|state| state.require_ready().ok());
        if let Some(plan) = plans.max_by_key(|plan| plan.max_concurrent_requests()) {
            return Ok(plan);
        }
        served[0].engine().state().require_ready()
    }

    /// Checks that all models can answer requests.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] that names a model which cannot.
    pub fn all_ready(&self) -> Result<()> {
        let served = self.served.load();
        for model in served.iter() {
            let ready = model.engine().state().require_ready();
            ready.map_err(|error| match served.len() {
                1 => error,
                _ => error.context(model.name()),
            })?;
        }
        Ok(())
    }

    /// Returns whether a model is still loading.
    pub fn is_loading(&self) -> bool {
        let served = self.served.load();
        let mut states = served.iter().map(|model| model.engine().state());
        states.any(|state| state == EngineState::Loading)
    }

    /// Describes the models to Prometheus.
    pub fn set_metrics(&self) {
        let served = self.served.load();
        let facts = served.iter().map(|model| {
            let engine = model.engine();
            ModelFacts {
                name: model.name().to_owned(),
                fingerprint: engine.fingerprint().to_owned(),
                precision: engine.precision().to_string(),
                provider: match engine.state() {
                    EngineState::Ready(plan) => Some(plan.provider()),
                    EngineState::Loading | EngineState::Failed(_) => None,
                },
                memory: engine.memory(),
                queued: engine.queued(),
                queue_depth: engine.queue_depth(),
            }
        });
        telemetry::metrics().set_models(&facts.collect::<Vec<_>>());
    }
}

impl ModelChoice {
    /// Returns the choice of a request that names a model, or none.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if no served model has the name.
    pub fn new(models: &Arc<Models>, name: Option<&str>) -> Result<Self> {
        Ok(Self {
            models: Arc::clone(models),
            named: name.map(|name| models.get(name)).transpose()?,
        })
    }

    /// Returns the choice of a command that runs one model.
    pub fn only(model: Extractor) -> Self {
        Self {
            models: Models::only(model),
            named: None,
        }
    }

    /// Returns whether the request names a model.
    pub fn is_named(&self) -> bool {
        self.named.is_some()
    }

    /// Returns the names of the models that could answer, in quotes.
    pub(super) fn names(&self) -> String {
        let named = self.named.as_ref();
        named.map_or_else(|| self.models.names(), |named| quoted([named.name()]))
    }

    /// Returns the model for what is not stored yet.
    pub fn of_new(&self) -> Extractor {
        let named = self.named.as_ref();
        named.map_or_else(|| self.models.default_model(), Extractor::clone)
    }

    /// Returns the model with this fingerprint for what is not stored yet, if it is served and the
    /// request names no other.
    pub(super) fn of_fingerprint(&self, fingerprint: &str) -> Option<Extractor> {
        let has_it = |model: &Extractor| model.id().fingerprint == *fingerprint;
        match &self.named {
            Some(named) => has_it(named).then(|| named.clone()),
            None => self
                .models
                .all()
                .iter()
                .find(|model| has_it(model))
                .cloned(),
        }
    }

    /// Returns the served model that made stored features. `holder` says who has them, with a verb,
    /// such as "the gallery `default` holds".
    ///
    /// # Errors
    /// [`Kind::Conflict`] if that model is not served, or the request names another.
    pub fn of_stored(&self, id: &ModelId, holder: impl fmt::Display) -> Result<Extractor> {
        self.allow(id, &holder)?;
        // A request keeps the model that it has named, also if that is unloaded meanwhile.
        if let Some(named) = &self.named {
            return Ok(named.clone());
        }
        self.models.with_features_of(id).ok_or_else(|| {
            let name = &id.name;
            let short = id.fingerprint.short();
            let namesake = self.models.get(name).ok();
            let but = namesake.map_or_else(String::new, |model| {
                let engine = model.engine();
                let (precision, served) = (engine.precision(), model.id().fingerprint.short());
                format!(" ({name} here is another: {precision}, fingerprint {served})")
            });
            let detail = format!(
                "{holder} features of {name} (fingerprint {short}), and the models that run are \
                 {}{but}; start with --model {name}, or load it with POST /v1/models/load",
                self.models.names()
            );
            Error::new(Kind::Conflict, detail)
        })
    }

    /// Returns whether the request names the model of stored features, or none.
    pub fn may_be(&self, id: &ModelId) -> bool {
        let named = self.named.as_ref();
        named.is_none_or(|named| named.id().fingerprint == id.fingerprint)
    }

    /// Checks that the request names no other model than that of stored features, which may be of a
    /// model that is not served.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if it does.
    pub fn allow(&self, id: &ModelId, holder: impl fmt::Display) -> Result<()> {
        match &self.named {
            Some(named) if !self.may_be(id) => {
                let detail = format!(
                    "{holder} features of {} (fingerprint {}), and the request names {} ({}); \
                     leave `model` out",
                    id.name,
                    id.fingerprint.short(),
                    named.name(),
                    named.id().fingerprint.short()
                );
                Err(Error::new(Kind::Conflict, detail))
            }
            _ => Ok(()),
        }
    }
}
