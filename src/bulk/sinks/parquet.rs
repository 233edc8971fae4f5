//! Parquet: a row for each image, vectors as fixed-size lists.

use std::{io::BufWriter, path::Path, sync::Arc};

use arrow_array::{
    ArrayRef, FixedSizeListArray, Float16Array, Float32Array, Int8Array, Int32Array, ListArray,
    RecordBatch, StringArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field, Schema as ArrowSchema};
use half::f16;
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    file::{metadata::KeyValue, properties::WriterProperties},
    schema::types::ColumnPath,
};

use super::sink::{Results, Sink};
use crate::{
    artifacts::write_atomically,
    bulk::{
        feature::Dtype,
        row::{Column, Row, Schema},
    },
    error::{Error, Kind, Result},
};

/// `.parquet`
pub(super) struct Parquet;

/// Maximum number of rows of a group.
const GROUP_ROWS: usize = 4096;
/// Bytes of values after which a group ends: a group is held in memory until it is written.
const GROUP_BYTES: usize = 16 << 20;

impl Sink for Parquet {
    fn write(&self, path: &Path, results: &Results<'_>) -> Result<()> {
        let failed = |error: parquet::errors::ParquetError| {
            let detail = format!("writing {}: {error}", path.display());
            Error::new(Kind::Io, detail).with_source(error)
        };
        write_atomically(path, |file| {
            let schema = arrow_schema(results.schema);
            // Some readers look into the schema of Arrow only.
            let schema = Arc::new(schema.with_metadata(about(results)));
            let mut writer = ArrowWriter::try_new(
                BufWriter::new(file),
                schema.clone(),
                Some(properties(results)),
            )
            .map_err(failed)?;
            let mut group: Vec<Row> = Vec::new();
            let mut bytes = 0;
            for row in (results.read)()? {
                let row = row?;
                bytes += row
                    .columns
                    .iter()
                    .map(|values| values.bytes.len())
                    .sum::<usize>();
                group.push(row);
                if group.len() == GROUP_ROWS || bytes >= GROUP_BYTES {
                    let rows = std::mem::take(&mut group);
                    let batch = batch(&schema, results.schema, rows);
                    let batch = batch.map_err(|error| failed(error.into()))?;
                    writer
                        .write(&batch)
                        .and_then(|()| writer.flush())
                        .map_err(failed)?;
                    bytes = 0;
                }
            }
            if !group.is_empty() {
                let batch = batch(&schema, results.schema, group);
                let batch = batch.map_err(|error| failed(error.into()))?;
                writer.write(&batch).map_err(failed)?;
            }
            writer.close().map(drop).map_err(failed)
        })
    }
}

fn properties(results: &Results<'_>) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("dinoserve ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(
            about(results)
                .map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned()))
                .to_vec(),
        ));
    for column in &results.schema.columns {
        // Values of vectors hardly repeat, so a dictionary or compression would only take time.
        let parts: &[&str] = match column.is_tokens() {
            true => &["list", "item", "list", "element"],
            false => &["list", "element"],
        };
        let mut path = vec![column.name.clone()];
        path.extend(parts.iter().map(|&part| part.to_owned()));
        let path = ColumnPath::from(path);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_compression(path, Compression::UNCOMPRESSED);
    }
    properties.build()
}

/// What the file says of its features.
fn about<'a>(results: &'a Results<'_>) -> [(&'static str, &'a str); 3] {
    [
        ("dinoserve.model", results.model),
        ("dinoserve.fingerprint", results.fingerprint),
        ("dinoserve.options", &results.options),
    ]
}

fn arrow_schema(schema: &Schema) -> ArrowSchema {
    let mut fields = vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("label", DataType::Utf8, true),
    ];
    if schema.has_tokens() {
        fields.push(Field::new("grid_height", DataType::Int32, false));
        fields.push(Field::new("grid_width", DataType::Int32, false));
    }
    for column in &schema.columns {
        fields.push(Field::new(
            &column.name,
            data_type(column, schema.dtype),
            false,
        ));
        if schema.dtype == Dtype::I8 {
            let scale = match column.is_tokens() {
                true => DataType::new_list(DataType::Float32, false),
                false => DataType::Float32,
            };
            fields.push(Field::new(column.scale_name(), scale, false));
        }
    }
    ArrowSchema::new(fields)
}

fn data_type(column: &Column, dtype: Dtype) -> DataType {
    let vector = vector_type(column, dtype);
    match column.is_tokens() {
        true => DataType::new_list(vector, false),
        false => vector,
    }
}

fn element(dtype: Dtype) -> Arc<Field> {
    let data_type = match dtype {
        Dtype::F32 => DataType::Float32,
        Dtype::F16 => DataType::Float16,
        Dtype::I8 => DataType::Int8,
    };
    Arc::new(Field::new("element", data_type, false))
}

fn batch(
    arrow: &Arc<ArrowSchema>,
    schema: &Schema,
    rows: Vec<Row>,
) -> Result<RecordBatch, ArrowError> {
    let ids = StringArray::from_iter_values(rows.iter().map(|row| &row.id));
    let labels: StringArray = rows.iter().map(|row| row.label.as_deref()).collect();
    let mut columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(labels)];
    if schema.has_tokens() {
        for axis in 0..2 {
            let sides = rows.iter().map(|row| row.grid[axis] as i32);
            columns.push(Arc::new(Int32Array::from_iter_values(sides)));
        }
    }
    for (index, column) in schema.columns.iter().enumerate() {
        let values: Vec<u8> = rows
            .iter()
            .flat_map(|row| row.columns[index].bytes.iter().copied())
            .collect();
        let width = column.width as i32;
        let values = numbers(schema.dtype, &values);
        let vectors = FixedSizeListArray::try_new(element(schema.dtype), width, values, None)?;
        let lengths = rows.iter().map(|row| row.grid[0] * row.grid[1]);
        let lists = OffsetBuffer::from_lengths(lengths);
        let field = |data_type| Arc::new(Field::new("item", data_type, false));
        columns.push(match column.is_tokens() {
            true => {
                let item = field(vector_type(column, schema.dtype));
                Arc::new(ListArray::try_new(
                    item,
                    lists.clone(),
                    Arc::new(vectors),
                    None,
                )?)
            }
            false => Arc::new(vectors),
        });
        if schema.dtype == Dtype::I8 {
            let scales = rows
                .iter()
                .flat_map(|row| row.columns[index].scales.iter().copied());
            let scales = Float32Array::from_iter_values(scales);
            columns.push(match column.is_tokens() {
                true => {
                    let item = field(DataType::Float32);
                    Arc::new(ListArray::try_new(item, lists, Arc::new(scales), None)?)
                }
                false => Arc::new(scales),
            });
        }
    }
    RecordBatch::try_new(arrow.clone(), columns)
}

fn vector_type(column: &Column, dtype: Dtype) -> DataType {
    DataType::FixedSizeList(element(dtype), column.width as i32)
}

fn numbers(dtype: Dtype, bytes: &[u8]) -> ArrayRef {
    match dtype {
        Dtype::F32 => {
            let values = bytes.as_chunks::<4>().0.iter();
            let values = values.map(|&value| f32::from_le_bytes(value));
            Arc::new(Float32Array::from_iter_values(values))
        }
        Dtype::F16 => {
            let values = bytes.as_chunks::<2>().0.iter();
            let values = values.map(|&value| f16::from_le_bytes(value));
            Arc::new(Float16Array::from_iter_values(values))
        }
        Dtype::I8 => {
            let values = bytes.iter().map(|&value| value.cast_signed());
            Arc::new(Int8Array::from_iter_values(values))
        }
    }
}
