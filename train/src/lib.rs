//! DINO: a backbone learns from pictures without labels, by agreeing with a slower copy of itself.
//!
//! * [`model`]: the DINOv2 vision transformer and its projection head, in `burn`, under the hub's
//!   tensor names.
//! * [`data`]: from a folder of images to batches of augmented crops.
//! * [`method`]: losses, centring, schedules, the optimiser, and one step of training.
//! * [`run`]: a whole training run: checkpoints, metrics, pictures, evaluation, and the export for
//!   `dinoserve`.
//!
//! Decoding, resampling, weight files, position tables and nearest neighbors are `dinoserve`'s
//! own: what is trained here sees the pixels that it will see when it is served.

pub mod cli;
pub mod config;
pub mod data;
pub mod method;
pub mod model;
pub mod run;
