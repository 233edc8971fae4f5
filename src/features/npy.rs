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
///
/// The format is NumPy's version 1.0: magic, length of the rest of the header, a Python dictionary,
/// blanks, a line feed.
pub fn header(rows: u64, columns: usize) -> [u8; 128] {
    let dictionary =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let mut header = [b' '; 128];
    header[..10].copy_from_slice(b"\x93NUMPY\x01\x00\x76\x00");
    header[10..10 + dictionary.len()].copy_from_slice(dictionary.as_bytes());
    header[127] = b'\n';
    header
}
