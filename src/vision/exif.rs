//! The orientation that the metadata of a file state, as Pillow 13 reads it: the EXIF block of any
//! numeric type, else XMP.

use image::metadata::Orientation;

const ORIENTATION: u64 = 0x0112;
const MARKER: &[u8] = b"Exif\0\0";

/// Returns the orientation by an EXIF block; by XMP if there is no block, or one without the tag.
pub(super) fn orientation_of(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    exif.and_then(orientation_tag)
        .or_else(|| xmp.and_then(orientation_in_xmp))
        .filter(|value| value.fract() == 0.0)
        .and_then(|value| Orientation::from_exif(value as u8))
        .unwrap_or(Orientation::NoTransforms)
}

/// Reads the first value of the tag. It is NaN if the block is no EXIF, or the value no number;
/// `None` if the block lacks the tag.
fn orientation_tag(exif: &[u8]) -> Option<f64> {
    // JPEG puts the marker in front of the block, and some writers repeat it.
    let block = exif.strip_prefix(MARKER).unwrap_or(exif);
    let block = block.strip_prefix(MARKER).unwrap_or(block);
    let little_endian = match block {
        [] => return None,
        [b'I', b'I', 42, 0, ..] | [b'I', b'I', 0, 42, ..] => true,
        [b'M', b'M', 0, 42, ..] | [b'M', b'M', 42, 0, ..] => false,
        _ => return Some(f64::NAN),
    };
    let order = Order { little_endian };
    let directory = block.get(order.integer(block.get(4..8)?) as usize..)?;
    let (count, entries) = directory.split_first_chunk::<2>()?;
    let mut outside = 0;
    // Pillow stops at the first entry that the block does not hold whole.
    for index in 0..order.integer(count) as usize {
        let entry = entries.get(index * 12..index * 12 + 12)?;
        let [tag, kind] = [&entry[..2], &entry[2..4]].map(|bytes| order.integer(bytes));
        let Some(unit) = unit_size(kind) else {
            continue;
        };
        let size = order.integer(&entry[4..8]) as usize * unit;
        let data = if size <= 4 {
            &entry[8..8 + size]
        } else {
            outside += size;
            if outside > block.len() {
                continue;
            }
            let start = order.integer(&entry[8..]) as usize;
            block.get(start..start + size)?
        };
        if tag == ORIENTATION && !data.is_empty() {
            return Some(order.value(kind, &data[..unit]));
        }
    }
    None
}

/// Returns the bytes of one value of a type, or `None` for a type that Pillow does not know.
fn unit_size(kind: u64) -> Option<usize> {
    Some(match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 => 8,
        _ => return None,
    })
}

/// Order of the bytes of a number.
#[derive(Clone, Copy)]
struct Order {
    little_endian: bool,
}

impl Order {
    /// Reads an unsigned integer of at most eight bytes.
    fn integer(self, bytes: &[u8]) -> u64 {
        let push = |value: u64, &byte: &u8| value << 8 | u64::from(byte);
        if self.little_endian {
            bytes.iter().rev().fold(0, push)
        } else {
            bytes.iter().fold(0, push)
        }
    }

    /// Reads a value of a type; NaN for text and opaque bytes. Negative numbers may come out as
    /// large ones, as no orientation is negative.
    fn value(self, kind: u64, bytes: &[u8]) -> f64 {
        let integer = self.integer(bytes);
        match kind {
            3 | 4 | 6 | 8 | 9 | 13 | 16 => integer as f64,
            5 | 10 => {
                let [above, below] = [&bytes[..4], &bytes[4..]].map(|half| self.integer(half));
                above as f64 / below as f64
            }
            11 => f64::from(f32::from_bits(integer as u32)),
            12 => f64::from_bits(integer),
            _ => f64::NAN,
        }
    }
}

