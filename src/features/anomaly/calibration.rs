//! The score above which an image is anomalous, from the good images themselves.
//!
//! Each photograph is scored as if the bank had been made of the others. Greedy k-center keeps next
//! to nothing of an image that looks like an earlier one, so the entries of the others alone would
//! be too few: what only entries of the photograph stood for is covered again, by patches of the
//! others, up to the radius of the coreset.

use std::ops::Range;

use ndarray::{Array2, s};

use pulp::Arch;

use super::{good_images::GoodImages, score::score};
use crate::features::{
    cosines::{dot, for_each_row, largest},
    progress::{Progress, Stage, Watch},
};

/// Maximum number of photographs that are scored.
const SCORED: usize = 100;
/// Standard deviations between the mean score of good images and the threshold.
const DEVIATIONS: f64 = 3.0;
/// Least standard deviation, as a part of the mean. That of a few images can be small by chance.
const LEAST_DEVIATION: f64 = 0.1;
/// Least threshold: below it, a distance is rounding.
const LEAST: f64 = 1e-3;
/// Number of patches between two calls of `watch`.
const STEP: usize = 256;
/// Distance beyond the radius of the coreset that is rounding.
const ROUNDING: f32 = 1e-6;

/// How the good images of a bank score, each against the others.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Calibration {
    /// Scores of the photographs, or of an even sample of them.
    pub scores: Vec<f32>,
    /// Score above which an image is anomalous; `None` for one photograph, which has no others.
    pub threshold: Option<f32>,
}

/// Scores each photograph against the others. `candidates` are the vectors of all patches, and
/// `entries` those of the `chosen` ones. `None` if `watch` returns false.
pub(super) fn calibrate(
    good: &GoodImages,
    candidates: &Array2<f32>,
    entries: &Array2<f32>,
    chosen: &[u32],
    watch: Watch<'_>,
) -> Option<Calibration> {
    let photographs = photographs(good);
    if photographs.len() < 2 {
        return Some(Calibration::default());
    }
    let scored: Vec<usize> = (0..photographs.len())
        .step_by(photographs.len().div_ceil(SCORED))
        .collect();
    let total = Some(photographs.len() + scored.len());
    let entry_at = |patch: usize| chosen.partition_point(|&index| (index as usize) < patch);
    let entries_of: Vec<Range<usize>> = photographs
        .iter()
        .map(|photograph| entry_at(photograph.all.start)..entry_at(photograph.all.end))
        .collect();
    let mut nearest = Vec::with_capacity(candidates.nrows());
    for (done, photograph) in photographs.iter().enumerate() {
        for start in photograph.all.clone().step_by(STEP) {
            let end = (start + STEP).min(photograph.all.end);
            if !watch(Progress::new(Stage::Calibrating, done, total)) {
                return None;
            }
            let vectors = candidates.slice(s![start..end, ..]).to_owned();
            for_each_row(&vectors, entries, |_, cosines| {
                nearest.push(Nearest::of(cosines, &entries_of));
            });
        }
    }
    // Those that are entries stand for themselves, also if their length is 0.
    let others = nearest
        .iter()
        .enumerate()
        .filter(|&(patch, _)| chosen.binary_search(&(patch as u32)).is_err());
    let least = others.map(|(_, nearest)| nearest.best).fold(1.0, f32::min);
    let mut scores = Vec::with_capacity(scored.len());
    for (done, &photograph) in scored.iter().enumerate() {
        let progress = Progress::new(Stage::Calibrating, photographs.len() + done, total);
        let others = OtherEntries {
            candidates,
            nearest: &nearest,
            photograph,
            least,
        };
        scores.push(others.score(&photographs[photograph], &mut || watch(progress))?);
    }
    let threshold = threshold_of(&scores);
    Some(Calibration { scores, threshold })
}

/// The patches of a photograph.
struct Photograph {
    /// Those of all of its copies.
    all: Range<usize>,
    /// Those of the copy that is not turned.
    upright: Range<usize>,
}

/// Returns the patches of each photograph.
fn photographs(good: &GoodImages) -> Vec<Photograph> {
    let mut start = 0;
    let groups = good
        .images()
        .chunk_by(|one, other| one.source == other.source);
    let photographs = groups.map(|group| {
        let upright = start..start + group[0].patches;
        let all = start..start + group.iter().map(|image| image.patches).sum::<usize>();
        start = all.end;
        Photograph { all, upright }
    });
    photographs.collect()
}

