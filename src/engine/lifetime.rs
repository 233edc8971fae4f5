//! Beginning and end of sessions, which take turns in a process.
//!
//! OpenVINO maps the file of the weights for every session. It packs them for its kernels and does
//! not read the mapped pages again, unless it compiles for a new shape, so their memory is
//! released. That is sound while no other thread unmaps them, so no session begins, ends or runs
//! meanwhile.

#![allow(
    unsafe_code,
    reason = "releasing the pages of others needs a contract, which is below"
)]

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use ort::session::Session;

use crate::{artifacts::release_pages_of, error::Result};

/// Held while a session begins or ends.
static TURN: Mutex<()> = Mutex::new(());
/// Read while a session runs.
static RUNS: RwLock<()> = RwLock::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Delays the release of weights until the guard is dropped.
pub(super) fn running() -> RwLockReadGuard<'static, ()> {
    RUNS.read().unwrap_or_else(PoisonError::into_inner)
}

/// A session that begins and ends in turn with the others.
pub(super) struct OwnedSession(Option<Session>);

impl OwnedSession {
    /// Creates a session.
    pub(super) fn create(create: impl FnOnce() -> Result<Session>) -> Result<Self> {
        let _turn = turn();
        create().map(|session| Self(Some(session)))
    }
}

impl Deref for OwnedSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.0.as_ref().expect("it is there until the end")
    }
}

impl DerefMut for OwnedSession {
    fn deref_mut(&mut self) -> &mut Session {
        self.0.as_mut().expect("it is there until the end")
    }
}

impl Drop for OwnedSession {
    fn drop(&mut self) {
        let _turn = turn();
        self.0.take();
    }
}

/// Releases the memory of the weights that sessions have mapped from `data`.
pub(super) fn release_weights(data: &Path) {
    let _turn = turn();
    let _pause = RUNS.write().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: only sessions of OpenVINO map the file, read-only; other code reads it. No session
    // begins, ends or runs until this function returns.
    unsafe { release_pages_of(data) };
}
