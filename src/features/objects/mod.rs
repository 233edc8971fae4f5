//! Objects of an image without labels, from its patch tokens.
//!
//! The patches are cut as in TokenCut (Wang et al. 2022): a graph joins patches whose tokens are
//! alike, and the second smallest eigenvector of its Laplacian says where it falls apart best
//! (normalized cut, Shi & Malik 2000). Three things differ, each measured in `docs/patches.md`. The
//! mean token of the image is subtracted first, as tokens of DINOv2 have much in common. The side
//! of a cut with more attention of CLS is the foreground. And parts are cut again as long as that
//! is cheap, so that several objects are found.

mod cut;
mod graph;
mod refine;

use ndarray::ArrayView2;

pub use self::{
    cut::Cut,
    refine::{in_patches, refined},
};
use self::{
    cut::{first_cut, parts},
    graph::Graph,
};
use super::{
    attention,
    components::{Connectivity, components},
};
use crate::{names::option_enum, vision::Grid};

option_enum! {
    /// Way to find objects.
    #[derive(Default)]
    pub enum Method {
        /// Cuts of the graph of alike patches.
        #[default]
        Tokencut,
        /// The patches that carry most of the attention of CLS.
        Attention,
    }
}

option_enum! {
    /// Edges of objects.
    #[derive(Default)]
    pub enum Refine {
        /// Those of patches.
        None,
        /// Those of the photograph, by a guided filter.
        #[default]
        Guided,
    }
}

/// An object, in patches.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Whether a patch belongs to the object, row by row.
    pub patches: Vec<bool>,
    /// Share of the attention of CLS to patches, 0 to 1.
    pub score: f32,
}

/// Cosine of the tokens' mean direction with all tokens, squared, above which nothing stands out: a
/// plain surface.
const MAX_ALIKE: f64 = 0.9;
/// Smallest object, as a share of the patches.
const MIN_SHARE: f64 = 0.01;

/// Finds objects by cuts of the graph that joins patches whose cosine, after their mean is
/// subtracted, is above `threshold`. `tokens` is `[h · w, dim]`, and `attention` the mean attention
/// of CLS. The object with the largest score comes first.
pub fn by_cuts(
    tokens: ArrayView2<'_, f32>,
    attention: &[f32],
    grid: Grid,
    threshold: f32,
) -> Vec<Object> {
    if graph::mean_cosine(tokens) > MAX_ALIKE {
        return Vec::new();
    }
    let graph = Graph::new(tokens, threshold);
    // Smaller parts are not returned.
    let min_size = (MIN_SHARE * grid.patches() as f64).ceil() as usize;
    let parts = parts(&graph, attention, min_size);
    if parts.len() < 2 {
        return Vec::new();
    }
    let mean = |patches: &[usize]| {
        let sum: f64 = patches
            .iter()
            .map(|&patch| f64::from(attention[patch]))
            .sum();
        sum / patches.len() as f64
    };
    let all: Vec<usize> = (0..grid.patches()).collect();
    let attended = parts.iter().filter(|part| mean(part) > mean(&all));
    let pieces = attended.flat_map(|part| {
        let mut patches = vec![false; grid.patches()];
        for &patch in part {
            patches[patch] = true;
        }
        components(&patches, grid, Connectivity::Edges)
    });
    largest_first(pieces.collect(), attention)
}

/// Returns the first cut that [`by_cuts`] makes.
pub fn first_cut_of(tokens: ArrayView2<'_, f32>, attention: &[f32], threshold: f32) -> Cut {
    first_cut(&Graph::new(tokens, threshold), attention)
}

/// Finds objects among the patches with the most attention of CLS, which together carry the share
/// `mass` of it. The object with the largest score comes first.
pub fn by_attention(attention: &[f32], grid: Grid, mass: f32) -> Vec<Object> {
    let mut kept = ndarray::Array1::from(attention.to_vec());
    attention::keep_mass(kept.view_mut(), mass);
    let patches: Vec<bool> = kept.iter().map(|&value| value > 0.0).collect();
    largest_first(components(&patches, grid, Connectivity::Corners), attention)
}

/// Makes objects of the pieces that are not too small.
fn largest_first(pieces: Vec<Vec<bool>>, attention: &[f32]) -> Vec<Object> {
    let total: f64 = attention.iter().map(|&value| f64::from(value)).sum();
    let large = |patches: &Vec<bool>| {
        let count = patches.iter().filter(|&&patch| patch).count();
        count as f64 >= MIN_SHARE * patches.len() as f64
    };
    let object = |patches: Vec<bool>| {
        let inside = attention
            .iter()
            .zip(&patches)
            .filter(|(_, inside)| **inside);
        let sum: f64 = inside.map(|(&value, _)| f64::from(value)).sum();
        let score = if total > 0.0 { sum / total } else { 0.0 };
        Object {
            patches,
            score: score as f32,
        }
    };
    let mut objects: Vec<Object> = pieces.into_iter().filter(large).map(object).collect();
    objects.sort_by(|one, other| other.score.total_cmp(&one.score));
    objects
}
