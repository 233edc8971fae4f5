//! The right to write an output in a store, so that two processes do not work on one shard.
//!
//! It is an object next to the output, which its holder renews. A lease that is not renewed for
//! [`EXPIRY`] is that of a dead process. Local outputs have the lock of their journal instead.

use std::{fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::{
    error::{Error, Kind, Result},
    sources::{ObjectPlace, Place},
};

/// Time between two renewals.
const RENEWAL: Duration = Duration::from_secs(10);
/// Time after which a lease that was not renewed is free.
const EXPIRY: Duration = Duration::from_secs(45);

/// The content of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    host: String,
    /// The process numbers that this one is of: those of a machine, or of a container, since it
    /// was started.
    numbers: String,
    process: u32,
    /// Random, as a container may have the same host, numbers and process as another.
    token: String,
    /// Counts renewals, so that no clocks are compared.
    renewals: u64,
}

/// A lease that is held.
pub struct Lease {
    place: ObjectPlace,
    token: String,
    renewing: JoinHandle<()>,
}

impl Lease {
    /// Takes the lease of an output in a store; `None` for a local output. Waits for the lease of
    /// a dead process to expire.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if another process has it.
    pub async fn take(output: &Place) -> Result<Option<Self>> {
        let Place::Object(lock) = output.with_name(&format!("{}.lock", output.name()))? else {
            return Ok(None);
        };
        let own = Holder::new()?;
        let token = own.token.clone();
        match lock.write_new(encode(&own)?).await {
            Ok(true) => (),
            Ok(false) => {
                wait_for(&lock, &own, output).await?;
                lock.write(encode(&own)?).await?;
            }
            // Such a store has no leases.
            Err(error) if error.kind() == Kind::InvalidOption => return Ok(None),
            Err(error) => return Err(error),
        }
        let place = lock.clone();
        let renewing = tokio::spawn(async move {
            let mut holder = own;
            loop {
                tokio::time::sleep(RENEWAL).await;
                holder.renewals += 1;
                let Ok(content) = encode(&holder) else {
                    return;
                };
                // A missed renewal is made up for by the next one.
                if let Err(error) = lock.write(content).await {
                    tracing::warn!(%error, "the lease is not renewed");
                }
            }
        });
        Ok(Some(Self {
            place,
            token,
            renewing,
        }))
    }

    /// Rejects to go on if another process has taken the lease, as after a pause of this one.
    pub async fn check(&self) -> Result<()> {
        match read(&self.place).await? {
            Some(holder) if holder.token == self.token => Ok(()),
            _ => Err(Error::new(
                Kind::Conflict,
                format!("another process has taken over {}", self.place),
            )),
        }
    }

    /// Gives the lease back.
    pub async fn release(self) -> Result<()> {
        self.renewing.abort();
        self.place.delete().await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Returns when the process that has the lease is found to be dead.
async fn wait_for(lock: &ObjectPlace, own: &Holder, output: &Place) -> Result<()> {
    let Some(first) = read(lock).await? else {
        return Ok(());
    };
    // A process of this machine or container can be looked up.
    let is_near = first.host == own.host && first.numbers == own.numbers;
    if is_near && (first.process == own.process || !is_alive(first.process)) {
        return Ok(());
    }
    let taken = || {
        let Holder { host, process, .. } = &first;
        Error::new(
            Kind::Conflict,
            format!(
                "another process writes {output} (process {process} on {host}); wait for its end, \
                 or give another --output"
            ),
        )
    };
    if is_near {
        return Err(taken());
    }
    tracing::info!(%output, host = first.host, "waiting for the lease of another process");
    let started = std::time::Instant::now();
    while started.elapsed() < EXPIRY {
        tokio::time::sleep(RENEWAL / 4).await;
        match read(lock).await? {
            None => return Ok(()),
            Some(holder) if holder != first => return Err(taken()),
            Some(_) => (),
        }
    }
    Ok(())
}

async fn read(lock: &ObjectPlace) -> Result<Option<Holder>> {
    let content = Place::Object(lock.clone()).read_if_exists().await?;
    // What is no lease is free.
    Ok(content.and_then(|content| serde_json::from_slice(&content).ok()))
}

fn encode(holder: &Holder) -> Result<bytes::Bytes> {
    let content = serde_json::to_vec(holder);
    let content = content.map_err(|error| Error::internal(format!("a lease: {error}")))?;
    Ok(content.into())
}

fn is_alive(process: u32) -> bool {
    Path::new("/proc").join(process.to_string()).exists()
}

impl Holder {
    fn new() -> Result<Self> {
        let random = getrandom::u64();
        let random = random.map_err(|error| Error::internal(format!("a lease: {error}")))?;
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let boot = read("/proc/sys/kernel/random/boot_id");
        Ok(Self {
            host: read("/proc/sys/kernel/hostname").trim().to_owned(),
            numbers: format!("{} {}", boot.trim(), namespace.display()),
            process: std::process::id(),
            token: format!("{random:016x}"),
            renewals: 0,
        })
    }
}
