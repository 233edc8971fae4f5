//! The format of `torch.save` before PyTorch 1.6, and of
//! `_use_new_zipfile_serialization=False`: five pickles, then the storages.

use std::{collections::HashMap, rc::Rc};

use bytes::Bytes;

use super::{
    collect::collect,
    object::{Objects, Value},
    storage::element_bytes,
    unpickler::{MAX_PICKLE_BYTES, Unpickler},
};
use crate::{
    error::{Error, Result},
    onnx::weights::Checkpoint,
};

/// PyTorch's magic number as the operand of a pickle's first instruction.
const MAGIC: [u8; 10] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19];
/// Number of bytes in front of the magic number, at most: protocol, frame, opcode, length.
const MAGIC_WITHIN: usize = 32;

pub(super) fn is_legacy(file: &Bytes) -> bool {
    let head = &file[..file.len().min(MAGIC_WITHIN)];
    head.starts_with(&[0x80]) && head.windows(MAGIC.len()).any(|bytes| bytes == MAGIC)
}

pub(super) fn read(file: &Bytes) -> Result<Checkpoint> {
    let mut objects = Objects::default();
    let mut at = 0;
    let mut next = |objects: &mut Objects| {
        let end = file.len().min(at + MAX_PICKLE_BYTES);
        let (value, length) = Unpickler::new(&file[at..end], objects).run()?;
        at += length;
        Ok::<_, Error>((value, at))
    };
    // Magic number, version of the format, description of the machine.
    for _ in 0..3 {
        next(&mut objects)?;
    }
    let (root, _) = next(&mut objects)?;
    let (keys, end) = next(&mut objects)?;
    let mut storages = storages(file, end, &objects, &keys)?;
    collect(&objects, &root, &mut storages, file.len())
}

/// Finds the storages, which follow each other in the order of `keys`: number of elements, then
/// elements.
fn storages(
    file: &Bytes,
    mut at: usize,
    objects: &Objects,
    keys: &Value,
) -> Result<HashMap<Rc<str>, Bytes>> {
    let classes: HashMap<&Rc<str>, &Rc<str>> = objects
        .storages()
        .map(|storage| (&storage.key, &storage.class))
        .collect();
    let mut found = HashMap::new();
    for key in objects.list(keys).unwrap_or_default() {
        let Value::Text(key) = key else {
            return Err(Error::artifact("a storage has no name"));
        };
        let class = classes.get(key).map_or("?", |class| &***class);
        let size = element_bytes(class).ok_or_else(|| {
            Error::artifact(format!(
                "storage {key} has the unknown class {class}; save the file again with a current \
                 PyTorch"
            ))
        })?;
        let cut = || Error::artifact(format!("the file ends within storage {key}"));
        let (count, _) = file[at..].split_first_chunk().ok_or_else(cut)?;
        let end = usize::try_from(i64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(size)?.checked_add(at + 8))
            .filter(|end| *end <= file.len())
            .ok_or_else(cut)?;
        found.insert(key.clone(), file.slice(at + 8..end));
        at = end;
    }
    Ok(found)
}
