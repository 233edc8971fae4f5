//! What an audit finds.

use serde::{Deserialize, Serialize};

use crate::error::{Result, ResultExt};

const WRITING: &str = "writing the findings of an audit";

/// What is unusual about images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Number of images.
    pub images: usize,
    /// Groups of images that show the same, the nearest first.
    pub duplicates: Vec<Duplicates>,
    /// Images that have no similar ones, the farthest first.
    pub outliers: Vec<OutlierImage>,
    /// Labels that are likely wrong, the surest first.
    pub mislabels: Vec<MislabeledImage>,
    /// Groups of similar images, the largest first.
    pub clusters: Vec<ClusterOfImages>,
    /// How well the clusters are apart, from −1 to 1.
    pub silhouette: f32,
}

impl AuditReport {
    /// Returns the findings as CSV, with a row for each image of each finding.
    pub fn to_csv(&self) -> Result<Vec<u8>> {
        let mut rows = csv::Writer::from_writer(Vec::new());
        let header = ["finding", "group", "id", "label", "suggested", "score"];
        rows.write_record(header).internal(WRITING)?;
        let mut write = |finding: &str, group: &str, id: &str, labels: [&str; 2], score: f32| {
            let [label, suggested] = labels;
            let row = [finding, group, id, label, suggested, &score.to_string()];
            rows.write_record(row).internal(WRITING)
        };
        for (group, found) in self.duplicates.iter().enumerate() {
            for id in &found.ids {
                write("duplicate", &group.to_string(), id, ["", ""], found.score)?;
            }
        }
        for found in &self.outliers {
            write("outlier", "", &found.id, ["", ""], found.score)?;
        }
        for found in &self.mislabels {
            let labels = [&*found.label, &*found.suggested];
            write("mislabel", "", &found.id, labels, found.score)?;
        }
        for (group, found) in self.clusters.iter().enumerate() {
            for id in &found.ids {
                write("cluster", &group.to_string(), id, ["", ""], found.cohesion)?;
            }
        }
        rows.into_inner().internal(WRITING)
    }
}

/// Images that show the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Duplicates {
    /// Ids of the images.
    pub ids: Vec<String>,
    /// Lowest cosine that holds the group together.
    pub score: f32,
    /// Whether their files are the same byte by byte, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identical: Option<bool>,
}

/// An image that has no similar ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutlierImage {
    /// Id of the image.
    pub id: String,
    /// Distance from the median of all distances, in robust standard deviations.
    pub score: f32,
    /// 1 less the mean cosine with the ten most similar images.
    pub distance: f32,
}

/// An image whose label is likely wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MislabeledImage {
    /// Id of the image.
    pub id: String,
    /// Its label.
    pub label: String,
    /// The label that both classifiers predict.
    pub suggested: String,
    /// Share of the vote for the suggested label, less the share for the label.
    pub score: f32,
}

/// Similar images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterOfImages {
    /// Ids of the images, the nearest to the center first.
    pub ids: Vec<String>,
    /// Id of the image at the center.
    pub center: String,
    /// Mean cosine of the images with the center.
    pub cohesion: f32,
    /// The most frequent label.
    pub label: Option<String>,
}
