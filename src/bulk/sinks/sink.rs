//! A format of results, and what it gets.

use std::path::Path;

use crate::{
    bulk::row::{Row, Schema},
    error::Result,
};

/// All results of a run, and what is written about them.
pub struct Results<'a> {
    /// The columns.
    pub schema: &'a Schema,
    /// Name of the model.
    pub model: &'a str,
    /// Fingerprint of the model.
    pub fingerprint: &'a str,
    /// All that the results depend on but the images, as JSON.
    pub options: String,
    /// Number of rows.
    pub count: u64,
    /// Reads the rows in their order; can be called again.
    pub read: &'a dyn Fn() -> Result<Rows>,
}

/// Rows one after the other.
pub type Rows = Box<dyn Iterator<Item = Result<Row>>>;

/// A format of results.
pub(in crate::bulk) trait Sink {
    /// Returns the endings of the files that can be next to the output. They are complete before
    /// it.
    fn companions(&self) -> &'static [&'static str] {
        &[]
    }

    /// Rejects results that the format cannot hold.
    fn check(&self, _schema: &Schema) -> Result<()> {
        Ok(())
    }

    /// Writes the file, and those next to it, each as a whole or not at all.
    fn write(&self, path: &Path, results: &Results<'_>) -> Result<()>;
}
