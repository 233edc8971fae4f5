//! Encoding of galleries and items. Numbers are little-endian, except in keys, which are big-endian
//! so that they sort.

use half::{f16, slice::HalfFloatSliceExt};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result, ResultExt},
    gallery::{Binding, GalleryName, Item, ItemId, Label, Metadata, VectorFormat},
};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct GalleryRow {
    /// Number of the gallery; never reused.
    pub(super) number: u32,
    pub(super) binding: Binding,
    pub(super) vectors: VectorFormat,
    pub(super) items: u64,
    pub(super) next_place: u64,
    /// Serial of the next write of an item. A deletion takes one, too, so that every commit changes
    /// it.
    pub(super) next_serial: u64,
}

/// Maximum number of items, places and serials.
const MAX_COUNT: u64 = 1 << 62;

impl GalleryRow {
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).internal("encoding a gallery")
    }

    /// Rejects a write after which [`GalleryRow::decode`] would reject the row.
    pub(super) fn check_room(&self, name: &GalleryName, items: usize) -> Result<()> {
        let counts = [self.items, self.next_place, self.next_serial];
        match counts
            .iter()
            .all(|&count| count + items as u64 <= MAX_COUNT)
        {
            true => Ok(()),
            false => Err(damaged_gallery(name, &"it has no numbers left for items")),
        }
    }

    /// Returns the serial of the next row. The highest one is used again, for deletions.
    pub(super) fn take_serial(&mut self) -> u64 {
        let serial = self.next_serial;
        self.next_serial = (serial + 1).min(MAX_COUNT);
        serial
    }

    pub(super) fn decode(name: &GalleryName, bytes: &[u8]) -> Result<Self> {
        let row: Self =
            serde_json::from_slice(bytes).map_err(|error| damaged_gallery(name, &error))?;
        // Far above anything that can be written, and low enough for increments not to overflow.
        // Places and serials begin at 1.
        let counts = [row.items, row.next_place, row.next_serial];
        if row.number == u32::MAX
            || counts.iter().any(|&count| count > MAX_COUNT)
            || counts[1..].contains(&0)
        {
            return Err(damaged_gallery(name, &"its numbers are out of range"));
        }
        row.binding
            .check_possible()
            .map_err(|error| damaged_gallery(name, &error))?;
        Ok(row)
    }

    /// Reads only the number, so that a damaged gallery can be deleted.
    pub(super) fn decode_number(bytes: &[u8]) -> Option<u32> {
        #[derive(Deserialize)]
        struct Number {
            number: u32,
        }
        let row: Number = serde_json::from_slice(bytes).ok()?;
        Some(row.number).filter(|&number| number < u32::MAX)
    }
}

fn damaged_gallery(name: &GalleryName, damage: &dyn std::fmt::Display) -> Error {
    Error::damaged(format!(
        "the gallery `{name}` is damaged: {damage}; delete it, or restore a snapshot of it"
    ))
}

pub(super) fn prefix(gallery: u32) -> [u8; 4] {
    gallery.to_be_bytes()
}

pub(super) fn place_key(gallery: u32, place: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&gallery.to_be_bytes());
    key[4..].copy_from_slice(&place.to_be_bytes());
    key
}

/// Returns the place in such a key.
pub(super) fn place_of(key: &[u8]) -> Result<u64> {
    let place = key.get(4..12).and_then(|bytes| bytes.try_into().ok());
    place
        .map(u64::from_be_bytes)
        .ok_or_else(|| damaged("a key"))
}

pub(super) fn id_key(gallery: u32, id: &ItemId) -> Vec<u8> {
    [&gallery.to_be_bytes(), id.as_str().as_bytes()].concat()
}

/// Record of a stored item. Its encoding begins with a checksum over all parts of the item.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ItemRecord {
    pub(super) item: Item,
    /// Number of the write, which increases with every write in the gallery.
    pub(super) serial: u64,
}

