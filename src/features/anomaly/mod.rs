//! Anomaly banks: what good images look like, patch by patch.
//!
//! A bank keeps tokens of a few good images, and the distance of a patch to the nearest of them
//! says how unusual it is: PatchCore (Roth et al. 2022) on tokens of DINOv2, as in AnomalyDINO
//! (Damm et al. 2025). What differs was measured, in `docs/anomalies.md`: tokens of the fourth
//! block from the end, without the mean token of their image, each dimension scaled
//! ([`scaling`]).
//!
//! The distance of two unit vectors is 1 − their cosine, 0 to 2.

mod calibration;
mod coreset;
pub mod document;
mod good_images;
mod index;
mod scaling;
mod score;
mod sketch;

use ndarray::{Array2, ArrayView2, Axis};

pub use self::{
    calibration::Calibration,
    good_images::{GoodImage, GoodImages},
};
use self::{
    calibration::calibrate,
    coreset::k_center,
    index::Index,
    scaling::Scaling,
    score::{score, scored_patches},
};
use super::{
    components::{Connectivity, components},
    progress::{Progress, Stage, Watch},
};
use crate::{names::option_enum, vision::Grid};

option_enum! {
    /// Tokens that a bank compares.
    #[derive(Default)]
    pub enum BankTokens {
        /// Those of the earliest block that a model outputs: the fourth from the end, or the first
        /// of a model with fewer. They show small differences best.
        #[default]
        Early,
        /// Those of the last block. They say what a patch shows.
        Last,
        /// Those of all blocks that a model outputs, one after the other.
        All,
    }
}

/// Part of the largest distance above which a patch belongs to a defect.
const DEFECT_SHARE: f32 = 0.6;

/// A bank.
#[derive(Debug, Clone, PartialEq)]
pub struct Bank {
    /// The good images.
    pub good: GoodImages,
    /// Indices of the patches that others are compared with, among those of all good images;
    /// sorted.
    pub chosen: Vec<u32>,
    /// How the good images score.
    pub calibration: Calibration,
}

/// A bank that is prepared to score images.
#[derive(Debug)]
pub struct Detector {
    scaling: Scaling,
    index: Index,
}

/// Distances of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Distances {
    /// Distance of each patch, 0 to 2. Of a bank with more than 4096 entries, those that do not
    /// decide the score can be too large, where another entry is nearer than the one that was
    /// found.
    pub patches: Vec<f32>,
    /// Mean of the largest 1 % of the distances, rounded up to a patch.
    pub score: f32,
}

/// A group of patches of a defect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defect {
    /// Left, top, right and bottom, in patches; the last row and column lie within.
    pub bounds: [usize; 4],
    /// The largest distance.
    pub score: f32,
}

impl Bank {
    /// Makes a bank that keeps a `share` of the patches of `good`, above 0 and up to 1. The same
    /// images give the same bank. `None` if `watch` returns false.
    pub fn learn(good: GoodImages, share: f32, watch: Watch<'_>) -> Option<Self> {
        let candidates = unit_vectors(&good, &Scaling::of(&good));
        let all = candidates.nrows();
        let chosen = match share < 1.0 {
            true => {
                let count = (f64::from(share) * all as f64).ceil() as usize;
                let total = Some(count);
                let mut go_on = |done| watch(Progress::new(Stage::Choosing, done, total));
                let mut chosen = k_center(&candidates, count.clamp(1, all), &mut go_on)?;
                chosen.sort_unstable();
                chosen
            }
            false => (0..all as u32).collect(),
        };
        let entries = select(&candidates, &chosen);
        let calibration = calibrate(&good, &candidates, &entries, &chosen, watch)?;
        Some(Self {
            good,
            chosen,
            calibration,
        })
    }
}

