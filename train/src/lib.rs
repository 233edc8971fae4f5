//! DINO: a backbone learns from images without labels, by agreeing with a slower copy of itself,
//! or, to compare with, from labels.
//!
//! * [`model`]: the DINOv2 vision transformer and its heads, in `burn`, with the tensor
//!   names of Meta's code.
//! * [`data`]: from a folder of images to batches of augmented crops.
//! * [`method`]: losses, centering, schedules, the optimizer, and one training step.
//! * [`run`]: a whole training run: checkpoints, metrics, curves, maps, evaluation, and the export
//!   for `dinoserve`.
//! * [`config`]: the configuration of a run.
//!
//! `dinoserve` provides decoding, resampling, weight files, position tables and nearest neighbors.
//! The model is therefore trained on the same pixels that it sees when it is served.

mod check;
pub mod cli;
pub mod config;
pub mod data;
pub mod method;
pub mod model;
pub mod run;
mod seed;
