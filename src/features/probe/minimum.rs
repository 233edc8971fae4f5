//! The minimum of a smooth convex function, by limited-memory BFGS (Nocedal & Wright, Numerical
//! Optimization, algorithms 7.4 and 7.5) with a line search that bisects for the weak Wolfe
//! conditions (Lewis & Overton, 2013).
//!
//! Where rounding hides that the value falls, the slope decides, as in Hager & Zhang's approximate
//! Wolfe conditions (2005).

use std::collections::VecDeque;

/// How many steps the curvature is learned from.
const MEMORY: usize = 10;
/// The share of the fall that the slope promises which a step must reach.
const ENOUGH: f64 = 1e-4;
/// The share of the slope that a step must leave at most.
const FLATTER: f64 = 0.9;
/// Differences of the value below this share of it are rounding.
const ROUNDING: f64 = 1e-13;
/// Trials of one line search; 60 halvings exhaust the digits of a step.
const TRIALS: usize = 60;

/// Where the search ended.
#[derive(Debug, Clone)]
pub(super) struct Minimum {
    /// The point.
    pub(super) at: Vec<f64>,
    /// Whether the gradient is as small there as it should be.
    pub(super) converged: bool,
}

/// A step that was taken, and what it did to the gradient.
struct Step {
    step: Vec<f64>,
    change: Vec<f64>,
    /// `1 / (step · change)`.
    inverse: f64,
}

/// Goes down from `at` until the length of the gradient is at most `tolerance`.
///
/// `evaluate` gives the value at a point and writes the gradient there; when it gives `None` the
/// search is given up, and so gives `None`.
pub(super) fn minimize(
    mut at: Vec<f64>,
    tolerance: f64,
    most_steps: usize,
    evaluate: &mut impl FnMut(&[f64], &mut [f64]) -> Option<f64>,
) -> Option<Minimum> {
    let mut gradient = vec![0.0; at.len()];
    let mut value = evaluate(&at, &mut gradient)?;
    let mut steps: VecDeque<Step> = VecDeque::with_capacity(MEMORY);
    let (mut trial, mut trial_gradient) = (vec![0.0; at.len()], vec![0.0; at.len()]);
    for _ in 0..most_steps {
        let length = dot(&gradient, &gradient).sqrt();
        if length <= tolerance {
            return Some(Minimum {
                at,
                converged: true,
            });
        }
        let direction = descent(&gradient, &steps);
        let slope = dot(&direction, &gradient);
        // Without steps to learn from, the first trial is one of length 1.
        let mut size = if steps.is_empty() { 1.0 / length } else { 1.0 };
        let (mut low, mut high) = (0.0, f64::INFINITY);
        let mut found = false;
        for _ in 0..TRIALS {
            trial
                .iter_mut()
                .zip(&at)
                .zip(&direction)
                .for_each(|((trial, at), d)| *trial = at + size * d);
            let trial_value = evaluate(&trial, &mut trial_gradient)?;
            let trial_slope = dot(&direction, &trial_gradient);
            let falls = trial_value <= value + ENOUGH * size * slope;
            let falls_unseen = trial_value <= value + ROUNDING * value.abs()
                && trial_slope <= (2.0 * ENOUGH - 1.0) * slope;
            if !(falls || falls_unseen) {
                high = size;
            } else if trial_slope < FLATTER * slope {
                low = size;
            } else {
                value = trial_value;
                found = true;
                break;
            }
            size = if high.is_finite() {
                f64::midpoint(low, high)
            } else {
                2.0 * low
            };
        }
        if !found {
            break;
        }
        let step: Vec<f64> = direction.iter().map(|d| size * d).collect();
        let change: Vec<f64> = trial_gradient
            .iter()
            .zip(&gradient)
            .map(|(new, old)| new - old)
            .collect();
        let curvature = dot(&step, &change);
        std::mem::swap(&mut at, &mut trial);
        std::mem::swap(&mut gradient, &mut trial_gradient);
        // Positive for every step that left the slope flatter, but for rounding.
        if curvature > 0.0 {
            if steps.len() == MEMORY {
                steps.pop_front();
            }
            steps.push_back(Step {
                step,
                change,
                inverse: 1.0 / curvature,
            });
        }
    }
    let converged = dot(&gradient, &gradient).sqrt() <= tolerance;
    Some(Minimum { at, converged })
}

/// The direction `−H·gradient`, where `H` is the inverse Hessian as far as the steps tell: the
/// two-loop recursion.
fn descent(gradient: &[f64], steps: &VecDeque<Step>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(steps.len());
    for Step {
        step,
        change,
        inverse,
    } in steps.iter().rev()
    {
        let share = inverse * dot(step, &direction);
        add(&mut direction, -share, change);
        shares.push(share);
    }
    if let Some(Step {
        change, inverse, ..
    }) = steps.back()
    {
        let scale = 1.0 / (inverse * dot(change, change));
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for (
        Step {
            step,
            change,
            inverse,
        },
        share,
    ) in steps.iter().zip(shares.into_iter().rev())
    {
        let other = inverse * dot(change, &direction);
        add(&mut direction, share - other, step);
    }
    direction
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `to += factor · values`.
fn add(to: &mut [f64], factor: f64, values: &[f64]) {
    to.iter_mut()
        .zip(values)
        .for_each(|(to, value)| *to += factor * value);
}
