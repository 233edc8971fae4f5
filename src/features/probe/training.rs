//! Training of a probe: cross-validation for the strength of the penalty, then a fit on all
//! examples.

use super::{
    Probe,
    examples::Examples,
    minimum::{Minimum, dot, minimize},
    softmax::Softmax,
};
use crate::{
    error::{Error, Kind, Result},
    features::progress::{Progress, Stage, Watch},
};

/// Candidate strengths of the penalty, from strong to weak, so that each fit starts from one that
/// is close and smoother.
const STRENGTHS: [f64; 8] = [1e5, 1e4, 1e3, 1e2, 1e1, 1e0, 1e-1, 1e-2];
/// Gradient at which a fit of the cross-validation has converged, relative to that of a probe with
/// all weights 0. A smaller one does not change accuracies.
const VALIDATION_GRADIENT: f64 = 1e-4;
/// The same for the final fit.
const GRADIENT: f64 = 1e-7;
/// Number of steps after which a fit ends without convergence.
const MAX_STEPS: usize = 2000;
/// Seed of the split into folds, so that the same data are always split in the same way.
const SEED: u64 = 14;

/// Options of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingOptions {
    /// Strength of the penalty: `C = 1/l2` in scikit-learn's terms. `None` for the one of
    /// `candidates` that classifies the most held-out examples correctly, and the strongest of
    /// equal ones.
    pub l2: Option<f64>,
    /// Strengths to choose from, from strong to weak.
    pub candidates: &'static [f64],
    /// Number of folds of the cross-validation; fewer if a class has fewer examples.
    pub folds: usize,
}

impl Default for TrainingOptions {
    fn default() -> Self {
        Self {
            l2: None,
            candidates: &STRENGTHS,
            folds: 5,
        }
    }
}

impl TrainingOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] that names the option and its range.
    pub fn check(&self) -> Result<()> {
        if let Some(l2) = self.l2.filter(|l2| !(1e-6..=1e9).contains(l2)) {
            return Err(Error::out_of_range("l2", l2, "0.000001 to 1000000000"));
        }
        if !(2..=20).contains(&self.folds) {
            return Err(Error::out_of_range("folds", self.folds, "2 to 20"));
        }
        Ok(())
    }
}

/// Trains a probe. `watch` is called many times a second; if it returns false, the training is
/// canceled and the result is `Ok(None)`.
///
/// The accuracy of the probe is the share of examples that were classified correctly while they
/// were held out. The same examples in the same order give the same probe.
///
/// # Errors
/// [`Kind::InvalidOption`] for bad options, no examples, one class only, or a class of one example.
pub fn train(
    examples: &Examples,
    options: &TrainingOptions,
    watch: Watch<'_>,
) -> Result<Option<Probe>> {
    options.check()?;
    let classes = examples.classes();
    let targets = examples.targets();
    let mean = examples.mean();
    let folds = split(&classes, &targets, examples.groups(), options.folds)?;
    let mut softmax = Softmax::new(examples, &mean, &targets, classes.len());
    let strengths = options
        .l2
        .map_or(options.candidates.to_vec(), |l2| vec![l2]);
    let Some((l2, correct)) = validate(&mut softmax, folds, &strengths, watch) else {
        return Ok(None);
    };
    let Some(minimum) = fit(&mut softmax, examples.len(), l2, watch) else {
        return Ok(None);
    };
    let (weights, biases) = minimum.at.split_at(classes.len() * examples.width());
    // The probe takes features that are not centered, so its biases absorb the mean.
    let rows = weights.chunks_exact(examples.width());
    let rows = biases.iter().zip(rows);
    let shifted = rows.map(|(bias, row)| bias - dot(row, &mean));
    Ok(Some(Probe {
        weights: weights.iter().map(|&weight| weight as f32).collect(),
        biases: shifted.map(|bias| bias as f32).collect(),
        l2,
        accuracy: correct as f64 / examples.len() as f64,
        examples: examples.len(),
        converged: minimum.converged,
        classes,
    }))
}

/// Fits a probe on all `count` examples.
fn fit(softmax: &mut Softmax<'_>, count: usize, l2: f64, watch: Watch<'_>) -> Option<Minimum> {
    let all: Vec<usize> = (0..count).collect();
    let mut evaluations = 0;
    let mut go_on = |done| watch(Progress::new(Stage::Fitting, done, None));
    let start = vec![0.0; softmax.parameters()];
    let tolerance = GRADIENT * blank_gradient(softmax, &all, &mut || go_on(0))?;
    minimize(start, tolerance, MAX_STEPS, &mut |at, gradient| {
        evaluations += 1;
        softmax.evaluate(&all, l2, at, gradient, &mut || go_on(evaluations))
    })
}

