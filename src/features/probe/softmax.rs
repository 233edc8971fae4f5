//! Softmax regression as a function to be minimized.
//!
//! The value at weights `W` `[classes, width]` and biases `b` `[classes]` is `Σ −log softmax(W·x +
//! b)[class of x] + l2/2·‖W‖²`: the objective of scikit-learn's multinomial `LogisticRegression`
//! with `C = 1/l2`. Biases are not penalized.
//!
//! The mean is subtracted from the features. This does not move the minimum, since `b` absorbs
//! `W·mean`. But tokens have a large part in common, and without it the search needs a fraction of
//! the steps. Features are not scaled to equal variance, because the model's last LayerNorm gives
//! them one scale already.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

use super::examples::Examples;

/// Number of rows that are converted to f64 and multiplied together.
const BLOCK: usize = 256;

/// The function, with buffers for its evaluation. A point is all of `W`, row by row, then `b`.
pub(super) struct Softmax<'a> {
    examples: &'a Examples,
    mean: &'a [f64],
    targets: &'a [usize],
    classes: usize,
    /// Centered features, `[rows, width]`.
    block: Vec<f64>,
    /// Logits, then residuals, `[rows, classes]`.
    logits: Vec<f64>,
}

impl<'a> Softmax<'a> {
    pub(super) fn new(
        examples: &'a Examples,
        mean: &'a [f64],
        targets: &'a [usize],
        classes: usize,
    ) -> Self {
        Self {
            examples,
            mean,
            targets,
            classes,
            block: vec![0.0; BLOCK * examples.width()],
            logits: vec![0.0; BLOCK * classes],
        }
    }

    /// Returns the number of coordinates of a point.
    pub(super) fn parameters(&self) -> usize {
        self.classes * (self.examples.width() + 1)
    }

    /// Computes the value over some of the examples at a point, and the gradient. Calls `go_on`
    /// before each block, and returns `None` if it returns false.
    pub(super) fn evaluate(
        &mut self,
        rows: &[usize],
        l2: f64,
        at: &[f64],
        gradient: &mut [f64],
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<f64> {
        let classes = self.classes;
        let width = self.examples.width();
        let weights = &at[..classes * width];
        let (weight_gradient, bias_gradient) = gradient.split_at_mut(classes * width);
        for (gradient, weight) in weight_gradient.iter_mut().zip(weights) {
            *gradient = l2 * weight;
        }
        bias_gradient.fill(0.0);
        let mut value = 0.5 * l2 * weights.iter().map(|weight| weight * weight).sum::<f64>();
        for rows in rows.chunks(BLOCK) {
            if !go_on() {
                return None;
            }
            self.forward(rows, at);
            let residuals = &mut self.logits[..rows.len() * classes];
            for (&row, logits) in rows.iter().zip(residuals.chunks_exact_mut(classes)) {
                let target = self.targets[row];
                let logit = logits[target];
                value += softmax(logits) - logit;
                logits[target] -= 1.0;
                for (gradient, residual) in bias_gradient.iter_mut().zip(&*logits) {
                    *gradient += residual;
                }
            }
            let block =
                MatRef::from_row_major_slice(&self.block[..rows.len() * width], rows.len(), width);
            let residuals = MatRef::from_row_major_slice(&*residuals, rows.len(), classes);
            let to = MatMut::from_row_major_slice_mut(&mut *weight_gradient, classes, width);
            matmul(to, Accum::Add, residuals.transpose(), block, 1.0, Par::Seq);
        }
        Some(value)
    }

    /// Counts the examples that a point classifies correctly.
    pub(super) fn correct(&mut self, rows: &[usize], at: &[f64]) -> usize {
        let mut correct = 0;
        for rows in rows.chunks(BLOCK) {
            self.forward(rows, at);
            let logits = self.logits.chunks_exact(self.classes);
            for (&row, logits) in rows.iter().zip(logits) {
                correct += usize::from(largest(logits) == self.targets[row]);
            }
        }
        correct
    }

    /// Writes the logits of at most [`BLOCK`] examples, and their centered features.
    fn forward(&mut self, rows: &[usize], at: &[f64]) {
        let classes = self.classes;
        let width = self.examples.width();
        for (&row, to) in rows.iter().zip(self.block.chunks_exact_mut(width)) {
            for ((to, &value), mean) in to.iter_mut().zip(self.examples.row(row)).zip(self.mean) {
                *to = f64::from(value) - mean;
            }
        }
        let (weights, biases) = at.split_at(classes * width);
        let logits = &mut self.logits[..rows.len() * classes];
        for logits in logits.chunks_exact_mut(classes) {
            logits.copy_from_slice(biases);
        }
        let block =
            MatRef::from_row_major_slice(&self.block[..rows.len() * width], rows.len(), width);
        let weights = MatRef::from_row_major_slice(weights, classes, width);
        let to = MatMut::from_row_major_slice_mut(logits, rows.len(), classes);
        matmul(to, Accum::Add, block, weights.transpose(), 1.0, Par::Seq);
    }
}

/// Converts logits to probabilities, and returns the logarithm of the sum of their exponentials.
pub(super) fn softmax(logits: &mut [f64]) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for logit in &mut *logits {
        *logit = (*logit - max).exp();
        sum += *logit;
    }
    logits.iter_mut().for_each(|share| *share /= sum);
    max + sum.ln()
}

/// Returns the index of the first of the largest values.
fn largest(values: &[f64]) -> usize {
    let mut best = 0;
    for index in 1..values.len() {
        if values[index] > values[best] {
            best = index;
        }
    }
    best
}
