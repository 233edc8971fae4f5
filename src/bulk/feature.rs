//! Kinds of features, and the type of their values.

use half::f16;
use ndarray::ArrayView2;

use crate::{features::pool::Pooling, names::option_enum};

option_enum! {
    /// A feature of an image.
    pub enum Feature {
        /// The CLS token.
        Cls,
        /// The mean of the patch tokens.
        Mean,
        /// CLS, then the mean of the patch tokens.
        ClsMean,
        /// Generalized mean of the patch tokens.
        Gem,
        /// All patch tokens, a row for each patch.
        PatchTokens,
    }
}

impl Feature {
    /// Returns the pooling of a feature that is a vector.
    pub fn pooling(self) -> Option<Pooling> {
        match self {
            Self::Cls => Some(Pooling::Cls),
            Self::Mean => Some(Pooling::Mean),
            Self::ClsMean => Some(Pooling::ClsMean),
            Self::Gem => Some(Pooling::Gem),
            Self::PatchTokens => None,
        }
    }
}

impl From<Pooling> for Feature {
    fn from(pooling: Pooling) -> Self {
        match pooling {
            Pooling::Cls => Self::Cls,
            Pooling::Mean => Self::Mean,
            Pooling::ClsMean => Self::ClsMean,
            Pooling::Gem => Self::Gem,
        }
    }
}

option_enum! {
    /// Type of the values.
    #[derive(Default)]
    pub enum Dtype {
        /// 32-bit floats.
        #[default]
        F32,
        /// 16-bit floats.
        F16,
        /// 8-bit integers from -127 to 127, with a scale for each vector or patch: value = integer
        /// × scale.
        I8,
    }
}

impl Dtype {
    /// Returns the size of a value in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }

    /// Returns NumPy's name of the type.
    pub fn numpy(self) -> &'static str {
        match self {
            Self::F32 => "<f4",
            Self::F16 => "<f2",
            Self::I8 => "|i1",
        }
    }

    /// Encodes rows in little-endian, and returns their scales, which only [`Dtype::I8`] has.
    pub fn encode(self, rows: ArrayView2<'_, f32>) -> (Vec<u8>, Vec<f32>) {
        let mut bytes = Vec::with_capacity(rows.len() * self.bytes());
        let mut scales = Vec::new();
        for row in rows.rows() {
            match self {
                Self::F32 => bytes.extend(row.iter().flat_map(|value| value.to_le_bytes())),
                Self::F16 => {
                    let values = row.iter().map(|&value| f16::from_f32(value));
                    bytes.extend(values.flat_map(f16::to_le_bytes));
                }
                Self::I8 => {
                    let largest = row.iter().fold(0f32, |most, value| most.max(value.abs()));
                    let scale = largest / 127.0;
                    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                    let values = row.iter().map(|value| (value * inverse).round() as i8);
                    bytes.extend(values.map(i8::cast_unsigned));
                    scales.push(scale);
                }
            }
        }
        (bytes, scales)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn integers_keep_a_vector_to_half_a_step() {
        let rows = array![[0.5f32, -1.0, 0.25], [0.0, 0.0, 0.0]];
        let (bytes, scales) = Dtype::I8.encode(rows.view());
        let values: Vec<f32> = bytes
            .iter()
            .map(|&byte| f32::from(byte.cast_signed()))
            .collect();
        assert_eq!(values, [64.0, -127.0, 32.0, 0.0, 0.0, 0.0]);
        assert_eq!(scales, [1.0 / 127.0, 0.0]);
        for (value, expected) in values.iter().zip(&rows) {
            assert!((value * scales[0] - expected).abs() <= 0.5 * scales[0] + 1e-7);
        }
    }

    #[test]
    fn floats_are_little_endian() {
        let rows = array![[1.0f32, -2.5]];
        let (bytes, scales) = Dtype::F16.encode(rows.view());
        assert_eq!(
            (bytes.as_slice(), scales.len()),
            (&[0x00, 0x3c, 0x00, 0xc1][..], 0)
        );
        assert_eq!(Dtype::F32.encode(rows.view()).0[..4], 1f32.to_le_bytes());
    }
}
