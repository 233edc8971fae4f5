//! Parquet files with a column of images, as bytes or as paths.

use std::fs::File;

use arrow_array::{Array, RecordBatch, StructArray, cast::AsArray, downcast_integer_array};
use arrow_schema::{DataType, Schema};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};

use super::{
    Listed, Place, Source, SourceImage, blocking_list, identity::Identity, image::Content,
    object_reader::ObjectReader,
};
use crate::error::{Error, Kind, Result};

/// Names of the column of images, in the order in which they are looked for.
const COLUMNS: [&str; 8] = [
    "image",
    "bytes",
    "jpg",
    "png",
    "img",
    "path",
    "file_name",
    "url",
];
/// Rows that are decoded at a time; images are large.
const BATCH_ROWS: usize = 8;

/// A Parquet file.
pub(super) struct Table {
    pub(super) place: Place,
    /// The column of images, if it is given.
    pub(super) column: Option<String>,
}

impl Source for Table {
    fn list(self: Box<Self>) -> BoxStream<'static, Result<Listed>> {
        blocking_list(move |send| match &self.place {
            Place::Local(path) => {
                let file = File::open(path).map_err(|error| Error::reading(path, error))?;
                let identity = Identity::of(path).unwrap_or_default();
                self.read(file, &identity, send)
            }
            Place::Object(place) => {
                let reader = ObjectReader::open(place)?;
                let identity = reader.identity.clone();
                self.read(reader, &identity, send)
            }
        })
    }

    fn is_container(&self) -> bool {
        true
    }
}

/// The columns of a batch.
struct Columns<'a> {
    images: &'a dyn Array,
    ids: Option<&'a dyn Array>,
    labels: Option<&'a dyn Array>,
}

impl Table {
    fn read(
        &self,
        file: impl ChunkReader + 'static,
        identity: &Identity,
        send: &mut dyn FnMut(Listed) -> bool,
    ) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            let detail = format!("{}: the Parquet file cannot be read: {error}", self.place);
            Error::new(Kind::Malformed, detail)
        };
        // The types of Parquet are few; those of Arrow would add dictionaries.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options);
        let builder = builder.map_err(|error| failed(&error))?;
        let image = self.column_of(builder.schema())?;
        let wanted = [image.as_str(), "id", "label"];
        let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
        let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
        let mut row = 0;
        for batch in batches.build().map_err(|error| failed(&error))? {
            let batch = batch.map_err(|error| failed(&error))?;
            let columns = Columns::of(&batch, &image);
            for at in 0..batch.num_rows() {
                let listed = self.listed(&columns, at, row, identity)?;
                if !send(listed) {
                    return Ok(());
                }
                row += 1;
            }
        }
        Ok(())
    }

    /// Returns the name of the column with the images.
    fn column_of(&self, schema: &Schema) -> Result<String> {
        let names: Vec<&str> = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        let found = match &self.column {
            Some(column) => names.contains(&column.as_str()).then(|| column.clone()),
            None => {
                let known = COLUMNS.iter().find(|column| names.contains(column));
                known.map(|&column| column.to_owned())
            }
        };
        let Some(found) = found else {
            let looked_for = self.column.clone().unwrap_or_else(|| COLUMNS.join(", "));
            let detail = format!(
                "{}: the file has no column of images ({looked_for}); its columns are {}; name \
                 one by --column",
                self.place,
                names.join(", ")
            );
            return Err(Error::new(Kind::InvalidOption, detail));
        };
        let field = schema
            .field_with_name(&found)
            .map_err(|error| Error::internal(format!("the column {found}: {error}")))?;
        if is_supported(field.data_type()) {
            return Ok(found);
        }
        let detail = format!(
            "{}: the column {found} is of type {}; images are binary, a path, or a struct with \
             `bytes` and `path`",
            self.place,
            field.data_type()
        );
        Err(Error::new(Kind::InvalidOption, detail))
    }

    fn listed(
        &self,
        columns: &Columns<'_>,
        at: usize,
        row: u64,
        identity: &Identity,
    ) -> Result<Listed> {
        let (bytes, path) = columns.image(at);
        let file = self.place.name();
        let id = columns.ids.and_then(|ids| text_at(ids, at));
        let id = id.or_else(|| path.clone());
        let id = id.unwrap_or_else(|| format!("{file}/{row}"));
        let label = columns.labels.and_then(|labels| text_at(labels, at));
        let origin = format!("{}, row {row}", self.place);
        let content = match (bytes, path) {
            (Some(bytes), _) => Content::Bytes {
                bytes: Bytes::copy_from_slice(bytes),
                identity: identity.clone(),
            },
            (None, Some(path)) => match self.place.with_name(&path)? {
                Place::Local(path) => Content::File(path),
                Place::Object(place) => Content::Object {
                    place,
                    identity: Identity::default(),
                },
            },
            (None, None) => {
                let error = Error::new(Kind::Malformed, "the row has no image");
                return Ok(Listed::Failed {
                    name: origin,
                    error,
                });
            }
        };
        Ok(Listed::Image(Box::new(SourceImage {
            id,
            label,
            metadata: None,
            origin,
            line: None,
            content,
        })))
    }
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch, image: &str) -> Self {
        let column = |name: &str| batch.column_by_name(name).map(AsRef::as_ref);
        Self {
            images: column(image).unwrap_or_else(|| batch.column(0).as_ref()),
            ids: column("id").filter(|_| image != "id"),
            labels: column("label").filter(|_| image != "label"),
        }
    }

    /// Returns the bytes and the path of an image.
    fn image(&self, at: usize) -> (Option<&'a [u8]>, Option<String>) {
        if let Some(fields) = self.images.as_any().downcast_ref::<StructArray>() {
            if fields.is_null(at) {
                return (None, None);
            }
            let bytes = fields.column_by_name("bytes");
            let path = fields.column_by_name("path");
            return (
                bytes.and_then(|bytes| bytes_at(bytes, at)),
                path.and_then(|path| text_at(path, at)),
            );
        }
        (bytes_at(self.images, at), text_at(self.images, at))
    }
}

fn is_supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields
            .iter()
            .any(|field| field.name() == "bytes" && is_supported(field.data_type())),
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View => true,
        _ => false,
    }
}

fn bytes_at(array: &dyn Array, at: usize) -> Option<&[u8]> {
    if array.is_null(at) {
        return None;
    }
    match array.data_type() {
        DataType::Binary => Some(array.as_binary::<i32>().value(at)),
        DataType::LargeBinary => Some(array.as_binary::<i64>().value(at)),
        DataType::BinaryView => Some(array.as_binary_view().value(at)),
        _ => None,
    }
}

/// Returns a text or a whole number as text; `None` for an empty text.
fn text_at(array: &dyn Array, at: usize) -> Option<String> {
    if array.is_null(at) {
        return None;
    }
    let text = downcast_integer_array!(
        array => array.value(at).to_string(),
        DataType::Utf8 => array.as_string::<i32>().value(at).to_owned(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(at).to_owned(),
        DataType::Utf8View => array.as_string_view().value(at).to_owned(),
        _ => return None,
    );
    Some(text).filter(|text| !text.is_empty())
}

impl Length for ObjectReader {
    fn len(&self) -> u64 {
        self.identity.bytes
    }
}

impl ChunkReader for ObjectReader {
    type T = Self;

    fn get_read(&self, start: u64) -> Result<Self, ParquetError> {
        Ok(self.from(start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let part = self.read_part(start, length as u64);
        part.map_err(|error| ParquetError::External(Box::new(error)))
    }
}
