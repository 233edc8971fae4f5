//! How good the features are, without training on them: the k-NN accuracy on labeled images
//! (DINO's evaluation).

use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::tensor::{Device, Tensor, TensorData};
use dinoserve::{
    artifacts::images_of,
    eval::{LabeledImages, nearest, predict},
    features::vote::{TEMPERATURE, Vote},
    vision::{ResampleFilter, ResizeMode, RgbImage, Transform, Window, resample_rgb},
};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::{
    data::{normalized, read_image},
    model::Backbone,
};

/// Images that are read and embedded together.
const BATCH: usize = 64;
/// Side of the small images whose pixels are compared.
const PIXEL_SIDE: usize = 28;

/// Images whose folders are their labels. They are read anew for each measurement, so that a set
/// may be larger than memory.
#[derive(Debug, Clone)]
pub struct LabeledSet {
    paths: Vec<PathBuf>,
    /// Per image the index of its class.
    pub labels: Vec<usize>,
    /// Side in pixels at which the model sees them.
    size: usize,
}

impl LabeledSet {
    /// Finds the images of labeled folders, to be seen at `size` pixels. Their labels are indices
    /// into the labels of all of them, sorted. Images that cannot be read are left out, and named
    /// to `report`.
    ///
    /// # Errors
    /// If a folder has no subfolders with images that can be read.
    pub fn find(
        folders: &[&Path],
        size: usize,
        report: &mut dyn FnMut(&Path, &str),
    ) -> anyhow::Result<(Vec<Self>, Vec<String>)> {
        let mut sets = Vec::new();
        for folder in folders {
            let (paths, _) = images_of(folder)?;
            let named = LabeledImages::new(folder, paths)?;
            let read: Vec<_> = named
                .paths
                .par_iter()
                .map(|path| read_image(path).err())
                .collect();
            let mut set = (Vec::new(), Vec::new());
            for ((path, label), error) in named.paths.into_iter().zip(named.labels).zip(read) {
                match error {
                    Some(error) => report(&path, &error.to_string()),
                    None => {
                        set.0.push(path);
                        set.1.push(label);
                    }
                }
            }
            anyhow::ensure!(
                !set.0.is_empty(),
                "none of the images of {} can be read",
                folder.display()
            );
            sets.push(set);
        }
        let mut classes: Vec<String> = sets
            .iter()
            .flat_map(|(_, labels)| labels.iter().cloned())
            .collect();
        classes.sort();
        classes.dedup();
        let index = |label: &String| classes.partition_point(|class| class < label);
        let sets = sets.into_iter().map(|(paths, labels)| Self {
            paths,
            labels: labels.iter().map(index).collect(),
            size,
        });
        Ok((sets.collect(), classes))
    }

    /// A vector of length 1 for each image, `[images, dim]`, which `of` makes of some of them at a
    /// time.
    fn vectors(
        &self,
        of: impl Fn(&[RgbImage]) -> anyhow::Result<Vec<f32>>,
    ) -> anyhow::Result<Array2<f32>> {
        let mut vectors = Vec::new();
        for chunk in self.paths.chunks(BATCH) {
            let images: Vec<RgbImage> = read_all(chunk, self.size)
                .into_iter()
                .collect::<Result<_, _>>()?;
            vectors.extend(of(&images)?);
        }
        let dim = vectors.len() / self.paths.len().max(1);
        let mut vectors = Array2::from_shape_vec((self.paths.len(), dim), vectors)?;
        for mut row in vectors.rows_mut() {
            let length = row.dot(&row).sqrt().max(1e-12);
            row /= length;
        }
        Ok(vectors)
    }

    /// The embeddings of the images, `[images, dim]`, of length 1.
    ///
    /// # Errors
    /// If an image is not there any more, or the device does not give its values.
    pub fn embed(&self, backbone: &Backbone, device: &Device) -> anyhow::Result<Array2<f32>> {
        self.vectors(|images| {
            let cls = backbone
                .forward(on_device(images, device), None, &mut None)
                .cls;
            cls.into_data().try_into_vec_as().context("the embeddings")
        })
    }

    /// The pixels themselves, of images made small, as vectors of length 1, `[images, 3·28·28]`:
    /// what features must be better than.
    ///
    /// # Errors
    /// If an image is not there any more.
    pub fn pixels(&self) -> anyhow::Result<Array2<f32>> {
        let whole = Window {
            x: 0,
            y: 0,
            width: PIXEL_SIDE,
            height: PIXEL_SIDE,
        };
        self.vectors(|images| {
            let mut values = Vec::new();
            for image in images {
                normalized(
                    &resample_rgb(
                        image,
                        (PIXEL_SIDE, PIXEL_SIDE),
                        ResampleFilter::Bicubic,
                        whole,
                    ),
                    &mut values,
                );
            }
            Ok(values)
        })
    }
}

/// Images as the model sees them.
pub(super) fn read_all(paths: &[PathBuf], size: usize) -> Vec<dinoserve::error::Result<RgbImage>> {
    let transform = Transform {
        mode: ResizeMode::Crop,
        size,
        filter: ResampleFilter::Bicubic,
        max_patches: usize::MAX >> 8,
    };
    paths
        .par_iter()
        .map(|path| Ok(transform.apply(&read_image(path)?)?.0))
        .collect()
}

/// Images of one size as `[n, 3, height, width]`.
pub(super) fn on_device(images: &[RgbImage], device: &Device) -> Tensor<4> {
    let (width, height) = images.first().map_or((0, 0), RgbImage::dimensions);
    let mut pixels = Vec::with_capacity(images.len() * 3 * (width * height) as usize);
    images
        .iter()
        .for_each(|image| normalized(image, &mut pixels));
    Tensor::from_data(
        TensorData::new(pixels, [images.len(), 3, height as usize, width as usize]),
        device,
    )
}

/// The share of images that the weighted vote of their `k` nearest gets right (temperature 0.07):
/// among those of `gallery`, or without one among the others of the set itself.
///
/// # Errors
/// If there are fewer images than neighbors.
pub fn knn_accuracy(
    vectors: ArrayView2<'_, f32>,
    labels: &[usize],
    gallery: Option<(ArrayView2<'_, f32>, &[usize])>,
    classes: usize,
    k: usize,
) -> anyhow::Result<f64> {
    let (among, among_labels) = gallery.unwrap_or((vectors, labels));
    let mut found = nearest(among, vectors, if gallery.is_some() { k } else { k + 1 })?;
    if gallery.is_none() {
        for (image, neighbors) in found.iter_mut().enumerate() {
            neighbors.retain(|neighbor| neighbor.index != image);
        }
    }
    let right = found.iter().zip(labels).filter(|(neighbors, label)| {
        predict(
            neighbors,
            k,
            among_labels,
            classes,
            Vote::Weighted,
            TEMPERATURE,
        ) == Some(**label)
    });
    Ok(right.count() as f64 / labels.len() as f64)
}
