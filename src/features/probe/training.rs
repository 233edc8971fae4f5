//! Training a probe: the strength of its penalty by cross-validation, then one fit on everything.

use super::{
    Probe,
    examples::Examples,
    minimum::{dot, minimize},
    softmax::Softmax,
};
use crate::error::{Error, Kind, Result};

/// From strong to weak, so that each fit starts from one that is close and smoother.
const STRENGTHS: [f64; 8] = [1e5, 1e4, 1e3, 1e2, 1e1, 1e0, 1e-1, 1e-2];
/// Gradient at which a fit has converged, relative to that of a probe that knows nothing:
/// accuracies do not tell more digits.
const VALIDATION_GRADIENT: f64 = 1e-4;
/// The same for the fit that is kept.
const GRADIENT: f64 = 1e-7;
/// Steps after which a fit is taken as it is.
const MOST_STEPS: usize = 2000;
/// The same data are always split in the same way.
const SEED: u64 = 14;

/// How a probe is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingOptions {
    /// Strength of the penalty: `C = 1/l2` in scikit-learn's terms. `None` for the one of 10⁵, 10⁴,
    /// … 10⁻² that classifies most held-out examples rightly; of equals the strongest.
    pub l2: Option<f64>,
    /// Parts of the cross-validation; fewer if a class has fewer examples.
    pub folds: usize,
}

impl Default for TrainingOptions {
    fn default() -> Self {
        Self { l2: None, folds: 5 }
    }
}

impl TrainingOptions {
    /// Checks what can be told without examples.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] that names the option and its range.
    pub fn check(&self) -> Result<()> {
        if let Some(l2) = self.l2.filter(|l2| !(1e-6..=1e9).contains(l2)) {
            return Err(Error::option(
                "l2",
                format!("{l2} is out of range; it must be 0.000001 to 1000000000"),
            ));
        }
        if !(2..=20).contains(&self.folds) {
            return Err(Error::option(
                "folds",
                format!("{} is out of range; it must be 2 to 20", self.folds),
            ));
        }
        Ok(())
    }
}

/// What a training is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Stage {
    /// Examples are gathered.
    Reading,
    /// Fits of the cross-validation.
    Validating,
    /// Evaluations of the fit that is kept; nobody knows how many it will take.
    Fitting,
}

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it is at.
    pub stage: Stage,
    /// How much of that is done.
    pub done: usize,
    /// Of how much, if that is known.
    pub total: Option<usize>,
}

/// Trains a probe. `watch` is called many times a second and tells whether to go on; `Ok(None)` if
/// it said no.
///
/// The accuracy of the probe is the share of examples that were classified rightly while they were
/// held out of the training. The same examples in the same order give the same probe.
///
/// # Errors
/// [`Kind::InvalidOption`] for bad options, no examples, one class only, or a class of one example.
pub fn train(
    examples: &Examples,
    options: &TrainingOptions,
    watch: &mut dyn FnMut(Progress) -> bool,
) -> Result<Option<Probe>> {
    options.check()?;
    let (classes, targets, mean) = (examples.classes(), examples.targets(), examples.mean());
    let folds = split(&classes, &targets, options.folds)?;
    let mut softmax = Softmax::new(examples, &mean, &targets, classes.len());
    let given = options.l2.map(|l2| [l2]);
    let strengths = given
        .as_ref()
        .map_or(STRENGTHS.as_slice(), <[f64; 1]>::as_slice);
    let found = validate(&mut softmax, folds, strengths, watch).and_then(|(l2, correct)| {
        let all: Vec<usize> = (0..examples.len()).collect();
        let mut evaluations = 0;
        let mut go_on = |done| {
            watch(Progress {
                stage: Stage::Fitting,
                done,
                total: None,
            })
        };
        let start = vec![0.0; softmax.parameters()];
        let tolerance = GRADIENT * blank_gradient(&mut softmax, &all, &mut || go_on(0))?;
        let minimum = minimize(start, tolerance, MOST_STEPS, &mut |at, gradient| {
            evaluations += 1;
            softmax.evaluate(&all, l2, at, gradient, &mut || go_on(evaluations))
        })?;
        Some((l2, correct, minimum))
    });
    Ok(found.map(|(l2, correct, minimum)| {
        let (weights, biases) = minimum.at.split_at(classes.len() * examples.width());
        // The probe takes features as they are, so its biases take up the mean.
        let of_mean = weights
            .chunks_exact(examples.width())
            .map(|weights| dot(weights, &mean));
        Probe {
            weights: weights.iter().map(|&weight| weight as f32).collect(),
            biases: biases
                .iter()
                .zip(of_mean)
                .map(|(bias, shift)| (bias - shift) as f32)
                .collect(),
            l2,
            accuracy: correct as f64 / examples.len() as f64,
            examples: examples.len(),
            converged: minimum.converged,
            classes,
        }
    }))
}

