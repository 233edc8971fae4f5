//! The backbone against Meta's code, for all kinds of models and several sizes.

use burn::tensor::{Device, Tensor};
use dinoserve::{artifacts::read_weights, vision::RgbImage};
use dinoserve_train::{
    data::{MaskedPatches, append_normalized},
    model::{Backbone, DropPath, initialize_from},
};
use rand::{SeedableRng, rngs::ChaCha8Rng};

use crate::support::{Tensors, server_golden, tensor, tiny_spec, values, wave};

const SIZES: [(usize, usize); 6] = [
    (70, 70),
    (140, 196),
    (196, 140),
    (224, 224),
    (518, 518),
    (532, 546),
];

fn tiny(name: &str, file: &str) -> Backbone {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let backbone = Backbone::new(
        &tiny_spec(name).architecture,
        0.5,
        1.0,
        &mut random,
        &Device::flex(),
    );
    let weights = read_weights(&server_golden(&format!("{name}/{file}")), None).unwrap();
    initialize_from(backbone, &weights).unwrap()
}

fn pixels(image: &RgbImage) -> Tensor<4> {
    let mut out = Vec::new();
    append_normalized(image, &mut out);
    tensor(
        &out,
        [1, 3, image.height() as usize, image.width() as usize],
    )
}

/// Asserts the reference tolerance of normalized tokens in f32: at most 1e-3, on average 1e-4.
#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differences: Vec<f32> = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .collect();
    let largest = differences.iter().copied().fold(0.0, f32::max);
    let mean = differences.iter().sum::<f32>() / differences.len() as f32;
    assert!(
        largest <= 1e-3 && mean <= 1e-4,
        "{what}: up to {largest}, on average {mean}"
    );
}

#[test]
fn tokens_and_attention_equal_those_of_the_hub() {
    for name in ["tiny", "tiny-reg", "tiny-swiglu-reg"] {
        for file in ["model.safetensors", "hub_pretrain.pth"] {
            let backbone = tiny(name, file);
            for (height, width) in SIZES {
                let what = format!("{name} {file} {height}x{width}");
                let expected = Tensors::read(&server_golden(&format!(
                    "{name}/expected_{height}x{width}.safetensors"
                )));
                let found = backbone.forward(pixels(&wave(height, width)), None, &mut None);
                let mut parts = vec![
                    ("cls", values(found.cls)),
                    ("patch_tokens", values(found.patches)),
                    ("attention", values(found.attention)),
                ];
                parts.extend(found.registers.map(|tokens| ("registers", values(tokens))));
                assert_eq!(parts.len() == 3, name == "tiny", "{what}: registers");
                for (part, found) in parts {
                    assert_close(&format!("{what} {part}"), &found, expected.values(part));
                }
            }
        }
    }
}

#[test]
fn an_image_has_the_same_tokens_alone_and_in_a_batch() {
    let backbone = tiny("tiny-reg", "model.safetensors");
    let one = wave(70, 70);
    let other = image::imageops::flip_horizontal(&one);
    let both = Tensor::cat(vec![pixels(&one), pixels(&other)], 0);
    let together = values(backbone.forward(both, None, &mut None).cls);
    let alone: Vec<f32> = [one, other]
        .iter()
        .flat_map(|image| values(backbone.forward(pixels(image), None, &mut None).cls))
        .collect();
    assert_close("cls of both images", &together, &alone);
}

#[test]
fn masked_patches_do_not_influence_the_tokens() {
    let backbone = tiny("tiny", "hub_pretrain.pth");
    let mut changed = wave(70, 70);
    (0..14).for_each(|y| (0..14).for_each(|x| changed.put_pixel(x, y, image::Rgb([255, 0, 0]))));
    let masks = MaskedPatches(vec![(0..25).map(|patch| patch == 0).collect()]);
    let cls = |image: &RgbImage, masks: Option<&MaskedPatches>| {
        values(backbone.forward(pixels(image), masks, &mut None).cls)
    };
    assert_ne!(
        cls(&wave(70, 70), None),
        cls(&changed, None),
        "without a mask the first patch matters"
    );
    let one = cls(&wave(70, 70), Some(&masks));
    let other = cls(&changed, Some(&masks));
    assert_close("cls with a masked patch", &one, &other);
    assert_eq!(values(masks.indices(&Device::flex()).float()), [0.0]);
}

#[test]
fn drop_path_depends_only_on_the_seed() {
    let backbone = tiny("tiny", "model.safetensors");
    let images = || Tensor::cat(vec![pixels(&wave(70, 70)); 8], 0);
    let with = |seed: u64| {
        let mut drop = Some(DropPath(ChaCha8Rng::seed_from_u64(seed)));
        values(backbone.forward(images(), None, &mut drop).cls)
    };
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
    // Each of the last block's two branches is left out for half of the images, which are equal.
    let rows = with(1);
    let distinct: std::collections::BTreeSet<Vec<u32>> = rows
        .chunks(rows.len() / 8)
        .map(|row| {
            row.iter()
                .map(|value| (value * 1e3) as i32 as u32)
                .collect()
        })
        .collect();
    assert!(
        (2..=4).contains(&distinct.len()),
        "two branches give {} different results",
        distinct.len()
    );
}
