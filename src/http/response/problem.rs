//! Errors as `application/problem+json` (RFC 9457): the only place that maps a kind of error to an
//! HTTP status.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Error, Kind};

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

fn status_and_title(kind: Kind) -> (StatusCode, &'static str) {
    match kind {
        Kind::Malformed => (StatusCode::BAD_REQUEST, "Malformed request"),
        Kind::NotFound => (StatusCode::NOT_FOUND, "Not found"),
        Kind::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
        Kind::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "Not acceptable"),
        Kind::SlowRequest => (
            StatusCode::REQUEST_TIMEOUT,
            "The request did not arrive in time",
        ),
        Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Too large"),
        Kind::UnsupportedMediaType => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type")
        }
        Kind::UndecodableImage => (StatusCode::UNPROCESSABLE_ENTITY, "Undecodable image"),
        Kind::InvalidOption => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid option"),
        Kind::LimitExceeded => (StatusCode::UNPROCESSABLE_ENTITY, "Limit exceeded"),
        Kind::Unauthenticated => (StatusCode::UNAUTHORIZED, "Unauthenticated"),
        Kind::Forbidden => (StatusCode::FORBIDDEN, "Forbidden"),
        Kind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
        Kind::HeadTooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The request's head is too large",
        ),
        Kind::ModelRejected => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "The model cannot be served",
        ),
        Kind::Conflict => (StatusCode::CONFLICT, "Conflict"),
        Kind::StorageFull => (StatusCode::INSUFFICIENT_STORAGE, "The storage is full"),
        Kind::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
        Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
        Kind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "The answer took too long"),
        Kind::Artifact | Kind::Download | Kind::Io | Kind::Internal => {
            (StatusCode::INTERNAL_SERVER_ERROR, "Internal error")
        }
    }
}

impl Problem {
    /// Describes an error. The message of an internal error is only logged; a client gets the id of
    /// the request instead.
    pub(crate) fn new(error: &Error) -> Self {
        let (status, title) = status_and_title(error.kind());
        let internal = status == StatusCode::INTERNAL_SERVER_ERROR;
        let detail = if internal {
            let source = std::error::Error::source(error).map(tracing::field::display);
            tracing::error!(%error, source, "request failed");
            "the server failed; search its log for the x-request-id of this response".to_owned()
        } else {
            error.detail().to_owned()
        };
        let code = if internal {
            Kind::Internal.code()
        } else {
            error.kind().code()
        };
        let limit = error.limit().map(|limit| LimitProblem {
            name: limit.name,
            value: limit.value,
            flag: limit.flag,
        });
        let r#type = format!("urn:dinoserve:problem:{code}");
        Self {
            r#type,
            title,
            status: status.as_u16(),
            detail,
            code,
            limit,
            error: None,
        }
    }
}

/// Builds the response to a failed request.
pub(crate) fn response(error: &Error) -> Response {
    respond(error, Problem::new(error))
}

/// Builds the response to a failed request, in the shape of OpenAI's API in addition.
pub(crate) fn openai_response(error: &Error) -> Response {
    let mut problem = Problem::new(error);
    let Problem {
        ref detail, code, ..
    } = problem;
    problem.error = Some(OpenAiError {
        message: detail.clone(),
        r#type: code,
        code,
    });
    respond(error, problem)
}

fn respond(error: &Error, problem: Problem) -> Response {
    let (status, _) = status_and_title(error.kind());
    let mut response = (status, Json(problem)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    let retry_after = error
        .retry_after()
        .map(|time| time.as_secs_f64().ceil().max(1.0) as u64);
    let retry_after = retry_after.or((status == StatusCode::SERVICE_UNAVAILABLE).then_some(1));
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"dinoserve\""),
        );
    }
    response
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        response(&self)
    }
}
