//! The converted graph, compared with Meta's code.

use dinoserve::{
    artifacts::ModelFile,
    engine::{EnginePlan, Features, Input, ModelSession, Provider, RequestedOutputs},
    features::{attention, pca},
    onnx::Precision,
    vision::{RgbImage, Size},
};
use ndarray::{Axis, s};

use crate::support::{
    PATCH, SAMPLES, TINY, Tensors, assert_close, cosine, difference, focus, focus_in, golden_png,
    runtime, session, tiny, tiny_in, wave,
};

const SIZES: [(usize, usize); 6] = [
    (70, 70),
    (140, 196),
    (196, 140),
    (224, 224),
    (518, 518),
    (532, 546),
];
const ALL: RequestedOutputs = RequestedOutputs {
    patch_tokens: true,
    registers: true,
    attention: true,
    layers_cls: true,
    layers_patch: true,
};

fn input(pixels: RgbImage) -> Input {
    let grid = PATCH.grid(Size::of(&pixels));
    Input { pixels, grid }
}

fn run(session: &mut ModelSession, pixels: RgbImage) -> Features {
    session
        .run(&[(&input(pixels), ALL)])
        .expect("an inference")
        .remove(0)
}

fn assert_matches(what: &str, found: &Features, expected: &Tensors) {
    assert_close(
        &format!("{what} cls"),
        &found.cls.clone().into_dyn(),
        expected.get("cls"),
    );
    let attention = found.attention.clone().expect("attention").into_dyn();
    assert_close(
        &format!("{what} attention"),
        &attention,
        expected.get("attention"),
    );
    let layers = found.layers_cls.clone().expect("layers").into_dyn();
    assert_close(
        &format!("{what} layers_cls"),
        &layers,
        expected.get("layers_cls"),
    );
    let cosine = cosine(
        found.cls.iter().copied(),
        expected.get("cls").iter().copied(),
    );
    assert!(cosine >= 0.99999, "{what}: cosine {cosine}");
}

#[test]
fn tiny_models_match_from_both_layouts_at_every_size() {
    for name in TINY {
        for file in ["model.safetensors", "hub_pretrain.pth"] {
            let mut session = session(&tiny(name, file));
            for (height, width) in SIZES {
                let what = format!("{name} {file} {height}x{width}");
                let expected =
                    Tensors::read(&format!("{name}/expected_{height}x{width}.safetensors"));
                let found = run(&mut session, wave(height, width));
                assert_matches(&what, &found, &expected);
                match found.registers {
                    Some(registers) => {
                        assert_close(
                            &format!("{what} registers"),
                            &registers.into_dyn(),
                            expected.get("registers"),
                        );
                    }
                    None => assert_eq!(name, "tiny", "only this one has no registers"),
                }
                let tokens = found.patch_tokens.expect("patch tokens").into_dyn();
                assert_close(
                    &format!("{what} patch_tokens"),
                    &tokens,
                    expected.get("patch_tokens"),
                );
                let layers = found.layers_patch.expect("layers");
                let last = layers
                    .index_axis(Axis(0), layers.len_of(Axis(0)) - 1)
                    .to_owned()
                    .into_dyn();
                assert_eq!(
                    last, tokens,
                    "{what}: the last of layers_patch is patch_tokens"
                );
            }
        }
    }
}

#[test]
fn sessions_that_share_their_weights_give_the_same_features() {
    for name in TINY {
        let model = tiny(name, "model.safetensors");
        let plan = EnginePlan {
            workers: 3,
            solo_threads: Some(2),
            ..EnginePlan::single(model.precision, Provider::Cpu)
        };
        let sessions = ModelSession::load(&runtime(), &model, &plan).expect("sessions");
        assert_eq!(sessions.workers.len(), 3);
        for mut session in sessions.workers.into_iter().chain(sessions.solo) {
            let found = run(&mut session, wave(224, 224));
            assert_matches(
                name,
                &found,
                &Tensors::read(&format!("{name}/expected_224x224.safetensors")),
            );
        }
    }
}

