//! Choice of vectors that stand for many: greedy k-center.

use ndarray::Array2;
use pulp::Arch;

use super::sketch::Sketcher;
use crate::features::cosines::dot;

/// Distance to the nearest chosen vector at which all others are copies of chosen ones.
const COPY: f32 = 1e-6;
/// Numbers of a sketch.
const WIDTH: usize = 32;
/// Number of choices between two calls of `watch`.
const STEP: usize = 16;

/// Chooses at most `count` of the unit vectors `[n, dim]`: the first one, then always that with the
/// least cosine to its nearest chosen one, of equal ones the first. Stops where all others are
/// copies of chosen ones. Returns their indices in the order of the choice; `None` if `watch`,
/// which gets the number of choices, returns false.
///
/// A cosine that its bound shows to be less than the nearest so far is not computed.
pub(super) fn k_center(
    vectors: &Array2<f32>,
    count: usize,
    watch: &mut dyn FnMut(usize) -> bool,
) -> Option<Vec<u32>> {
    let sketches = Sketcher::fit(vectors.view(), WIDTH).sketch(vectors.view());
    let (sketches, _) = sketches.as_slice()?.as_chunks::<WIDTH>();
    let dim = vectors.ncols();
    let values = vectors.as_slice()?;
    let mut nearest = vec![f32::NEG_INFINITY; vectors.nrows()];
    let mut chosen = Vec::with_capacity(count);
    let mut next = 0;
    let arch = Arch::new();
    while chosen.len() < count {
        if chosen.len() % STEP == 0 && !watch(chosen.len()) {
            return None;
        }
        chosen.push(next as u32);
        // Also a vector of length 0, whose cosine to itself is 0.
        nearest[next] = 1.0;
        let center = &values[next * dim..(next + 1) * dim];
        let (farthest, cosine) = arch.dispatch(|| {
            let sketch = &sketches[next];
            approach(&mut nearest, sketches, values, sketch, center)
        });
        if 1.0 - cosine <= COPY {
            break;
        }
        next = farthest;
    }
    Some(chosen)
}

/// Takes a chosen vector into account, and returns the first of the vectors that are farthest from
/// their nearest chosen one, with its cosine.
#[inline(always)]
fn approach(
    nearest: &mut [f32],
    sketches: &[[f32; WIDTH]],
    vectors: &[f32],
    sketch: &[f32; WIDTH],
    center: &[f32],
) -> (usize, f32) {
    let dim = center.len();
    let mut farthest = (0, f32::INFINITY);
    for (index, (near, other)) in nearest.iter_mut().zip(sketches).enumerate() {
        if dot(other, sketch) > *near {
            let cosine = dot(&vectors[index * dim..(index + 1) * dim], center);
            *near = near.max(cosine);
        }
        if *near < farthest.1 {
            farthest = (index, *near);
        }
    }
    farthest
}
