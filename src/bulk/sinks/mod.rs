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

    /// Returns the files next to the output.
    pub fn companions(&self, schema: &Schema) -> Result<Vec<Place>> {
        let endings = self.format.sink().companions(schema).iter();
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
