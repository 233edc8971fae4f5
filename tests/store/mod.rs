//! Galleries in their stores, without the edge.

mod contract;
mod crash;
mod embedded;
mod full;
mod snapshot;
