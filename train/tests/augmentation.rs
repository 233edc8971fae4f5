//! Crops, color changes, batches and the loader.

use std::{path::Path, sync::Mutex};

use dinoserve::vision::RgbImage;
use dinoserve_train::data::{
    Augmentation, CropConfig, Dataset, Loader, UnreadableImages, append_normalized, blur,
    brightness, contrast, hue, list_images, saturation, solarize,
};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use serde_json::Value;

use crate::support::{assert_near, json, wave, write_images};

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn color_changes_equal_those_of_pillow() {
    let golden = json("color.json");
    let before = RgbImage::from_raw(12, 12, bytes(&golden["pixels"])).unwrap();
    type Change = fn(&mut RgbImage, f32);
    let changes: [(&str, Change); 5] = [
        ("brightness", brightness),
        ("contrast", contrast),
        ("saturation", saturation),
        ("hue", hue),
        ("solarise", |image, _| solarize(image)),
    ];
    for (name, change) in changes {
        for result in golden["results"][name].as_array().unwrap() {
            let factor = result["factor"].as_f64().unwrap() as f32;
            let mut image = before.clone();
            change(&mut image, factor);
            let expected = bytes(&result["pixels"]);
            let what = format!("{name} by {factor}");
            let pairs = || image.as_raw().iter().zip(&expected);
            let largest = pairs().map(|(a, b)| a.abs_diff(*b)).max();
            assert!(largest <= Some(1), "{what}: values differ by {largest:?}");
            let equal = pairs().filter(|(a, b)| a == b).count();
            assert!(
                equal * 100 >= expected.len() * 98,
                "{what}: {equal} of {} values are equal",
                expected.len()
            );
        }
    }
}

#[test]
fn pixels_are_normalized_as_in_the_server() {
    let image = RgbImage::from_raw(2, 1, vec![255, 0, 51, 0, 255, 102]).unwrap();
    let mut found = Vec::new();
    append_normalized(&image, &mut found);
    let expected: [f32; 6] = [
        (1.0 - 0.485) / 0.229,
        -0.485 / 0.229,
        -0.456 / 0.224,
        (1.0 - 0.456) / 0.224,
        (0.2 - 0.406) / 0.225,
        (0.4 - 0.406) / 0.225,
    ];
    assert_near("pixels", &found, &expected, 1e-6, 1e-6);
}

#[test]
fn views_depend_only_on_the_seed() {
    let crops = CropConfig {
        global_size: 28,
        local_size: 14,
        local_count: 3,
        ..CropConfig::default()
    };
    let image = wave(60, 45);
    let views = crops.views(&image, 7);
    assert_eq!(views, crops.views(&image, 7));
    assert_ne!(views, crops.views(&image, 8));
    assert_ne!(views.global[0], views.global[1]);
    assert_eq!(views.global[0].len(), 3 * 28 * 28);
    let local: Vec<usize> = views.local.iter().map(Vec::len).collect();
    assert_eq!(local, [3 * 14 * 14; 3]);
    let mut values = views.global.iter().chain(&views.local).flatten();
    assert!(values.all(|value| value.is_finite()));
}

/// In an image whose colors are the coordinates, a crop shows which part it is.
#[test]
fn crops_have_the_configured_area() {
    let coordinates = RgbImage::from_fn(200, 100, |x, y| image::Rgb([x as u8, y as u8, 0]));
    let augmentation = Augmentation {
        size: 56,
        scale: [0.25, 0.5],
        blur: 0.0,
        blur_deviation: [0.1, 2.0],
        solarize: 0.0,
    };
    let mut areas = Vec::new();
    for seed in 0..400 {
        let view = augmentation.apply(&coordinates, &mut ChaCha8Rng::seed_from_u64(seed));
        // Uses only views with unchanged colors: blue is still 0.
        if view.pixels().all(|pixel| pixel.0[2] == 0) {
            let [width, height] = [0, 1].map(|channel| {
                let values = view.pixels().map(|pixel| pixel.0[channel]);
                f64::from(values.clone().max().unwrap() - values.min().unwrap())
            });
            areas.push(width * height);
        }
    }
    // Four of five views are jittered, which changes their colors.
    assert!(areas.len() > 20, "{} views kept their colors", areas.len());
    let mean = areas.iter().sum::<f64>() / areas.len() as f64 / (200.0 * 100.0);
    assert!((0.2..0.6).contains(&mean), "on average {mean} of the area");
}

