//! The files that results become.

mod jsonl;
mod npy;
mod parquet;
mod sink;
mod tar;

use std::path::Path;

use self::sink::Sink;
pub use self::{
    jsonl::write_line,
    sink::{Results, Rows},
};

use super::{
    output::{Format, Output},
    row::{Record, Schema},
};
use crate::{error::Result, sources::Place};

impl Format {
    fn sink(self) -> &'static dyn Sink {
        match self {
            Self::Npy => &npy::Npy,
            Self::Jsonl => &jsonl::Jsonl,
            Self::Parquet => &parquet::Parquet,
            Self::Tar => &tar::Tar,
        }
    }

    /// Returns the endings of the files that can be next to an output.
    pub(super) fn companions(self) -> &'static [&'static str] {
        self.sink().companions()
    }

    /// Rejects results that the format cannot hold.
    pub fn check(self, schema: &Schema) -> Result<()> {
        self.sink().check(schema)
    }
}

impl Output {
    /// Writes the results to a local file, and to those next to it.
    pub fn write_at(&self, path: &Path, results: &Results<'_>) -> Result<()> {
        self.format.sink().write(path, results)
    }

    /// Returns the files that can be next to the output, which are complete before it.
    pub fn companions(&self) -> Result<Vec<Place>> {
        let endings = self.format.companions().iter();
        endings.map(|ending| self.companion(ending)).collect()
    }
}

/// The rows among records.
pub fn rows_of(records: impl Iterator<Item = Result<Record>> + 'static) -> Rows {
    Box::new(records.filter_map(|record| match record {
        Ok(Record::Row(row)) => Some(Ok(row)),
        Ok(Record::Failed { .. }) => None,
        Err(error) => Some(Err(error)),
    }))
}
