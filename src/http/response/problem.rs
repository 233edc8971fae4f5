//! Rejections as `application/problem+json` (RFC 9457): the only place that maps a kind of error to
//! an HTTP status.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::rejection::{Reason, Rejection};
use crate::error::{Kind, Limit};

/// A failed request, for people (`detail`) and programs (`code`).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// URN of the kind of problem.
    #[schema(example = "urn:dinoserve:problem:invalid_option")]
    r#type: String,
    /// Kind of problem, for people.
    #[schema(example = "Invalid option")]
    title: &'static str,
    /// HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What is wrong with this request, and what to do.
    #[schema(
        example = "option `size`: 225 is not a multiple of the patch size 14; use 224 or 238"
    )]
    detail: String,
    /// Kind of problem, for programs. It does not change between versions.
    #[schema(example = "invalid_option")]
    code: &'static str,
    /// Limit that was exceeded, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<LimitProblem>,
    /// The same problem for OpenAI's clients; only in responses of `/v1/embeddings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<OpenAiError>,
}

/// A problem in the shape of OpenAI's API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError {
    /// Same as `detail`.
    message: String,
    /// Same as `code`.
    r#type: &'static str,
    /// Same as `code`.
    code: &'static str,
}

/// A limit of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitProblem {
    /// Name.
    #[schema(example = "max_patches")]
    name: &'static str,
    /// Current value.
    #[schema(example = 4096)]
    value: u64,
    /// Flag of `dinoserve serve` that sets it.
    #[schema(example = "--max-patches")]
    flag: &'static str,
}

/// Returns the status, the title and the code of a reason. The codes do not change.
fn describe(reason: Reason) -> (u16, &'static str, &'static str) {
    match reason {
        Reason::Error(kind) => describe_error(kind),
        Reason::Unauthenticated => (401, "Unauthenticated", "unauthenticated"),
        Reason::Forbidden => (403, "Forbidden", "forbidden"),
        Reason::MethodNotAllowed => (405, "Method not allowed", "method_not_allowed"),
        Reason::NotAcceptable => (406, "Not acceptable", "not_acceptable"),
        Reason::SlowRequest => (408, "The request did not arrive in time", "slow_request"),
        Reason::PreconditionFailed => (412, "Precondition failed", "precondition_failed"),
        Reason::UnsupportedMediaType => (415, "Unsupported media type", "unsupported_media_type"),
        Reason::RateLimited => (429, "Too many requests", "rate_limited"),
        Reason::HeadTooLarge => (431, "The request's head is too large", "head_too_large"),
        Reason::Timeout => (504, "The answer took too long", "timeout"),
    }
}

fn describe_error(kind: Kind) -> (u16, &'static str, &'static str) {
    match kind {
        Kind::Malformed => (400, "Malformed request", "malformed_request"),
        Kind::NotFound => (404, "Not found", "not_found"),
        Kind::Conflict => (409, "Conflict", "conflict"),
        Kind::TooLarge => (413, "Too large", "too_large"),
        Kind::UndecodableImage => (422, "Undecodable image", "undecodable_image"),
        Kind::InvalidOption => (422, "Invalid option", "invalid_option"),
        Kind::LimitExceeded => (422, "Limit exceeded", "limit_exceeded"),
        Kind::Damaged => (422, "Stored data is damaged", "damaged_data"),
        Kind::ModelRejected => (422, "The model cannot be served", "model_rejected"),
        Kind::Artifact | Kind::Download | Kind::Io | Kind::Internal => {
            (500, "Internal error", "internal")
        }
        Kind::Overloaded => (503, "Overloaded", "overloaded"),
        Kind::Unavailable => (503, "Unavailable", "unavailable"),
        Kind::StorageFull => (507, "The storage is full", "storage_full"),
    }
}

/// Maximum length of `detail`, in characters.
const MAX_DETAIL: usize = 600;
/// Number of characters that are kept of the end of a longer one, which says what to do.
const KEPT_END: usize = 400;

/// Leaves out the middle of a long message, which the log has whole.
fn without_middle(detail: String) -> String {
    let count = detail.chars().count();
    if count <= MAX_DETAIL {
        return detail;
    }
    tracing::debug!(detail, "a long message to a client");
    let start = detail.chars().take(MAX_DETAIL - KEPT_END);
    let end = detail.chars().skip(count - KEPT_END);
    start.chain(['…']).chain(end).collect()
}

impl Rejection {
    /// Returns the code of the problem, for metrics.
    pub(crate) fn code(&self) -> &'static str {
        describe(self.reason).2
    }
}

impl Problem {
    /// Describes an error. The message of an internal error is only logged; a client gets the id of
    /// the request instead.
    pub(crate) fn new(error: impl Into<Rejection>) -> Self {
        let rejection = error.into();
        let (status, title, code) = describe(rejection.reason);
        let detail = match &rejection.error {
            Some(error) if status == 500 => {
                let source = std::error::Error::source(error).map(tracing::field::display);
                tracing::error!(%error, source, "request failed");
                "the server failed; search its log for the x-request-id of this response".to_owned()
            }
            _ => rejection.detail,
        };
        let limit = rejection.limit;
        Self {
            r#type: format!("urn:dinoserve:problem:{code}"),
            title,
            status,
            detail: without_middle(detail),
            code,
            limit: limit.map(|Limit { name, value, flag }| LimitProblem { name, value, flag }),
            error: None,
        }
    }

    /// Builds the response to a failed request.
    fn respond(self, retry_after: Option<Duration>) -> Response {
        let status = StatusCode::from_u16(self.status).expect("the table has valid statuses");
        let retry_after = retry_after
            .map(|time| time.as_secs_f64().ceil().max(1.0) as u64)
            .or((status == StatusCode::SERVICE_UNAVAILABLE).then_some(1));
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"dinoserve\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after;
        Problem::new(self).respond(retry_after)
    }
}

/// Builds the response to a failed request, in the shape of OpenAI's API in addition.
pub(crate) fn openai_response(rejection: Rejection) -> Response {
    let retry_after = rejection.retry_after;
    let mut problem = Problem::new(rejection);
    problem.error = Some(OpenAiError {
        message: problem.detail.clone(),
        r#type: problem.code,
        code: problem.code,
    });
    problem.respond(retry_after)
}
