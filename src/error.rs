//! The error type of the project: what is wrong, and what would be right.
//!
//! The server maps a [`Kind`] to its own code and shows the message to the client; `cli` prints the
//! message. The cause is kept for the log.

use std::{borrow::Cow, fmt, path::Path, sync::Arc};

/// Kind of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The input cannot be parsed: broken JSON, multipart or base64, no image, a damaged snapshot.
    Malformed,
    /// A limit on bytes, pixels or images is exceeded.
    TooLarge,
    /// The file cannot be decoded as an image.
    UndecodableImage,
    /// An option is unknown, has an invalid value, or conflicts with another option.
    InvalidOption,
    /// The patch grid of a valid image exceeds a limit.
    LimitExceeded,
    /// The path, model or stored thing does not exist.
    NotFound,
    /// The model to load cannot be served.
    ModelRejected,
    /// The request conflicts with stored data or with an operation in progress.
    Conflict,
    /// Stored data is damaged, or states what no model can have; other data can still be used.
    Damaged,
    /// The gallery's disk or its configured space is full. Nothing was written.
    StorageFull,
    /// The limit of concurrent requests is reached; a retry can succeed shortly.
    Overloaded,
    /// The server is starting or stopping, or the model cannot run.
    Unavailable,
    /// A model, weight or library file is missing, damaged or of the wrong format.
    Artifact,
    /// A download failed.
    Download,
    /// A file cannot be read or written.
    Io,
    /// A bug in this program or in the runtime.
    Internal,
}

impl Kind {
    /// Returns whether an error, if it occurs with an image of many, is about this image alone:
    /// work over all of them goes on with the others, and need not try this one again.
    pub(crate) fn is_about_image(self) -> bool {
        match self {
            Self::Malformed
            | Self::TooLarge
            | Self::UndecodableImage
            | Self::LimitExceeded
            | Self::NotFound
            | Self::Io
            | Self::Internal => true,
            Self::InvalidOption
            | Self::ModelRejected
            | Self::Conflict
            | Self::Damaged
            | Self::StorageFull
            | Self::Overloaded
            | Self::Unavailable
            | Self::Artifact
            | Self::Download => false,
        }
    }
}

/// A limit that was exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Name, such as `max_patches`.
    pub name: &'static str,
    /// Value in force.
    pub value: u64,
    /// Flag of `dinoserve serve` that sets it.
    pub flag: &'static str,
}

/// An error: a message for the user, and the cause for the log.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    detail: String,
    limit: Option<Limit>,
    source: Option<Cause>,
}

/// An error of any type, kept as the cause of an [`Error`].
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates an error. `detail` names what is wrong and what would be right.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            limit: None,
            source: None,
        }
    }

    /// Creates a [`Kind::InvalidOption`] error about the option `name`.
    pub fn option(name: &str, detail: impl fmt::Display) -> Self {
        let name = shortened(name);
        Self::new(Kind::InvalidOption, format!("option `{name}`: {detail}"))
    }

    /// Creates a [`Kind::InvalidOption`] error: the `value` of an option is outside `range`.
    pub fn out_of_range(option: &str, value: impl fmt::Display, range: impl fmt::Display) -> Self {
        let detail = format_args!("{value} is out of range; it must be {range}");
        Self::option(option, detail)
    }

    /// Creates a [`Kind::Malformed`] error.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Kind::Malformed, detail)
    }

    /// Creates a [`Kind::Damaged`] error.
    pub fn damaged(detail: impl Into<String>) -> Self {
        Self::new(Kind::Damaged, detail)
    }

    /// Creates a [`Kind::Artifact`] error.
    pub fn artifact(detail: impl Into<String>) -> Self {
        Self::new(Kind::Artifact, detail)
    }

    /// Creates a [`Kind::Internal`] error. [`ResultExt::internal`] also keeps a cause.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(Kind::Internal, detail)
    }

    /// Creates a [`Kind::Io`] error. `action` names the operation and the file.
    pub fn io(action: impl fmt::Display, cause: std::io::Error) -> Self {
        let detail = match cause.kind() {
            std::io::ErrorKind::StorageFull => format!("{action}: the disk is full"),
            _ => format!("{action}: {cause}"),
        };
        Self::new(Kind::Io, detail).with_source(cause)
    }

    /// Creates a [`Kind::Io`] error about a file that cannot be read.
    pub fn reading(path: &Path, cause: std::io::Error) -> Self {
        Self::io(format_args!("reading {}", path.display()), cause)
    }

    /// Creates a [`Kind::Io`] error about a file that cannot be written.
    pub fn writing(path: &Path, cause: std::io::Error) -> Self {
        Self::io(format_args!("writing {}", path.display()), cause)
    }

    /// Returns an error that several callers have as one of their own, with the same cause.
    pub fn of_shared(shared: Arc<Self>) -> Self {
        Arc::try_unwrap(shared).unwrap_or_else(|shared| Self {
            kind: shared.kind,
            detail: shared.detail.clone(),
            limit: shared.limit.clone(),
            source: Some(Box::new(shared)),
        })
    }

    /// Attaches the limit that was exceeded.
    #[must_use]
    pub fn with_limit(mut self, name: &'static str, value: u64, flag: &'static str) -> Self {
        self.limit = Some(Limit { name, value, flag });
        self
    }

    /// Attaches the cause. It goes to the log, never to a client.
    #[must_use]
    pub fn with_source(mut self, cause: impl Into<Cause>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Prepends `context` to the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.detail = format!("{context}: {}", self.detail);
        self
    }

    /// Prepends the path of the file in question, unless the message has it already.
    #[must_use]
    pub fn about(self, path: &Path) -> Self {
        let path = path.display().to_string();
        if self.detail.contains(&path) {
            self
        } else {
            self.context(path)
        }
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the message.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns the limit that was exceeded, if any.
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
        Some(self.source.as_deref()?)
    }
}

/// Turns the errors of other libraries into [`Error`]s that keep them as the cause.
pub trait ResultExt<T> {
    /// Turns the error into a [`Kind::Internal`] error whose message is "`action`: cause".
    fn internal(self, action: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Cause>> ResultExt<T> for Result<T, E> {
    fn internal(self, action: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| {
            let cause = cause.into();
            Error::internal(format!("{action}: {cause}")).with_source(cause)
        })
    }
}

/// Maximum number of characters of a text that a message repeats.
const MAX_REPEATED: usize = 80;

/// Returns a text that a user gave for a message that repeats it: the beginning of a long one.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_REPEATED) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_out_of_range_value_names_the_option_and_the_range() {
        let error = Error::out_of_range("k", 0, "1 to 100");
        assert_eq!(error.kind(), Kind::InvalidOption);
        assert_eq!(
            error.detail(),
            "option `k`: 0 is out of range; it must be 1 to 100"
        );
    }

    #[test]
    fn an_internal_error_keeps_its_cause() {
        let error = "x".parse::<u8>().internal("reading a count").unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
        assert_eq!(
            error.detail(),
            "reading a count: invalid digit found in string"
        );
        assert!(error.source().unwrap().is::<std::num::ParseIntError>());
    }
}
