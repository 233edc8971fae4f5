//! A line of JSON for each image.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use half::f16;
use serde_json::{Map, Value, json};

use super::sink::{Results, Sink};
use crate::{
    artifacts::write_atomically,
    bulk::{
        feature::Dtype,
        row::{Column, Row, Schema, Values},
    },
    error::{Error, Result},
};

/// `.jsonl`
pub(super) struct Jsonl;

impl Sink for Jsonl {
    fn write(&self, path: &Path, results: &Results<'_>) -> Result<()> {
        let writing = |error| Error::writing(path, error);
        write_atomically(path, |file| {
            let mut file = BufWriter::new(file);
            for row in (results.read)()? {
                write_line(&mut file, results.schema, &row?).map_err(writing)?;
            }
            file.flush().map_err(writing)
        })
    }
}

/// Writes the features of an image as a line of JSON.
pub fn write_line(writer: &mut impl Write, schema: &Schema, row: &Row) -> io::Result<()> {
    let mut line = Map::new();
    line.insert("path".to_owned(), json!(row.id));
    if let Some(label) = &row.label {
        line.insert("label".to_owned(), json!(label));
    }
    if schema.has_tokens() {
        line.insert("grid".to_owned(), json!(row.grid));
    }
    for (column, values) in schema.columns.iter().zip(&row.columns) {
        line.insert(column.name.clone(), content(column, schema.dtype, values));
        if schema.dtype == Dtype::I8 {
            let scales = match (column.is_tokens(), values.scales.as_slice()) {
                (false, [scale]) => json!(scale),
                (_, scales) => json!(scales),
            };
            line.insert(column.scale_name(), scales);
        }
    }
    serde_json::to_writer(&mut *writer, &line)?;
    writer.write_all(b"\n")
}

/// A vector, or a list of the vectors of the patches.
fn content(column: &Column, dtype: Dtype, values: &Values) -> Value {
    let vectors = values
        .bytes
        .chunks_exact(column.width.max(1) * dtype.bytes());
    let mut vectors = vectors.map(|vector| numbers(dtype, vector));
    match column.is_tokens() {
        true => Value::Array(vectors.collect()),
        false => vectors.next().unwrap_or_default(),
    }
}

fn numbers(dtype: Dtype, bytes: &[u8]) -> Value {
    match dtype {
        Dtype::F32 => {
            let values = bytes.as_chunks::<4>().0.iter();
            values
                .map(|&value| json!(f32::from_le_bytes(value)))
                .collect()
        }
        Dtype::F16 => {
            let values = bytes.as_chunks::<2>().0.iter();
            values
                .map(|&value| json!(f16::from_le_bytes(value).to_f32()))
                .collect()
        }
        Dtype::I8 => bytes
            .iter()
            .map(|&value| json!(value.cast_signed()))
            .collect(),
    }
}
