//! The patches that are hidden from the student (blockwise masking of iBOT and DINOv2).

use rand::{RngExt, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use crate::data::MaskedPatches;

/// Smallest number of patches in a block.
const MIN_BLOCK: usize = 4;
/// Largest aspect ratio of a block, in either direction.
const MAX_ASPECT: f64 = 1.0 / 0.3;
/// Number of blocks in a row that may fail to mask anything before the mask is final.
const TRIES: usize = 10;

/// Section `loss.mask`: how much is masked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskConfig {
    /// Share of the global crops with masked patches.
    pub images: f64,
    /// Smallest and largest share of the patches that are masked in such a crop.
    pub ratio: [f64; 2],
}

impl Default for MaskConfig {
    fn default() -> Self {
        Self {
            images: 0.5,
            ratio: [0.1, 0.5],
        }
    }
}

impl MaskConfig {
    /// Draws masks for `crops` square grids of `side`² patches.
    ///
    /// The ratios of the masked crops lie evenly between the smallest and the largest, as in
    /// DINOv2, so that each step masks about as many patches.
    pub fn draw(&self, crops: usize, side: usize, random: &mut ChaCha8Rng) -> MaskedPatches {
        let masked_crops = (crops as f64 * self.images).round() as usize;
        let [min, max] = self.ratio;
        let mut masks: Vec<Vec<bool>> = (0..crops)
            .map(|index| {
                if index >= masked_crops {
                    return vec![false; side * side];
                }
                let position = (index as f64 + random.random::<f64>()) / masked_crops as f64;
                let ratio = min + (max - min) * position;
                let count = (ratio * (side * side) as f64).round() as usize;
                blocks(side, count.max(1), random)
            })
            .collect();
        // Shuffles which crops are masked.
        for index in (1..masks.len()).rev() {
            masks.swap(index, random.random_range(0..=index));
        }
        MaskedPatches(masks)
    }
}

/// Masks random blocks until about `target` patches are masked, and never more.
fn blocks(side: usize, target: usize, random: &mut ChaCha8Rng) -> Vec<bool> {
    let mut mask = vec![false; side * side];
    let mut count = 0;
    let mut failed = 0;
    while count < target && failed < TRIES {
        let left = target - count;
        let area = if left <= MIN_BLOCK {
            left as f64
        } else {
            random.random_range(MIN_BLOCK as f64..=left as f64)
        };
        let aspect = (random.random_range(-1.0..=1.0) * MAX_ASPECT.ln()).exp();
        let height = ((area * aspect).sqrt().round() as usize).clamp(1, side);
        let width = ((area / aspect).sqrt().round() as usize).clamp(1, side);
        let top = random.random_range(0..=side - height);
        let start = random.random_range(0..=side - width);
        let cells: Vec<usize> = (top..top + height)
            .flat_map(|y| (start..start + width).map(move |x| y * side + x))
            .filter(|&cell| !mask[cell])
            .collect();
        if cells.is_empty() || cells.len() > left {
            failed += 1;
            continue;
        }
        count += cells.len();
        for cell in cells {
            mask[cell] = true;
        }
        failed = 0;
    }
    mask
}
