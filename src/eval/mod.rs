//! How well features tell labels apart: labelled folders, their neighbours, and the report on what was predicted.
//!
//! Knows no service: whoever calls brings the vectors.

mod folder;
mod knn;
mod report;

pub use self::{
    folder::{LabelledImages, LabelledVectors, classes},
    knn::{Neighbor, nearest, predict},
    report::{ClassReport, Report},
};
