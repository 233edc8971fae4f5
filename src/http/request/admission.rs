//! A place for each request that will cost memory and time, taken before its body is read.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    engine::EngineState,
    error::{Error, Kind},
    http::AppState,
    telemetry,
};

/// A place among the requests under way; it is free again when this is dropped.
pub(crate) struct Admission {
    _permit: OwnedSemaphorePermit,
}

impl FromRequestParts<AppState> for Admission {
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, state: &AppState) -> Result<Self, Error> {
        let refuse = |reason: &str, error: Error| {
            telemetry::metrics().count_rejection(reason);
            error
        };
        let engine = state.live.engine_state();
        let reason = if engine == EngineState::Loading {
            "loading"
        } else {
            "failed"
        };
        let plan = engine
            .require_ready()
            .map_err(|error| refuse(reason, error))?;
        let most = state
            .config
            .max_requests
            .unwrap_or_else(|| plan.max_concurrent_requests())
            .clamp(1, Semaphore::MAX_PERMITS);
        let permits = state.permits.get_or_init(|| Arc::new(Semaphore::new(most)));
        let permit = Arc::clone(permits).try_acquire_owned().map_err(|_| {
            let detail = format!("{most} requests are under way already; try again in a moment");
            let error = Error::new(Kind::Overloaded, detail).with_limit(
                "max_requests",
                most as u64,
                "--max-requests",
            );
            refuse("overloaded", error)
        })?;
        Ok(Self { _permit: permit })
    }
}
