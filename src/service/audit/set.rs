//! The images of an audit.

use std::num::NonZero;

use ndarray::ArrayView2;

use super::{
    super::gallery_documents::read_vectors,
    report::{AuditReport, ClusterOfImages, Duplicates, MislabeledImage, OutlierImage},
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    features::{
        audit::{Audit, AuditOptions, Labels, audit},
        progress::{Progress, Watch},
    },
    gallery::{Gallery, GalleryName, Item},
};

/// Images to audit.
#[derive(Debug, Clone, Default)]
pub struct AuditSet {
    /// Id of each image.
    pub ids: Vec<String>,
    /// Label of each image.
    pub labels: Vec<Option<String>>,
    /// SHA-256 of the file of each image, if it is known.
    hashes: Vec<Option<[u8; 32]>>,
    /// Vectors of length 1, one after the other.
    vectors: Vec<f32>,
}

impl AuditSet {
    /// Adds an image with its vector, which has length 1, and the SHA-256 of its file.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`](crate::error::Kind::InvalidOption) for a vector of another width
    /// than the first.
    pub fn add(
        &mut self,
        id: String,
        label: Option<String>,
        hash: Option<[u8; 32]>,
        vector: &[f32],
    ) -> Result<()> {
        if !self.ids.is_empty() && vector.len() * self.ids.len() != self.vectors.len() {
            return Err(Error::option(
                "vector",
                "has another width than those before",
            ));
        }
        self.ids.push(id);
        self.labels.push(label);
        self.hashes.push(hash);
        self.vectors.extend_from_slice(vector);
        Ok(())
    }

    /// Reads the items of a gallery, `max` at most. `None` if `watch` ends it.
    ///
    /// # Errors
    /// [`Kind::TooLarge`](crate::error::Kind::TooLarge) for more items;
    /// [`Kind::Damaged`](crate::error::Kind::Damaged) for a damaged vector.
    pub async fn of_gallery(
        store: &Gallery,
        name: &GalleryName,
        max: Option<usize>,
        watch: &(dyn Fn(Progress) -> bool + Sync),
    ) -> Result<Option<Self>> {
        let mut set = Self::default();
        let add = |item: Item, vector: &[f32]| {
            set.add(item.id.into(), item.label.map(String::from), None, vector)
        };
        let whole = read_vectors(store, name, max, watch, add).await?;
        Ok(whole.then_some(set))
    }

    /// Audits the images on `threads` threads. `None` if `watch` ends it.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`](crate::error::Kind::InvalidOption) for invalid options or fewer than
    /// two images.
    pub fn audit(
        &self,
        options: &AuditOptions,
        threads: NonZero<usize>,
        watch: Watch<'_>,
    ) -> Result<Option<AuditReport>> {
        let images = self.ids.len();
        if images < 2 {
            let detail = "an audit compares images with each other, and needs at least two";
            return Err(Error::new(Kind::InvalidOption, detail));
        }
        let shape = (images, self.vectors.len() / images);
        let vectors = ArrayView2::from_shape(shape, &self.vectors);
        let vectors = vectors.internal("the vectors of an audit")?;
        let labels: Vec<Option<&str>> = self.labels.iter().map(Option::as_deref).collect();
        let labels = Labels::new(&labels);
        let found = audit(vectors, &labels, options, threads, watch)?;
        Ok(found.map(|found| self.report(&labels, found)))
    }

    /// Returns whether the files of rows are the same, if that is known.
    fn are_identical(&self, rows: &[u32]) -> Option<bool> {
        let first = self.hashes[rows[0] as usize]?;
        let mut hashes = rows.iter().map(|&row| self.hashes[row as usize]);
        Some(hashes.all(|hash| hash == Some(first)))
    }

    fn report(&self, labels: &Labels, found: Audit) -> AuditReport {
        let id = |row: u32| self.ids[row as usize].clone();
        let ids = |rows: &[u32]| rows.iter().copied().map(id).collect();
        let label = |row: u32| self.labels[row as usize].clone().unwrap_or_default();
        let duplicates = found.duplicates.iter().map(|group| Duplicates {
            ids: ids(&group.rows),
            score: group.score,
            identical: self.are_identical(&group.rows),
        });
        let outliers = found.outliers.iter().map(|outlier| OutlierImage {
            id: id(outlier.row),
            score: outlier.score,
            distance: outlier.distance,
        });
        let mislabels = found.mislabels.iter().map(|found| MislabeledImage {
            id: id(found.row),
            label: label(found.row),
            suggested: labels.classes[found.suggested as usize].clone(),
            score: found.score,
        });
        let clusters = found
            .clusters
            .clusters
            .iter()
            .map(|cluster| ClusterOfImages {
                ids: ids(&cluster.rows),
                center: id(cluster.rows[0]),
                cohesion: cluster.cohesion,
                label: most_frequent(labels, &cluster.rows),
            });
        AuditReport {
            images: self.ids.len(),
            duplicates: duplicates.collect(),
            outliers: outliers.collect(),
            mislabels: mislabels.collect(),
            clusters: clusters.collect(),
            silhouette: found.clusters.silhouette,
        }
    }
}

/// Returns the most frequent label of rows, the first by name of several.
fn most_frequent(labels: &Labels, rows: &[u32]) -> Option<String> {
    let mut counts = vec![0usize; labels.classes.len()];
    for &row in rows {
        if let Some(class) = labels.of_rows[row as usize] {
            counts[class as usize] += 1;
        }
    }
    let most = counts.iter().copied().max().filter(|&most| most > 0)?;
    let class = counts.iter().position(|&count| count == most)?;
    Some(labels.classes[class].clone())
}
