//! Admission control: every request that costs memory and time gets a permit before its body is
//! read.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    error::{Error, Kind},
    http::{AppState, Rejection, Result},
    telemetry,
};

/// Permit of an admitted request. Dropping it admits another.
pub(crate) struct Admission {
    _permit: OwnedSemaphorePermit,
}

impl FromRequestParts<AppState> for Admission {
    type Rejection = Rejection;

    async fn from_request_parts(_: &mut Parts, state: &AppState) -> Result<Self> {
        admit(state).map_err(|(reason, error)| {
            telemetry::metrics().count_rejection(reason);
            error.into()
        })
    }
}

/// Takes a permit, or returns the reason for the metrics and the error for the client.
fn admit(state: &AppState) -> Result<Admission, (&'static str, Error)> {
    let models = state.service.models();
    let plan = models.any_ready().map_err(|error| {
        let is_loading = models.is_loading();
        (if is_loading { "loading" } else { "failed" }, error)
    })?;
    let max_requests = state
        .config
        .max_requests
        .unwrap_or_else(|| plan.max_concurrent_requests())
        .clamp(1, Semaphore::MAX_PERMITS);
    let permits = state
        .permits
        .get_or_init(|| Arc::new(Semaphore::new(max_requests)));
    match Arc::clone(permits).try_acquire_owned() {
        Ok(permit) => Ok(Admission { _permit: permit }),
        Err(_) => {
            let detail = format!(
                "the server is processing its maximum of {max_requests} requests; retry in a moment"
            );
            let error = Error::new(Kind::Overloaded, detail);
            let limit = max_requests as u64;
            Err((
                "overloaded",
                error.with_limit("max_requests", limit, "--max-requests"),
            ))
        }
    }
}
