//! The images of a run: those to train on, those to measure on, and those to draw maps of.

use std::{collections::BTreeSet, path::Path};

use anyhow::bail;
use dinoserve::{sources::SourceImage, vision::RgbImage};

use super::{
    DatasetId, EvaluationSources, RunFiles,
    evaluate::{KnnEvaluation, read_resized},
    listing::find_images,
    progress::log_line,
};
use crate::{
    config::Config,
    data::{Dataset, LabeledList},
    method::Method,
};

/// All images of a run.
pub(super) struct RunInputs {
    pub(super) dataset: Dataset,
    /// The labels, sorted; empty if the method does not use them.
    pub(super) classes: Vec<String>,
    pub(super) dataset_id: DatasetId,
    pub(super) evaluation: Option<KnnEvaluation>,
    pub(super) map_images: Vec<RgbImage>,
}

impl RunInputs {
    /// Finds the images of `source` and those of the labeled sources.
    pub(super) fn find(
        source: &str,
        files: &RunFiles,
        config: &Config,
        evaluation: &EvaluationSources,
    ) -> anyhow::Result<Self> {
        let found = without(find_images(source)?, files.root());
        let mut classes = Vec::new();
        let mut labels = None;
        let images = if config.method == Method::Supervised {
            let labeled = LabeledList::new(found, source)?;
            if let Some(first) = labeled.unlabeled.first() {
                log_line(format_args!(
                    "left out images without a label: {}, such as {}",
                    labeled.unlabeled.len(),
                    first.id
                ));
            }
            classes = find_classes(&labeled, source)?;
            labels = Some(class_indices(&labeled.labels, &classes));
            labeled.images
        } else {
            found
        };
        let images_per_step = config.optimizer.images_per_step();
        if images.len() < images_per_step {
            bail!(
                "{source} has {} images, but a step needs {images_per_step}; lower optimiser.batch \
                 or optimiser.accumulate",
                images.len()
            );
        }
        Ok(Self {
            map_images: map_images(&images, config),
            classes,
            dataset_id: DatasetId::new(&images, images_per_step),
            dataset: Dataset {
                images,
                labels,
                crops: config.crops.clone(),
                batch: config.optimizer.batch,
                seed: config.run.seed,
            },
            evaluation: KnnEvaluation::find(
                evaluation,
                config.crops.global_size,
                config.run.knn_neighbors,
            )?,
        })
    }
}

/// Leaves out the files below the folder of the run.
fn without(mut images: Vec<SourceImage>, run: &Path) -> Vec<SourceImage> {
    let Ok(run) = run.canonicalize() else {
        return images;
    };
    images.retain(|image| {
        let path = image.path().and_then(|path| path.canonicalize().ok());
        !path.is_some_and(|path| path.starts_with(&run))
    });
    images
}

/// Returns the labels of the images, sorted.
fn find_classes(images: &LabeledList, source: &str) -> anyhow::Result<Vec<String>> {
    let classes: Vec<String> = BTreeSet::from_iter(&images.labels)
        .into_iter()
        .cloned()
        .collect();
    if let [only] = classes.as_slice() {
        bail!(
            "all images of {source} have the label {only:?}; training with labels needs at least \
             two subfolders, one for each label"
        );
    }
    Ok(classes)
}

/// Returns the index of each label in the sorted `classes`.
fn class_indices(labels: &[String], classes: &[String]) -> Vec<usize> {
    labels
        .iter()
        .map(|label| classes.partition_point(|class| class < label))
        .collect()
}

/// Reads a few images from all over the source, at the size of maps.
fn map_images(images: &[SourceImage], config: &Config) -> Vec<RgbImage> {
    let count = config.run.map_images.min(images.len());
    let sample: Vec<SourceImage> = (0..count)
        .map(|index| images[index * images.len() / count].clone())
        .collect();
    read_resized(&sample, 2 * config.crops.global_size)
        .into_iter()
        .flatten()
        .collect()
}
