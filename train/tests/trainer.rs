//! The trainer: accumulation, shards, KoLeo, masked patches and prototypes.

use burn::{
    module::Module,
    tensor::{Device, activation::log_softmax},
};
use dinoserve_train::{
    data::{Batch, MaskedPatches},
    method::{
        AdamW, Centering, LossConfig, StepSettings, Trainer, TrainerState,
        loss::{koleo, sharpen},
    },
    model::{HeadConfig, Heads, Network, flatten},
};
use rand::{SeedableRng, rngs::ChaCha8Rng};

use crate::{
    step::{architecture, prepared},
    support::{assert_near, assert_near_by_norm, tensor, values},
};

/// Returns a trainer of a random network with both heads.
fn random_trainer(loss: LossConfig, shards: usize) -> Trainer {
    let device = Device::flex();
    let head = HeadConfig {
        hidden: 32,
        bottleneck: 16,
        prototypes: 96,
    };
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let heads = Heads::Projections {
        config: &head,
        patches: true,
    };
    let network = Network::new(&architecture(), 0.0, 1.0, heads, &mut random, &device);
    let center = prepared().0.state().center.clone();
    let state = TrainerState {
        student: network.clone(),
        teacher: network,
        center: center.clone(),
        patch_center: center,
        optimizer: AdamW::default(),
    };
    Trainer::new(state, loss, 3.0, shards, device)
}

/// Returns masks of eight crops of 16 patches, with 0 to 6 masked patches each.
fn masks() -> MaskedPatches {
    let mask = |crop: usize| (0..16).map(|patch| patch < crop * 2 % 7).collect();
    MaskedPatches((0..8).map(mask).collect())
}

fn assert_number(what: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= 1e-4 * expected.abs(),
        "{what} is {found}, not {expected}"
    );
}

#[test]
fn accumulated_batches_give_the_mean_of_their_gradients() {
    let (mut trainer, batch, settings) = prepared();
    let flipped = Batch {
        global: batch.global.iter().map(|value| -value).collect(),
        ..batch.clone()
    };
    let both = trainer.gradients(&[batch.clone(), flipped.clone()], settings, 0);
    let (mut trainer, ..) = prepared();
    let first = trainer.gradients(&[batch], settings, 0);
    // This second batch uses the updated center, like the second batch above.
    let second = trainer.gradients(&[flipped], settings, 1);
    for (name, both) in both {
        let mean = (first[&name].clone() + second[&name].clone()) / 2.0;
        assert_near(&name, &values(both), &values(mean), 1e-4, 1e-6);
    }
}

/// Compares the losses between views and of patches. KoLeo is left out, because its neighbors
/// depend on the shards.
#[test]
fn shards_change_gradients_only_by_rounding() {
    for centering in [Centering::Mean, Centering::SinkhornKnopp] {
        let gradients = |shards: usize| {
            let (_, batch, settings) = prepared();
            let loss = LossConfig {
                centering,
                patch_weight: 1.0,
                ..LossConfig::default()
            };
            let mut trainer = random_trainer(loss, shards);
            let batch = Batch {
                masks: Some(masks()),
                ..batch
            };
            let gradients = trainer.gradients(&[batch], settings, 0);
            let centers = [
                trainer.state().center.clone().unwrap(),
                trainer.state().patch_center.clone().unwrap(),
            ];
            (gradients, centers.map(values))
        };
        let (whole, centers) = gradients(1);
        assert!(
            whole.contains_key("backbone.mask_token")
                && whole.contains_key("patch_head.fc1.weight")
        );
        for shards in [2, 4] {
            let (parts, part_centers) = gradients(shards);
            assert_eq!(parts.len(), whole.len(), "{shards} shards");
            for (name, part) in parts {
                let what = format!("{name}, {centering:?}, {shards} shards");
                assert_near_by_norm(&what, &values(part), &values(whole[&name].clone()));
            }
            for (found, expected) in part_centers.iter().zip(&centers) {
                let what = format!("a center, {shards} shards");
                assert_near(&what, found, expected, 1e-4, 1e-6);
            }
        }
    }
}