/// A part of the examples, the others, and the fit on the others.
struct Fold {
    held_out: Vec<usize>,
    others: Vec<usize>,
    at: Vec<f64>,
}

/// Splits the examples into at most `max_folds` folds: by their groups if there are several, or
/// else stratified.
fn split(
    classes: &[String],
    targets: &[usize],
    groups: &[usize],
    max_folds: usize,
) -> Result<Vec<Fold>> {
    let too_few = |detail: String| Err(Error::new(Kind::InvalidOption, detail));
    if classes.is_empty() {
        return too_few("there is nothing to learn from: no labeled features".to_owned());
    }
    if let [one] = classes {
        let detail = format!("there is one class only, `{one}`; a probe needs at least two");
        return too_few(detail);
    }
    let mut members = vec![Vec::new(); classes.len()];
    for (row, &class) in targets.iter().enumerate() {
        members[class].push(row);
    }
    if let Some(class) = members.iter().position(|rows| rows.len() < 2) {
        let detail = format!(
            "the class `{}` has one example; each needs at least two, one to be tested on",
            classes[class]
        );
        return too_few(detail);
    }
    let (count, fold_of) = match deal_groups(groups, max_folds) {
        Some(dealt) => dealt,
        None => deal_rows(members, targets.len(), max_folds),
    };
    let folds = (0..count).map(|fold| {
        let (held_out, others) = (0..targets.len()).partition(|&row| fold_of[row] == fold);
        Fold {
            held_out,
            others,
            at: Vec::new(),
        }
    });
    Ok(folds.collect())
}

/// Deals the rows of each class to folds in turn, so that the folds also have equal sizes. Returns
/// the number of folds, and the fold of each row.
fn deal_rows(mut members: Vec<Vec<usize>>, rows: usize, max_folds: usize) -> (usize, Vec<usize>) {
    let count = members.iter().map(Vec::len).fold(max_folds, usize::min);
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut fold_of = vec![0; rows];
    let mut next = 0;
    for rows in &mut members {
        random.shuffle(rows);
        for &row in &*rows {
            fold_of[row] = next % count;
            next += 1;
        }
    }
    (count, fold_of)
}

/// Deals groups to folds; `None` if there are no two groups.
fn deal_groups(groups: &[usize], max_folds: usize) -> Option<(usize, Vec<usize>)> {
    let mut distinct = groups.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < 2 {
        return None;
    }
    let count = max_folds.min(distinct.len());
    let mut order: Vec<usize> = (0..distinct.len()).collect();
    fastrand::Rng::with_seed(SEED).shuffle(&mut order);
    let fold_of = groups.iter().map(|group| {
        let place = distinct.binary_search(group).unwrap_or(0);
        order[place] % count
    });
    Some((count, fold_of.collect()))
}

/// Finds the strength with which the most held-out examples are classified correctly, and returns
/// it with their number.
fn validate(
    softmax: &mut Softmax<'_>,
    mut folds: Vec<Fold>,
    strengths: &[f64],
    watch: Watch<'_>,
) -> Option<(f64, usize)> {
    let total = Some(strengths.len() * folds.len());
    let mut done = 0;
    let mut tolerances = Vec::with_capacity(folds.len());
    for fold in &mut folds {
        fold.at = vec![0.0; softmax.parameters()];
        let mut go_on = || watch(Progress::new(Stage::Validating, done, total));
        tolerances.push(VALIDATION_GRADIENT * blank_gradient(softmax, &fold.others, &mut go_on)?);
    }
    let mut best = None;
    for &l2 in strengths {
        let mut correct = 0;
        for (fold, &tolerance) in folds.iter_mut().zip(&tolerances) {
            let mut go_on = || watch(Progress::new(Stage::Validating, done, total));
            let start = std::mem::take(&mut fold.at);
            let minimum = minimize(start, tolerance, MAX_STEPS, &mut |at, gradient| {
                softmax.evaluate(&fold.others, l2, at, gradient, &mut go_on)
            })?;
            fold.at = minimum.at;
            correct += softmax.correct(&fold.held_out, &fold.at);
            done += 1;
        }
        if best.is_none_or(|(_, most)| correct > most) {
            best = Some((l2, correct));
        }
    }
    best
}

/// Returns the length of the gradient of a probe that gives every class the same probability.
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
