//! Which patches are hidden from the student (iBOT's and DINOv2's blockwise masking).

use rand::{RngExt, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

/// How much is hidden.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskConfig {
    /// Share of the global crops of which patches are hidden.
    pub images: f64,
    /// Least and most share of their patches.
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

/// Least patches of a block, and the most of its height over its width (and of the reverse).
const SMALLEST_BLOCK: usize = 4;
const ASPECT: f64 = 1.0 / 0.3;
/// Blocks that are tried one after the other without hiding anything new before it is left at what
/// is hidden.
const TRIES: usize = 10;

impl MaskConfig {
    /// For each of `images` square grids of `side`², which patches are hidden.
    ///
    /// The ratios of the images that are masked lie evenly between the least and the most, as in
    /// DINOv2, so that each step hides about as much.
    pub fn draw(&self, images: usize, side: usize, random: &mut ChaCha8Rng) -> Vec<Vec<bool>> {
        let masked = (images as f64 * self.images).round() as usize;
        let [least, most] = self.ratio;
        let mut masks: Vec<Vec<bool>> = (0..images)
            .map(|index| {
                if index >= masked {
                    return vec![false; side * side];
                }
                let at = (index as f64 + random.random::<f64>()) / masked as f64;
                let wanted =
                    ((least + (most - least) * at) * (side * side) as f64).round() as usize;
                blocks(side, wanted.max(1), random)
            })
            .collect();
        // Which images are masked is left to chance.
        for index in (1..masks.len()).rev() {
            masks.swap(index, random.random_range(0..=index));
        }
        masks
    }
}

/// Hides blocks until about `wanted` patches are hidden, and never more.
fn blocks(side: usize, wanted: usize, random: &mut ChaCha8Rng) -> Vec<bool> {
    let mut hidden = vec![false; side * side];
    let mut count = 0;
    let mut failed = 0;
    while count < wanted && failed < TRIES {
        let left = wanted - count;
        let area = if left <= SMALLEST_BLOCK {
            left as f64
        } else {
            random.random_range(SMALLEST_BLOCK as f64..=left as f64)
        };
        let aspect = (random.random_range(-1.0..=1.0) * ASPECT.ln()).exp();
        let sides = |length: f64| (length.round() as usize).clamp(1, side);
        let (height, width) = (sides((area * aspect).sqrt()), sides((area / aspect).sqrt()));
        let (top, start) = (
            random.random_range(0..=side - height),
            random.random_range(0..=side - width),
        );
        let cells = || {
            (top..top + height).flat_map(move |y| (start..start + width).map(move |x| y * side + x))
        };
        let new = cells().filter(|&cell| !hidden[cell]).count();
        if new == 0 || new > left {
            failed += 1;
            continue;
        }
        cells().for_each(|cell| hidden[cell] = true);
        count += new;
        failed = 0;
    }
    hidden
}