/// The nearest entries of a patch.
#[derive(Debug, Clone, Copy)]
struct Nearest {
    /// Cosine to the nearest entry.
    best: f32,
    /// Photograph of that entry.
    photograph: usize,
    /// Cosine to the nearest entry of another photograph than that.
    other: f32,
}

impl Nearest {
    fn of(cosines: &[f32], entries_of: &[Range<usize>]) -> Self {
        let mut nearest = Self {
            best: f32::NEG_INFINITY,
            photograph: 0,
            other: f32::NEG_INFINITY,
        };
        for (photograph, entries) in entries_of.iter().enumerate() {
            let cosine = largest(&cosines[entries.clone()]);
            if cosine > nearest.best {
                nearest = Self {
                    best: cosine,
                    photograph,
                    other: nearest.best,
                };
            } else {
                nearest.other = nearest.other.max(cosine);
            }
        }
        nearest
    }

    /// Returns the cosine to the nearest entry that is not of a photograph.
    fn without(&self, photograph: usize) -> f32 {
        if self.photograph == photograph {
            self.other
        } else {
            self.best
        }
    }
}

/// What a bank without one of its photographs compares with.
struct OtherEntries<'a> {
    candidates: &'a Array2<f32>,
    /// Nearest entries of all candidates.
    nearest: &'a [Nearest],
    photograph: usize,
    /// Least cosine of a candidate to its nearest entry.
    least: f32,
}

impl OtherEntries<'_> {
    /// Scores the photograph; `None` if `go_on` returns false.
    fn score(&self, photograph: &Photograph, go_on: &mut dyn FnMut() -> bool) -> Option<f32> {
        let added = self.added(photograph, go_on)?;
        let patches = photograph.upright.clone();
        let distances: Vec<f32> = patches
            .map(|patch| {
                let entries = self.nearest[patch].without(self.photograph);
                let own = self.vector(patch);
                let others = added.iter().map(|&other| dot(self.vector(other), own));
                (1.0 - others.fold(entries, f32::max)).max(0.0)
            })
            .collect();
        Some(score(&distances))
    }

    /// Returns patches of the others that cover again what only entries of the photograph stood
    /// for, by greedy k-center.
    fn added(
        &self,
        photograph: &Photograph,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<Vec<usize>> {
        let all = 0..self.nearest.len();
        let mut open: Vec<(usize, f32)> = all
            .filter(|patch| !photograph.all.contains(patch))
            .map(|patch| (patch, self.nearest[patch].without(self.photograph)))
            .filter(|&(_, cosine)| cosine < self.least - ROUNDING)
            .collect();
        let mut added = Vec::new();
        let arch = Arch::new();
        // The first of those that are farthest.
        while let Some(&(next, _)) = open
            .iter()
            .min_by(|(_, one), (_, other)| one.total_cmp(other))
        {
            if added.len() % 16 == 0 && !go_on() {
                return None;
            }
            added.push(next);
            let center = self.vector(next);
            arch.dispatch(|| {
                for (patch, cosine) in &mut open {
                    *cosine = cosine.max(dot(self.vector(*patch), center));
                }
            });
            open.retain(|&(patch, cosine)| patch != next && cosine < self.least - ROUNDING);
        }
        Some(added)
    }

    fn vector(&self, patch: usize) -> &[f32] {
        let dim = self.candidates.ncols();
        let values = self.candidates.as_slice().expect("in standard layout");
        &values[patch * dim..(patch + 1) * dim]
    }
}

/// Returns a threshold for images that score as these do; `None` for fewer than two.
fn threshold_of(scores: &[f32]) -> Option<f32> {
    if scores.len() < 2 {
        return None;
    }
    let count = scores.len() as f64;
    let mean = scores.iter().map(|&score| f64::from(score)).sum::<f64>() / count;
    let squares = scores
        .iter()
        .map(|&score| (f64::from(score) - mean).powi(2));
    let deviation = (squares.sum::<f64>() / (count - 1.0)).sqrt();
    let threshold = mean + DEVIATIONS * deviation.max(LEAST_DEVIATION * mean);
    Some(threshold.max(LEAST) as f32)
}
