//! Why a request fails: an error of the layers below, or a rule of HTTP.

use std::{fmt, sync::Arc, time::Duration};

use crate::error::{Error, Kind, Limit};

/// `Result` of handlers and extractors.
pub(crate) type Result<T, E = Rejection> = std::result::Result<T, E>;

/// Reason of a [`Rejection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// An error of the layers below.
    Error(Kind),
    /// The route does not support the request's method.
    MethodNotAllowed,
    /// The endpoint cannot produce any media type that the client accepts.
    NotAcceptable,
    /// The request has a condition that does not hold.
    PreconditionFailed,
    /// The endpoint does not accept the body's content type or encoding.
    UnsupportedMediaType,
    /// The request head exceeds a limit.
    HeadTooLarge,
    /// The API key is missing or unknown.
    Unauthenticated,
    /// The API key lacks the role, or the request comes from another site's page.
    Forbidden,
    /// The API key has exceeded its request rate.
    RateLimited,
    /// The client took too long to send its request.
    SlowRequest,
    /// The response took too long to compute.
    Timeout,
}

/// A failed request. `problem` turns it into a response.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(super) reason: Reason,
    pub(super) detail: String,
    pub(super) limit: Option<Limit>,
    pub(super) retry_after: Option<Duration>,
    /// The error of the layers below, for the log.
    pub(super) error: Option<Arc<Error>>,
}

impl Rejection {
    /// Creates a rejection. `detail` names what is wrong and what would be right.
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            limit: None,
            retry_after: None,
            error: None,
        }
    }

    /// Attaches the limit that was exceeded.
    #[must_use]
    pub(crate) fn with_limit(mut self, name: &'static str, value: u64, flag: &'static str) -> Self {
        self.limit = Some(Limit { name, value, flag });
        self
    }

    /// Attaches the time after which a retry can succeed.
    #[must_use]
    pub(crate) fn with_retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }
}

impl From<Arc<Error>> for Rejection {
    fn from(error: Arc<Error>) -> Self {
        Self {
            limit: error.limit().cloned(),
            error: Some(Arc::clone(&error)),
            ..Self::new(Reason::Error(error.kind()), error.detail())
        }
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Arc::new(error).into()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}
