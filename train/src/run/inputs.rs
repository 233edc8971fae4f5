//! The images of a run: those to train on, those to measure on, and those to draw maps of.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::bail;
use dinoserve::{eval::LabeledImages, sources, vision::RgbImage};

use super::{
    DatasetId, EvaluationFolders, RunFiles,
    evaluate::{KnnEvaluation, read_resized},
    progress::log_line,
};
use crate::{config::Config, data::Dataset, method::Method};

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
    /// Finds the images of `folder` and those of the labeled folders.
    pub(super) fn find(
        folder: &Path,
        files: &RunFiles,
        config: &Config,
        evaluation: &EvaluationFolders,
    ) -> anyhow::Result<Self> {
        let mut paths = find_images(folder, files.root())?;
        let mut classes = Vec::new();
        let mut labels = None;
        if config.method == Method::Supervised {
            let images = LabeledImages::new(folder, paths)?;
            if let Some(first) = images.unlabeled.first() {
                log_line(format_args!(
                    "left out images without a label: {}, such as {first}, in no subfolder",
                    images.unlabeled.len()
                ));
            }
            classes = find_classes(&images, folder)?;
            labels = Some(class_indices(&images.labels, &classes));
            paths = images.paths;
        }
        let images_per_step = config.optimizer.images_per_step();
        if paths.len() < images_per_step {
            bail!(
                "{} has {} images, but a step needs {images_per_step}; lower optimiser.batch or \
                 optimiser.accumulate",
                folder.display(),
                paths.len()
            );
        }
        Ok(Self {
            map_images: map_images(&paths, config),
            classes,
            dataset_id: DatasetId::new(&paths, folder, images_per_step),
            dataset: Dataset {
                paths,
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

/// Returns the labels of the images, sorted.
fn find_classes(images: &LabeledImages, folder: &Path) -> anyhow::Result<Vec<String>> {
    let classes: Vec<String> = BTreeSet::from_iter(&images.labels)
        .into_iter()
        .cloned()
        .collect();
    if let [only] = classes.as_slice() {
        bail!(
            "all images of {} have the label {only:?}; training with labels needs at least two \
             subfolders, one for each label",
            folder.display()
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

/// Finds the images of a folder, without those of a run folder inside it.
fn find_images(folder: &Path, run: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let sources::FoundImages {
        mut paths,
        unreadable,
        skipped,
    } = sources::find_images(folder)?;
    for (path, error) in unreadable {
        log_line(format_args!("skipped {path}: {error}"));
    }
    if !skipped.is_empty() {
        log_line(format_args!("{skipped}"));
    }
    if let (Ok(folder_path), Ok(run)) = (folder.canonicalize(), run.canonicalize())
        && let Ok(relative) = run.strip_prefix(&folder_path)
    {
        let run = folder.join(relative);
        paths.retain(|path| !path.starts_with(&run));
    }
    Ok(paths)
}

/// Reads a few images from all over the folder, at the size of maps.
fn map_images(paths: &[PathBuf], config: &Config) -> Vec<RgbImage> {
    let count = config.run.map_images.min(paths.len());
    let sample: Vec<PathBuf> = (0..count)
        .map(|index| paths[index * paths.len() / count].clone())
        .collect();
    read_resized(&sample, 2 * config.crops.global_size)
        .into_iter()
        .flatten()
        .collect()
}
