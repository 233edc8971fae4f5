//! Errors of the database, and their conversion into [`Error`].

use std::error::Error as _;

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use tokio_postgres::{
    error::{DbError, SqlState},
    types::{WasNull, WrongType},
};

use crate::error::{Error, Kind};

/// An error of the database, of its connection, or of ours. Converted into [`Error`] where it
/// leaves the store.
#[derive(Debug)]
pub(super) enum Failure {
    /// A statement failed, or the connection broke.
    Database(tokio_postgres::Error),
    /// The pool returned no connection.
    Pool(PoolError),
    /// An error that was detected here.
    Ours(Error),
    /// A standby lacks a write. The read is repeated, and then done on the primary.
    Behind,
}

pub(super) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// Returns whether a table was dropped after its lookup. Another lookup finds the current one.
    pub(super) fn table_is_gone(&self) -> bool {
        self.code() == Some("42P01")
    }

    /// Returns whether the connection, and with it the reply to a statement, was lost.
    pub(super) fn connection_is_lost(&self) -> bool {
        match self {
            Self::Database(error) => error
                .as_db_error()
                .is_none_or(|error| is_shutdown(error.code().code())),
            Self::Pool(_) => true,
            Self::Ours(_) | Self::Behind => false,
        }
    }

    /// Returns whether the database detected damage to a page or an index.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self.code(), Some("XX001" | "XX002"))
    }

    /// Returns whether the server cannot be used, whatever the statement: its connection is lost,
    /// or it has not enough of something.
    pub(super) fn is_of_server(&self) -> bool {
        self.connection_is_lost() || self.code().is_some_and(|code| code.starts_with("53"))
    }

    fn code(&self) -> Option<&str> {
        match self {
            Self::Database(error) => error.code().map(SqlState::code),
            Self::Pool(_) | Self::Ours(_) | Self::Behind => None,
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
                Self::Database(error)
            }
            other => Self::Pool(other),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Ours(error) => error,
            Failure::Behind => Self::new(
                Kind::Unavailable,
                "a standby of the gallery's database lacks the last writes; try again shortly",
            ),
            Failure::Pool(PoolError::Timeout(TimeoutType::Wait)) => Self::new(
                Kind::Overloaded,
                "all connections to the gallery's database are taken; try again shortly",
            ),
            Failure::Pool(error) => {
                Self::new(Kind::Unavailable, "the gallery's database does not answer")
                    .with_source(error)
            }
            Failure::Database(error) => {
                let (kind, detail) = match error.as_db_error() {
                    Some(error) => of_db_error(error),
                    None if is_misread(&error) => (Kind::Internal, causes(&error)),
                    None => (
                        Kind::Unavailable,
                        format!(
                            "the gallery's database cannot be reached: {}",
                            causes(&error)
                        ),
                    ),
                };
                // The detail includes the message of the driver's error.
                Self::new(kind, detail)
            }
        }
    }
}

/// Returns the kind and detail for an error that the database returned.
fn of_db_error(error: &DbError) -> (Kind, String) {
    let message = error.message();
    match error.code().code() {
        // The disk is full.
        "53100" => (
            Kind::StorageFull,
            format!("the disk of the gallery's database is full ({message}); nothing was stored"),
        ),
        // A page or an index is damaged.
        "XX001" | "XX002" => (
            Kind::Io,
            format!("the gallery's database is damaged: {message}"),
        ),
        // A lock is not available, or a deadlock was detected.
        "55P03" | "40P01" => (
            Kind::Overloaded,
            "another writer holds the gallery for too long; try again shortly".to_owned(),
        ),
        // The transaction is read-only.
        "25006" => (
            Kind::Unavailable,
            "the gallery's database is read-only; use the location of its primary server"
                .to_owned(),
        ),
        // The table is undefined.
        "42P01" => (
            Kind::Unavailable,
            "the gallery is being replaced repeatedly; try again shortly".to_owned(),
        ),
        // The query was canceled.
        "57014" => (
            Kind::Unavailable,
            format!("the gallery's database took too long: {message}"),
        ),
        // 08 connection, 28 authorization, 3D no such database, 53 insufficient resources.
        code if is_shutdown(code)
            || ["08", "28", "3D", "53"]
                .iter()
                .any(|class| code.starts_with(class)) =>
        {
            (
                Kind::Unavailable,
                format!("the gallery's database rejects the request: {message}"),
            )
        }
        code => (
            Kind::Internal,
            format!("the gallery's database failed: {message} (SQLSTATE {code})"),
        ),
    }
}

/// Returns whether a column does not have the expected type.
fn is_misread(error: &tokio_postgres::Error) -> bool {
    error
        .source()
        .is_some_and(|cause| cause.is::<WrongType>() || cause.is::<WasNull>())
}

/// Returns whether the server closed the connection. 57P: shutdown or termination; 25P03: timeout
/// of an idle transaction.
fn is_shutdown(code: &str) -> bool {
    code.starts_with("57P") || code == "25P03"
}

/// Returns an error with its causes; the driver's own message is as short as `error connecting to
/// server`.
fn causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        message = format!("{message}: {cause}");
        inner = cause.source();
    }
    message
}
