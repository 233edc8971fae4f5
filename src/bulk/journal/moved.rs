//! Results of an earlier run that are no longer at their place.

use std::{
    collections::HashMap,
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::Path,
};

use super::line::{Line, parse};
use crate::error::{Error, Result};

/// Lines of an earlier run by the hashes of their ids.
pub(super) struct Moved {
    file: File,
    offsets: HashMap<u64, u64>,
}

impl Moved {
    pub(super) fn read(file: File, path: &Path) -> Result<Self> {
        let reading = |error| Error::reading(path, error);
        let mut lines = BufReader::new(file.try_clone().map_err(reading)?);
        let mut offsets = HashMap::new();
        let mut offset = 0;
        let mut text = Vec::new();
        while lines.read_until(b'\n', &mut text).map_err(reading)? > 0 {
            if let Some(line) = parse(&text) {
                offsets.insert(hash(&line.id), offset);
            }
            offset += text.len() as u64;
            text.clear();
        }
        Ok(Self { file, offsets })
    }

    pub(super) fn find(&mut self, id: &str) -> Option<Line> {
        let offset = *self.offsets.get(&hash(id))?;
        self.file.seek(SeekFrom::Start(offset)).ok()?;
        let mut text = Vec::new();
        let read = BufReader::new(&self.file).read_until(b'\n', &mut text);
        read.ok().and_then(|_| parse(&text))
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
