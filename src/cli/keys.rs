//! `dinoserve keys`.

use std::{io::Write, num::NonZeroU32};

use clap::{Args, Subcommand};

use super::flags::names;
use crate::http::access::{NewKey, Role};

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key; its entry for the file of --api-keys goes to standard output, the key itself to
    /// standard error
    New(New),
}

/// `dinoserve keys new --name shop >> keys.toml`
#[derive(Debug, Args)]
pub(super) struct New {
    /// Name of the key, for logs and metrics
    #[arg(long)]
    name: String,

    /// Role of the key: read (features and searches), write (also store and delete), admin (also
    /// load models, and delete and restore galleries)
    #[arg(long, default_value = "read", value_parser = names::<Role>())]
    role: Role,

    /// Maximum number of requests per minute; 0 for no limit [default: 6000 for the role read]
    #[arg(long, value_name = "COUNT")]
    requests_per_minute: Option<u32>,

    /// Number of requests that may come at once [default: 100 for the role read, else a tenth of
    /// the requests per minute]
    #[arg(long, value_name = "COUNT")]
    burst: Option<NonZeroU32>,
}

/// Default rate of a key that can only read: more than a model answers on a few cores, and too few
/// for cheap requests to slow others down.
const READ_REQUESTS_PER_MINUTE: u32 = 6000;
/// Default burst of that rate: one second.
const READ_BURST: u32 = 100;

impl Keys {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self::New(key) = self;
        let (rate, burst) = match (key.role, key.requests_per_minute) {
            (_, Some(given)) => (given, 0),
            (Role::Read, None) => (READ_REQUESTS_PER_MINUTE, READ_BURST),
            (Role::Write | Role::Admin, None) => (0, 0),
        };
        let burst = key.burst.or(NonZeroU32::new(burst));
        let NewKey { secret, entry } =
            NewKey::random(&key.name, key.role, NonZeroU32::new(rate), burst)?;
        std::io::stdout().write_all(entry.as_bytes())?;
        eprintln!("The key is {secret} and cannot be shown again: only its hash is in the file.");
        Ok(())
    }
}
