//! Pictures that only one model of a pair gets right.

use super::classify::ModelResult;

/// The pictures on which two models differ, by the weighted vote.
#[derive(Debug)]
pub(super) struct Example {
    /// Indices of the two models.
    pub(super) models: [usize; 2],
    /// Indices of the test images that only the one or only the other model gets right.
    pub(super) images: [Vec<usize>; 2],
}

impl Example {
    /// Chooses up to `count` pictures for each side of each pair, spread over all of them.
    pub(super) fn choose(models: &[ModelResult], count: usize) -> Vec<Self> {
        let mut examples = Vec::new();
        for first in 0..models.len() {
            for second in first + 1..models.len() {
                let rights = [first, second].map(|model| &models[model].outcomes[0].is_right);
                let only = |a: usize| {
                    let (this, other) = (rights[a], rights[1 - a]);
                    let images = (0..this.len()).filter(|&image| this[image] && !other[image]);
                    spread(images.collect(), count)
                };
                examples.push(Self {
                    models: [first, second],
                    images: [only(0), only(1)],
                });
            }
        }
        examples
    }
}

/// Returns up to `count` of the values, at equal distances.
pub(super) fn spread(values: Vec<usize>, count: usize) -> Vec<usize> {
    let all = values.len();
    let kept = count.min(all);
    (0..kept).map(|index| values[index * all / kept]).collect()
}
