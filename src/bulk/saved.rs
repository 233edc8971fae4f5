//! A journal's copy in a store, so that another machine goes on where this one stopped.
//!
//! The copy is a number of parts, each named by its place in the journal.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::journal::Journal;
use crate::{
    error::{Error, Result},
    sources::{ObjectPlace, Place},
};

/// Time between two parts.
const INTERVAL: Duration = Duration::from_secs(60);
/// Maximum size of a part.
const PART: u64 = 64 << 20;

/// A part of a journal.
pub struct Part {
    bytes: Bytes,
    offset: u64,
    /// Whether it begins another copy.
    is_new: bool,
}

/// The copy of a journal.
pub struct Saved {
    parts: ObjectPlace,
    /// Bytes of the journal that are in the store.
    saved: u64,
    is_checked: bool,
    last: Instant,
}

impl Saved {
    /// Finds the copy of the journal of an output in a store, and brings it to this machine if the
    /// journal here has less; `None` for a local output.
    pub async fn restore(output: &Place, journal: &Path) -> Result<Option<Self>> {
        let name = format!("{}.partial", output.name());
        let Place::Object(parts) = output.with_name(&name)? else {
            return Ok(None);
        };
        let mut found: Vec<(ObjectPlace, u64)> = Vec::new();
        let mut listed = parts.list();
        while let Some((part, identity)) = listed.try_next().await? {
            found.push((part, identity.bytes));
        }
        found.sort_by_key(|(part, _)| part.to_string());
        // Parts after a gap are those of a run that was stopped while it deleted them.
        let mut saved = 0;
        found.retain(|(part, bytes)| {
            let follows = part.to_string().ends_with(&format!("/{}", name_of(saved)));
            saved += if follows { *bytes } else { 0 };
            follows
        });
        let here = fs::metadata(journal).map_or(0, |metadata| metadata.len());
        if saved > here {
            // Part by part, and renamed at the end.
            let writing = |error| Error::writing(journal, error);
            let unfinished = journal.with_added_extension("restoring");
            let mut file = File::create(&unfinished).map_err(writing)?;
            for (part, _) in found {
                file.write_all(&part.read().await?).map_err(writing)?;
            }
            file.sync_data().map_err(writing)?;
            fs::rename(&unfinished, journal).map_err(writing)?;
        }
        Ok(Some(Self {
            parts,
            saved,
            is_checked: false,
            last: Instant::now(),
        }))
    }

    /// Returns whether it is time to save.
    pub fn is_due(&self) -> bool {
        self.last.elapsed() >= INTERVAL
    }

    /// Reads the next part that the store does not have.
    pub fn next_part(&mut self, journal: &Journal) -> Result<Option<Part>> {
        if !journal.is_caught_up() {
            return Ok(None);
        }
        let mut is_new = false;
        // Lines of the copy may have moved.
        if !std::mem::replace(&mut self.is_checked, true) && journal.kept() < self.saved {
            self.saved = 0;
            is_new = true;
        }
        let length = PART.min(journal.length().saturating_sub(self.saved));
        if length == 0 {
            return Ok(None);
        }
        let part = Part {
            bytes: journal.read_bytes(self.saved, length)?.into(),
            offset: self.saved,
            is_new,
        };
        self.saved += length;
        Ok(Some(part))
    }

    /// Copies a part to the store.
    pub async fn upload(&mut self, part: Part) -> Result<()> {
        self.last = Instant::now();
        if part.is_new {
            self.parts.delete_below().await?;
        }
        let place = Place::Object(self.parts.clone()).join(&name_of(part.offset))?;
        if let Place::Object(place) = place {
            place.write(part.bytes).await?;
        }
        Ok(())
    }

    /// Deletes the copy: the output has all results.
    pub async fn remove(self) -> Result<()> {
        self.parts.delete_below().await
    }
}

fn name_of(offset: u64) -> String {
    format!("{offset:020}")
}
