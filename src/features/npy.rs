//! NumPy's `.npy` format for f32 arrays.

use ndarray::{ArrayBase, Data, Dimension};
use ndarray_npy::WriteNpyExt;

use crate::error::{Error, Result};

/// The bytes of a `.npy` file with `array`, little-endian f32 in C order.
///
/// # Errors
/// Never in practice: writing to memory does not fail.
pub fn encode<S: Data<Elem = f32>, D: Dimension>(array: &ArrayBase<S, D>) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(array.len() * 4 + 128);
    array.write_npy(&mut bytes).map_err(|error| Error::internal(format!("encoding .npy: {error}")))?;
    Ok(bytes)
}
