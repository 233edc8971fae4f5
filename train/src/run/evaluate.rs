//! Quality of the features without training on them: the k-NN accuracy on labeled images (DINO's
//! evaluation).

use anyhow::{Context, bail, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use dinoserve::{
    eval::{nearest, predict},
    features::vote::{TEMPERATURE, Vote},
    model::Architecture,
    sources::SourceImage,
    vision::{ResampleFilter, ResizeMode, RgbImage, Size, Transform, Window, resample_rgb},
};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::{listing::find_images, progress::log_line};
use crate::{
    data::{LabeledList, append_normalized, read_image},
    model::Backbone,
};

/// Number of images that are read and embedded together.
const BATCH: usize = 64;
/// Side in pixels of the images whose plain pixels are compared.
const PIXEL_SIDE: usize = 28;

/// The sources of labeled images, as [`list_images`](crate::data::list_images) takes them.
#[derive(Debug, Clone, Default)]
pub struct EvaluationSources {
    /// Images that are classified.
    pub set: Option<String>,
    /// Images that vote; by default the other images of `set`.
    pub gallery: Option<String>,
}

/// Labeled images and the number of neighbors that vote.
pub(super) struct KnnEvaluation {
    set: LabeledSet,
    gallery: Option<LabeledSet>,
    classes: usize,
    pub(super) neighbors: usize,
}

/// Labeled images. They are read again for each measurement, so that a set may be larger than
/// memory.
#[derive(Debug, Clone)]
pub struct LabeledSet {
    images: Vec<SourceImage>,
    /// Index of the class of each image.
    pub labels: Vec<usize>,
    /// Side in pixels of the images as the model's input.
    size: usize,
}

impl KnnEvaluation {
    /// Finds the labeled images, for a model input of `size` pixels.
    pub(super) fn find(
        sources: &EvaluationSources,
        size: usize,
        neighbors: usize,
    ) -> anyhow::Result<Option<Self>> {
        let Some(set) = sources.set.as_deref() else {
            return Ok(None);
        };
        let sources: Vec<&str> = [Some(set), sources.gallery.as_deref()]
            .into_iter()
            .flatten()
            .collect();
        let (mut sets, classes) = LabeledSet::find(&sources, size)?;
        let gallery = if sets.len() > 1 { sets.pop() } else { None };
        let set = sets.pop().context("labeled images are needed")?;
        let voters = gallery
            .as_ref()
            .map_or(set.labels.len() - 1, |gallery| gallery.labels.len());
        if voters < neighbors {
            bail!("run.knn_neighbours is {neighbors}, but only {voters} images can vote; lower it");
        }
        Ok(Some(Self {
            set,
            gallery,
            classes: classes.len(),
            neighbors,
        }))
    }

    /// Measures the accuracy of the vectors that `vectors_of` returns.
    pub(super) fn accuracy(
        &self,
        vectors_of: impl Fn(&LabeledSet) -> anyhow::Result<Array2<f32>>,
    ) -> anyhow::Result<f64> {
        let vectors = vectors_of(&self.set)?;
        let gallery_vectors = self.gallery.as_ref().map(&vectors_of).transpose()?;
        let gallery = gallery_vectors
            .as_ref()
            .zip(self.gallery.as_ref())
            .map(|(vectors, gallery)| (vectors.view(), gallery.labels.as_slice()));
        knn_accuracy(
            vectors.view(),
            &self.set.labels,
            gallery,
            self.classes,
            self.neighbors,
        )
    }
}

impl LabeledSet {
    /// Finds the images of labeled sources, for a model input of `size` pixels. Also returns the
    /// sorted labels of all sources. Reports each unreadable image, and leaves it out.
    ///
    /// # Errors
    /// If a source has no readable images with labels.
    pub fn find(sources: &[&str], size: usize) -> anyhow::Result<(Vec<Self>, Vec<String>)> {
        let mut sets = Vec::new();
        for &source in sources {
            let list = LabeledList::new(find_images(source)?, source)?;
            let errors: Vec<_> = list
                .images
                .par_iter()
                .map(|image| read_image(image).err())
                .collect();
            let mut readable = Vec::new();
            for ((image, label), error) in list.images.into_iter().zip(list.labels).zip(errors) {
                match error {
                    Some(error) => log_line(format_args!("skipped {}: {error}", image.origin)),
                    None => readable.push((image, label)),
                }
            }
            ensure!(
                !readable.is_empty(),
                "none of the images of {source} can be read"
            );
            sets.push(readable);
        }
        let mut classes: Vec<String> = sets
            .iter()
            .flatten()
            .map(|(_, label)| label.clone())
            .collect();
        classes.sort();
        classes.dedup();
        let sets = sets.into_iter().map(|images| {
            let (images, labels): (Vec<_>, Vec<String>) = images.into_iter().unzip();
            Self {
                images,
                labels: labels
                    .iter()
                    .map(|label| classes.partition_point(|class| class < label))
                    .collect(),
                size,
            }
        });
        Ok((sets.collect(), classes))
    }

    /// Computes the embeddings of the images, `[images, dim]`, of length 1.
    pub fn embed(&self, backbone: &Backbone, device: &Device) -> anyhow::Result<Array2<f32>> {
        self.vectors(|images| {
            let images = to_device(images, device);
            let cls = backbone.forward(images, None, &mut None).cls;
            cls.into_data().try_into_vec_as().context("the embeddings")
        })
    }

    /// Returns the pixels of the downsized images as vectors of length 1, `[images, 3·28·28]`: the
    /// baseline for features.
    pub fn pixels(&self) -> anyhow::Result<Array2<f32>> {
        let size = Size::square(PIXEL_SIDE);
        let whole = Window::whole(size);
        self.vectors(|images| {
            let mut values = Vec::new();
            for image in images {
                let small = resample_rgb(image, size, ResampleFilter::Bicubic, whole);
                append_normalized(&small, &mut values);
            }
            Ok(values)
        })
    }

    /// Returns the vectors that `compute` makes of batches of images, scaled to length 1.
    fn vectors(
        &self,
        compute: impl Fn(&[RgbImage]) -> anyhow::Result<Vec<f32>>,
    ) -> anyhow::Result<Array2<f32>> {
        let mut vectors = Vec::new();
        for chunk in self.images.chunks(BATCH) {
            let images: Vec<RgbImage> = read_resized(chunk, self.size)
                .into_iter()
                .collect::<Result<_, _>>()?;
            vectors.extend(compute(&images)?);
        }
        let dim = vectors.len() / self.images.len().max(1);
        let mut vectors = Array2::from_shape_vec((self.images.len(), dim), vectors)?;
        for mut row in vectors.rows_mut() {
            let length = row.dot(&row).sqrt().max(1e-12);
            row /= length;
        }
        Ok(vectors)
    }
}

/// Returns the share of images whose label the weighted vote of their `k` nearest neighbors
/// predicts (temperature 0.07). The neighbors are those in `gallery`, or by default the other
/// images of the set.
pub fn knn_accuracy(
    vectors: ArrayView2<'_, f32>,
    labels: &[usize],
    gallery: Option<(ArrayView2<'_, f32>, &[usize])>,
    classes: usize,
    k: usize,
) -> anyhow::Result<f64> {
    let (gallery_vectors, gallery_labels) = gallery.unwrap_or((vectors, labels));
    let count = if gallery.is_some() { k } else { k + 1 };
    let mut found = nearest(gallery_vectors, vectors, count)?;
    if gallery.is_none() {
        for (image, neighbors) in found.iter_mut().enumerate() {
            neighbors.retain(|neighbor| neighbor.index != image);
        }
    }
    let mut correct = 0;
    for (neighbors, &label) in found.iter().zip(labels) {
        let vote = Vote::Weighted;
        let predicted = predict(neighbors, k, gallery_labels, classes, vote, TEMPERATURE);
        correct += usize::from(predicted == Some(label));
    }
    Ok(correct as f64 / labels.len() as f64)
}

/// Reads images and resizes them to the model's input of `size` pixels.
pub(super) fn read_resized(
    images: &[SourceImage],
    size: usize,
) -> Vec<dinoserve::error::Result<RgbImage>> {
    let transform = Transform {
        mode: ResizeMode::Crop,
        size,
        filter: ResampleFilter::Bicubic,
        patch: Architecture::DINOV2_SMALL.patch,
        max_patches: usize::MAX >> 8,
        shrinks: false,
    };
    images
        .par_iter()
        .map(|image| Ok(transform.apply(&read_image(image)?)?.0))
        .collect()
}

/// Copies normalized images of one size to the device, `[n, 3, height, width]`.
pub(super) fn to_device(images: &[RgbImage], device: &Device) -> Tensor<4> {
    let (width, height) = images.first().map_or((0, 0), RgbImage::dimensions);
    let mut pixels = Vec::with_capacity(images.len() * 3 * (width * height) as usize);
    for image in images {
        append_normalized(image, &mut pixels);
    }
    Tensor::from_data(
        TensorData::new(pixels, [images.len(), 3, height as usize, width as usize]),
        device,
    )
}
