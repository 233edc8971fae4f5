//! Features of many images: what is computed, the results so far, the files that they become, and
//! the shards of a run.
//!
//! Results are appended to a [`Journal`] in the order of the listing. When the listing has ended, a
//! sink turns the journal into the output file, so that the output depends on nothing but the
//! images and the options, however often the run was interrupted.

mod feature;
mod journal;
mod lease;
mod manifest;
mod memory;
mod merge;
mod output;
mod pipeline;
mod row;
mod saved;
mod shards;
mod sinks;

pub use self::{
    feature::{Dtype, Feature},
    journal::{Journal, Recalled},
    lease::Lease,
    manifest::{Failure, Manifest, OutputFile},
    merge::merge,
    output::{Format, Output},
    pipeline::{Pipeline, ReadAhead, Shown, Summary},
    row::{Column, Record, Row, Schema, Values},
    saved::Saved,
    shards::{ShardState, shard_states},
    sinks::{Results, Rows, rows_of, write_line},
};