/// Finds `tiff:Orientation`, as an attribute or as an element, with its one digit.
fn orientation_in_xmp(xmp: &[u8]) -> Option<f64> {
    const NAME: &[u8] = b"tiff:Orientation";
    xmp.windows(NAME.len() + 3).find_map(|window| {
        let ([b'=', b'"', digit, ..] | [b'>', digit, ..]) = window.strip_prefix(NAME)? else {
            return None;
        };
        digit.is_ascii_digit().then(|| f64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block in little-endian order with the orientation alone, and bytes behind it.
    fn block(kind: u16, count: u32, value: [u8; 4], behind: &[u8]) -> Vec<u8> {
        let mut block = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01".to_vec();
        block.extend(kind.to_le_bytes());
        block.extend(count.to_le_bytes());
        block.extend(value);
        block.extend([0; 4]);
        block.extend(behind);
        block
    }

    fn read(exif: &[u8]) -> u8 {
        orientation_of(Some(exif), None).to_exif()
    }

    /// The expected values are those of Pillow 13.
    #[test]
    fn every_numeric_type_is_read_as_in_pillow() {
        const SIX: [u8; 4] = [6, 0, 0, 0];
        const BEHIND: [u8; 4] = [26, 0, 0, 0];
        let rational = |above: u32, below: u32| [above.to_le_bytes(), below.to_le_bytes()].concat();
        for (kind, count, value, behind, expected) in [
            (3, 1, SIX, vec![], 6),
            (3, 2, SIX, vec![], 6),
            (3, 3, SIX, vec![], 1),
            (3, 3, BEHIND, vec![6, 0, 1, 0, 1, 0], 6),
            (3, 0, SIX, vec![], 1),
            (4, 1, SIX, vec![], 6),
            (4, 2, BEHIND, rational(6, 9), 6),
            (6, 1, SIX, vec![], 6),
            (8, 1, SIX, vec![], 6),
            (9, 1, SIX, vec![], 6),
            (13, 1, SIX, vec![], 6),
            (11, 1, 6f32.to_le_bytes(), vec![], 6),
            (11, 1, 6.5f32.to_le_bytes(), vec![], 1),
            (12, 1, BEHIND, 6f64.to_le_bytes().to_vec(), 6),
            (5, 1, BEHIND, rational(6, 1), 6),
            (5, 1, BEHIND, rational(12, 2), 6),
            (5, 1, BEHIND, rational(6, 0), 1),
            (10, 1, BEHIND, rational(6, 1), 6),
            (16, 1, BEHIND, 6u64.to_le_bytes().to_vec(), 6),
            (1, 1, SIX, vec![], 1),
            (2, 1, *b"6\0\0\0", vec![], 1),
            (7, 1, SIX, vec![], 1),
            (0, 1, SIX, vec![], 1),
            (14, 1, SIX, vec![], 1),
            (17, 1, BEHIND, rational(6, 1), 1),
            (3, 3, [255; 4], vec![], 1),
            (3, 1, [9, 0, 0, 0], vec![], 1),
            (3, 1, [6, 1, 0, 0], vec![], 1),
            (9, 1, [250, 255, 255, 255], vec![], 1),
        ] {
            let exif = block(kind, count, value, &behind);
            assert_eq!(read(&exif), expected, "type {kind}, {count} × {value:?}");
        }
    }

    #[test]
    fn markers_and_ends_are_read_as_in_pillow() {
        let whole = block(3, 1, [6, 0, 0, 0], b"");
        let marked = |times: usize| [MARKER.repeat(times), whole.clone()].concat();
        assert_eq!([0, 1, 2, 3].map(|times| read(&marked(times))), [6, 6, 6, 1]);
        let cut = |bytes: usize| read(&whole[..whole.len() - bytes]);
        assert_eq!([4, 5, 16].map(cut), [6, 1, 1]);
        for (head, expected) in [(b"II\0\x2a", 6), (b"II\x2b\0", 1), (b"XX\x2a\0", 1)] {
            let exif = [head.as_slice(), &whole[4..]].concat();
            assert_eq!(read(&exif), expected, "{head:?}");
        }
        let big_endian = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0";
        assert_eq!(read(big_endian), 8);
        for bytes in [b"".as_slice(), MARKER, b"II"] {
            assert_eq!(read(bytes), 1);
        }
    }

    #[test]
    fn xmp_is_read_where_exif_has_no_orientation() {
        let attribute = b"<x tiff:Orientation=\"6\"/>".as_slice();
        let element = b"tiff:Orientation tiff:Orientation><tiff:Orientation>8</tiff:Orientation>";
        let of = |exif: Option<&[u8]>, xmp: &[u8]| orientation_of(exif, Some(xmp)).to_exif();
        assert_eq!(of(None, attribute), 6);
        assert_eq!(of(None, element.as_slice()), 8);
        assert_eq!(of(None, b"tiff:Orientation=\"x\""), 1);
        assert_eq!(of(None, b"tiff:Orientation>8"), 1);
        let mut other_tag = block(3, 1, [6, 0, 0, 0], b"");
        other_tag[10] = 0x13;
        assert_eq!(of(Some(MARKER), attribute), 6);
        assert_eq!(of(Some(&other_tag), attribute), 6);
        assert_eq!(of(Some(&block(3, 1, [1, 0, 0, 0], b"")), attribute), 1);
        assert_eq!(of(Some(b"no EXIF"), attribute), 1);
    }
}
