//! One vector per image from its tokens.

use ndarray::{Array1, ArrayView1, ArrayView2, Axis};

use crate::names::option_enum;

option_enum! {
    /// How an image's tokens become its embedding.
    #[derive(Default)]
    pub enum Pooling {
        /// The CLS token.
        #[default]
        Cls,
        /// The mean of the patch tokens.
        Mean,
        /// CLS, then the mean of the patch tokens: the input of DINOv2's linear head. Twice as
        /// wide.
        ClsMean,
        /// Generalized mean of the patch tokens with exponent 3, of values clamped to 1e-6 from
        /// below (Radenović et al.).
        Gem,
    }
}

impl Pooling {
    /// Returns whether the patch tokens are read.
    pub fn needs_patches(self) -> bool {
        self != Self::Cls
    }

    /// Returns the width of the result for tokens of width `dim`.
    pub fn dim(self, dim: usize) -> usize {
        if self == Self::ClsMean { 2 * dim } else { dim }
    }

    /// Appends the pooled vector of one layer to `out`. `patches` is `[patches, dim]`, and empty if
    /// it is not needed.
    pub fn pool(self, cls: ArrayView1<'_, f32>, patches: ArrayView2<'_, f32>, out: &mut Vec<f32>) {
        let mean = || {
            patches
                .mean_axis(Axis(0))
                .unwrap_or_else(|| Array1::zeros(cls.len()))
        };
        match self {
            Self::Cls => out.extend(cls),
            Self::Mean => out.extend(mean()),
            Self::ClsMean => {
                out.extend(cls);
                out.extend(mean());
            }
            Self::Gem => {
                let mut sums = vec![0.0f64; cls.len()];
                for patch in patches.rows() {
                    for (sum, &value) in sums.iter_mut().zip(patch) {
                        *sum += f64::from(value.max(1e-6)).powi(3);
                    }
                }
                let count = patches.nrows() as f64;
                out.extend(sums.iter().map(|sum| (sum / count).cbrt() as f32));
            }
        }
    }
}

/// Scales a vector to length 1. The zero vector does not change.
pub fn normalize(vector: &mut [f32]) {
    let squares = vector.iter().map(|&v| f64::from(v).powi(2));
    let length = squares.sum::<f64>().sqrt();
    if length > 0.0 {
        let scale = (1.0 / length) as f32;
        vector.iter_mut().for_each(|v| *v *= scale);
    }
}
