//! Errors as `application/problem+json` (RFC 9457): the one place where a kind of error meets a
//! status.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::error::{Error, Kind};

/// What went wrong, for people (`detail`) and programs (`code`).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// A URN that names the kind of problem.
    #[schema(example = "urn:dinoserve:problem:invalid_option")]
    r#type: String,
    /// The kind of problem, for people.
    #[schema(example = "Invalid option")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What exactly is wrong and what would be right.
    #[schema(
        example = "option `size`: 225 is not a multiple of the patch size 14; use 224 or 238"
    )]
    detail: String,
    /// The kind of problem, for programs; stable.
    #[schema(example = "invalid_option")]
    code: &'static str,
    /// The limit that was hit, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<LimitProblem>,
    /// The same for OpenAI's clients, in answers of `/v1/embeddings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<OpenAiError>,
}

/// What went wrong, where OpenAI's clients look for it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError {
    /// As `detail`.
    message: String,
    /// As `code`.
    r#type: &'static str,
    /// As `code`.
    code: &'static str,
}

/// A limit, its value and the flag of `dinoserve serve` that sets it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitProblem {
    /// Name of the limit.
    #[schema(example = "max_patches")]
    name: &'static str,
    /// The value in force.
    #[schema(example = 4096)]
    value: u64,
    /// The flag that sets it.
    #[schema(example = "--max-patches")]
    flag: &'static str,
}

/// What can go wrong where images go through the model.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it describes; nothing makes it")]
pub(crate) enum FeatureProblems {
    /// More bytes, pixels or images than a limit, which is named.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The body is of a type that is not taken here.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(Problem),
    /// The image cannot be decoded, or an option is not as it should be.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(Problem),
    /// The request is at fault.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Other(Problem),
    /// Every place is taken, or the model is not ready; try again.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
    /// The server is at fault.
    #[response(status = "5XX", content_type = "application/problem+json")]
    Server(Problem),
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
    /// Messages of internal errors are for the log; a client gets the request's id to quote.
    pub(crate) fn new(error: &Error) -> Self {
        let (status, title) = status_and_title(error.kind());
        let internal = status == StatusCode::INTERNAL_SERVER_ERROR;
        let detail = if internal {
            let source = std::error::Error::source(error).map(tracing::field::display);
            tracing::error!(%error, source, "request failed");
            "the server failed on this request; its log tells more under the x-request-id of this answer".to_owned()
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

/// The answer to a request that failed.
pub(crate) fn response(error: &Error) -> Response {
    respond(error, Problem::new(error))
}

/// The same, also in the way that OpenAI's clients read.
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