/// f16 is for GPUs. On CPUs the runtime computes products in f32, so this tests the graph and the
/// rounded weights.
#[test]
fn half_precision_stays_close() {
    for name in TINY {
        let mut session = session(&tiny_in(name, "model.safetensors", Precision::Fp16));
        let expected = Tensors::read(&format!("{name}/expected_224x224.safetensors"));
        let found = run(&mut session, wave(224, 224));
        let cosine = cosine(
            found.cls.iter().copied(),
            expected.get("cls").iter().copied(),
        );
        assert!(cosine > 0.9999, "{name}: {cosine}");
        let attention = found.attention.expect("attention").into_dyn();
        let (largest, mean) = difference(&attention, expected.get("attention"));
        assert!(largest < 1e-2 && mean < 1e-4, "{name}: {largest} {mean}");
    }
    let mut session = session(&focus_in(Precision::Fp16));
    for sample in SAMPLES {
        let stem = sample.split('.').next().unwrap();
        let expected = Tensors::read(&format!("dinov2-small-focus/{stem}_fit448.safetensors"));
        let found = run(
            &mut session,
            golden_png(&format!("dinov2-small-focus/{stem}_fit448_input.png")),
        );
        let cosine = cosine(
            found.cls.iter().copied(),
            expected.get("cls").iter().copied(),
        );
        assert!(cosine > 0.9999, "{sample}: {cosine}");
    }
}

#[test]
fn int8_keeps_the_direction_of_the_features() {
    for name in TINY {
        let mut session = session(&tiny_in(name, "model.safetensors", Precision::Int8));
        let expected = Tensors::read(&format!("{name}/expected_224x224.safetensors"));
        let found = run(&mut session, wave(224, 224));
        let cosine = cosine(
            found.cls.iter().copied(),
            expected.get("cls").iter().copied(),
        );
        assert!(cosine > 0.995, "{name}: {cosine}");
    }
    let model = focus_in(Precision::Int8);
    assert_ne!(model.fingerprint, focus().fingerprint);
    let size = |model: &ModelFile| std::fs::metadata(&model.paths.data).unwrap().len();
    assert!(
        size(&model) * 3 < size(focus()),
        "a quarter of the bytes, and the patch projection"
    );
    let mut session = session(&model);
    for sample in SAMPLES {
        for mode in ["crop224", "fit448"] {
            let stem = format!(
                "dinov2-small-focus/{}_{mode}",
                sample.split('.').next().unwrap()
            );
            let expected = Tensors::read(&format!("{stem}.safetensors"));
            let found = run(&mut session, golden_png(&format!("{stem}_input.png")));
            let cosine = cosine(
                found.cls.iter().copied(),
                expected.get("cls").iter().copied(),
            );
            assert!(cosine >= 0.995, "{sample} {mode}: {cosine}");
        }
    }
}

#[test]
fn a_fingerprint_depends_on_the_weights_and_not_on_their_file() {
    let prints: Vec<[String; 2]> = TINY
        .map(|name| {
            ["model.safetensors", "hub_pretrain.pth"].map(|file| tiny(name, file).fingerprint)
        })
        .to_vec();
    for [safetensors, torch] in &prints {
        assert_eq!(safetensors, torch);
        assert_eq!(safetensors.len(), 64);
    }
    assert!(prints[0][0] != prints[1][0] && prints[1][0] != prints[2][0]);
}

