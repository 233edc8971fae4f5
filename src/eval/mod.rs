//! How well features separate labels: labeled folders, nearest neighbors, linear probes, and the
//! report on the predictions.
//!
//! Knows no service: the caller supplies the vectors.

mod folder;
mod knn;
mod linear;
mod mcnemar;
mod report;

pub use self::{
    folder::{LabeledImages, LabeledVectors, classes},
    knn::{Neighbor, nearest, predict},
    linear::{probabilities, train_on},
    mcnemar::Agreement,
    report::{ClassReport, Report},
};
