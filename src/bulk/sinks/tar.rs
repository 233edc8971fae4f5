//! WebDataset: for each image a `.npy` of each feature, and a `.json` with its id and label.

use std::{
    io::{BufWriter, Write},
    path::Path,
};

use serde_json::json;
use tar::{Builder, Header};

use super::sink::{Results, Sink};
use crate::{
    artifacts::write_atomically,
    bulk::feature::Dtype,
    error::{Error, Result},
    features::npy,
};

/// `.tar`
pub(super) struct Tar;

impl Sink for Tar {
    fn write(&self, path: &Path, results: &Results<'_>) -> Result<()> {
        let writing = |error| Error::writing(path, error);
        write_atomically(path, |file| {
            let mut archive = Builder::new(BufWriter::new(file));
            let mut add = |index: u64, ending: &str, content: &[u8]| {
                let mut header = Header::new_ustar();
                header.set_size(content.len() as u64);
                header.set_mode(0o644);
                header.set_mtime(0);
                let name = format!("{index:09}.{ending}");
                archive
                    .append_data(&mut header, name, content)
                    .map_err(writing)
            };
            for (index, row) in (results.read)()?.enumerate() {
                let (index, row) = (index as u64, row?);
                for (column, values) in results.schema.columns.iter().zip(&row.columns) {
                    let mut shape = vec![column.width as u64];
                    if column.is_tokens() {
                        shape.insert(0, (row.grid[0] * row.grid[1]) as u64);
                    }
                    let mut content = npy::header_of(results.schema.dtype.numpy(), &shape).to_vec();
                    content.extend(&values.bytes);
                    add(index, &format!("{}.npy", column.name), &content)?;
                    if results.schema.dtype == Dtype::I8 {
                        let shape = [values.scales.len() as u64];
                        let mut content = npy::header_of("<f4", &shape).to_vec();
                        content.extend(values.scales.iter().flat_map(|scale| scale.to_le_bytes()));
                        add(index, &format!("{}.npy", column.scale_name()), &content)?;
                    }
                }
                let mut about = json!({
                    "id": row.id,
                    "label": row.label,
                    "model": results.model,
                    "fingerprint": results.fingerprint,
                });
                if results.schema.has_tokens() {
                    about["grid"] = json!(row.grid);
                }
                add(index, "json", about.to_string().as_bytes())?;
            }
            let mut file = archive.into_inner().map_err(writing)?;
            file.flush().map_err(writing)
        })
    }
}
