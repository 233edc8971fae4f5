//! Segmenters, compared with scikit-learn on the model's real tokens.

use dinoserve::{
    features::{
        mask::{LabelImage, class_mask},
        probe::{Examples, TrainingOptions, train},
        segmentation::{Confusion, patch_classes},
    },
    vision::{DecodeLimits, Grid, Placement, Size, Window},
};
use ndarray::{ArrayView2, Axis, Ix2, Ix3};

use crate::support::{Tensors, read_golden};

const SIDE: usize = 224;
const GRID: Grid = Grid {
    height: 16,
    width: 16,
};
const PLACEMENT: Placement = Placement {
    image: Size::square(SIDE),
    resized: Size::square(SIDE),
    window: Window {
        x: 0,
        y: 0,
        width: SIDE,
        height: SIDE,
    },
};

fn golden() -> Tensors {
    Tensors::read("segmenter/segmenter.safetensors")
}

fn bytes(golden: &Tensors, name: &str, index: usize) -> Vec<u8> {
    let image = golden.get(name).index_axis(Axis(0), index);
    image.iter().map(|&value| value as u8).collect()
}

#[test]
fn masks_and_the_classes_of_patches_are_those_of_the_reference() {
    let golden = golden();
    for (part, count) in [("train", 4), ("test", 2)] {
        for index in 0..count {
            let file = read_golden(&format!("segmenter/{part}_{index}.png"));
            let mask = class_mask(&file, DecodeLimits::default()).unwrap();
            let expected = bytes(&golden, &format!("{part}_masks"), index);
            assert_eq!(mask.labels(), expected, "{part} {index}");
            if part == "train" {
                let classes = patch_classes(&mask, &PLACEMENT, GRID);
                let classes: Vec<u8> = classes.into_iter().map(|c| c.unwrap_or(255)).collect();
                assert_eq!(classes, bytes(&golden, "train_labels", index), "{index}");
            }
        }
    }
}

#[test]
fn logits_are_those_of_scikit_learn() {
    let golden = golden();
    let tokens = |name: &str| {
        let tokens = golden.get(name).view();
        tokens.into_dimensionality::<Ix3>().unwrap()
    };
    let mut examples = Examples::new(384, 3);
    for (index, image) in tokens("train_tokens").outer_iter().enumerate() {
        examples.begin_group();
        let labels = bytes(&golden, "train_labels", index);
        for (token, label) in image.rows().into_iter().zip(labels) {
            if label != 255 {
                examples.add(token.to_vec(), &label.to_string()).unwrap();
            }
        }
    }
    let l2 = f64::from(golden.get("l2")[0]);
    let options = TrainingOptions {
        l2: Some(l2),
        ..TrainingOptions::default()
    };
    let probe = train(&examples, &options, &mut |_| true).unwrap().unwrap();
    assert!(probe.converged);
    let expected = golden.get("logits").view();
    let expected = expected.into_dimensionality::<Ix3>().unwrap();
    for (image, expected) in tokens("test_tokens")
        .outer_iter()
        .zip(expected.outer_iter())
    {
        let found = probe.logits(image);
        let difference = (&found - &expected).mapv(f32::abs);
        let largest = difference.iter().copied().fold(0.0, f32::max);
        assert!(largest < 2e-3, "{largest}");
        let probabilities = probe.probabilities(&image.row(0).to_vec()).unwrap();
        let sum: f32 = found.row(0).iter().map(|logit| logit.exp()).sum();
        assert!((probabilities[1] - found[(0, 1)].exp() / sum).abs() < 1e-4);
    }
    // Whole pictures were held out. The reference fits to a smaller gradient, which moves a few
    // patches.
    let strengths = golden.get("strengths").iter();
    let row = strengths
        .clone()
        .position(|&strength| f64::from(strength) == l2);
    let correct = golden.get("held_out_correct").view();
    let correct: ArrayView2<'_, f32> = correct.into_dimensionality::<Ix2>().unwrap();
    let expected: f32 = correct.row(row.unwrap()).sum();
    let found = probe.accuracy * probe.examples as f64;
    assert!(
        (found - f64::from(expected)).abs() < 15.0,
        "{found} {expected}"
    );
}

#[test]
fn iou_and_confusion_are_those_of_the_reference() {
    let golden = golden();
    let mut confusion = Confusion::default();
    for index in 0..2 {
        let image = |name| LabelImage::new(PLACEMENT.image, bytes(&golden, name, index));
        confusion.add(&image("test_masks"), &image("maps"));
    }
    let expected = golden.get("confusion").view();
    let expected = expected.into_dimensionality::<Ix2>().unwrap();
    for (index, expected) in expected.rows().into_iter().enumerate() {
        let pixels = |found| confusion.pixels(index as u8, found) as f32;
        let row: Vec<f32> = [0, 1, 2].map(pixels).to_vec();
        assert_eq!(row, expected.to_vec());
    }
    let ious = [0, 1, 2].map(|class| confusion.iou(class));
    for (found, &expected) in ious.iter().zip(golden.get("iou")) {
        assert!((found.unwrap() as f32 - expected).abs() < 1e-6);
    }
    let mean = confusion.mean_iou().unwrap() as f32;
    assert!((mean - golden.get("miou")[0]).abs() < 1e-6);
}