impl ItemRecord {
    /// Encodes the record; `parts` are the encoded vector, features and thumbnail.
    pub(super) fn encode(&self, parts: [&[u8]; 3]) -> Result<Vec<u8>> {
        let Self { item, serial } = self;
        let mut bytes = vec![0; CHECKSUM];
        bytes.extend(serial.to_le_bytes());
        bytes.extend(item.place.to_le_bytes());
        bytes.extend(item.stored_ms.to_le_bytes());
        for text in [
            item.id.as_str(),
            item.label.as_ref().map_or("", Label::as_str),
        ] {
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        if !item.metadata.is_empty() {
            serde_json::to_writer(&mut bytes, &item.metadata).internal("encoding metadata")?;
        }
        let checksum = checksum(&bytes, parts);
        bytes[..CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    /// Checks the numbers against those of the gallery and its key.
    pub(super) fn check(self, row: &GalleryRow, place: u64) -> Result<Self> {
        let is_possible =
            self.item.place == place && place < row.next_place && self.serial < row.next_serial;
        if is_possible {
            Ok(self)
        } else {
            Err(damaged("a number of the record"))
        }
    }

    /// Returns whether the checksum of a record and its parts is right.
    pub(super) fn is_whole(bytes: &[u8], parts: [&[u8]; 3]) -> bool {
        bytes
            .first_chunk()
            .is_some_and(|&written| u32::from_le_bytes(written) == checksum(bytes, parts))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes.get(CHECKSUM..).unwrap_or_default();
        let serial = u64::from_le_bytes(take(&mut rest)?);
        let place = u64::from_le_bytes(take(&mut rest)?);
        let stored_ms = u64::from_le_bytes(take(&mut rest)?);
        let id = ItemId::new(take_text(&mut rest)?)?;
        let label = Some(take_text(&mut rest)?)
            .filter(|label| !label.is_empty())
            .map(Label::new)
            .transpose()?;
        let metadata = match rest {
            [] => Metadata::default(),
            json => {
                Metadata::parse(std::str::from_utf8(json).map_err(|_| damaged("the metadata"))?)?
            }
        };
        Ok(Self {
            item: Item {
                id,
                place,
                label,
                metadata,
                stored_ms,
            },
            serial,
        })
    }
}

/// Length of the checksum, in bytes.
const CHECKSUM: usize = 4;

fn checksum(record: &[u8], parts: [&[u8]; 3]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in [&record[CHECKSUM..]].into_iter().chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (bytes, others) = rest
        .split_first_chunk()
        .ok_or_else(|| damaged("its record"))?;
    *rest = others;
    Ok(*bytes)
}

fn take_text(rest: &mut &[u8]) -> Result<String> {
    let length = usize::from(u16::from_le_bytes(take(rest)?));
    let (text, others) = rest
        .split_at_checked(length)
        .ok_or_else(|| damaged("its record"))?;
    *rest = others;
    String::from_utf8(text.to_vec()).map_err(|_| damaged("its record"))
}

fn damaged(part: &str) -> Error {
    Error::damaged(format!("{part} is damaged"))
}

/// Encodes a vector for the disk, as galleries of a format store it.
pub(super) fn encode_vector(vector: &[f32], format: VectorFormat) -> Vec<u8> {
    match format {
        VectorFormat::F16 => encode_halves(vector),
        VectorFormat::F32 | VectorFormat::I8 | VectorFormat::B1 => {
            vector.iter().copied().flat_map(f32::to_le_bytes).collect()
        }
    }
}

/// Decodes a vector of `dim` values in either precision, because a gallery whose format was changed
/// has both. A damaged one has another width.
pub(super) fn decode_vector(bytes: &[u8], dim: usize) -> Vec<f32> {
    if bytes.len() == 2 * dim {
        return decode_halves(bytes);
    }
    let (values, _) = bytes.as_chunks();
    values.iter().copied().map(f32::from_le_bytes).collect()
}

pub(super) fn encode_halves(values: &[f32]) -> Vec<u8> {
    let halves = values.iter().map(|&value| f16::from_f32(value));
    halves.flat_map(f16::to_le_bytes).collect()
}

/// Decodes values in half precision; an incomplete one at the end is dropped.
pub(super) fn decode_halves(bytes: &[u8]) -> Vec<f32> {
    let (halves, _) = bytes.as_chunks();
    let halves: Vec<f16> = halves.iter().copied().map(f16::from_le_bytes).collect();
    let mut values = vec![0.0; halves.len()];
    halves.convert_to_f32_slice(&mut values);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row that was written must be read again, also one from a database with such numbers.
    #[test]
    fn a_write_that_would_use_up_the_numbers_is_rejected() {
        let name = GalleryName::new("g").expect("a name");
        let binding = r#"{"model": "m", "fingerprint": "ab", "dim": 4, "layers": 1,
            "pooling": "cls", "size": 224, "resize": "crop", "filter": "bicubic", "exif": true,
            "background": "white"}"#;
        let mut row = GalleryRow {
            number: 1,
            binding: serde_json::from_str(binding).expect("a binding"),
            vectors: VectorFormat::F16,
            items: 1,
            next_place: MAX_COUNT - 2,
            next_serial: 7,
        };
        row.check_room(&name, 2).expect("room for two items");
        let error = row.check_room(&name, 3).expect_err("no room for three");
        assert!(error.detail().contains("no numbers left"), "{error}");
        row.next_serial = MAX_COUNT;
        assert_eq!(
            (row.take_serial(), row.take_serial()),
            (MAX_COUNT, MAX_COUNT)
        );
        let encoded = row.encode().expect("JSON");
        GalleryRow::decode(&name, &encoded).expect("a row that is not damaged");
        // Pages begin behind place 0.
        row.next_place = 0;
        let error = GalleryRow::decode(&name, &row.encode().expect("JSON")).expect_err("damaged");
        assert!(error.detail().contains("out of range"), "{error}");
    }
}
