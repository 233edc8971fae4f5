//! Short vectors that bound cosines.

use ndarray::{Array2, ArrayView2, Axis, s};

use crate::features::pca::Pca;

/// Maximum number of vectors that the projection is fitted on.
const FITTED: usize = 16_384;

/// A projection of unit vectors to `width` numbers: their coordinates along the first `width − 1`
/// principal axes, and the length of the rest. The product of two sketches is never less than the
/// cosine of the vectors, by the inequality of Cauchy and Schwarz for the rest.
#[derive(Debug, Clone)]
pub(super) struct Sketcher {
    width: usize,
    /// Orthonormal rows, `[axes, dim]`; fewer than `width − 1` where there are no more.
    axes: Array2<f32>,
}

impl Sketcher {
    /// Fits the axes to vectors, `[n, dim]`.
    pub(super) fn fit(vectors: ArrayView2<'_, f32>, width: usize) -> Self {
        let step = vectors.nrows().div_ceil(FITTED).max(1);
        let some = vectors.slice(s![..;step, ..]);
        let count = (width - 1).min(some.ncols()).min(some.nrows() - 1);
        // Without axes a sketch is a length, and bounds nothing.
        let axes = Pca::fit(some, count).map_or_else(
            |_| Array2::zeros((0, vectors.ncols())),
            |pca| pca.components().to_owned(),
        );
        Self { width, axes }
    }

    /// Returns a sketcher of the first `width − 1` of the axes.
    pub(super) fn narrower(&self, width: usize) -> Self {
        let count = (width - 1).min(self.axes.nrows());
        Self {
            width,
            axes: self.axes.slice(s![..count, ..]).to_owned(),
        }
    }

    /// Returns the sketches of vectors `[n, dim]`: `[n, width]`.
    pub(super) fn sketch(&self, vectors: ArrayView2<'_, f32>) -> Array2<f32> {
        let heads = vectors.dot(&self.axes.t());
        let mut sketches = Array2::zeros((vectors.nrows(), self.width));
        sketches
            .slice_mut(s![.., ..self.axes.nrows()])
            .assign(&heads);
        let rows = sketches.axis_iter_mut(Axis(0)).zip(heads.rows());
        for ((mut sketch, head), vector) in rows.zip(vectors.rows()) {
            let rest = vector.dot(&vector) - head.dot(&head);
            sketch[self.width - 1] = rest.max(0.0).sqrt();
        }
        sketches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_sketches_bound_cosines() {
        let mut random = fastrand::Rng::with_seed(8);
        let mut vectors = Array2::from_shape_simple_fn((200, 24), || random.f32() - 0.3);
        for mut vector in vectors.rows_mut() {
            vector /= vector.dot(&vector).sqrt();
        }
        let cosines = vectors.dot(&vectors.t());
        let mut gaps = Vec::new();
        for width in [4, 12, 40] {
            let sketches = Sketcher::fit(vectors.view(), width).sketch(vectors.view());
            let gap = sketches.dot(&sketches.t()) - &cosines;
            assert!(gap.iter().all(|&gap| gap > -1e-5));
            gaps.push(gap.mean().unwrap());
        }
        assert!(gaps[0] > gaps[1] && gaps[1] > gaps[2]);
        assert!(gaps[2].abs() < 1e-5, "all axes leave no rest");
    }
}
