//! Losses, schedules and masks against NumPy (`golden/losses.json`).

use burn::tensor::Tensor;
use dinoserve_train::method::{
    Cosine, Ramp,
    loss::{
        cross_view_loss, entropy, koleo, masked_patch_loss, sharpen, sinkhorn_knopp, spread,
        update_center,
    },
    mask,
};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use serde_json::Value;

use crate::support::{assert_near, json, tensor, values};

fn matrix(golden: &Value, key: &str) -> Tensor<2> {
    let rows: Vec<Vec<f32>> = serde_json::from_value(golden[key].clone()).unwrap();
    tensor(&rows.concat(), [rows.len(), rows[0].len()])
}

fn number(golden: &Value, key: &str) -> f64 {
    golden[key].as_f64().unwrap()
}

#[test]
fn losses_equal_their_formulas() {
    let golden = json("losses.json");
    let matrix = |key: &str| matrix(&golden, key);
    let temperature = number(&golden, "teacher_temperature");
    let targets = sharpen(matrix("teacher_logits"), matrix("center"), temperature);
    let balanced = sinkhorn_knopp(matrix("teacher_logits"), temperature);
    for (key, found) in [("targets", targets.clone()), ("sinkhorn_knopp", balanced)] {
        assert_near(key, &values(found), &values(matrix(key)), 1e-5, 1e-6);
    }
    let temperature = number(&golden, "student_temperature");
    let local = Some(matrix("local"));
    let across_views = cross_view_loss(targets.clone(), matrix("global"), local, temperature);
    let weights = matrix("weights");
    let masked_patches =
        masked_patch_loss(targets.clone(), matrix("global"), weights, 3, temperature);
    for (key, found) in [
        ("across_views", across_views),
        ("masked_patches", masked_patches),
        ("koleo", koleo(matrix("rows"))),
        ("spread", spread(matrix("rows"))),
        ("entropy", entropy(targets)),
    ] {
        let expected = number(&golden, key) as f32;
        assert_near(key, &values(found), &[expected], 1e-5, 1e-6);
    }
}

#[test]
fn sinkhorn_knopp_targets_use_all_prototypes_equally() {
    // All rows prefer the first prototype.
    let logits = tensor(&[3.0, 0.1, 0.0, 2.5, 0.0, 0.2, 2.8, 0.3, 0.1], [3, 3]);
    let balanced = sinkhorn_knopp(logits.clone(), 0.5);
    let used = values(balanced.clone().sum_dim(0));
    assert!(used.iter().all(|used| (used - 1.0).abs() < 0.1), "{used:?}");
    assert_near("rows", &values(balanced.sum_dim(1)), &[1.0; 3], 1e-5, 0.0);
    let plain = values(sharpen(logits, tensor(&[0.0; 3], [1, 3]), 0.5).sum_dim(0));
    assert!(
        plain[0] > 2.5,
        "without balancing the first prototype gets all: {plain:?}"
    );
}

#[test]
fn the_center_is_a_running_mean() {
    let center = update_center(
        tensor(&[1.0, -1.0], [1, 2]),
        tensor(&[2.0, 0.0, 4.0, 1.0], [2, 2]),
        0.9,
    );
    assert_near(
        "center",
        &values(center),
        &[0.9 + 0.3, -0.9 + 0.05],
        1e-6,
        0.0,
    );
}

#[test]
fn schedules_equal_those_of_dino_in_python() {
    let golden = &json("losses.json")["cosine"];
    let count = |key: &str| golden[key].as_u64().unwrap() as usize;
    let cosine = Cosine {
        from: number(golden, "from"),
        to: number(golden, "to"),
        warmup: count("warmup"),
        steps: count("steps"),
    };
    for (step, expected) in golden["values"].as_array().unwrap().iter().enumerate() {
        let expected = expected.as_f64().unwrap();
        assert!(
            (cosine.at(step) - expected).abs() < 1e-12,
            "step {step}: {}, not {expected}",
            cosine.at(step)
        );
    }
    let ramp = Ramp {
        from: 0.04,
        to: 0.07,
        steps: 3,
    };
    let values: Vec<f64> = (0..5)
        .map(|step| (ramp.at(step) * 1e6).round() / 1e6)
        .collect();
    assert_eq!(values, [0.04, 0.05, 0.06, 0.07, 0.07]);
}

#[test]
fn masks_are_blocks_of_about_the_configured_share() {
    let config = mask::MaskConfig {
        images: 0.5,
        ratio: [0.1, 0.5],
    };
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let masks = config.draw(64, 16, &mut random);
    let counts: Vec<usize> = masks
        .0
        .iter()
        .map(|mask| mask.iter().filter(|masked| **masked).count())
        .collect();
    assert_eq!(
        counts.iter().filter(|count| **count > 0).count(),
        32,
        "half of the crops are masked"
    );
    assert!(
        counts.iter().all(|&count| count <= 128),
        "at most half of the 256 patches are masked: {counts:?}"
    );
    let mean = counts.iter().sum::<usize>() as f64 / 32.0 / 256.0;
    assert!(
        (0.2..0.4).contains(&mean),
        "about 0.3 of the patches are masked: {mean}"
    );
    // In blocks, a masked patch has a masked neighbor on its right far more often than by chance.
    let mut masked = 0usize;
    let mut with_neighbor = 0usize;
    for mask in &masks.0 {
        for cell in (0..256).filter(|cell| cell % 16 != 15 && mask[*cell]) {
            masked += 1;
            with_neighbor += usize::from(mask[cell + 1]);
        }
    }
    assert!(
        with_neighbor * 10 > masked * 6,
        "{with_neighbor} of {masked} masked patches have a masked neighbor"
    );
    assert_eq!(
        masks,
        config.draw(64, 16, &mut ChaCha8Rng::seed_from_u64(5)),
        "equal seeds give equal masks"
    );
}
