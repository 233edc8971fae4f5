//! Writes Parquet without Arrow: a row per item, in the order of the gallery.

use std::{fs::File, io::BufWriter, path::Path, sync::Arc};

use parquet::{
    data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type},
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};

use super::items::Items;
use crate::{
    artifacts::write_atomically,
    error::{Error, Kind, Result},
    gallery::StoredItem,
};

const SCHEMA: &str = "message items {
    required binary id (STRING);
    optional binary label (STRING);
    required binary metadata (JSON);
    required int64 stored (TIMESTAMP(MILLIS, true));
    required group vector (LIST) { repeated group list { required float element; } }
}";
/// Number of rows of a group; a group is held in memory until it is written.
const GROUP_ROWS: usize = 4096;

/// A row group, column by column.
#[derive(Default)]
struct RowGroup {
    ids: Vec<ByteArray>,
    labels: Vec<ByteArray>,
    /// Definition level of each row's label: 1 if it has one, else 0.
    label_levels: Vec<i16>,
    metadata: Vec<ByteArray>,
    stored: Vec<i64>,
    vectors: Vec<f32>,
    /// Repetition level of each value: 0 for the first of a vector, else 1.
    repetition_levels: Vec<i16>,
}

pub(super) fn write(output: &Path, items: &mut Items) -> Result<()> {
    write_atomically(output, |file| {
        let failed = |error: parquet::errors::ParquetError| {
            Error::new(Kind::Io, format!("writing {}: {error}", output.display()))
        };
        let mut writer = open(file).map_err(failed)?;
        let mut group = RowGroup::default();
        while let Some(item) = items.next()? {
            group.add(item)?;
            if group.ids.len() == GROUP_ROWS {
                let full = std::mem::take(&mut group);
                full.write(&mut writer).map_err(failed)?;
            }
        }
        if !group.ids.is_empty() {
            group.write(&mut writer).map_err(failed)?;
        }
        writer.close().map(drop).map_err(failed)
    })
}

type ParquetWriter<'a> = SerializedFileWriter<BufWriter<&'a mut File>>;

fn open(file: &mut File) -> parquet::errors::Result<ParquetWriter<'_>> {
    // Values of vectors hardly repeat, so a dictionary would only take space.
    let vector = ColumnPath::from(["vector", "list", "element"].map(str::to_owned).to_vec());
    let properties = WriterProperties::builder()
        .set_column_dictionary_enabled(vector, false)
        .build();
    SerializedFileWriter::new(
        BufWriter::new(file),
        Arc::new(parse_message_type(SCHEMA)?),
        Arc::new(properties),
    )
}

impl RowGroup {
    fn add(&mut self, StoredItem { item, vector, .. }: StoredItem) -> Result<()> {
        let metadata = serde_json::to_vec(&item.metadata)
            .map_err(|error| Error::internal(format!("metadata of {}: {error}", item.id)))?;
        self.ids.push(String::from(item.id).into_bytes().into());
        self.label_levels.push(i16::from(item.label.is_some()));
        self.labels.extend(
            item.label
                .map(|label| String::from(label).into_bytes().into()),
        );
        self.metadata.push(metadata.into());
        self.stored.push(item.stored_ms.cast_signed());
        self.repetition_levels
            .extend((0..vector.len()).map(|index| i16::from(index > 0)));
        self.vectors.extend(vector);
        Ok(())
    }

    fn write(self, writer: &mut ParquetWriter<'_>) -> parquet::errors::Result<()> {
        let mut group = writer.next_row_group()?;
        column::<ByteArrayType>(&mut group, &self.ids, None, None)?;
        column::<ByteArrayType>(&mut group, &self.labels, Some(&self.label_levels), None)?;
        column::<ByteArrayType>(&mut group, &self.metadata, None, None)?;
        column::<Int64Type>(&mut group, &self.stored, None, None)?;
        let repetition = &self.repetition_levels;
        let defined = vec![1; repetition.len()];
        column::<FloatType>(&mut group, &self.vectors, Some(&defined), Some(repetition))?;
        group.close().map(drop)
    }
}

/// Writes the next column. Definition levels mark the values that are present, repetition levels
/// those that continue a list.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, BufWriter<&mut File>>,
    values: &[T::T],
    definition: Option<&[i16]>,
    repetition: Option<&[i16]>,
) -> parquet::errors::Result<()> {
    let next = group.next_column()?;
    let mut column =
        next.ok_or_else(|| parquet::errors::ParquetError::General("no such column".to_owned()))?;
    let writer = column.typed::<T>();
    writer.write_batch(values, definition, repetition)?;
    column.close()
}
