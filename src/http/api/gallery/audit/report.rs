//! Report of an audit, as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::service::{
    AuditReport, ClusterOfImages, Duplicates, MislabeledImage, OutlierImage, StoredAudit,
};

/// Report of an audit.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportJson {
    /// Time of the audit, in milliseconds since 1970. Items may have changed since then.
    #[schema(example = 1_790_000_000_000_u64)]
    made_ms: u64,
    /// Number of similar items that were looked at of each item.
    #[schema(example = 20)]
    neighbors: usize,
    /// Cosine from which on two items are near-duplicates.
    #[schema(example = 0.97)]
    duplicates_above: f32,
    /// Number of items.
    #[schema(example = 20_000)]
    images: usize,
    /// Groups of items that show the same, the nearest first.
    duplicates: Vec<DuplicatesJson>,
    /// Items that have no similar ones, the farthest first.
    outliers: Vec<OutlierJson>,
    /// Items whose label is likely wrong, the surest first.
    mislabels: Vec<MislabelJson>,
    /// Groups of similar items, the largest first. Each item is in one of them.
    clusters: Vec<ClusterJson>,
    /// How well the clusters are apart, from −1 to 1.
    #[schema(example = 0.21)]
    silhouette: f32,
}

/// Items that show the same.
#[derive(Serialize, ToSchema)]
struct DuplicatesJson {
    /// Ids of the items.
    ids: Vec<String>,
    /// Lowest cosine that holds the group together.
    #[schema(example = 0.985)]
    score: f32,
}

/// An item that has no similar ones.
#[derive(Serialize, ToSchema)]
struct OutlierJson {
    /// Id of the item.
    id: String,
    /// Distance from the median of all distances, in robust standard deviations.
    #[schema(example = 4.6)]
    score: f32,
    /// 1 less the mean cosine with the ten most similar items.
    #[schema(example = 0.71)]
    distance: f32,
}

/// An item whose label is likely wrong.
#[derive(Serialize, ToSchema)]
struct MislabelJson {
    /// Id of the item.
    id: String,
    /// Its label at the time of the audit.
    #[schema(example = "cat")]
    label: String,
    /// The label that both classifiers predict.
    #[schema(example = "dog")]
    suggested: String,
    /// Share of the vote for the suggested label, less the share for the label.
    #[schema(example = 0.8)]
    score: f32,
}

/// Similar items.
#[derive(Serialize, ToSchema)]
struct ClusterJson {
    /// Ids of the items, the nearest to the center first.
    ids: Vec<String>,
    /// Id of the item at the center.
    center: String,
    /// Mean cosine of the items with the center.
    #[schema(example = 0.62)]
    cohesion: f32,
    /// The most frequent label; null if no item has one.
    #[schema(required, example = "cat")]
    label: Option<String>,
}

impl From<Duplicates> for DuplicatesJson {
    fn from(Duplicates { ids, score, .. }: Duplicates) -> Self {
        Self { ids, score }
    }
}

impl From<OutlierImage> for OutlierJson {
    fn from(found: OutlierImage) -> Self {
        Self {
            id: found.id,
            score: found.score,
            distance: found.distance,
        }
    }
}

impl From<MislabeledImage> for MislabelJson {
    fn from(found: MislabeledImage) -> Self {
        Self {
            id: found.id,
            label: found.label,
            suggested: found.suggested,
            score: found.score,
        }
    }
}

impl From<ClusterOfImages> for ClusterJson {
    fn from(found: ClusterOfImages) -> Self {
        Self {
            ids: found.ids,
            center: found.center,
            cohesion: found.cohesion,
            label: found.label,
        }
    }
}

impl From<StoredAudit> for ReportJson {
    fn from(stored: StoredAudit) -> Self {
        let AuditReport {
            images,
            duplicates,
            outliers,
            mislabels,
            clusters,
            silhouette,
        } = stored.report;
        Self {
            made_ms: stored.made_ms,
            neighbors: stored.options.neighbors,
            duplicates_above: stored.options.duplicates_above,
            images,
            duplicates: duplicates.into_iter().map(Into::into).collect(),
            outliers: outliers.into_iter().map(Into::into).collect(),
            mislabels: mislabels.into_iter().map(Into::into).collect(),
            clusters: clusters.into_iter().map(Into::into).collect(),
            silhouette,
        }
    }
}
