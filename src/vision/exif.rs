//! The orientation that the metadata of a file state, as Pillow 13 reads it: the EXIF block of any
//! numeric type, else XMP.

use image::metadata::Orientation;

use super::tags::{
    DOUBLE, FLOAT, IFD, LONG, LONG8, Order, RATIONAL, SBYTE, SHORT, SLONG, SRATIONAL, SSHORT,
    size_of,
};

const ORIENTATION: u64 = 0x0112;
const MARKER: &[u8] = b"Exif\0\0";

/// What a block or a file states of the orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stated {
    /// Nothing.
    Absent,
    /// Something that is no orientation.
    Invalid,
    /// A number, of which 1 to 8 are orientations.
    Value(u8),
}

/// Returns the orientation by an EXIF block, or by a TIFF or BigTIFF file, whose form it has; by
/// XMP if there is no block, or one without the tag.
pub(super) fn orientation_of(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let stated = match exif.map_or(Stated::Absent, orientation_tag) {
        Stated::Absent => xmp.map_or(Stated::Absent, orientation_in_xmp),
        stated => stated,
    };
    match stated {
        Stated::Value(number) => Orientation::from_exif(number),
        Stated::Absent | Stated::Invalid => None,
    }
    .unwrap_or(Orientation::NoTransforms)
}

/// Reads the first value of the tag.
fn orientation_tag(exif: &[u8]) -> Stated {
    // JPEG puts the marker in front of the block, and some writers repeat it.
    let block = exif.strip_prefix(MARKER).unwrap_or(exif);
    let block = block.strip_prefix(MARKER).unwrap_or(block);
    if block.is_empty() {
        return Stated::Absent;
    }
    let version = block.get(2..4).unwrap_or_default();
    let offset_bytes = match (Order::stated(block), version) {
        (Some(_), [42, 0] | [0, 42]) => 4,
        (Some(Order::Little), [43, 0]) | (Some(Order::Big), [0, 43]) => 8,
        _ => return Stated::Invalid,
    };
    let order = Order::stated(block).unwrap_or(Order::Little);
    find(block, order, offset_bytes).unwrap_or(Stated::Absent)
}

/// Finds the tag in the first directory. `None` if the block ends before.
fn find(block: &[u8], order: Order, offset_bytes: usize) -> Option<Stated> {
    // The counts of a BigTIFF are as long as its offsets.
    let (pointer, count_bytes) = if offset_bytes == 8 { (8, 8) } else { (4, 2) };
    let at = |start: usize, length: usize| block.get(start..start.checked_add(length)?);
    let start = order.number(at(pointer, offset_bytes)?) as usize;
    let count = order.number(at(start, count_bytes)?);
    let mut entries = block
        .get(start + count_bytes..)?
        .chunks_exact(4 + 2 * offset_bytes);
    let mut outside = 0_usize;
    // Pillow stops at the first entry that the block does not hold whole.
    for _ in 0..count {
        let (head, value) = entries.next()?.split_at(4 + offset_bytes);
        let [tag, kind] = [&head[..2], &head[2..4]].map(|bytes| order.number(bytes));
        let Some(unit) = size_of(kind) else {
            continue;
        };
        let size = (order.number(&head[4..]) as usize).saturating_mul(unit);
        let data = if size <= offset_bytes {
            &value[..size]
        } else {
            outside = outside.saturating_add(size);
            if outside > block.len() {
                continue;
            }
            at(order.number(value) as usize, size)?
        };
        if tag == ORIENTATION && !data.is_empty() {
            return Some(value_of(order, kind, &data[..unit]));
        }
    }
    None
}

/// Reads a value of a type. Text, bytes and what is no whole number are no orientation.
fn value_of(order: Order, kind: u64, bytes: &[u8]) -> Stated {
    let integer = order.number(bytes);
    let number = match kind {
        // Negative numbers come out as large ones. No orientation is either.
        SHORT | LONG | SBYTE | SSHORT | SLONG | IFD | LONG8 => integer as f64,
        RATIONAL | SRATIONAL => {
            let [above, below] = [&bytes[..4], &bytes[4..]].map(|half| order.number(half));
            above as f64 / below as f64
        }
        FLOAT => f64::from(f32::from_bits(integer as u32)),
        DOUBLE => f64::from_bits(integer),
        _ => return Stated::Invalid,
    };
    match number as u8 {
        value if f64::from(value) == number => Stated::Value(value),
        _ => Stated::Invalid,
    }
}

/// Finds `tiff:Orientation`, as an attribute or as an element, with its one digit.
fn orientation_in_xmp(xmp: &[u8]) -> Stated {
    const NAME: &[u8] = b"tiff:Orientation";
    let digit = xmp.windows(NAME.len() + 3).find_map(|window| {
        let ([b'=', b'"', digit, ..] | [b'>', digit, ..]) = window.strip_prefix(NAME)? else {
            return None;
        };
        digit.is_ascii_digit().then(|| digit - b'0')
    });
    digit.map_or(Stated::Absent, Stated::Value)
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
