//! The servers, and what their clients share.

use std::{
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Instant,
};

/// The servers, and what the clients share.
pub struct World {
    pub servers: Vec<Slot>,
    pub clock: Instant,
    pub next_version: AtomicU64,
    pub is_over: AtomicBool,
    /// Connections that were lost although no server was killed.
    pub lost: Mutex<Vec<String>>,
    /// Largest difference of a score.
    pub tolerance: f64,
}

/// A server.
pub struct Slot {
    pub url: RwLock<String>,
    /// Raised before a kill and after the start that follows: odd while there is no server.
    pub epoch: AtomicU64,
}

impl World {
    pub fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }
}
