//! The time limit of a request.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::route_group::RouteGroup;
use crate::http::{AppState, Reason, Rejection};

/// Answers with 504 if the response takes longer than the limit. The work behind it is dropped from
/// the queue.
pub(crate) async fn time_limit(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let group = request.extensions().get::<RouteGroup>();
    if group.is_some_and(|group| !group.is_timed) {
        return next.run(request).await;
    }
    let limit = state.config.request_timeout;
    let answered = tokio::time::timeout(limit, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let seconds = limit.as_secs();
        let detail = format!("the answer was not ready within {seconds} s");
        Rejection::new(Reason::Timeout, detail)
            .with_limit("request_timeout", seconds, "--request-timeout")
            .into_response()
    })
}
