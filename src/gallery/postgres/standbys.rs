//! Searches and pages from standbys: copies of the database that follow it (`--gallery-read`).
//!
//! A standby answers only if it has every write of the gallery that was acknowledged before the
//! request, by any server. The primary says how many writes the gallery has had, and the standby's
//! row is compared with that in the snapshot that is read. A standby that is behind gets a moment
//! to catch up; then, and after every error of a standby, the primary answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_postgres::error::SqlState;

use super::{
    connection::{Connection, Database},
    failure::{Failure, Outcome},
    gallery_row::{self, Version},
    scan::ScanConnection,
};
use crate::{
    error::{Error, Kind, Result},
    gallery::{GalleryConfig, GalleryName},
};

/// Pause before a standby that was behind is read again.
const POLL: Duration = Duration::from_millis(2);
/// Time after which a standby that failed is tried again, by one read.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The same for a standby that stayed behind.
const RETRY_BEHIND_AFTER: Duration = Duration::from_secs(1);

/// What is read.
#[derive(Clone, Copy)]
pub(super) enum ReadKind {
    Search,
    Page,
}

impl ReadKind {
    async fn connection(self, database: &Database) -> Outcome<ScanConnection> {
        match self {
            Self::Search => database.search().await,
            Self::Page => database.page().await,
        }
    }
}

/// The standbys of a database.
pub(super) struct Standbys {
    primary: Arc<Database>,
    standbys: Vec<Standby>,
    next: AtomicUsize,
    max_wait: Duration,
}

struct Standby {
    database: Database,
    /// Whether it is known to be a standby of the primary.
    verified: AtomicBool,
    /// When it is tried again after a failure.
    retry_at: Mutex<Option<Instant>>,
}

impl Standbys {
    /// Connects to the standbys. One that cannot be reached is tried again later.
    ///
    /// # Errors
    /// [`crate::error::Kind::InvalidOption`] for one that is a copy of another database.
    pub(super) async fn open(
        primary: Arc<Database>,
        urls: &[String],
        config: &GalleryConfig,
    ) -> Result<Self> {
        let mut standbys = Vec::with_capacity(urls.len());
        for url in urls {
            let standby = Standby {
                database: Database::new("gallery-read", url, config.connections)?,
                verified: AtomicBool::new(false),
                retry_at: Mutex::default(),
            };
            match standby.verify(&primary).await {
                Ok(()) => {}
                Err(Failure::Ours(error)) if error.kind() == Kind::InvalidOption => {
                    return Err(error);
                }
                Err(failure) => standby.mark_unavailable(failure),
            }
            standbys.push(standby);
        }
        Ok(Self {
            primary,
            standbys,
            next: AtomicUsize::new(0),
            max_wait: config.standby_wait,
        })
    }

    /// Chooses where to read a gallery.
    pub(super) async fn source(&self, name: &GalleryName) -> Outcome<Source<'_>> {
        let mut source = Source {
            standbys: self,
            standby: None,
        };
        if let Some(standby) = self.choose() {
            let version = gallery_row::version(&self.primary.connection().await?, name).await?;
            source.standby = version.map(|version| (standby, version, Instant::now()));
        }
        Ok(source)
    }

    /// Returns the next of the standbys that have not failed.
    fn choose(&self) -> Option<&Standby> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.standbys.len();
        let mut in_turn = (0..count).map(|step| &self.standbys[first.wrapping_add(step) % count]);
        in_turn.find(|standby| standby.is_available())
    }

    /// Closes the pools of connections.
    pub(super) fn close(&self) {
        for standby in &self.standbys {
            standby.database.close();
        }
    }
}

/// Where a gallery is read: a standby, and the primary if that lacks a write or fails.
pub(super) struct Source<'a> {
    standbys: &'a Standbys,
    /// The standby, what it needs to have, and the start of the read.
    standby: Option<(&'a Standby, Version, Instant)>,
}

