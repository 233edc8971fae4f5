//! Galleries in their stores, without HTTP.

mod contract;
mod crash;
mod embedded;
mod full;
mod model;
mod snapshot;