impl Detector {
    /// Prepares a bank.
    pub fn new(bank: &Bank) -> Self {
        let scaling = Scaling::of(&bank.good);
        let mut entries = Array2::zeros((bank.chosen.len(), bank.good.dim()));
        let mut rows = entries.rows_mut().into_iter();
        let mut chosen = bank.chosen.as_slice();
        let mut start = 0;
        // Image by image, so that the others take no memory.
        for (index, image) in bank.good.images().iter().enumerate() {
            let end = start + image.patches;
            let count = chosen.partition_point(|&patch| (patch as usize) < end);
            let (of_image, rest) = chosen.split_at(count);
            if !of_image.is_empty() {
                let vectors = scaling.unit_vectors(bank.good.image(index).view());
                for (&patch, mut row) in of_image.iter().zip(&mut rows) {
                    row.assign(&vectors.row(patch as usize - start));
                }
            }
            (chosen, start) = (rest, end);
        }
        Self {
            scaling,
            index: Index::new(entries),
        }
    }

    /// Returns the memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Returns the width of the tokens that it takes.
    pub fn dim(&self) -> usize {
        self.scaling.dim()
    }

    /// Computes the distances of an image by its tokens, `[patches, dim]`. Without patches, the
    /// score is 0.
    ///
    /// # Panics
    /// If the tokens have another width than those of the bank.
    pub fn distances(&self, tokens: ArrayView2<'_, f32>) -> Distances {
        let exact = scored_patches(tokens.nrows());
        let vectors = self.scaling.unit_vectors(tokens);
        let cosines = self.index.cosines(&vectors, exact).into_iter();
        let patches: Vec<f32> = cosines.map(|cosine| (1.0 - cosine).max(0.0)).collect();
        let score = score(&patches);
        Distances { patches, score }
    }
}

impl Distances {
    /// Returns the distance above which a patch belongs to a defect of an anomalous image.
    pub fn defect_level(&self, threshold: f32) -> f32 {
        let largest = self.patches.iter().copied().fold(0.0, f32::max);
        threshold.max(DEFECT_SHARE * largest)
    }

    /// Returns the connected groups of patches above [`Self::defect_level`], the largest distance
    /// first; none if the image is not anomalous.
    pub fn defects(&self, threshold: f32, grid: Grid) -> Vec<Defect> {
        if self.score <= threshold {
            return Vec::new();
        }
        let level = self.defect_level(threshold);
        let chosen: Vec<bool> = self.patches.iter().map(|&d| d > level).collect();
        let groups = components(&chosen, grid, Connectivity::Corners);
        let mut defects: Vec<Defect> = groups
            .iter()
            .map(|group| self.defect(group, grid))
            .collect();
        defects.sort_by(|one, other| other.score.total_cmp(&one.score));
        defects
    }

    fn defect(&self, group: &[bool], grid: Grid) -> Defect {
        let mut defect = Defect {
            bounds: [grid.width, grid.height, 0, 0],
            score: 0.0,
        };
        for (index, _) in group.iter().enumerate().filter(|&(_, &chosen)| chosen) {
            let (x, y) = (index % grid.width, index / grid.width);
            let [left, top, right, bottom] = defect.bounds;
            defect.bounds = [left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)];
            defect.score = defect.score.max(self.patches[index]);
        }
        defect
    }
}

/// Returns the unit vectors of all patches, `[patches, dim]`.
fn unit_vectors(good: &GoodImages, scaling: &Scaling) -> Array2<f32> {
    let mut vectors = Array2::zeros((good.patches(), good.dim()));
    let mut start = 0;
    for (index, image) in good.images().iter().enumerate() {
        let of_image = scaling.unit_vectors(good.image(index).view());
        let end = start + image.patches;
        vectors
            .slice_mut(ndarray::s![start..end, ..])
            .assign(&of_image);
        start = end;
    }
    vectors
}

fn select(vectors: &Array2<f32>, chosen: &[u32]) -> Array2<f32> {
    let chosen: Vec<usize> = chosen.iter().map(|&index| index as usize).collect();
    vectors.select(Axis(0), &chosen)
}
