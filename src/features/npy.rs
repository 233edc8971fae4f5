//! NumPy's `.npy` format.

use ndarray::{ArrayBase, Data, Dimension};
use ndarray_npy::{WritableElement, WriteNpyExt};

use crate::error::{Result, ResultExt};

/// Encodes `array` as a `.npy` file, little-endian in C order.
pub fn encode<S: Data<Elem: WritableElement>, D: Dimension>(
    array: &ArrayBase<S, D>,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(array.len() * size_of::<S::Elem>() + 128);
    array.write_npy(&mut bytes).internal("encoding .npy")?;
    Ok(bytes)
}

/// Encodes the header of a `.npy` file, which `rows` rows of `columns` little-endian f32 values
/// follow. For files that are too large for memory, or whose rows are counted while they are
/// written.
pub fn header(rows: u64, columns: usize) -> [u8; HEADER] {
    header_of("<f4", &[rows, columns as u64])
}

/// Size of the headers that this module writes, in bytes.
pub const HEADER: usize = 128;

/// Encodes the header of a `.npy` file of at most three dimensions, whose values of a type such as
/// `<f4` follow in C order.
///
/// The format is NumPy's version 1.0: magic, length of the rest of the header, a Python dictionary,
/// blanks, a line feed.
pub fn header_of(values: &str, shape: &[u64]) -> [u8; HEADER] {
    let lengths: Vec<String> = shape.iter().map(u64::to_string).collect();
    let shape = match lengths.as_slice() {
        [one] => format!("{one},"),
        several => several.join(", "),
    };
    let dictionary =
        format!("{{'descr': '{values}', 'fortran_order': False, 'shape': ({shape}), }}");
    let mut header = [b' '; HEADER];
    header[..10].copy_from_slice(b"\x93NUMPY\x01\x00\x76\x00");
    header[10..10 + dictionary.len()].copy_from_slice(dictionary.as_bytes());
    header[HEADER - 1] = b'\n';
    header
}

/// Reads a header of [`header_of`]: the type of the values, and the shape.
pub fn parse_header(header: &[u8; HEADER]) -> Option<(String, Vec<u64>)> {
    let text = std::str::from_utf8(header.strip_prefix(b"\x93NUMPY\x01\x00\x76\x00")?).ok()?;
    let (_, rest) = text.split_once("'descr': '")?;
    let (values, rest) = rest.split_once("', 'fortran_order': False, 'shape': (")?;
    let (shape, _) = rest.split_once(')')?;
    let lengths = shape
        .split(',')
        .map(str::trim)
        .filter(|length| !length.is_empty());
    let lengths = lengths
        .map(|length| length.parse().ok())
        .collect::<Option<_>>()?;
    Some((values.to_owned(), lengths))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for shape in [&[7][..], &[0, 384], &[100_000_000, 1369, 1536]] {
            let header = header_of("<f2", shape);
            assert_eq!(
                parse_header(&header),
                Some(("<f2".to_owned(), shape.to_vec()))
            );
        }
        assert_eq!(parse_header(&[0; HEADER]), None);
    }
}
