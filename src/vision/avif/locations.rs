//! Where the contents of items are (the box `iloc`, ISO/IEC 14496-12, 8.11.3).
//!
//! The library's reader of this box makes a list of all extents, and 65,535 of them can take no
//! byte of the file.

use std::collections::HashMap;

use super::super::undecodable::undecodable;
use crate::error::{Error, Result};

/// Number of items, properties or references beyond which a file can only be an attack on memory. A
/// camera's image of 200 megapixels has 768 tiles.
pub(super) const MAX_ITEMS: usize = 65_536;

/// The locations of all items.
pub(super) struct Locations<'a> {
    items: HashMap<u32, Location<'a>>,
    widths: Widths,
}

/// Where an item is: extents that follow each other.
#[derive(Clone, Copy)]
struct Location<'a> {
    method: u64,
    base: u64,
    count: usize,
    extents: &'a [u8],
}

/// Lengths of the fields of an extent, in bytes.
#[derive(Clone, Copy)]
struct Widths {
    index: usize,
    offset: usize,
    length: usize,
}

impl Widths {
    fn sum(self) -> usize {
        self.index + self.offset + self.length
    }
}

/// What the offset of an extent counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    File,
    /// The box `idat`.
    Inline,
}

/// A part of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Offset in bytes; `None` if it exceeds 64 bits.
    pub(super) start: Option<u64>,
    /// Length in bytes; 0 stands for all that is left.
    pub(super) length: u64,
}

impl<'a> Locations<'a> {
    /// Reads the content of the box. The last location of an item counts.
    pub(super) fn read(content: &'a [u8]) -> Result<Self> {
        let mut fields = Fields(content);
        let version = fields.number(4)? >> 24;
        let lengths = fields.number(2)?;
        let id_length = match version {
            0 | 1 => 2,
            2 => 4,
            _ => return Err(damaged("is of an unknown version")),
        };
        let length = |shift: u32| match (lengths >> shift & 0xF) as usize {
            length @ (0 | 4 | 8) => Ok(length),
            _ => Err(damaged("has fields of an unknown length")),
        };
        let base_length = length(4)?;
        let widths = Widths {
            index: if version == 0 { 0 } else { length(0)? },
            offset: length(12)?,
            length: length(8)?,
        };
        let count = fields.number(id_length)?;
        if count > MAX_ITEMS as u64 {
            return Err(damaged("has too many items"));
        }
        let mut items = HashMap::new();
        for _ in 0..count {
            let item = fields.number(id_length)? as u32;
            let method = match version {
                0 => 0,
                _ => fields.number(2)? & 0xF,
            };
            let _data_reference = fields.number(2)?;
            let base = fields.number(base_length)?;
            let count = fields.number(2)? as usize;
            if count > 1 && widths.sum() == 0 {
                return Err(damaged("has extents without offset and length"));
            }
            let location = Location {
                method,
                base,
                count,
                extents: fields.take(count * widths.sum())?,
            };
            items.insert(item, location);
        }
        Ok(Self { items, widths })
    }

    /// Returns the source of an item, and its extents.
    pub(super) fn of(&self, item: u32) -> Result<(Source, impl Iterator<Item = Extent> + use<'a>)> {
        let location = self.items.get(&item).copied();
        let location = location.ok_or_else(|| undecodable("AVIF", "an item has no location"))?;
        let source = match location.method {
            0 => Source::File,
            1 => Source::Inline,
            _ => {
                return Err(undecodable(
                    "AVIF",
                    "an item is made of other items, which is not supported",
                ));
            }
        };
        let widths = self.widths;
        let extents = (0..location.count).map(move |number| {
            let fields = &location.extents[number * widths.sum()..][..widths.sum()];
            let (offset, length) = fields[widths.index..].split_at(widths.offset);
            Extent {
                start: location.base.checked_add(big_endian(offset)),
                length: big_endian(length),
            }
        });
        Ok((source, extents))
    }

    /// Returns the bytes that the description of an extent takes.
    pub(super) fn description_bytes(&self) -> usize {
        self.widths.sum()
    }
}

/// The fields of the box, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (field, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| damaged("is cut off"))?;
        self.0 = rest;
        Ok(field)
    }

    fn number(&mut self, length: usize) -> Result<u64> {
        self.take(length).map(big_endian)
    }
}

/// Reads a number of at most 8 bytes.
fn big_endian(bytes: &[u8]) -> u64 {
    let append = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
    bytes.iter().fold(0, append)
}

fn damaged(reason: &str) -> Error {
    undecodable("AVIF", format_args!("the box `iloc` {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_read_in_all_versions() {
        let one = |extents: Vec<Extent>| {
            assert_eq!(extents.len(), 1);
            (extents[0].start, extents[0].length)
        };
        for (content, source, expected) in [
            // Fields of 4, 4, 0 and 0 bytes.
            (
                &b"\0\0\0\0\x44\0\0\x01\0\x07\0\0\0\x01\0\0\0\x09\0\0\0\x05"[..],
                Source::File,
                (9, 5),
            ),
            // A base of 4 bytes, and method 1.
            (
                b"\x01\0\0\0\x44\x40\0\x01\0\x07\0\x01\0\0\0\0\0\x02\0\x01\0\0\0\x09\0\0\0\x05",
                Source::Inline,
                (11, 5),
            ),
            // Without offset and length: the whole file.
            (
                b"\x02\0\0\0\0\0\0\0\0\x01\0\0\0\x07\0\0\0\0\0\x01",
                Source::File,
                (0, 0),
            ),
        ] {
            let locations = Locations::read(content).expect("a whole box");
            let (found, extents) = locations.of(7).expect("an item");
            let (start, length) = one(extents.collect());
            assert_eq!(
                (found, start, length),
                (source, Some(expected.0), expected.1)
            );
            assert!(locations.of(8).is_err());
            for cut in 0..content.len() {
                assert!(Locations::read(&content[..cut]).is_err(), "{cut}");
            }
        }
    }

    #[test]
    fn extents_that_take_no_byte_are_rejected() {
        let content = b"\0\0\0\0\0\0\0\x01\0\x07\0\0\xff\xff";
        let error = Locations::read(content).err().expect("65,535 extents");
        assert!(error.detail().contains("without offset"), "{error}");
    }
}
