//! `/v1/probes`: linear probes, trained on galleries.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    AppState,
    body::OptionsRequest,
    problem::{self, Problem},
};
use crate::{
    error::{Error, Result},
    features::probe::{Stage, TrainingOptions},
    gallery::{Filter, GalleryName},
    service::{ProbeFeatures, ProbePlan, ProbeState, StoredProbe},
};

/// A probe, and what is going on with it.
#[derive(Serialize, ToSchema)]
pub(super) struct ProbeJson {
    #[serde(flatten)]
    state: ProbeStateJson,
    /// What is stored of it: what `POST /v1/classify?probe=` uses, also while a new one of the name is being trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<StoredProbeJson>,
}

/// The state of a probe.
#[derive(Serialize, ToSchema)]
pub(super) struct ProbeStateJson {
    /// Its name.
    #[schema(example = "birds")]
    name: GalleryName,
    /// `training`, `ready` or `failed`.
    #[schema(example = "training")]
    state: &'static str,
    /// How far its training is, while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<TrainingJson>,
    /// Why its last training failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

/// How far a training is.
#[derive(Serialize, ToSchema)]
struct TrainingJson {
    /// `reading` items, `validating` strengths of the penalty (fits that are done), or `fitting` (evaluations that are done).
    #[schema(value_type = String, example = "validating")]
    stage: Stage,
    /// How much of the stage is done.
    #[schema(example = 12)]
    done: usize,
    /// Of how much, if that is known.
    #[schema(example = 40)]
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
}

/// A trained probe.
#[derive(Serialize, ToSchema)]
struct StoredProbeJson {
    /// The gallery that it learnt from.
    gallery: GalleryName,
    /// The model whose features it takes.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Identifies these features.
    fingerprint: String,
    /// What it takes of them.
    #[schema(value_type = String, example = "cls_mean")]
    features: ProbeFeatures,
    /// Width of what it takes.
    #[schema(example = 768)]
    width: usize,
    /// Share of the items that were classified rightly while they were held out of the training.
    #[schema(example = 0.93)]
    accuracy: f64,
    /// Strength of the penalty on its weights.
    #[schema(example = 100.0)]
    l2: f64,
    /// Whether the training came to its end; if not, a larger `l2` makes it easier.
    converged: bool,
    /// The labels that it tells apart.
    classes: Vec<String>,
    /// How many items it was trained on.
    examples: usize,
    /// Items that were left out because they have no label.
    unlabelled: u64,
    /// Items that were left out because they came as vectors, without the features that a probe needs.
    without_features: u64,
    /// When it was trained, in milliseconds since 1970.
    trained_ms: u64,
}

impl From<StoredProbe> for StoredProbeJson {
    fn from(StoredProbe { probe, about }: StoredProbe) -> Self {
        Self {
            gallery: about.gallery,
            model: about.binding.model,
            fingerprint: about.binding.fingerprint,
            features: about.features,
            width: probe.width(),
            accuracy: probe.accuracy,
            l2: probe.l2,
            converged: probe.converged,
            classes: probe.classes,
            examples: probe.examples,
            unlabelled: about.unlabelled,
            without_features: about.without_features,
            trained_ms: about.trained_ms,
        }
    }
}

impl ProbeStateJson {
    fn new(name: GalleryName, state: &ProbeState) -> Self {
        let word = state.name();
        let (training, error) = match state {
            ProbeState::Training(at) => (Some(TrainingJson { stage: at.stage, done: at.done, total: at.total }), None),
            ProbeState::Failed(error) => (None, Some(Problem::new(error))),
            ProbeState::Ready => (None, None),
        };
        Self { name, state: word, training, error }
    }
}

/// All probes.
#[derive(Serialize, ToSchema)]
pub(super) struct ProbeList {
    /// By name.
    data: Vec<ProbeStateJson>,
}

/// What is to be trained.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ProbeOptions {
    name: Option<GalleryName>,
    gallery: GalleryName,
    features: ProbeFeatures,
    l2: Option<f64>,
    folds: Option<usize>,
    filter: Option<Value>,
    wait: bool,
}
