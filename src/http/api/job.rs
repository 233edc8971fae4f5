//! Jobs in answers: their states, and the wait for their ends.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    error::ResultExt,
    features::progress::{Progress, Stage},
    gallery::DocumentKey,
    http::{
        AppState, Result,
        response::{negotiate::Representation, problem::Problem},
    },
    service::{Job, JobState},
};

/// State of a probe, an anomaly bank or a segmenter.
#[derive(Serialize, ToSchema)]
pub(crate) struct TrainedJson {
    /// Name.
    #[schema(example = "birds")]
    name: String,
    /// State: `training`, `ready` or `failed`.
    #[schema(example = "training")]
    state: &'static str,
    /// Progress of its training, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<ProgressJson>,
    /// Problem of its last training, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

/// Progress of a training, an audit or a map.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProgressJson {
    /// Current stage: `reading` examples or items. Then of a training `choosing` patches of a bank,
    /// `calibrating` its threshold, `validating` values of `l2` (counted in fits), or `fitting`
    /// (counted in evaluations); of an audit or a map `comparing` items, `checking` labels,
    /// `grouping` items, or `placing` them (counted in epochs).
    #[schema(value_type = String, example = "validating")]
    stage: Stage,
    /// Finished steps of the stage.
    #[schema(example = 12)]
    done: usize,
    /// Total steps of the stage, if known.
    #[schema(example = 40)]
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
}

impl From<Progress> for ProgressJson {
    fn from(Progress { stage, done, total }: Progress) -> Self {
        Self { stage, done, total }
    }
}

/// State of a job on a gallery.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobJson {
    /// State: `running`, `ready` or `failed`.
    #[schema(example = "ready")]
    state: &'static str,
    /// Progress, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<ProgressJson>,
    /// Problem of the last attempt, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

impl From<JobState> for JobJson {
    fn from(state: JobState) -> Self {
        let (state, progress, error) = match state {
            JobState::InProgress(progress) => ("running", Some(progress.into()), None),
            JobState::Ready => ("ready", None, None),
            JobState::Failed(error) => ("failed", None, Some(Problem::new(error))),
        };
        Self {
            state,
            progress,
            error,
        }
    }
}

/// States of what is trained, by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct TrainedList {
    /// One entry for each, ordered by name.
    data: Vec<TrainedJson>,
}

impl TrainedJson {
    pub(crate) fn new(name: impl Into<String>, state: JobState) -> Self {
        let mut json = Self {
            name: name.into(),
            state: "ready",
            training: None,
            error: None,
        };
        match state {
            JobState::InProgress(progress) => {
                json.state = "training";
                json.training = Some(progress.into());
            }
            JobState::Failed(error) => {
                json.state = "failed";
                json.error = Some(Problem::new(error));
            }
            JobState::Ready => {}
        }
        json
    }
}

impl TrainedList {
    pub(crate) fn new(states: Vec<(String, JobState)>) -> Self {
        let states = states.into_iter();
        Self {
            data: states
                .map(|(name, state)| TrainedJson::new(name, state))
                .collect(),
        }
    }
}

/// Whether to wait for a job.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitParams {
    /// Whether to respond only when the job has ended. A job that takes longer than a request may
    /// continues in the background.
    #[param(default = false)]
    wait: bool,
}

impl WaitParams {
    /// Waits for the end of a job, if requested. Returns whether it has ended.
    ///
    /// # Errors
    /// That of the job.
    pub(crate) async fn wait(self, state: &AppState, job: &Job) -> Result<bool> {
        if !self.wait {
            return Ok(false);
        }
        // A longer job continues and gets the response of a request without `wait`.
        let limit = state.config.request_timeout.mul_f32(0.9);
        match tokio::time::timeout(limit, job.ended()).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }
}

/// Builds a JSON response that may have megabytes, on a thread of its own.
pub(crate) async fn large_json<T: Serialize>(
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<Response> {
    let write = move || serde_json::to_vec(&body());
    let written = tokio::task::spawn_blocking(write).await;
    let body = written.internal("writing JSON")?.internal("writing JSON")?;
    let kind = Representation::Json.media_type();
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// Builds the response about a job that has `ended`, or runs in the background.
pub(crate) fn answer_job(ended: bool, key: DocumentKey<'_>, json: impl IntoResponse) -> Response {
    if ended {
        return json.into_response();
    }
    let location = [(header::LOCATION, key.path())];
    (StatusCode::ACCEPTED, location, json).into_response()
}
