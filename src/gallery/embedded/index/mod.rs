//! The approximate index of a gallery: lists of similar rows (inverted lists, Jégou et al., 2011)
//! in one bit a value.
//!
//! A search estimates the products with the rows of the lists nearest to it. How many lists it
//! needs is measured on the gallery's own vectors whenever an index is made. Rows are known by
//! their serials, so an entry of a deleted or replaced row matches no live row. The index is only a
//! cache: searches scan the rows that it lacks, and it is made again from the rows if its file is
//! missing or damaged.

mod approximate;
mod file;
mod lists;
mod parallel;
mod training;

pub(super) use self::{
    approximate::ApproximateIndex,
    file::{remove_files, remove_files_of_others},
};
