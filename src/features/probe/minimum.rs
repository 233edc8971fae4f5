//! Minimizes a smooth convex function by limited-memory BFGS (Nocedal & Wright, Numerical
//! Optimization, algorithms 7.4 and 7.5), with a line search that bisects for the weak Wolfe
//! conditions (Lewis & Overton, 2013).
//!
//! If the decrease of the value is within the rounding error, the slope decides, as in Hager &
//! Zhang's approximate Wolfe conditions (2005).

use std::collections::VecDeque;

/// Number of steps from which the curvature is estimated.
const MEMORY: usize = 10;
/// Minimum decrease of the value in a step, relative to the decrease that the slope predicts.
const MIN_DECREASE: f64 = 1e-4;
/// Maximum slope after a step, relative to the slope before it.
const MAX_SLOPE: f64 = 0.9;
/// Rounding error of the value, relative to the value.
const ROUNDING: f64 = 1e-13;
/// Maximum number of trials of a line search; 60 halvings exhaust the digits of a step.
const TRIALS: usize = 60;

/// Result of a search.
#[derive(Debug, Clone)]
pub(super) struct Minimum {
    /// Point at which the search ended.
    pub(super) at: Vec<f64>,
    /// Whether the gradient is within the tolerance there.
    pub(super) converged: bool,
}

/// A step, and the change of the gradient in it.
struct Step {
    step: Vec<f64>,
    change: Vec<f64>,
    /// `1 / (step · change)`.
    inverse: f64,
}

/// Searches from `at` until the length of the gradient is at most `tolerance`.
///
/// `evaluate` returns the value at a point and writes the gradient. If it returns `None`, the
/// search is canceled and returns `None`, too.
pub(super) fn minimize(
    mut at: Vec<f64>,
    tolerance: f64,
    max_steps: usize,
    evaluate: &mut impl FnMut(&[f64], &mut [f64]) -> Option<f64>,
) -> Option<Minimum> {
    let mut gradient = vec![0.0; at.len()];
    let mut value = evaluate(&at, &mut gradient)?;
    let mut steps: VecDeque<Step> = VecDeque::with_capacity(MEMORY);
    let mut trial = vec![0.0; at.len()];
    let mut trial_gradient = vec![0.0; at.len()];
    for _ in 0..max_steps {
        let length = dot(&gradient, &gradient).sqrt();
        if length <= tolerance {
            break;
        }
        let direction = descent(&gradient, &steps);
        let slope = dot(&direction, &gradient);
        // Without earlier steps, the first trial has length 1.
        let mut size = if steps.is_empty() { 1.0 / length } else { 1.0 };
        let mut low = 0.0;
        let mut high = f64::INFINITY;
        let mut found = false;
        for _ in 0..TRIALS {
            for ((trial, at), d) in trial.iter_mut().zip(&at).zip(&direction) {
                *trial = at + size * d;
            }
            let trial_value = evaluate(&trial, &mut trial_gradient)?;
            let trial_slope = dot(&direction, &trial_gradient);
            let falls = trial_value <= value + MIN_DECREASE * size * slope;
            let falls_unseen = trial_value <= value + ROUNDING * value.abs()
                && trial_slope <= (2.0 * MIN_DECREASE - 1.0) * slope;
            if !(falls || falls_unseen) {
                high = size;
            } else if trial_slope < MAX_SLOPE * slope {
                low = size;
            } else {
                value = trial_value;
                found = true;
                break;
            }
            let middle = f64::midpoint(low, high);
            size = if high.is_finite() { middle } else { 2.0 * low };
        }
        if !found {
            break;
        }
        let step: Vec<f64> = direction.iter().map(|d| size * d).collect();
        let gradients = trial_gradient.iter().zip(&gradient);
        let change: Vec<f64> = gradients.map(|(new, old)| new - old).collect();
        let curvature = dot(&step, &change);
        std::mem::swap(&mut at, &mut trial);
        std::mem::swap(&mut gradient, &mut trial_gradient);
        // Positive for every step that reduced the slope, apart from rounding.
        if curvature > 0.0 {
            if steps.len() == MEMORY {
                steps.pop_front();
            }
            let inverse = 1.0 / curvature;
            steps.push_back(Step {
                step,
                change,
                inverse,
            });
        }
    }
    let converged = dot(&gradient, &gradient).sqrt() <= tolerance;
    Some(Minimum { at, converged })
}

/// Computes the direction `−H·gradient`, where `H` is the inverse Hessian as estimated from the
/// steps, by the two-loop recursion.
fn descent(gradient: &[f64], steps: &VecDeque<Step>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(steps.len());
    for past in steps.iter().rev() {
        let share = past.inverse * dot(&past.step, &direction);
        add(&mut direction, -share, &past.change);
        shares.push(share);
    }
    if let Some(last) = steps.back() {
        let scale = 1.0 / (last.inverse * dot(&last.change, &last.change));
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for (past, share) in steps.iter().zip(shares.into_iter().rev()) {
        let other = past.inverse * dot(&past.change, &direction);
        add(&mut direction, share - other, &past.step);
    }
    direction
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Computes `to += factor · values`.
fn add(to: &mut [f64], factor: f64, values: &[f64]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += factor * value;
    }
}
