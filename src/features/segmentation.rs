//! Classes of patches and of pixels: what a segmenter learns from masks, and how well it does.
//!
//! A segmenter is a linear probe on the tokens of patches. Its logits are interpolated to the
//! pixels of the photograph.

use super::mask::{IGNORED, LabelImage};
use crate::vision::{Grid, Placement};

/// Returns the class of each patch: that of most of its pixels in a mask of the upright photograph,
/// of equally many the first. `None` for a patch at least half of whose pixels are ignored.
///
/// # Panics
/// If the mask has another size than the photograph.
pub fn patch_classes(mask: &LabelImage, placement: &Placement, grid: Grid) -> Vec<Option<u8>> {
    assert_eq!(mask.size(), placement.image, "a mask of the photograph");
    let patch = placement.window.width / grid.width;
    // Pixels of the input, at which the mask is looked up: a photograph may have fewer than it.
    let places = |count: usize, last: usize, to_image: &dyn Fn(f64) -> f64| -> Vec<usize> {
        let place = |at: usize| (to_image(at as f64 + 0.5).max(0.0) as usize).min(last);
        (0..count).map(place).collect()
    };
    let size = mask.size();
    let columns = places(grid.width * patch, size.width - 1, &|x| {
        placement.to_image([x, 0.0])[0]
    });
    let rows = places(grid.height * patch, size.height - 1, &|y| {
        placement.to_image([0.0, y])[1]
    });
    let mut classes = Vec::with_capacity(grid.patches());
    for rows in rows.chunks_exact(patch) {
        for columns in columns.chunks_exact(patch) {
            let mut counts = [0_usize; 256];
            for row in rows {
                let row = &mask.labels()[row * size.width..];
                columns
                    .iter()
                    .for_each(|&x| counts[usize::from(row[x])] += 1);
            }
            classes.push(most_frequent(&counts, patch * patch));
        }
    }
    classes
}

fn most_frequent(counts: &[usize; 256], all: usize) -> Option<u8> {
    let ignored = counts[usize::from(IGNORED)];
    if 2 * ignored >= all {
        return None;
    }
    let mut best = 0;
    for class in 1..usize::from(IGNORED) {
        if counts[class] > counts[best] {
            best = class;
        }
    }
    Some(best as u8)
}

/// Counts of pixels by their true and their found class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// `[256, 256]`, a row for each true class.
    counts: Vec<u64>,
}

/// Number of values of a pixel.
const VALUES: usize = 256;

impl Default for Confusion {
    fn default() -> Self {
        Self {
            counts: vec![0; VALUES * VALUES],
        }
    }
}

impl Confusion {
    /// Counts the pixels of an image. Those that the true mask ignores are left out.
    ///
    /// # Panics
    /// If the masks have different sizes.
    pub fn add(&mut self, truth: &LabelImage, found: &LabelImage) {
        assert_eq!(truth.size(), found.size(), "masks of one photograph");
        for (&truth, &found) in truth.labels().iter().zip(found.labels()) {
            if truth != IGNORED {
                self.counts[usize::from(truth) * VALUES + usize::from(found)] += 1;
            }
        }
    }

    /// Returns the classes of the pixels, true or found, sorted.
    pub fn classes(&self) -> Vec<u8> {
        let occurs = |class: &u8| {
            let class = usize::from(*class);
            (0..VALUES).any(|other| self.count(class, other) + self.count(other, class) > 0)
        };
        (0..IGNORED).filter(occurs).collect()
    }

    /// Returns the number of pixels of a true class that were found as `found`; [`IGNORED`] for
    /// those that the model did not see.
    pub fn pixels(&self, truth: u8, found: u8) -> u64 {
        self.count(truth.into(), found.into())
    }

    fn count(&self, truth: usize, found: usize) -> u64 {
        self.counts[truth * VALUES + found]
    }

    /// Returns the share of the pixels that are of a class in both masks among those that are in
    /// either; `None` for a class without pixels.
    pub fn iou(&self, class: u8) -> Option<f64> {
        let class = usize::from(class);
        let both = self.count(class, class);
        let truth: u64 = (0..VALUES).map(|found| self.count(class, found)).sum();
        let found: u64 = (0..VALUES).map(|truth| self.count(truth, class)).sum();
        let either = truth + found - both;
        (either > 0).then(|| both as f64 / either as f64)
    }

    /// Returns the mean of [`Self::iou`] over the classes; `None` without pixels.
    pub fn mean_iou(&self) -> Option<f64> {
        let classes = self.classes().into_iter();
        let ious: Vec<f64> = classes.filter_map(|class| self.iou(class)).collect();
        (!ious.is_empty()).then(|| ious.iter().sum::<f64>() / ious.len() as f64)
    }

    /// Returns the share of pixels whose class was found; `None` without pixels.
    pub fn accuracy(&self) -> Option<f64> {
        let correct: u64 = (0..VALUES).map(|class| self.count(class, class)).sum();
        let all: u64 = self.counts.iter().sum();
        (all > 0).then(|| correct as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::{Size, Window};

    #[test]
    fn a_patch_has_the_class_of_most_of_its_pixels() {
        // Two by one patches of 2×2 pixels, of a photograph of twice the size.
        let placement = Placement {
            image: Size::new(8, 4),
            resized: Size::new(4, 2),
            window: Window {
                x: 0,
                y: 0,
                width: 4,
                height: 2,
            },
        };
        let grid = Grid {
            height: 1,
            width: 2,
        };
        let mut labels = vec![3; 32];
        // The input's pixels are looked up at 1, 3, 5 and 7 across, and at 1 and 3 down.
        for (x, y, class) in [(5, 1, 9), (7, 1, 9), (5, 3, 2), (7, 3, 2)] {
            labels[y * 8 + x] = class;
        }
        let mut mask = LabelImage::new(placement.image, labels);
        let classes = patch_classes(&mask, &placement, grid);
        assert_eq!(classes, [Some(3), Some(2)], "of equally many the first");
        let ignored: Vec<u8> = (0..=255)
            .map(|class| if class == 9 { 255 } else { class })
            .collect();
        mask.renumber(&ignored);
        assert_eq!(patch_classes(&mask, &placement, grid), [Some(3), None]);
    }

    #[test]
    fn confusion_leaves_out_what_is_ignored() {
        let mask = |labels: &[u8]| LabelImage::new(Size::new(6, 1), labels.to_vec());
        let mut confusion = Confusion::default();
        confusion.add(&mask(&[0, 0, 2, 2, 255, 0]), &mask(&[0, 2, 2, 2, 0, 255]));
        assert_eq!(confusion.classes(), [0, 2]);
        assert_eq!(
            [0, 2, 255].map(|found| confusion.pixels(0, found)),
            [1, 1, 1]
        );
        assert_eq!(
            [0, 2, 255].map(|found| confusion.pixels(2, found)),
            [0, 2, 0]
        );
        // What the model did not see is not found.
        assert_eq!(confusion.iou(0), Some(1.0 / 3.0));
        assert_eq!(confusion.iou(2), Some(2.0 / 3.0));
        assert_eq!(confusion.iou(5), None);
        assert_eq!(confusion.mean_iou(), Some(0.5));
        assert_eq!(confusion.accuracy(), Some(0.6));
        // A class that training did not have counts, too.
        confusion.add(&mask(&[9; 6]), &mask(&[0; 6]));
        assert_eq!(
            (confusion.classes(), confusion.iou(9)),
            (vec![0, 2, 9], Some(0.0))
        );
    }
}
