//! The trained networks: a DINOv2 backbone and its heads, as `burn` modules whose
//! parameters have the names of Meta's code.

mod backbone;
mod config;
mod head;
mod layers;
mod network;
mod parameters;
mod weights;

pub use self::{
    backbone::{Backbone, Tokens},
    config::{Arch, ModelConfig},
    head::{Classifier, Head, HeadConfig, ProjectionHead},
    layers::DropPath,
    network::{Heads, Network},
    parameters::{FlatTensors, flatten, load},
    weights::{HostTensor, initialize_from, to_hugging_face},
};

pub(crate) use self::{
    config::spec_toml,
    head::unit_rows,
    parameters::{gradients_of, map_parameters, parameters},
};
