//! Do different heads attend to different things? Numbers about the attention of CLS, per head and
//! between heads.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

/// Statistics of the heads of one image. Each head's values are taken as shares of what it gives to
/// patches.
#[derive(Debug, Clone)]
pub struct HeadStats {
    /// `[heads]`: Shannon entropy in nats, 0 (all on one patch) to ln of the number of patches
    /// (even).
    pub entropy: Array1<f32>,
    /// `[heads]`: exp of the entropy, the number of patches that an even spread of this entropy
    /// covers.
    pub effective_patches: Array1<f32>,
    /// `[heads]`: share on the foreground.
    pub foreground: Array1<f32>,
    /// `[heads, heads]`: what two heads have in common, the sum over the patches of the smaller of
    /// their two shares: 1 for equal maps, 0 for maps that share no patch. It is one minus the
    /// total variation distance.
    pub overlap: Array2<f32>,
}

impl HeadStats {
    /// Of the patch columns of CLS' attention `[heads, patches]`, and which patches are foreground.
    pub fn new(heads: ArrayView2<'_, f32>, foreground: &[bool]) -> Self {
        let mut shares = heads.to_owned();
        for mut row in shares.rows_mut() {
            let sum: f32 = row.sum();
            if sum > 0.0 {
                row /= sum;
            }
        }
        let of_each = |value: &dyn Fn(ArrayView1<'_, f32>) -> f32| {
            shares.rows().into_iter().map(value).collect()
        };
        let entropy: Array1<f32> = of_each(&|row| {
            row.iter()
                .filter(|&&share| share > 0.0)
                .map(|&share| -share * share.ln())
                .sum()
        });
        let on_foreground = of_each(&|row| {
            row.iter()
                .zip(foreground)
                .filter(|(_, inside)| **inside)
                .map(|(share, _)| share)
                .sum()
        });
        let overlap = Array2::from_shape_fn((shares.nrows(), shares.nrows()), |(a, b)| {
            shares
                .row(a)
                .iter()
                .zip(shares.row(b))
                .map(|(a, b)| a.min(*b))
                .sum()
        });
        Self {
            effective_patches: entropy.mapv(f32::exp),
            entropy,
            foreground: on_foreground,
            overlap,
        }
    }

    /// Mean overlap of two different heads; `None` for a single head.
    pub fn mean_overlap(&self) -> Option<f32> {
        let heads = self.overlap.nrows();
        let pairs = heads * heads.saturating_sub(1);
        (pairs > 0).then(|| (self.overlap.sum() - self.overlap.diag().sum()) / pairs as f32)
    }
}
