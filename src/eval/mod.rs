//! How well features separate labels: labeled vectors, nearest neighbors, linear probes, and the
//! report on the predictions.
//!
//! Knows no service: the caller supplies the vectors.

mod knn;
mod labeled;
mod linear;
mod mcnemar;
mod report;

pub use self::{
    knn::{Neighbor, nearest, predict},
    labeled::{LabeledVectors, classes},
    linear::{probabilities, train_on},
    mcnemar::Agreement,
    report::{ClassReport, Report},
};
