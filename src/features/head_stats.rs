//! Statistics of the attention of CLS, per head and between heads, which show whether heads attend
//! to different things.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

/// Statistics of the heads of one image. The values of each head are scaled to sum to 1 over the
/// patches.
#[derive(Debug, Clone)]
pub struct HeadStats {
    /// Shannon entropy in nats, `[heads]`: 0 (all on one patch) to ln of the number of patches
    /// (even).
    pub entropy: Array1<f32>,
    /// Exponential of the entropy, `[heads]`: the number of patches that an even spread of this
    /// entropy covers.
    pub effective_patches: Array1<f32>,
    /// Share on the foreground, `[heads]`.
    pub foreground: Array1<f32>,
    /// Overlap of two heads, `[heads, heads]`: the sum over the patches of the smaller of their two
    /// shares. 1 for equal maps, 0 for maps that share no patch; one minus the total variation
    /// distance.
    pub overlap: Array2<f32>,
}

impl HeadStats {
    /// Computes the statistics from CLS attention over patches `[heads, patches]` and a foreground
    /// mask.
    pub fn new(heads: ArrayView2<'_, f32>, foreground: &[bool]) -> Self {
        let mut shares = heads.to_owned();
        for mut row in shares.rows_mut() {
            let sum: f32 = row.sum();
            if sum > 0.0 {
                row /= sum;
            }
        }
        let heads = shares.nrows();
        let entropy = Array1::from_shape_fn(heads, |head| entropy(shares.row(head)));
        Self {
            effective_patches: entropy.mapv(f32::exp),
            entropy,
            foreground: Array1::from_shape_fn(heads, |head| {
                share_inside(shares.row(head), foreground)
            }),
            overlap: Array2::from_shape_fn((heads, heads), |(a, b)| {
                overlap(shares.row(a), shares.row(b))
            }),
        }
    }

    /// Returns the mean overlap of two different heads; `None` for a single head.
    pub fn mean_overlap(&self) -> Option<f32> {
        let heads = self.overlap.nrows();
        let pairs = heads * heads.saturating_sub(1);
        (pairs > 0).then(|| (self.overlap.sum() - self.overlap.diag().sum()) / pairs as f32)
    }
}

fn entropy(shares: ArrayView1<'_, f32>) -> f32 {
    let positive = shares.iter().filter(|share| **share > 0.0);
    positive.map(|share| -share * share.ln()).sum()
}

fn share_inside(shares: ArrayView1<'_, f32>, mask: &[bool]) -> f32 {
    let inside = shares.iter().zip(mask).filter(|(_, inside)| **inside);
    inside.map(|(share, _)| share).sum()
}

fn overlap(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f32 {
    a.iter().zip(b).map(|(a, b)| a.min(*b)).sum()
}
