//! A batch of crops, the masks of its patches, and its shards.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Crops of some images, view by view: the first view of every image, then the second, and so on.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Number of images.
    pub images: usize,
    /// Both global crops: `[2·images, 3, side, side]`.
    pub global: Vec<f32>,
    /// Side of a global crop in pixels.
    pub global_side: usize,
    /// The local crops: `[views·images, 3, side, side]`; may be empty.
    pub local: Vec<f32>,
    /// Side of a local crop in pixels.
    pub local_side: usize,
    /// Masked patches of the global crops, if the masked-patch loss is used.
    pub masks: Option<MaskedPatches>,
    /// Index of the class of each image, if they are labeled.
    pub labels: Option<Vec<usize>>,
}

/// For each crop, and each of its patches row by row, whether the patch is hidden from the student.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedPatches(pub Vec<Vec<bool>>);

impl Batch {
    /// Splits the batch into `count` shards of nearly equal size. `count` is at most the number of
    /// images.
    pub(crate) fn shards(&self, count: usize) -> Vec<Self> {
        if count == 1 {
            return vec![self.clone()];
        }
        (0..count)
            .map(|index| {
                let range = index * self.images / count..(index + 1) * self.images / count;
                let global_length = 3 * self.global_side * self.global_side;
                let local_length = 3 * self.local_side * self.local_side;
                Self {
                    images: range.len(),
                    global: of_images(&self.global, self.images, global_length, &range),
                    local: of_images(&self.local, self.images, local_length, &range),
                    masks: self
                        .masks
                        .as_ref()
                        .map(|masks| MaskedPatches(of_images(&masks.0, self.images, 1, &range))),
                    labels: self
                        .labels
                        .as_ref()
                        .map(|labels| labels[range.clone()].to_vec()),
                    global_side: self.global_side,
                    local_side: self.local_side,
                }
            })
            .collect()
    }

    /// Returns the global crops, `[2·images, 3, side, side]`.
    pub(crate) fn global_crops(&self, device: &Device) -> Tensor<4> {
        crops(&self.global, self.global_side, device)
    }

    /// Returns the local crops, `[views·images, 3, side, side]`, if there are any.
    pub(crate) fn local_crops(&self, device: &Device) -> Option<Tensor<4>> {
        (!self.local.is_empty()).then(|| crops(&self.local, self.local_side, device))
    }
}

impl MaskedPatches {
    /// Returns the indices of the masked patches among all patches of the crops.
    pub fn indices(&self, device: &Device) -> Tensor<1, Int> {
        let indices: Vec<i64> = (0..)
            .zip(self.0.iter().flatten())
            .filter(|(_, masked)| **masked)
            .map(|(index, _)| index)
            .collect();
        let count = indices.len();
        Tensor::from_data(TensorData::new(indices, [count]), device)
    }

    /// Selects the masked ones of `patches` `[crops, patches, dim]`: `[masked, dim]`, or `None` if
    /// no patch is masked.
    pub(crate) fn select(&self, patches: &Tensor<3>) -> Option<Tensor<2>> {
        if !self.0.iter().flatten().any(|&masked| masked) {
            return None;
        }
        let [crops, count, dim] = patches.dims();
        let patches = patches.clone().reshape([crops * count, dim]);
        let indices = self.indices(&patches.device());
        Some(patches.select(0, indices))
    }

    /// Returns 1 for masked patches and 0 for others, `[crops, patches, 1]`.
    pub(crate) fn as_factors(&self, device: &Device) -> Tensor<3> {
        let factors: Vec<f32> = self
            .0
            .iter()
            .flatten()
            .map(|&masked| f32::from(u8::from(masked)))
            .collect();
        let crops = self.0.len();
        let patches = factors.len() / crops.max(1);
        Tensor::from_data(TensorData::new(factors, [crops, patches, 1]), device)
    }

    /// Returns a weight for each masked patch, `[masked, 1]`: one over the number of masked patches
    /// of its crop.
    pub(crate) fn weights(&self, device: &Device) -> Tensor<2> {
        let mut weights = Vec::new();
        for mask in &self.0 {
            let count = mask.iter().filter(|masked| **masked).count();
            weights.extend(std::iter::repeat_n(1.0 / count.max(1) as f32, count));
        }
        let rows = weights.len();
        Tensor::from_data(TensorData::new(weights, [rows, 1]), device)
    }
}

/// Returns the values of the images in `range`, from each view of `images` images with `length`
/// values each.
fn of_images<T: Clone>(values: &[T], images: usize, length: usize, range: &Range<usize>) -> Vec<T> {
    values
        .chunks_exact((images * length).max(1))
        .flat_map(|view| &view[range.start * length..range.end * length])
        .cloned()
        .collect()
}

fn crops(pixels: &[f32], side: usize, device: &Device) -> Tensor<4> {
    let count = pixels.len() / (3 * side * side);
    Tensor::from_data(
        TensorData::new(pixels.to_vec(), [count, 3, side, side]),
        device,
    )
}
