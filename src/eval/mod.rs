//! How well features tell labels apart: labelled folders, their neighbours, linear probes, and the
//! report on what was predicted.
//!
//! Knows no service: whoever calls brings the vectors.

mod folder;
mod knn;
mod linear;
mod report;

pub use self::{
    folder::{LabelledImages, LabelledVectors, classes},
    knn::{Neighbor, nearest, predict},
    linear::{probabilities, train_on},
    report::{ClassReport, Report},
};