/// As in DINOv2, KoLeo is the sum over both views.
#[test]
fn koleo_uses_both_views_and_shards_of_at_least_16_images() {
    let (_, few, settings) = prepared();
    // Each image with eight contrasts, view by view.
    let pixels = 3 * 56 * 56;
    let views = few.global.chunks(few.images * pixels);
    let scaled = |view: &[f32], factor: f32| {
        view.iter()
            .map(|value| value * factor)
            .collect::<Vec<f32>>()
    };
    let global = views
        .flat_map(|view| (1..=8).flat_map(move |eighths| scaled(view, eighths as f32 / 8.0)))
        .collect();
    let batch = Batch {
        images: 8 * few.images,
        global,
        local: Vec::new(),
        ..few
    };
    let images = tensor(&batch.global, [64, 3, 56, 56]);
    for (shards, shard_images) in [(1, 32), (2, 16), (4, 16)] {
        let loss = LossConfig {
            koleo_weight: 0.1,
            ..LossConfig::default()
        };
        let mut trainer = random_trainer(loss, shards);
        let cls = trainer
            .state()
            .student
            .backbone
            .forward(images.clone(), None, &mut None)
            .cls;
        let parts = (0..64).step_by(shard_images).map(|start| {
            let shard = cls.clone().narrow(0, start, shard_images);
            values(koleo(shard))[0]
        });
        let expected = 2.0 * f64::from(parts.sum::<f32>()) / (64 / shard_images) as f64;
        let report = trainer.step(std::slice::from_ref(&batch), settings, 0);
        let what = format!("KoLeo with {shards} shards");
        assert_number(&what, report.koleo.expect("it is used"), expected);
        assert_number(
            "the loss",
            report.loss,
            report.view_loss.unwrap() + 0.1 * expected,
        );
    }
}

/// As in DINOv2, the mean is over all crops, not only those with masked patches.
#[test]
fn the_loss_of_masked_patches_is_averaged_over_all_crops() {
    let (_, batch, settings) = prepared();
    for shards in [1, 2] {
        let loss = LossConfig {
            patch_weight: 0.5,
            ..LossConfig::default()
        };
        let mut trainer = random_trainer(loss, shards);
        let masks = masks();
        let logits = |network: &Network, input_masks: Option<&MaskedPatches>| {
            let images = tensor(&batch.global, [8, 3, 56, 56]);
            let patches = network
                .backbone
                .forward(images, input_masks, &mut None)
                .patches
                .reshape([8 * 16, 64]);
            let indices = masks.indices(&Device::flex());
            network
                .patch_head
                .as_ref()
                .unwrap()
                .forward(patches.select(0, indices))
        };
        let center = trainer.state().patch_center.clone().unwrap();
        let targets = values(sharpen(
            logits(&trainer.state().teacher, None),
            center,
            settings.teacher_temperature,
        ));
        let student_logits = logits(&trainer.state().student, Some(&masks)) / 0.1;
        let log_shares = values(log_softmax(student_logits, 1));
        let mut rows = targets.chunks(96).zip(log_shares.chunks(96));
        let expected: f64 = masks
            .0
            .iter()
            .map(|mask| {
                let count = mask.iter().filter(|masked| **masked).count();
                let losses = rows.by_ref().take(count).map(|(target, log_shares)| {
                    -target
                        .iter()
                        .zip(log_shares)
                        .map(|(p, log)| f64::from(p * log))
                        .sum::<f64>()
                });
                losses.sum::<f64>() / count.max(1) as f64
            })
            .sum::<f64>()
            / 8.0;
        let batch = Batch {
            masks: Some(masks),
            ..batch.clone()
        };
        let report = trainer.step(&[batch], settings, 0);
        let what = format!("the patch loss with {shards} shards");
        let patch_loss = report.patch_loss.expect("some patches are masked");
        assert_number(&what, patch_loss, expected);
        assert_number(
            "the loss",
            report.loss,
            report.view_loss.unwrap() + 0.5 * expected,
        );
    }
}

/// Only the directions of prototypes matter, but the longer they are, the less a step turns them.
#[test]
fn prototypes_are_initialized_as_in_pytorch() {
    let trainer = random_trainer(LossConfig::default(), 1);
    let prototypes = values(flatten(&trainer.state().student)["head.prototypes"].clone());
    let sum: f32 = prototypes.iter().map(|value| value * value).sum();
    let square = sum / prototypes.len() as f32;
    assert!((square * 3.0 * 16.0 - 1.0).abs() < 0.2, "{square}");
}

#[test]
fn frozen_prototypes_do_not_change_but_all_other_parameters_do() {
    let (mut trainer, batch, settings) = prepared();
    let before = flatten(&trainer.state().student);
    let settings = StepSettings {
        prototypes_frozen: true,
        ..settings
    };
    trainer.step(&[batch], settings, 0);
    let after = flatten(&trainer.state().student);
    for (name, tensor) in before {
        // Without masks, the mask token has no gradient.
        let unchanged = name == "head.prototypes" || name == "backbone.mask_token";
        let equal = values(tensor) == values(after[&name].clone());
        assert_eq!(equal, unchanged, "{name}");
    }
    assert_eq!(
        trainer.state().student.num_params(),
        trainer.state().teacher.num_params()
    );
}
