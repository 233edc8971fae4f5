//! Matches and objects, compared with references in NumPy and SciPy on the model's real tokens.

use dinoserve::{
    features::{
        matching::{Conditions, Geometry, Match, Patches, estimate, matches},
        objects::{by_cuts, first_cut_of, refined},
    },
    vision::{DecodeLimits, DecodeOptions, Grid, Preprocessing, ResizeMode, RgbImage, decode},
};
use ndarray::{Array2, ArrayD, Ix2, Ix3};

use crate::support::{PATCH, Tensors, golden_png, read_golden};

/// Returns tokens `[h · w, dim]` and their grid.
fn tokens(tensor: &ArrayD<f32>) -> (Array2<f32>, Grid) {
    let (height, width, dim) = tensor.view().into_dimensionality::<Ix3>().unwrap().dim();
    let tokens = tensor
        .to_owned()
        .into_shape_with_order((height * width, dim));
    (tokens.unwrap(), Grid { height, width })
}

fn found(golden: &Tensors, conditions: &Conditions) -> Vec<Match> {
    let (one, one_grid) = tokens(golden.get("a"));
    let (other, other_grid) = tokens(golden.get("b"));
    let patches = |tokens, grid| Patches {
        tokens,
        grid,
        chosen: None,
    };
    matches(
        &patches(one.view(), one_grid),
        &patches(other.view(), other_grid),
        conditions,
    )
}

const PAIRS: [&str; 2] = [
    "matches/astronaut_turned.safetensors",
    "matches/chelsea_tilted.safetensors",
];

#[test]
fn matches_are_those_of_the_reference() {
    for file in PAIRS {
        let golden = Tensors::read(file);
        for (name, ratio, support) in [("all", 1.0, 0), ("kept", 0.9, 3)] {
            let conditions = Conditions {
                min_score: 0.0,
                ratio,
                support,
                subpixel: true,
            };
            let mut found = found(&golden, &conditions);
            let expected = golden
                .get(name)
                .view()
                .into_dimensionality::<Ix2>()
                .unwrap();
            let mut expected: Vec<Vec<f32>> = expected
                .rows()
                .into_iter()
                .map(|row| row.to_vec())
                .collect();
            assert_eq!(found.len(), expected.len(), "{file} {name}");
            assert!(found.is_sorted_by(|one, other| one.score >= other.score));
            // Scores that differ by rounding only may change places.
            found.sort_by_key(|found| found.a);
            expected.sort_by_key(|expected| expected[0] as usize);
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(
                    [found.a, found.b],
                    [expected[0], expected[1]].map(|v| v as usize)
                );
                assert!((found.score - expected[2]).abs() < 1e-5, "{file} {name}");
                for axis in 0..2 {
                    let error = (found.peak_offset[axis] - expected[3 + axis]).abs();
                    assert!(error < 5e-3, "{file} {name}: {error}");
                }
            }
        }
    }
}

#[test]
fn matches_agree_with_the_true_transform() {
    for file in PAIRS {
        let golden = Tensors::read(file);
        let conditions = Conditions {
            min_score: 0.0,
            ratio: 0.9,
            support: 3,
            subpixel: true,
        };
        let (_, grid) = tokens(golden.get("a"));
        let size = golden.get("size");
        // Photographs were scaled to 224 on the shorter side, and the middle patches kept.
        let scale = f64::from(size[0].min(size[1])) / 224.0;
        let left = (f64::from(size[0]) / scale - (grid.width * 14) as f64) / 2.0;
        let top = (f64::from(size[1]) / scale - (grid.height * 14) as f64) / 2.0;
        let place = |index: usize, peak: [f32; 2]| {
            let x = (index % grid.width) as f64 + 0.5 + f64::from(peak[0]);
            let y = (index / grid.width) as f64 + 0.5 + f64::from(peak[1]);
            [(x * 14.0 + left) * scale, (y * 14.0 + top) * scale]
        };
        let found = found(&golden, &conditions);
        let pairs: Vec<_> = found
            .iter()
            .map(|found| (place(found.a, [0.0; 2]), place(found.b, found.peak_offset)))
            .collect();
        let truth = golden.get("transform");
        let patch = 14.0 * scale;
        let error = |(a, b): &([f64; 2], [f64; 2])| {
            let row = |i: usize| {
                let entry = |j| f64::from(truth[[i, j]]);
                entry(0) * a[0] + entry(1) * a[1] + entry(2)
            };
            let w = row(2);
            (row(0) / w - b[0]).hypot(row(1) / w - b[1]) / patch
        };
        let share = |pairs: &[&([f64; 2], [f64; 2])]| {
            let near = pairs.iter().filter(|pair| error(pair) <= 1.0).count();
            near as f64 / pairs.len() as f64
        };
        assert!(share(&pairs.iter().collect::<Vec<_>>()) > 0.8, "{file}");
        let fitted = estimate(&pairs, Geometry::Homography, [0.75 * patch; 2]).expect("a fit");
        let inliers = pairs
            .iter()
            .zip(&fitted.inliers)
            .filter(|(_, inlier)| **inlier);
        let inliers: Vec<_> = inliers.map(|(pair, _)| pair).collect();
        assert!(inliers.len() > 60, "{file}: {}", inliers.len());
        assert!(share(&inliers) > 0.95, "{file}: {}", share(&inliers));
    }
}

