//! Anomaly banks, compared with a reference in NumPy on the model's real tokens.

use dinoserve::{
    features::anomaly::{Bank, Detector, Distances, GoodImages, document},
    vision::Grid,
};
use ndarray::{Array2, ArrayView2, Axis, s};

use crate::support::Tensors;

/// Distances may differ by the rounding of f32 from those of the reference in f64.
const CLOSE: f32 = 2e-6;

struct Golden(Tensors);

impl Golden {
    fn matrix(&self, name: &str) -> Array2<f32> {
        let tensor = self.0.get(name);
        let dim = tensor.shape()[tensor.ndim() - 1];
        let rows = tensor.len() / dim;
        tensor
            .to_owned()
            .into_shape_with_order((rows, dim))
            .unwrap()
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        self.0.get(name).iter().copied().collect()
    }

    fn grids(&self, name: &str) -> Vec<Grid> {
        let grids = self.matrix(name);
        let grids = grids.rows().into_iter();
        grids
            .map(|grid| Grid {
                height: grid[0] as usize,
                width: grid[1] as usize,
            })
            .collect()
    }

    fn good(&self) -> GoodImages {
        let tokens = self.matrix("good");
        let mut good = GoodImages::new(tokens.ncols());
        let mut start = 0;
        for (source, grid) in self.grids("grids").into_iter().enumerate() {
            let end = start + grid.patches();
            let image = tokens.slice(s![start..end, ..]);
            good.add(image, source as u32, usize::MAX);
            start = end;
        }
        good
    }

    /// Returns the tokens and grids of the images that are scored.
    fn test(&self) -> Vec<(Array2<f32>, Grid)> {
        let tokens = self.matrix("test");
        let grids = self.grids("test_grids");
        let patches = grids[0].patches();
        let images = tokens.axis_chunks_iter(Axis(0), patches);
        images
            .zip(grids)
            .map(|(tokens, grid)| (tokens.to_owned(), grid))
            .collect()
    }
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() < CLOSE,
            "{what}: {found} {expected}"
        );
    }
}

fn learn(good: GoodImages, share: f32) -> Bank {
    Bank::learn(good, share, &mut |_| true).unwrap()
}

/// Returns the patches of the defects, numbered from 1 in the order of their first patches.
fn groups(distances: &Distances, threshold: f32, grid: Grid) -> Vec<[usize; 4]> {
    let defects = distances.defects(threshold, grid).into_iter();
    let mut bounds: Vec<[usize; 4]> = defects.map(|defect| defect.bounds).collect();
    bounds.sort_unstable();
    bounds
}

/// Returns the bounds of the numbered groups of a grid.
fn expected_groups(labels: &[f32], grid: Grid) -> Vec<[usize; 4]> {
    let count = labels.iter().copied().fold(0.0, f32::max) as usize;
    let labels = ArrayView2::from_shape((grid.height, grid.width), labels).unwrap();
    let mut all = Vec::new();
    for group in 1..=count {
        let mut bounds = [usize::MAX, usize::MAX, 0, 0];
        for ((y, x), &label) in labels.indexed_iter() {
            if label as usize == group {
                bounds = [
                    bounds[0].min(x),
                    bounds[1].min(y),
                    bounds[2].max(x + 1),
                    bounds[3].max(y + 1),
                ];
            }
        }
        all.push(bounds);
    }
    all.sort_unstable();
    all
}

const FILES: [&str; 2] = [
    "anomaly/astronaut_defect.safetensors",
    "anomaly/made_up.safetensors",
];

#[test]
fn banks_score_as_the_reference() {
    for file in FILES {
        let golden = Golden(Tensors::read(file));
        let share = golden.numbers("share")[0];
        for (share, prefix) in [(share, ""), (1.0, "all_")] {
            let bank = learn(golden.good(), share);
            let name = |name: &str| format!("{prefix}{name}");
            let calibration = &bank.calibration;
            let scores = golden.numbers(&name("leave_one_out"));
            assert_close(&calibration.scores, &scores, &name("leave_one_out"));
            let threshold = calibration.threshold.unwrap();
            assert_close(&[threshold], &golden.numbers(&name("threshold")), file);
            let detector = Detector::new(&bank);
            let distances = golden.numbers(&name("distances"));
            let labels = golden.numbers(&name("groups"));
            let scores = golden.numbers(&name("scores"));
            for (index, (tokens, grid)) in golden.test().iter().enumerate() {
                let patches = index * grid.patches()..(index + 1) * grid.patches();
                let found = detector.distances(tokens.view());
                assert_close(&found.patches, &distances[patches.clone()], file);
                assert_close(&[found.score], &scores[index..=index], file);
                assert_eq!(
                    groups(&found, threshold, *grid),
                    expected_groups(&labels[patches], *grid),
                    "{file} {prefix} {index}"
                );
            }
        }
    }
}

#[test]
fn the_coreset_is_that_of_the_reference() {
    for file in FILES {
        let golden = Golden(Tensors::read(file));
        let bank = learn(golden.good(), golden.numbers("share")[0]);
        let indices = golden.numbers("coreset").into_iter();
        let mut expected: Vec<u32> = indices.map(|index| index as u32).collect();
        expected.sort_unstable();
        assert_eq!(bank.chosen, expected, "{file}");
    }
}

#[test]
fn a_bank_survives_its_file() {
    let golden = Golden(Tensors::read(FILES[1]));
    let bank = learn(golden.good(), 0.5);
    let file = document::encode(&bank, "about".to_owned()).unwrap();
    let (read, about) = document::decode(&file).unwrap();
    assert_eq!((&read, about.as_str()), (&bank, "about"));
    for end in (0..file.len()).step_by(7) {
        assert!(document::decode(&file[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn images_that_are_added_later_count_as_the_others() {
    let golden = Golden(Tensors::read(FILES[0]));
    let all = golden.good();
    let tokens = golden.matrix("good");
    let mut some = GoodImages::new(tokens.ncols());
    for source in 0..4_usize {
        let image = tokens.slice(s![source * 256..(source + 1) * 256, ..]);
        some.add(image, source as u32, usize::MAX);
        if source == 1 {
            let bank = learn(some, 0.1);
            let file = document::encode(&bank, String::new()).unwrap();
            some = document::decode(&file).unwrap().0.good;
        }
    }
    assert_eq!(learn(some, 0.25), learn(all, 0.25));
}

#[test]
fn a_bank_of_one_image_has_no_threshold_and_a_sample_is_even() {
    let golden = Golden(Tensors::read(FILES[0]));
    let tokens = golden.matrix("good");
    let mut good = GoodImages::new(tokens.ncols());
    good.add(tokens.slice(s![..256, ..]), 0, 100);
    assert_eq!(good.patches(), 100);
    let bank = learn(good, 0.25);
    assert_eq!(bank.chosen.len(), 25);
    assert_eq!(bank.calibration.threshold, None);
    let (tokens, _) = &golden.test()[0];
    assert!(Detector::new(&bank).distances(tokens.view()).score > 0.0);
    // Stopped at once.
    assert!(Bank::learn(golden.good(), 0.25, &mut |_| false).is_none());
}
