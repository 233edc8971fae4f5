//! What is unusual in a set of images, by their vectors: near-duplicates, outliers, labels that are
//! likely wrong, and groups.
//!
//! Everything follows from the nearest others of each vector, which are found exactly, and from
//! least squares and k-means. All vectors have length 1, so that dot products are cosines.

mod clusters;
mod duplicates;
mod mislabels;
mod outliers;
mod ridge;
mod whole;

pub use self::{
    clusters::{Cluster, Clusters},
    duplicates::DuplicateGroup,
    mislabels::{Labels, Mislabel},
    outliers::Outlier,
    whole::{Audit, AuditOptions, audit},
};
