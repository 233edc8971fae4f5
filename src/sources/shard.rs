//! The part of the images that one of several processes works on.

use std::{env, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Shard `index` of `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// From 0 on.
    pub index: u64,
    /// Number of shards.
    pub count: u64,
}

/// Variables by which schedulers number processes: the index, the count, and the first index.
const VARIABLES: [(&str, &str, Option<&str>); 3] = [
    ("JOB_COMPLETION_INDEX", "COMPLETIONS", None),
    (
        "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_COUNT",
        Some("SLURM_ARRAY_TASK_MIN"),
    ),
    ("RANK", "WORLD_SIZE", None),
];

impl Shard {
    /// Everything.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Returns shard `index` of `count`.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`](crate::error::Kind) unless `index` is less than `count`.
    pub fn new(index: u64, count: u64) -> Result<Self> {
        if index < count {
            return Ok(Self { index, count });
        }
        let last = count.saturating_sub(1);
        let range = format_args!("0/{count} to {last}/{count}: shards are counted from 0");
        Err(match count {
            0 => Error::option("shard", "there must be at least one shard"),
            _ => Error::out_of_range("shard", format_args!("{index}/{count}"), range),
        })
    }

    /// Returns the shard that the environment of a Kubernetes Indexed Job, a Slurm array or
    /// torchrun gives this process, with the name of the variable.
    pub fn from_environment() -> Result<Option<(Self, &'static str)>> {
        for (index, count, first) in VARIABLES {
            let (Some(at), Some(total)) = (variable(index)?, variable(count)?) else {
                continue;
            };
            let first = first.map_or(Ok(None), variable)?.unwrap_or(0);
            let at = at.checked_sub(first).ok_or_else(|| {
                let detail = format_args!("{index} is {at}, but the first index is {first}");
                Error::option("shard", detail)
            })?;
            let shard = Self::new(at, total)
                .map_err(|error| error.context(format_args!("{index} and {count}")))?;
            return Ok(Some((shard, index)));
        }
        Ok(None)
    }

    /// Returns whether this is all there is.
    pub fn is_whole(self) -> bool {
        self.count == 1
    }

    /// Returns whether the image of this id is in the shard: the first eight bytes of the SHA-256
    /// of the id, big-endian, modulo the number of shards. New images change no other's shard.
    pub fn has_id(self, id: &str) -> bool {
        if self.is_whole() {
            return true;
        }
        let hash = Sha256::digest(id);
        let head = hash.first_chunk().copied().unwrap_or_default();
        u64::from_be_bytes(head) % self.count == self.index
    }

    /// Returns whether the file at this place among the containers is in the shard.
    pub(super) fn has_place(self, place: u64) -> bool {
        place % self.count == self.index
    }
}

/// Reads a variable; an empty one counts as missing.
fn variable(name: &str) -> Result<Option<u64>> {
    match env::var(name) {
        Ok(text) if !text.trim().is_empty() => match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => {
                let detail = format_args!("{name} is {text:?}, which is no number");
                Err(Error::option("shard", detail))
            }
        },
        _ => Ok(None),
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(index, count)| {
            let index = index.trim().parse().ok()?;
            Some((index, count.trim().parse().ok()?))
        });
        let Some((index, count)) = parts else {
            let detail = format_args!("{text:?} is not I/N, such as 0/8 for the first of eight");
            return Err(Error::option("shard", detail));
        };
        Self::new(index, count)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_counted_from_zero() {
        let shard: Shard = "3/8".parse().expect("a shard");
        assert_eq!(shard, Shard { index: 3, count: 8 });
        for text in ["8/8", "0/0", "1", "a/b", "-1/2", ""] {
            let error = text.parse::<Shard>().expect_err(text);
            assert!(error.detail().contains("shard"), "{error}");
        }
    }

    #[test]
    fn each_id_is_in_one_shard_and_the_shards_are_even() {
        let shards: Vec<Shard> = (0..8)
            .map(|index| Shard::new(index, 8).expect("a shard"))
            .collect();
        let mut counts = [0; 8];
        for id in 0..8000 {
            let id = format!("images/{id}.jpg");
            let found: Vec<usize> = (0..8).filter(|&at| shards[at].has_id(&id)).collect();
            assert_eq!(found.len(), 1, "{id}");
            counts[found[0]] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
        // Python: int.from_bytes(sha256(b"a/b.jpg").digest()[:8]) % 8
        assert!(shards[0].has_id("a/b.jpg"));
    }
}