#[test]
fn features_do_not_depend_on_the_batch() {
    let mut session = session(&tiny("tiny-reg", "model.safetensors"));
    let images: Vec<Input> = [0u8, 40, 200]
        .map(|shift| {
            let mut image = wave(140, 196);
            image
                .iter_mut()
                .for_each(|byte| *byte = byte.wrapping_add(shift));
            input(image)
        })
        .into();
    let batch: Vec<_> = images.iter().map(|input| (input, ALL)).collect();
    let together = session.run(&batch).expect("a batch");
    for (image, found) in images.iter().zip(&together) {
        let alone = session
            .run(&[(image, ALL)])
            .expect("an inference")
            .remove(0);
        assert!(difference(&alone.cls, &found.cls).0 < 1e-5);
        assert!(
            difference(
                alone.patch_tokens.as_ref().unwrap(),
                found.patch_tokens.as_ref().unwrap()
            )
            .0 < 1e-5
        );
        assert!(
            difference(
                alone.attention.as_ref().unwrap(),
                found.attention.as_ref().unwrap()
            )
            .0 < 1e-5
        );
    }
    assert!(
        difference(&together[0].cls, &together[1].cls).0 > 1e-3,
        "different images have different features"
    );
}

#[test]
fn the_focus_model_matches_on_photographs_in_every_mode() {
    let mut session = session(focus());
    for sample in SAMPLES {
        let stem = sample.split('.').next().unwrap();
        for mode in ["crop224", "squash518_bilinear", "fit448"] {
            let what = format!("{stem} {mode}");
            let expected = Tensors::read(&format!("dinov2-small-focus/{stem}_{mode}.safetensors"));
            let pixels = golden_png(&format!("dinov2-small-focus/{stem}_{mode}_input.png"));
            let found = run(&mut session, pixels);
            assert_eq!(
                expected.metadata["grid_h"],
                found.grid.height.to_string(),
                "{what}"
            );
            assert_eq!(
                expected.metadata["grid_w"],
                found.grid.width.to_string(),
                "{what}"
            );
            assert_matches(&what, &found, &expected);

            let tokens = found.patch_tokens.as_ref().expect("patch tokens");
            let norms = tokens
                .map_axis(Axis(1), |token| token.dot(&token).sqrt())
                .into_dyn();
            // A norm sums 384 differences of the tolerance's size.
            let (largest, _) = difference(&norms, expected.get("patch_token_norms"));
            assert!(
                largest <= 1e-2,
                "{what}: token norms differ by up to {largest}"
            );
            let rows: Vec<usize> = expected
                .get("patch_sample_index")
                .iter()
                .map(|&index| index as usize)
                .collect();
            assert_close(
                &format!("{what} tokens"),
                &tokens.select(Axis(0), &rows).into_dyn(),
                expected.get("patch_sample"),
            );

            let maps = pca::maps(&[tokens.view()], &[], 3, pca::Foreground::None).expect("a PCA");
            let (largest, _) = difference(&maps.maps[0], expected.get("pca"));
            assert!(
                largest <= 2.0 / 255.0,
                "{what}: the PCA differs by up to {} of 255",
                largest * 255.0
            );
            let (largest, _) = difference(maps.basis.explained(), expected.get("pca_explained"));
            assert!(
                largest <= 1e-4,
                "{what}: the explained variance differs by {largest}"
            );
            let components = maps.basis.components();
            for (row, expected) in components
                .rows()
                .into_iter()
                .zip(expected.get("pca_components").outer_iter())
            {
                let cosine = cosine(row.iter().copied(), expected.iter().copied());
                assert!(cosine >= 0.9999, "{what}: a component has cosine {cosine}");
            }
        }
    }
}

#[test]
fn attention_rows_are_probabilities_and_patches_come_after_registers() {
    let mut session = session(&tiny("tiny-reg", "model.safetensors"));
    let rows = run(&mut session, wave(140, 196))
        .attention
        .expect("attention");
    rows.rows()
        .into_iter()
        .for_each(|row| assert!((row.sum() - 1.0).abs() < 1e-5));
    assert_eq!(
        attention::patch_columns(rows.view(), 4),
        rows.slice(s![.., 5..])
    );
    assert_eq!(attention::patch_columns(rows.view(), 4).ncols(), 140);
}
