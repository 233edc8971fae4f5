//! The networks and the trainer state that a run starts from.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use dinoserve::onnx::weights::Weights;
use rand::{SeedableRng, rngs::ChaCha8Rng};

use super::SavedRun;
use crate::{
    config::Config,
    method::{AdamW, Method, TrainerState},
    model::{Backbone, Heads, Network, initialize_from},
};

/// Creates a network with the backbone of `weights`, or with random weights. `classes` is the
/// number of labels, which DINO does not use.
pub(crate) fn initial_network(
    config: &Config,
    classes: usize,
    weights: Option<&Weights>,
    device: &Device,
) -> anyhow::Result<Network> {
    let spec = config.spec("training")?;
    let heads = match config.method {
        Method::Dino => Heads::Projections {
            config: &config.head,
            patches: config.masks_patches(),
        },
        Method::Supervised => Heads::Classifier { classes },
    };
    let mut random = ChaCha8Rng::seed_from_u64(config.run.seed);
    let mut network = Network::new(
        &spec.architecture,
        config.model.drop_path,
        config.model.layer_scale,
        heads,
        &mut random,
        device,
    );
    if let Some(weights) = weights {
        weights.check(&spec)?;
        network.backbone = initialize_from(network.backbone, weights)?;
    }
    Ok(network)
}

/// Creates the state before the first step: the teacher is a copy of the student.
pub(crate) fn initial_state(network: Network, config: &Config, device: &Device) -> TrainerState {
    let center = || Tensor::zeros([1, config.head.prototypes], device);
    TrainerState {
        center: (config.method == Method::Dino).then(center),
        patch_center: network.patch_head.as_ref().map(|_| center()),
        student: network.clone(),
        teacher: network,
        optimizer: AdamW::default(),
    }
}

/// Reads the teacher's backbone from a checkpoint.
pub(crate) fn read_teacher(
    path: &Path,
    config: &Config,
    device: &Device,
) -> anyhow::Result<Backbone> {
    let random = initial_network(config, 1, None, device)?;
    SavedRun::read(path)?.teacher_backbone(random.backbone, device)
}
