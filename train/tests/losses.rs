//! Losses and schedules against NumPy (`golden/losses.json`).

use dinoserve_train::method::{
    Cosine, Ramp,
    loss::{
        across_views, entropy, koleo, masked_patches, moved_center, sharpened, sinkhorn_knopp,
        spread,
    },
    mask,
};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use serde_json::Value;

use crate::support::{assert_near, json, tensor, values};

fn matrix(value: &Value) -> (Vec<f32>, [usize; 2]) {
    let rows: Vec<Vec<f32>> = serde_json::from_value(value.clone()).unwrap();
    let shape = [rows.len(), rows[0].len()];
    (rows.concat(), shape)
}

fn of(golden: &Value, key: &str) -> burn::tensor::Tensor<2> {
    let (values, shape) = matrix(&golden[key]);
    tensor(&values, shape)
}

fn number(golden: &Value, key: &str) -> f64 {
    golden[key].as_f64().unwrap()
}

#[track_caller]
fn assert_number(golden: &Value, key: &str, found: burn::tensor::Tensor<1>) {
    assert_near(
        key,
        &values(found),
        &[number(golden, key) as f32],
        1e-5,
        1e-6,
    );
}

#[test]
fn losses_equal_their_formulas() {
    let golden = json("losses.json");
    let (cold, warm) = (
        number(&golden, "teacher_temperature"),
        number(&golden, "student_temperature"),
    );
    let targets = sharpened(of(&golden, "teacher_logits"), of(&golden, "center"), cold);
    assert_near(
        "targets",
        &values(targets.clone()),
        &matrix(&golden["targets"]).0,
        1e-5,
        1e-6,
    );
    let local = Some(of(&golden, "local"));
    assert_number(
        &golden,
        "across_views",
        across_views(targets.clone(), of(&golden, "global"), local, warm),
    );
    let weights: Vec<f32> = matrix(&golden["weights"]).0;
    let weights = tensor(&weights, [weights.len(), 1]);
    assert_number(
        &golden,
        "masked_patches",
        masked_patches(targets.clone(), of(&golden, "global"), weights, 3, warm),
    );
    let balanced = sinkhorn_knopp(of(&golden, "teacher_logits"), cold);
    assert_near(
        "sinkhorn_knopp",
        &values(balanced),
        &matrix(&golden["sinkhorn_knopp"]).0,
        1e-5,
        1e-6,
    );
    assert_number(&golden, "koleo", koleo(of(&golden, "rows")));
    assert_number(&golden, "spread", spread(of(&golden, "rows")));
    assert_number(&golden, "entropy", entropy(targets));
}

#[test]
fn balanced_targets_use_every_prototype_alike() {
    // All rows prefer the first prototype.
    let logits = tensor(&[3.0, 0.1, 0.0, 2.5, 0.0, 0.2, 2.8, 0.3, 0.1], [3, 3]);
    let balanced = sinkhorn_knopp(logits.clone(), 0.5);
    let used = values(balanced.clone().sum_dim(0));
    assert!(used.iter().all(|used| (used - 1.0).abs() < 0.1), "{used:?}");
    assert_near("rows", &values(balanced.sum_dim(1)), &[1.0; 3], 1e-5, 0.0);
    let plain = values(sharpened(logits, tensor(&[0.0; 3], [1, 3]), 0.5).sum_dim(0));
    assert!(
        plain[0] > 2.5,
        "without balance the first takes all: {plain:?}"
    );
}

#[test]
fn the_centre_is_a_running_mean() {
    let center = moved_center(
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
fn schedules_equal_those_of_dino() {
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
fn masks_hide_blocks_of_about_the_share_that_is_asked_for() {
    let config = mask::MaskConfig {
        images: 0.5,
        ratio: [0.1, 0.5],
    };
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let masks = config.draw(64, 16, &mut random);
    let counts: Vec<usize> = masks
        .iter()
        .map(|mask| mask.iter().filter(|hidden| **hidden).count())
        .collect();
    assert_eq!(
        counts.iter().filter(|count| **count > 0).count(),
        32,
        "half of the images"
    );
    assert!(
        counts.iter().all(|&count| count <= 128),
        "never more than half of 256: {counts:?}"
    );
    let mean = counts.iter().sum::<usize>() as f64 / 32.0 / 256.0;
    assert!(
        (0.2..0.4).contains(&mean),
        "about 0.3 of the patches: {mean}"
    );
    // Blocks: a hidden patch has a hidden neighbor to its right far more often than by chance.
    let (mut beside, mut hidden) = (0usize, 0usize);
    for mask in &masks {
        for cell in (0..256).filter(|cell| cell % 16 != 15 && mask[*cell]) {
            hidden += 1;
            beside += usize::from(mask[cell + 1]);
        }
    }
    assert!(beside * 10 > hidden * 6, "{beside} of {hidden}");
    assert_eq!(
        masks,
        config.draw(64, 16, &mut ChaCha8Rng::seed_from_u64(5)),
        "the seed decides"
    );
}
