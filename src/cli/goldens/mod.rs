//! `dinoserve models verify --goldens`: compares models with reference features.

mod compare;
mod family;
mod known;
mod layouts;
mod pictures;
mod references;

pub(super) use self::{
    known::{answer_for, compare_known},
    layouts::verify_layouts,
    pictures::compare,
};