impl Source<'_> {
    /// Returns a connection for the read.
    pub(super) async fn connection(&mut self, kind: ReadKind) -> Outcome<ScanConnection> {
        let primary = &self.standbys.primary;
        if let Some((standby, ..)) = self.standby {
            match standby.verify(primary).await {
                Ok(()) => return kind.connection(&standby.database).await,
                Err(failure) => standby.mark_unavailable(failure),
            }
            self.standby = None;
        }
        kind.connection(primary).await
    }

    /// Returns what the gallery's row must have.
    pub(super) fn version(&self) -> Option<Version> {
        self.standby.map(|(_, version, _)| version)
    }

    /// Returns the outcome, or `None` if the read is to be repeated.
    pub(super) async fn settle<T>(&mut self, outcome: Outcome<T>) -> Option<Outcome<T>> {
        let Some((standby, _, started)) = self.standby else {
            return Some(outcome);
        };
        match outcome {
            Ok(value) => {
                standby.mark_available();
                return Some(Ok(value));
            }
            // The gallery lacks what is read, on the primary as well.
            Err(Failure::Ours(error)) if error.kind() != Kind::Overloaded => {
                return Some(Err(error.into()));
            }
            Err(Failure::Behind) if started.elapsed() < self.standbys.max_wait => {
                tokio::time::sleep(POLL).await;
                return None;
            }
            Err(failure) if failure.is_of_server() || matches!(failure, Failure::Behind) => {
                standby.mark_unavailable(failure);
            }
            Err(failure) => {
                let (standby, error) = (standby.database.location(), Error::from(failure));
                tracing::debug!(standby, %error, "the primary is read");
            }
        }
        self.standby = None;
        None
    }
}

impl Standby {
    /// Checks once that this is a standby of the primary. Fails with [`Failure::Behind`] if it has
    /// not got the tables yet.
    async fn verify(&self, primary: &Database) -> Outcome<()> {
        if self.verified.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (of_primary, _) = identity(&primary.connection().await?).await?;
        let (own, is_standby) = identity(&self.database.connection().await?).await?;
        if is_standby && own.is_none() {
            return Err(Failure::Behind);
        }
        if own != of_primary {
            let detail = format!(
                "the database at {} is not a standby of the one at {}; give the address of a \
                 streaming replica of it",
                self.database.location(),
                primary.location()
            );
            return Err(Error::option("gallery-read", detail).into());
        }
        if !is_standby {
            let detail = "it is a primary; remove it from --gallery-read, or make it follow again";
            return Err(Error::new(Kind::Unavailable, detail).into());
        }
        self.verified.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Returns whether to read from it. After a failure, one read at a time tests it.
    fn is_available(&self) -> bool {
        let mut retry_at = self.retry_at.lock();
        let now = Instant::now();
        match *retry_at {
            Some(at) if now < at => false,
            Some(_) => {
                *retry_at = Some(now + RETRY_AFTER);
                true
            }
            None => true,
        }
    }

    fn mark_available(&self) {
        if self.retry_at.lock().take().is_some() {
            let standby = self.database.location();
            tracing::info!(standby, "the standby is read again");
        }
    }

    fn mark_unavailable(&self, failure: Failure) {
        let pause = match failure {
            Failure::Behind => RETRY_BEHIND_AFTER,
            _ => RETRY_AFTER,
        };
        let (standby, error) = (self.database.location(), Error::from(failure));
        let before = self.retry_at.lock().replace(Instant::now() + pause);
        // Another database may get the address.
        self.verified.store(false, Ordering::Relaxed);
        match before {
            None => tracing::warn!(standby, %error, "the primary is read instead of a standby"),
            Some(_) => tracing::debug!(standby, %error, "the primary is still read instead"),
        }
    }
}

/// Returns what a database and its standbys have in common, and whether it is a standby.
async fn identity(client: &Connection) -> Outcome<(Option<String>, bool)> {
    const IS_STANDBY: &str = "SELECT pg_is_in_recovery()";
    const IDENTITY: &str = "SELECT id::text FROM dinoserve.identity LIMIT 1";
    let is_standby = client.query_one(IS_STANDBY, &[]).await?.get(0);
    match client.query_opt(IDENTITY, &[]).await {
        Ok(row) => Ok((row.map(|row| row.get(0)), is_standby)),
        // Without galleries, or not brought up to date yet.
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok((None, is_standby)),
        Err(error) => Err(error.into()),
    }
}
