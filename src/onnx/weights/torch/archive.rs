//! Zip files of `torch.save`, whose storages are slices of the file: PyTorch does not compress
//! them.

use std::{
    collections::HashMap,
    io::{Cursor, Read},
    rc::Rc,
};

use bytes::Bytes;
use zip::ZipArchive;

use super::{
    collect::collect,
    object::{Objects, Storage},
    storage::Storages,
    unpickler::{MAX_PICKLE_BYTES, Unpickler},
};
use crate::{
    error::{Error, Result},
    onnx::weights::Checkpoint,
};

pub(super) fn read(file: Bytes) -> Result<Checkpoint> {
    let mut archive = ZipArchive::new(Cursor::new(file.clone())).map_err(|error| {
        Error::artifact(format!(
            "not a complete zip file ({error}); copy or download the checkpoint again"
        ))
    })?;
    let names: Vec<String> = archive.file_names().flatten().map(Into::into).collect();
    let is_pickle = |name: &&String| name.ends_with("/data.pkl") || *name == "data.pkl";
    let pickle_name = names.iter().find(is_pickle).ok_or_else(|| {
        let first = names.first().map_or("nothing", String::as_str);
        Error::artifact(format!(
            "the zip file contains no data.pkl, but {first}; use a checkpoint of torch.save, or \
             .safetensors"
        ))
    })?;
    let root = pickle_name.trim_end_matches("data.pkl").to_owned();
    let order = entry(&mut archive, &format!("{root}byteorder"), 16).unwrap_or_default();
    if order.starts_with(b"big") {
        return Err(Error::artifact(
            "the checkpoint's numbers are big-endian; save it again on a little-endian machine",
        ));
    }
    let pickle = entry(&mut archive, pickle_name, MAX_PICKLE_BYTES + 1)?;
    if pickle.len() > MAX_PICKLE_BYTES {
        return Err(Error::artifact(format!(
            "the checkpoint has more than {} MiB next to its tensors; save only the weights",
            MAX_PICKLE_BYTES >> 20
        )));
    }
    let mut objects = Objects::default();
    let (root_value, _) = Unpickler::new(&pickle, &mut objects).run()?;
    let file_bytes = file.len();
    let mut storages = Entries {
        file,
        archive,
        root,
        read: HashMap::new(),
    };
    collect(&objects, &root_value, &mut storages, file_bytes)
}

/// Reads the first bytes of an entry.
fn entry(archive: &mut ZipArchive<Cursor<Bytes>>, name: &str, max_bytes: usize) -> Result<Vec<u8>> {
    let wrong = |error: &dyn std::fmt::Display| Error::artifact(format!("{name}: {error}"));
    let entry = archive.by_name(name).map_err(|error| wrong(&error))?;
    let mut bytes = Vec::new();
    entry
        .take(max_bytes as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| wrong(&error))?;
    Ok(bytes)
}

struct Entries {
    file: Bytes,
    archive: ZipArchive<Cursor<Bytes>>,
    root: String,
    read: HashMap<Rc<str>, Bytes>,
}

impl Storages for Entries {
    fn bytes(&mut self, storage: &Storage) -> Result<Bytes> {
        let key = &storage.key;
        if let Some(bytes) = self.read.get(key) {
            return Ok(bytes.clone());
        }
        let path = format!("{}data/{key}", self.root);
        let entry = self
            .archive
            .by_name(&path)
            .map_err(|error| Error::artifact(format!("storage {path}: {error}")))?;
        let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
        let start = entry
            .data_start()
            .and_then(|start| usize::try_from(start).ok());
        // A compressed storage could have any size.
        if entry.compression() != zip::CompressionMethod::Stored {
            return Err(Error::artifact(format!(
                "storage {path} is compressed, which PyTorch does not do; save it with torch.save"
            )));
        }
        let range = start
            .and_then(|start| Some(start..start.checked_add(size)?))
            .filter(|range| range.end <= self.file.len())
            .ok_or_else(|| Error::artifact(format!("storage {path} reaches beyond the file")))?;
        let bytes = self.file.slice(range);
        self.read.insert(key.clone(), bytes.clone());
        Ok(bytes)
    }
}
