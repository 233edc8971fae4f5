//! The one error type of the project. It knows what went wrong and what would be right; it knows no
//! HTTP.
//!
//! `http/problem.rs` maps a [`Kind`] to a status; `cli/` prints the message.

use std::{fmt, time::Duration};

/// What kind of thing went wrong. Each kind has one stable machine-readable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request cannot be read: broken JSON, broken multipart, wrong base64, no image in it.
    Malformed,
    /// The body's content type is none that the endpoint takes.
    UnsupportedMediaType,
    /// No representation that the endpoint offers is acceptable to the client.
    NotAcceptable,
    /// More bytes, pixels, images or patches than a limit allows.
    TooLarge,
    /// The bytes are not an image that can be decoded.
    UndecodableImage,
    /// An option is unknown, has a bad value, or does not go with another.
    InvalidOption,
    /// The image is fine, but the grid it would be turned into is above a limit.
    LimitExceeded,
    /// There is no such route.
    NotFound,
    /// The route exists, but not for this method.
    MethodNotAllowed,
    /// No API key was given, or one that is not known.
    Unauthenticated,
    /// The API key may not do this, or the request comes from a page of another site.
    Forbidden,
    /// The API key has used up its requests for now.
    RateLimited,
    /// The request's head is larger than a limit.
    HeadTooLarge,
    /// A model that is to be loaded cannot be served.
    ModelRejected,
    /// The gallery holds features of another kind than those that were sent or would be made.
    Conflict,
    /// The disk under a gallery, or the space it was given, is full. Nothing was written.
    StorageFull,
    /// Every place among the requests under way is taken; try again shortly.
    Overloaded,
    /// The server is starting or stopping.
    Unavailable,
    /// The client took longer to send its request than the limit.
    SlowRequest,
    /// The answer took longer than the limit.
    Timeout,
    /// A model, weight or library file is missing, damaged or of the wrong kind.
    Artifact,
    /// A download failed.
    Download,
    /// The disk refused to write or read.
    Io,
    /// A defect of this program or of the runtime under it.
    Internal,
}

impl Kind {
    /// The stable code that clients may match on.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_request",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::NotAcceptable => "not_acceptable",
            Self::TooLarge => "too_large",
            Self::UndecodableImage => "undecodable_image",
            Self::InvalidOption => "invalid_option",
            Self::LimitExceeded => "limit_exceeded",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::HeadTooLarge => "head_too_large",
            Self::ModelRejected => "model_rejected",
            Self::Conflict => "conflict",
            Self::StorageFull => "storage_full",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::SlowRequest => "slow_request",
            Self::Timeout => "timeout",
            Self::Artifact => "artifact",
            Self::Download => "download",
            Self::Io => "io",
            Self::Internal => "internal",
        }
    }
}

/// The limit that was hit: what it is called, its value and the flag that sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Name, such as `max_patches`.
    pub name: &'static str,
    /// The value in force.
    pub value: u64,
    /// The flag of `dinoserve serve` that sets it.
    pub flag: &'static str,
}

/// An error with a message for the person who caused it, and its inner cause for the log.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    detail: String,
    limit: Option<Limit>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `detail` is one sentence that names what is wrong and what would be
    /// right.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            limit: None,
            retry_after: None,
            source: None,
        }
    }

    /// An [`Kind::InvalidOption`] about the option `name`.
    pub fn option(name: &str, detail: impl fmt::Display) -> Self {
        Self::new(Kind::InvalidOption, format!("option `{name}`: {detail}"))
    }

    /// An [`Kind::Artifact`]: a model, weight or library file is not as it should be.
    pub fn artifact(detail: impl Into<String>) -> Self {
        Self::new(Kind::Artifact, detail)
    }

    /// An [`Kind::Internal`]: a defect of ours.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(Kind::Internal, detail)
    }

    /// An [`Kind::Io`] error that says which file could not be handled.
    pub fn io(doing: impl fmt::Display, error: std::io::Error) -> Self {
        let detail = match error.kind() {
            std::io::ErrorKind::StorageFull => format!("{doing}: the disk is full"),
            _ => format!("{doing}: {error}"),
        };
        Self::new(Kind::Io, detail)
    }

    /// Attaches the limit that was hit.
    #[must_use]
    pub fn with_limit(mut self, name: &'static str, value: u64, flag: &'static str) -> Self {
        self.limit = Some(Limit { name, value, flag });
        self
    }

    /// Attaches the time after which another attempt makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// Attaches the inner cause, which goes to the log and never to a client.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts `context` in front of the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.detail = format!("{context}: {}", self.detail);
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The time after which another attempt makes sense, if it is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The limit that was hit, if one was.
    pub fn limit(&self) -> Option<&Limit> {
        self.limit.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
