//! A line of a journal: an image, and what has become of it.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    bulk::row::{Record, Row, Values},
    error::{Error, Result},
    sources::Identity,
};

/// A line of the file.
#[derive(Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) id: String,
    #[serde(default)]
    identity: Option<Identity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default)]
    grid: [usize; 2],
    /// The bytes of each column in base64.
    #[serde(default)]
    values: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scales: Vec<Vec<f32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Line {
    pub(super) fn of(identity: Option<Identity>, record: &Record) -> Self {
        match record {
            Record::Row(row) => Self {
                id: row.id.clone(),
                identity,
                label: row.label.clone(),
                grid: row.grid,
                values: row
                    .columns
                    .iter()
                    .map(|values| BASE64_STANDARD.encode(&values.bytes))
                    .collect(),
                scales: match row.columns.iter().all(|values| values.scales.is_empty()) {
                    true => Vec::new(),
                    false => row
                        .columns
                        .iter()
                        .map(|values| values.scales.clone())
                        .collect(),
                },
                error: None,
            },
            Record::Failed { name, error } => Self {
                id: name.clone(),
                identity,
                label: None,
                grid: [0; 2],
                values: Vec::new(),
                scales: Vec::new(),
                error: Some(error.clone()),
            },
        }
    }

    /// Whether it is about this image, which has not changed since.
    pub(super) fn is_of(&self, id: &str, identity: Option<&Identity>) -> bool {
        self.id == id && self.identity.as_ref() == identity
    }

    pub(super) fn record(&self, path: &Path) -> Result<Record> {
        if let Some(error) = &self.error {
            return Ok(Record::Failed {
                name: self.id.clone(),
                error: error.clone(),
            });
        }
        let mut scales = self.scales.iter().cloned();
        let columns = self.values.iter().map(|text| {
            let bytes = BASE64_STANDARD.decode(text).map_err(|_| damaged(path))?;
            Ok(Values {
                bytes,
                scales: scales.next().unwrap_or_default(),
            })
        });
        Ok(Record::Row(Row {
            id: self.id.clone(),
            label: self.label.clone(),
            grid: self.grid,
            columns: columns.collect::<Result<_>>()?,
        }))
    }
}

/// Parses a line, with or without its end.
pub(super) fn parse(text: &[u8]) -> Option<Line> {
    serde_json::from_slice(text).ok()
}

pub(super) fn damaged(path: &Path) -> Error {
    Error::damaged(format!(
        "{} is damaged; delete it to begin again",
        path.display()
    ))
}