/// A part of the examples, the others, and the fit on the others.
struct Fold {
    held_out: Vec<usize>,
    others: Vec<usize>,
    at: Vec<f64>,
}

/// Parts of the examples in each of which every class has its share.
fn split(classes: &[String], targets: &[usize], most: usize) -> Result<Vec<Fold>> {
    let too_few = |detail: String| Err(Error::new(Kind::InvalidOption, detail));
    match classes {
        [] => return too_few("there is nothing to learn from: no labeled features".to_owned()),
        [one] => {
            return too_few(format!(
                "there is one class only, `{one}`; a probe tells at least two apart"
            ));
        }
        _ => {}
    }
    let mut members = vec![Vec::new(); classes.len()];
    targets
        .iter()
        .enumerate()
        .for_each(|(row, &class)| members[class].push(row));
    if let Some(class) = members.iter().position(|rows| rows.len() < 2) {
        let detail = format!(
            "the class `{}` has one example; each needs at least two, one to be tested on",
            classes[class]
        );
        return too_few(detail);
    }
    let count = members.iter().map(Vec::len).fold(most, usize::min);
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut part_of = vec![0; targets.len()];
    // Dealt like cards, on and on, so that the parts also have one size.
    let mut next = 0;
    for rows in &mut members {
        random.shuffle(rows);
        for &row in &*rows {
            part_of[row] = next % count;
            next += 1;
        }
    }
    let fold = |part: usize| {
        let (held_out, others) = (0..targets.len()).partition(|&row| part_of[row] == part);
        Fold {
            held_out,
            others,
            at: Vec::new(),
        }
    };
    Ok((0..count).map(fold).collect())
}

/// The strength with which most held-out examples are classified rightly, and how many they are.
fn validate(
    softmax: &mut Softmax<'_>,
    mut folds: Vec<Fold>,
    strengths: &[f64],
    watch: &mut dyn FnMut(Progress) -> bool,
) -> Option<(f64, usize)> {
    let total = Some(strengths.len() * folds.len());
    let mut done = 0;
    let mut tolerances = Vec::with_capacity(folds.len());
    for fold in &mut folds {
        fold.at = vec![0.0; softmax.parameters()];
        let mut go_on = || {
            watch(Progress {
                stage: Stage::Validating,
                done,
                total,
            })
        };
        tolerances.push(VALIDATION_GRADIENT * blank_gradient(softmax, &fold.others, &mut go_on)?);
    }
    let mut best: Option<(f64, usize)> = None;
    for &l2 in strengths {
        let mut correct = 0;
        for (fold, &tolerance) in folds.iter_mut().zip(&tolerances) {
            let mut go_on = || {
                watch(Progress {
                    stage: Stage::Validating,
                    done,
                    total,
                })
            };
            let start = std::mem::take(&mut fold.at);
            fold.at = minimize(start, tolerance, MOST_STEPS, &mut |at, gradient| {
                softmax.evaluate(&fold.others, l2, at, gradient, &mut go_on)
            })?
            .at;
            correct += softmax.correct(&fold.held_out, &fold.at);
            done += 1;
        }
        if best.is_none_or(|(_, most)| correct > most) {
            best = Some((l2, correct));
        }
    }
    best
}

/// Length of the gradient of a probe that gives every class the same probability.
fn blank_gradient(
    softmax: &mut Softmax<'_>,
    rows: &[usize],
    go_on: &mut dyn FnMut() -> bool,
) -> Option<f64> {
    let blank = vec![0.0; softmax.parameters()];
    let mut gradient = blank.clone();
    softmax.evaluate(rows, 0.0, &blank, &mut gradient, go_on)?;
    Some(dot(&gradient, &gradient).sqrt())
}