fn dataset(root: &Path) -> Dataset {
    write_images(root, 6);
    let images = list_images(root.to_str().unwrap()).unwrap().images;
    let crops = CropConfig {
        global_size: 28,
        local_size: 14,
        local_count: 1,
        ..CropConfig::default()
    };
    Dataset {
        images,
        labels: None,
        crops,
        batch: 5,
        seed: 3,
    }
}

#[test]
fn batches_do_not_depend_on_the_threads_or_the_first_batch_of_the_loader() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path());
    assert_eq!(dataset.batches_per_epoch(), 2);
    let batches = |numbers: std::ops::Range<usize>, threads| {
        let mut loader = Loader::start(dataset.clone(), numbers.clone(), threads).unwrap();
        numbers
            .map(|_| loader.next_batch().unwrap())
            .collect::<Vec<_>>()
    };
    let all = batches(0..6, 1);
    assert_eq!(all, batches(0..6, 3));
    assert_eq!(all[3..], batches(3..6, 2));
    assert_ne!(
        all[0].global, all[2].global,
        "the next epoch has other views"
    );
    let ended = Loader::start(dataset.clone(), 0..1, 1).and_then(|mut loader| {
        loader.next_batch()?;
        loader.next_batch()
    });
    assert!(ended.is_err(), "there is no second batch");
}

/// The variance of a blurred line is the square of the blur's deviation.
#[test]
fn a_blur_has_the_configured_deviation() {
    let mut line = RgbImage::new(41, 41);
    // A line is bright enough that rounding to whole levels loses little.
    (0..41).for_each(|y| line.put_pixel(20, y, image::Rgb([255; 3])));
    for deviation in [0.02f32, 0.5, 0.7, 1.0, 1.5, 2.0] {
        let row = blur(&line, deviation);
        let levels: Vec<f64> = (0..41)
            .map(|x| f64::from(row.get_pixel(x, 20).0[0]))
            .collect();
        let sum: f64 = levels.iter().sum();
        let variance = (-20i32..)
            .zip(&levels)
            .map(|(x, level)| f64::from(x * x) * level)
            .sum::<f64>()
            / sum;
        assert!((sum - 255.0).abs() <= 4.0, "{deviation}: {levels:?}");
        // The kernel ends at about two deviations.
        let expected = f64::from(deviation);
        let allowed = 0.85 * expected - 0.02..=1.05 * expected + 0.02;
        let found = variance.sqrt();
        assert!(allowed.contains(&found), "{deviation}: {found}");
    }
}

#[test]
fn smaller_views_are_blurred_less() {
    let default = CropConfig::default();
    let small = CropConfig {
        global_size: 56,
        local_size: 28,
        ..CropConfig::default()
    };
    let max_deviations = |crops: &CropConfig| {
        crops
            .augmentations()
            .map(|augmentation| augmentation.blur_deviation[1])
    };
    assert_eq!(max_deviations(&default), [2.0; 3]);
    assert_eq!(max_deviations(&small), [0.5, 0.5, 4.0 / 7.0]);
    assert_eq!(
        max_deviations(&CropConfig {
            blur: Some([1.0, 1.5]),
            ..small
        }),
        [1.5; 3]
    );
}

fn path(dataset: &Dataset, index: usize) -> &Path {
    dataset.images[index].path().expect("a file")
}

#[test]
fn unreadable_images_are_reported_once_and_replaced_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut dataset = dataset(folder.path());
    let whole = std::fs::read(path(&dataset, 0)).unwrap();
    std::fs::write(path(&dataset, 2), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(path(&dataset, 7), "no image").unwrap();
    let unreadable = Mutex::new(UnreadableImages::default());
    for number in 0..4 {
        let batch = dataset.batch(number, &unreadable).unwrap();
        assert_eq!(batch.global.len(), 2 * 5 * 3 * 28 * 28);
        assert_eq!(batch, dataset.batch(number, &unreadable).unwrap());
    }
    let reported: Vec<String> = unreadable
        .lock()
        .unwrap()
        .take_unreported()
        .into_iter()
        .map(|(origin, _)| origin)
        .collect();
    assert_eq!(reported.len(), 2, "each file is reported once");
    assert!(
        [2, 7]
            .iter()
            .all(|&index| reported.contains(&dataset.images[index].origin))
    );
    dataset.batch(0, &unreadable).unwrap();
    assert!(unreadable.lock().unwrap().take_unreported().is_empty());

    for index in 0..dataset.images.len() {
        std::fs::write(path(&dataset, index), "no image").unwrap();
    }
    dataset.seed = 4;
    let error = dataset.batch(0, &unreadable).unwrap_err().to_string();
    assert_eq!(error, "none of the 12 images can be read");
}
