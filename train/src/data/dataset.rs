//! The training images, and the batches that are made of them.
//!
//! The content of a batch depends only on the seed and the number of the batch, so that a run can
//! be resumed.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use anyhow::bail;
use dinoserve::sources::SourceImage;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::{Batch, CropConfig, Views, read_image};
use crate::seed;

/// The training images, and how they are cut into batches.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The images, in a fixed order.
    pub images: Vec<SourceImage>,
    /// Index of the class of each image, if they are labeled.
    pub labels: Option<Vec<usize>>,
    /// Views of an image.
    pub crops: CropConfig,
    /// Number of images in a batch.
    pub batch: usize,
    /// Seed of the order of the images and of their views.
    pub seed: u64,
}

/// Images that could not be read. Each is tried once and replaced by another.
#[derive(Debug, Default)]
pub struct UnreadableImages {
    /// Their indices.
    known: BTreeSet<usize>,
    /// Origins of those that were not reported yet, with the error.
    unreported: Vec<(String, String)>,
}

impl Dataset {
    /// Returns the number of whole batches in an epoch. Each epoch leaves out other images.
    pub fn batches_per_epoch(&self) -> usize {
        self.images.len() / self.batch
    }

    /// Makes the batch with the given number, counted over all epochs.
    ///
    /// # Errors
    /// If none of the images can be read.
    pub fn batch(
        &self,
        number: usize,
        unreadable: &Mutex<UnreadableImages>,
    ) -> anyhow::Result<Batch> {
        let epoch = number / self.batches_per_epoch();
        let order = self.order(epoch);
        let first = number % self.batches_per_epoch() * self.batch;
        let images: Vec<(usize, Views)> = (first..first + self.batch)
            .into_par_iter()
            .map(|position| self.views(&order, position, epoch, unreadable))
            .collect::<anyhow::Result<_>>()?;
        let mut global = Vec::new();
        for view in 0..2 {
            for (_, views) in &images {
                global.extend_from_slice(&views.global[view]);
            }
        }
        let mut local = Vec::new();
        for view in 0..self.crops.local_count {
            for (_, views) in &images {
                local.extend_from_slice(&views.local[view]);
            }
        }
        Ok(Batch {
            images: self.batch,
            global,
            global_side: self.crops.global_size,
            local,
            local_side: self.crops.local_size,
            masks: None,
            labels: self
                .labels
                .as_ref()
                .map(|labels| images.iter().map(|(index, _)| labels[*index]).collect()),
        })
    }

    /// Returns the indices of the images in the order of an epoch.
    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.images.len()).collect();
        order.shuffle(&mut seed::random([self.seed, epoch as u64, u64::MAX]));
        order
    }

    /// Makes the views of the image at a position of an epoch's order, or of the next readable one.
    /// Also returns the index of that image.
    fn views(
        &self,
        order: &[usize],
        position: usize,
        epoch: usize,
        unreadable: &Mutex<UnreadableImages>,
    ) -> anyhow::Result<(usize, Views)> {
        let unreadable = || unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        for offset in 0..order.len() {
            let index = order[(position + offset) % order.len()];
            if unreadable().known.contains(&index) {
                continue;
            }
            let image = &self.images[index];
            match read_image(image) {
                Ok(image) => {
                    let seed = seed::mix([self.seed, epoch as u64, position as u64]);
                    return Ok((index, self.crops.views(&image, seed)));
                }
                Err(error) => unreadable().add(index, image, error.to_string()),
            }
        }
        bail!("none of the {} images can be read", order.len())
    }
}

impl UnreadableImages {
    /// Returns the origins of those found since the last call, and why they cannot be read.
    pub fn take_unreported(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.unreported)
    }

    fn add(&mut self, index: usize, image: &SourceImage, error: String) {
        if self.known.insert(index) {
            self.unreported.push((image.origin.clone(), error));
        }
    }
}
