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

    /// Maximum number of requests per minute [default: no limit]
    #[arg(long, value_name = "COUNT")]
    requests_per_minute: Option<NonZeroU32>,
}

impl Keys {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self::New(key) = self;
        let NewKey { secret, entry } =
            NewKey::random(&key.name, key.role, key.requests_per_minute)?;
        std::io::stdout().write_all(entry.as_bytes())?;
        eprintln!("The key is {secret} and cannot be shown again: only its hash is in the file.");
        Ok(())
    }
}
