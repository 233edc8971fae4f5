//! Softmax regression as a function to be minimized.
//!
//! The value at weights `W` `[classes, width]` and biases `b` `[classes]` is `Σ −log softmax(W·x +
//! b)[class of x] + l2/2·‖W‖²`: the objective of scikit-learn's multinomial `LogisticRegression`
//! with `C = 1/l2`. Biases are free.
//!
//! The mean is taken off the features. With free biases that moves no minimum (`b` takes up
//! `W·mean`), but tokens share a large common part, and without it the search needs a fraction of
//! the steps. Features are not scaled to one variance: they leave the model's last LayerNorm on one
//! scale already.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

use super::examples::Examples;

/// Rows that are turned into f64 and multiplied together.
const BLOCK: usize = 256;

/// The function, with the memory that its evaluation works in. A point is all of `W`, row by row,
/// then `b`.
pub(super) struct Softmax<'a> {
    examples: &'a Examples,
    mean: &'a [f64],
    targets: &'a [usize],
    classes: usize,
    /// `[rows, width]`, centered.
    block: Vec<f64>,
    /// `[rows, classes]`: logits, then residuals.
    logits: Vec<f64>,
}

impl<'a> Softmax<'a> {
    pub(super) fn new(
        examples: &'a Examples,
        mean: &'a [f64],
        targets: &'a [usize],
        classes: usize,
    ) -> Self {
        let block = vec![0.0; BLOCK * examples.width()];
        Self {
            examples,
            mean,
            targets,
            classes,
            block,
            logits: vec![0.0; BLOCK * classes],
        }
    }

    /// How many numbers a point has.
    pub(super) fn parameters(&self) -> usize {
        self.classes * (self.examples.width() + 1)
    }

    /// The value over some of the examples at a point, and the gradient there. Asks before each
    /// block whether to go on.
    pub(super) fn evaluate(
        &mut self,
        rows: &[usize],
        l2: f64,
        at: &[f64],
        gradient: &mut [f64],
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<f64> {
        let (classes, width) = (self.classes, self.examples.width());
        let weights = &at[..classes * width];
        gradient
            .iter_mut()
            .zip(weights)
            .for_each(|(gradient, weight)| *gradient = l2 * weight);
        let (of_weights, of_biases) = gradient.split_at_mut(classes * width);
        of_biases.fill(0.0);
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
                of_biases
                    .iter_mut()
                    .zip(&*logits)
                    .for_each(|(gradient, residual)| *gradient += residual);
            }
            let block =
                MatRef::from_row_major_slice(&self.block[..rows.len() * width], rows.len(), width);
            let residuals = MatRef::from_row_major_slice(&*residuals, rows.len(), classes);
            let to = MatMut::from_row_major_slice_mut(&mut *of_weights, classes, width);
            matmul(to, Accum::Add, residuals.transpose(), block, 1.0, Par::Seq);
        }
        Some(value)
    }

    /// How many of some examples a point classifies as they are labeled.
    pub(super) fn correct(&mut self, rows: &[usize], at: &[f64]) -> usize {
        let mut correct = 0;
        for rows in rows.chunks(BLOCK) {
            self.forward(rows, at);
            let logits = self.logits.chunks_exact(self.classes);
            correct += rows
                .iter()
                .zip(logits)
                .filter(|(row, logits)| largest(logits) == self.targets[**row])
                .count();
        }
        correct
    }

    /// Writes the logits of at most [`BLOCK`] examples, and their centered features.
    fn forward(&mut self, rows: &[usize], at: &[f64]) {
        let (classes, width) = (self.classes, self.examples.width());
        for (&row, to) in rows.iter().zip(self.block.chunks_exact_mut(width)) {
            let features = self.examples.row(row).iter().zip(self.mean);
            to.iter_mut()
                .zip(features)
                .for_each(|(to, (&value, mean))| *to = f64::from(value) - mean);
        }
        let (weights, biases) = at.split_at(classes * width);
        let logits = &mut self.logits[..rows.len() * classes];
        logits
            .chunks_exact_mut(classes)
            .for_each(|logits| logits.copy_from_slice(biases));
        let block =
            MatRef::from_row_major_slice(&self.block[..rows.len() * width], rows.len(), width);
        let weights = MatRef::from_row_major_slice(weights, classes, width);
        let logits = MatMut::from_row_major_slice_mut(logits, rows.len(), classes);
        matmul(
            logits,
            Accum::Add,
            block,
            weights.transpose(),
            1.0,
            Par::Seq,
        );
    }
}

/// Turns logits into probabilities and gives the logarithm of the sum of their exponentials.
pub(super) fn softmax(logits: &mut [f64]) -> f64 {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for logit in &mut *logits {
        *logit = (*logit - most).exp();
        sum += *logit;
    }
    logits.iter_mut().for_each(|share| *share /= sum);
    most + sum.ln()
}

/// The first of the largest.
fn largest(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, index| {
        if values[index] > values[best] {
            index
        } else {
            best
        }
    })
}
