//! How well features tell labels apart: labeled folders, their neighbors, linear probes, and the
//! report on what was predicted.
//!
//! Knows no service: whoever calls brings the vectors.

mod folder;
mod knn;
mod linear;
mod report;

pub use self::{
    folder::{LabeledImages, LabeledVectors, classes},
    knn::{Neighbor, nearest, predict},
    linear::{probabilities, train_on},
    report::{ClassReport, Report},
};