/// Share of the pixels in either mask that are in both.
fn overlap(one: &[bool], other: &[bool]) -> f64 {
    let count = |join: fn(bool, bool) -> bool| {
        let pairs = one.iter().zip(other);
        pairs.filter(|&(&one, &other)| join(one, other)).count() as f64
    };
    count(|one, other| one && other) / count(|one, other| one || other)
}

/// The photograph as the model sees it, with its shorter side at 224.
fn fitted(file: &str) -> RgbImage {
    let image = decode(
        &read_golden(file),
        DecodeOptions::default(),
        DecodeLimits::default(),
    )
    .unwrap();
    let transform = Preprocessing::new(ResizeMode::Fit, 224).transform(PATCH, 4096);
    transform.apply(&image).unwrap().0
}

#[test]
fn objects_are_those_of_the_reference() {
    for name in ["astronaut", "chelsea", "coffee", "rocket", "made_up"] {
        let golden = match name {
            "made_up" => Tensors::read("objects/made_up.safetensors"),
            _ => Tensors::read(&format!("objects/{name}_fit224.safetensors")),
        };
        let (tokens, grid) = tokens(golden.get("tokens"));
        let attention: Vec<f32> = golden.get("attention").iter().copied().collect();
        let cut = first_cut_of(tokens.view(), &attention, 0.0);
        let expected: Vec<f32> = golden.get("eigenvector").iter().copied().collect();
        for (found, expected) in cut.eigenvector.iter().zip(&expected) {
            assert!(
                (*found as f32 - expected).abs() < 1e-3,
                "{name}: {found} {expected}"
            );
        }
        let eigenvalue = f64::from(golden.get("eigenvalues")[0]);
        assert!((cut.eigenvalue - eigenvalue).abs() < 1e-4, "{name}");
        let value = f64::from(golden.get("cuts")[[0, 1]]);
        assert!(
            (cut.value - value).abs() < 2e-3,
            "{name}: {} {value}",
            cut.value
        );

        let objects = by_cuts(tokens.view(), &attention, grid, 0.0);
        let masks = golden.get("masks");
        assert_eq!(objects.len(), masks.shape()[0], "{name}");
        let image = match name {
            "made_up" => {
                let pixels = golden.get("image");
                RgbImage::from_fn(280, 168, |x, y| {
                    image::Rgb([0, 1, 2].map(|c| pixels[[y as usize, x as usize, c]] as u8))
                })
            }
            "rocket" => fitted("dinov2-small-focus/rocket.jpg"),
            _ => fitted(&format!("dinov2-small-focus/{name}.png")),
        };
        for (index, object) in objects.iter().enumerate() {
            let of = |name: &str| -> Vec<bool> {
                let masks = golden.get(name);
                let mask = masks.index_axis(ndarray::Axis(0), index);
                mask.iter().map(|&value| value > 0.0).collect()
            };
            let score = golden.get("shares")[index];
            assert!(
                (object.score - score).abs() < 1e-3,
                "{name}: {} {score}",
                object.score
            );
            assert!(overlap(&object.patches, &of("masks")) >= 0.98, "{name}");
            let values = refined(&object.patches, grid, &image);
            let inside: Vec<bool> = values.iter().map(|&value| value > 0.5).collect();
            let overlap = overlap(&inside, &of("refined"));
            assert!(overlap >= 0.98, "{name} {index}: {overlap}");
        }
    }
}

/// Outlines by hand of two photographs that the project has, as far as the objects are clear.
#[test]
fn refined_objects_follow_what_a_person_draws() {
    for (name, before, after) in [("astronaut", 0.85, 0.86), ("coffee", 0.89, 0.93)] {
        let golden = Tensors::read(&format!("objects/{name}_fit224.safetensors"));
        let (tokens, grid) = tokens(golden.get("tokens"));
        let attention: Vec<f32> = golden.get("attention").iter().copied().collect();
        let object = by_cuts(tokens.view(), &attention, grid, 0.0).remove(0);
        let drawn = golden_png(&format!("objects/{name}_drawn.png"));
        let image = fitted(&format!("dinov2-small-focus/{name}.png"));
        assert_eq!(drawn.dimensions(), image.dimensions());
        let drawn: Vec<bool> = drawn.pixels().map(|pixel| pixel.0[0] > 127).collect();
        let of = |values: Vec<f32>| {
            let inside: Vec<bool> = values.iter().map(|&value| value > 0.5).collect();
            overlap(&inside, &drawn)
        };
        let rough = of(dinoserve::features::objects::in_patches(
            &object.patches,
            grid,
            14,
        ));
        let fine = of(refined(&object.patches, grid, &image));
        assert!(rough > before, "{name}: {rough}");
        assert!(fine > after && fine > rough, "{name}: {rough} {fine}");
    }
}
