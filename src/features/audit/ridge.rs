//! Least squares of all labels at once, with the prediction for each row as if it had been left
//! out.
//!
//! With `H = X (XᵀX + λI)⁻¹ Xᵀ`, the prediction without row `i` is
//! `(ŷᵢ − Hᵢᵢ yᵢ) / (1 − Hᵢᵢ)` (Allen's PRESS, 1974), so one fit gives all of them.

use faer::{Mat, Side, linalg::solvers::Solve};
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, s};

use crate::{
    error::{Error, Result},
    features::progress::{Progress, Stage, Watch},
};

/// Rows whose predictions are computed together.
const BLOCK: usize = 256;

/// Predicts the class of each row without the row itself: the one of `classes` classes whose
/// membership, 1 for a member and 0 for another, is the largest. `x` is `[rows, dim]`; a column of
/// ones is added. `None` if `watch` ends it.
pub(super) fn left_out_classes(
    x: ArrayView2<'_, f32>,
    labels: &[u32],
    classes: usize,
    watch: Watch<'_>,
) -> Result<Option<Vec<u32>>> {
    let mut found = Vec::with_capacity(x.nrows());
    let whole = left_out_predictions(x, labels, classes, watch, &mut |predicted| {
        let mut best = 0;
        for (class, &value) in predicted.iter().enumerate() {
            if value > predicted[best] {
                best = class;
            }
        }
        found.push(best as u32);
    })?;
    Ok(whole.then_some(found))
}

/// Passes the predicted memberships `[classes]` of each row to `each`, in the order of the rows.
/// False if `watch` ends it.
fn left_out_predictions(
    x: ArrayView2<'_, f32>,
    labels: &[u32],
    classes: usize,
    watch: Watch<'_>,
    each: &mut dyn FnMut(ArrayView1<'_, f32>),
) -> Result<bool> {
    let (rows, dim) = x.dim();
    let width = dim + 1;
    let mut gram = Array2::<f64>::zeros((width, width));
    let mut sums = Array2::<f64>::zeros((width, classes));
    for start in (0..rows).step_by(BLOCK) {
        let block = with_ones(x, start);
        gram += &block.t().dot(&block).mapv(f64::from);
        for (row, &label) in block.rows().into_iter().zip(&labels[start..]) {
            let mut sum = sums.column_mut(label as usize);
            sum.zip_mut_with(&row, |sum, &value| *sum += f64::from(value));
        }
    }
    // A thousandth of all squares: enough for fewer rows than columns, and little for many.
    let penalty = 1e-3 * gram.diag().sum();
    gram.diag_mut().mapv_inplace(|value| value + penalty);
    let gram = Mat::from_fn(width, width, |row, column| gram[[row, column]]);
    let factors = gram
        .llt(Side::Lower)
        .map_err(|_| Error::internal("the least squares have no solution"))?;
    let identity = Mat::<f64>::identity(width, width);
    let inverse = factors.solve(&identity);
    let inverse = Array2::from_shape_fn((width, width), |(row, column)| {
        inverse[(row, column)] as f32
    });
    let weights = inverse.dot(&sums.mapv(|sum| sum as f32));
    for start in (0..rows).step_by(BLOCK) {
        if !watch(Progress::new(Stage::Checking, start, Some(rows))) {
            return Ok(false);
        }
        let block = with_ones(x, start);
        let influence = (&block.dot(&inverse) * &block).sum_axis(Axis(1));
        let mut fitted = block.dot(&weights);
        for (offset, mut row) in fitted.rows_mut().into_iter().enumerate() {
            let influence = influence[offset].clamp(0.0, 0.99);
            row[labels[start + offset] as usize] -= influence;
            row /= 1.0 - influence;
            each(row.view());
        }
    }
    Ok(true)
}

/// Returns a block of rows with a column of ones.
fn with_ones(x: ArrayView2<'_, f32>, start: usize) -> Array2<f32> {
    let (rows, dim) = x.dim();
    let height = BLOCK.min(rows - start);
    let mut block = Array2::ones((height, dim + 1));
    let values = x.slice(s![start..start + height, ..]);
    block.slice_mut(s![.., ..dim]).assign(&values);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shortcut is the same as a fit for each row without it.
    #[test]
    fn predictions_leave_the_row_out() {
        let mut random = fastrand::Rng::with_seed(3);
        let labels: Vec<u32> = (0..40).map(|row| row % 3).collect();
        let x = Array2::from_shape_fn((40, 5), |(row, column)| {
            random.f32()
                + if labels[row] as usize == column {
                    0.5
                } else {
                    0.0
                }
        });
        let mut found = Array2::zeros((0, 3));
        let mut keep = |row: ArrayView1<'_, f32>| found.push_row(row).expect("three classes");
        let whole = left_out_predictions(x.view(), &labels, 3, &mut |_| true, &mut keep);
        assert!(whole.expect("solvable"));
        let predicted = left_out_classes(x.view(), &labels, 3, &mut |_| true);
        let predicted = predicted.expect("solvable").expect("not ended");
        let ended = left_out_classes(x.view(), &labels, 3, &mut |_| false);
        assert_eq!(ended.expect("solvable"), None);
        let all = with_ones(x.view(), 0).mapv(f64::from);
        let penalty = 1e-3 * all.iter().map(|value| value * value).sum::<f64>();
        for out in [0, 7, 39] {
            let kept: Vec<usize> = (0..40).filter(|&row| row != out).collect();
            let x = all.select(ndarray::Axis(0), &kept);
            let y = Array2::from_shape_fn((39, 3), |(row, class)| {
                f64::from(u8::from(labels[kept[row]] as usize == class))
            });
            let gram = x.t().dot(&x) + Array2::<f64>::eye(6) * penalty;
            let gram = Mat::from_fn(6, 6, |row, column| gram[[row, column]]);
            let right = x.t().dot(&y);
            let right = Mat::from_fn(6, 3, |row, column| right[[row, column]]);
            let weights = gram.llt(Side::Lower).expect("positive").solve(&right);
            for class in 0..3 {
                let expected: f64 = (0..6).map(|i| all[[out, i]] * weights[(i, class)]).sum();
                assert!((f64::from(found[[out, class]]) - expected).abs() < 1e-4);
                assert!(found[[out, predicted[out] as usize]] >= found[[out, class]]);
            }
        }
    }
}
