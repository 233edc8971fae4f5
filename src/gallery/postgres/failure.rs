//! What goes wrong between here and the database, and what it means to the caller.

use std::error::Error as _;

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use tokio_postgres::{
    error::{DbError, SqlState},
    types::{WasNull, WrongType},
};

use crate::error::{Error, Kind};

/// An error of the database, of the way to it, or of ours. Becomes an [`Error`] where it leaves the
/// store.
#[derive(Debug)]
pub(super) enum Failure {
    /// A statement failed, or the connection broke.
    Database(tokio_postgres::Error),
    /// No connection was to be had.
    Pool(PoolError),
    /// What was asked for is not there, or is not as it should be.
    Ours(Error),
}

/// `Result` with a [`Failure`].
pub(super) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// Whether a table was dropped after it had been looked up. Who looks again finds what is there
    /// now.
    pub(super) fn table_is_gone(&self) -> bool {
        self.state() == Some(&SqlState::UNDEFINED_TABLE)
    }

    /// Whether the connection, and with it the answer to what was sent, was lost.
    pub(super) fn connection_is_lost(&self) -> bool {
        match self {
            Self::Database(error) => error
                .as_db_error()
                .is_none_or(|error| is_shutdown(error.code())),
            Self::Pool(_) => true,
            Self::Ours(_) => false,
        }
    }

    /// Whether the database found what it has stored to be damaged.
    pub(super) fn is_damage(&self) -> bool {
        self.state().is_some_and(is_damage)
    }

    fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Database(error) => error.code(),
            Self::Pool(_) | Self::Ours(_) => None,
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
                    Some(refusal) => of_refusal(refusal),
                    None if is_misread(&error) => (Kind::Internal, causes(&error)),
                    None => (
                        Kind::Unavailable,
                        format!(
                            "the gallery's database cannot be reached: {}",
                            causes(&error)
                        ),
                    ),
                };
                // The detail has all that the driver's error says.
                Self::new(kind, detail)
            }
        }
    }
}

/// What an answer of the database means.
fn of_refusal(refusal: &DbError) -> (Kind, String) {
    let message = refusal.message();
    let code = refusal.code();
    if *code == SqlState::DISK_FULL {
        return (
            Kind::StorageFull,
            format!("the disk of the gallery's database is full ({message}); nothing was stored"),
        );
    }
    if is_damage(code) {
        return (
            Kind::Io,
            format!("the gallery's database is damaged: {message}"),
        );
    }
    if *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::T_R_DEADLOCK_DETECTED {
        return (
            Kind::Overloaded,
            "another writer holds the gallery for too long; try again shortly".to_owned(),
        );
    }
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return (
            Kind::Unavailable,
            "the gallery's database takes no writes; name its primary server".to_owned(),
        );
    }
    if *code == SqlState::UNDEFINED_TABLE {
        return (
            Kind::Unavailable,
            "the gallery is being replaced time and again; try again shortly".to_owned(),
        );
    }
    if *code == SqlState::QUERY_CANCELED {
        return (
            Kind::Unavailable,
            format!("the gallery's database took too long: {message}"),
        );
    }
    // 08 connection, 28 who may connect, 3D no such database, 53 not enough of something.
    let unavailable = ["08", "28", "3D", "53"]
        .iter()
        .any(|class| code.code().starts_with(class));
    if unavailable || is_shutdown(code) {
        return (
            Kind::Unavailable,
            format!("the gallery's database refuses: {message}"),
        );
    }
    (
        Kind::Internal,
        format!(
            "the gallery's database says: {message} (SQLSTATE {})",
            code.code()
        ),
    )
}

/// Whether a column is not of the type that it is read as.
fn is_misread(error: &tokio_postgres::Error) -> bool {
    error
        .source()
        .is_some_and(|cause| cause.is::<WrongType>() || cause.is::<WasNull>())
}

/// 57P: the server ends, or the connection was ended; 25P03: it waited for too long within a
/// transaction.
fn is_shutdown(code: &SqlState) -> bool {
    code.code().starts_with("57P") || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
}

/// XX001 and XX002: a page or an index is not as it was written.
fn is_damage(code: &SqlState) -> bool {
    *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED
}

/// The error and what caused it; the driver's own message is as short as `error connecting to
/// server`.
fn causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        said = format!("{said}: {cause}");
        inner = cause.source();
    }
    said
}
