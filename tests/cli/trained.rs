//! `dinoserve anomaly`, `dinoserve segment` and `dinoserve eval segmentation`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;

use crate::support::{
    golden,
    program::{dinoserve, home_with_tiny, text},
    scratch,
};

fn run(folder: &Path, home: &Path, arguments: &str) -> (i32, String, String) {
    // A file states its own size.
    let has_file = ["--bank", "--segmenter"]
        .iter()
        .any(|flag| arguments.contains(flag));
    let size: &[&str] = if has_file { &[] } else { &["--size", "112"] };
    let Output {
        status,
        stdout,
        stderr,
    } = dinoserve()
        .args(arguments.split(' '))
        .args(["--model", "tiny", "--device", "cpu"])
        .args(size)
        .env("DINOSERVE_HOME", home)
        .current_dir(folder)
        .output()
        .unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

fn json(path: PathBuf) -> Value {
    let file = fs::read(&path).unwrap_or_else(|_| panic!("{}", path.display()));
    serde_json::from_slice(&file).unwrap()
}

/// Copies pictures of the golden with their masks to `images` and `masks`.
fn copy_pictures(folder: &Path, names: &[&str]) {
    for set in ["images", "masks"] {
        fs::create_dir_all(folder.join(set)).unwrap();
    }
    let source = golden("segmenter");
    for name in names {
        for (set, extension) in [("images", "jpg"), ("masks", "png")] {
            let file = format!("{name}.{extension}");
            fs::copy(source.join(&file), folder.join(set).join(&file)).unwrap();
        }
    }
}

#[test]
fn a_folder_is_scored_by_good_images() {
    let folder = scratch("anomaly");
    let home = home_with_tiny();
    let source = golden("segmenter");
    fs::create_dir_all(folder.join("good")).unwrap();
    fs::create_dir_all(folder.join("new")).unwrap();
    for name in ["train_0.jpg", "train_1.jpg", "train_2.jpg"] {
        fs::copy(source.join(name), folder.join("good").join(name)).unwrap();
        fs::copy(source.join(name), folder.join("new").join(name)).unwrap();
    }
    let arguments = "anomaly new --good good -o out --save bank.safetensors --coreset 0.5";
    let (code, stdout, stderr) = run(&folder, &home, arguments);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(
        stdout.contains("96 patches of 3 images in the bank"),
        "{stdout}"
    );
    assert!(stdout.contains("3 images in "), "{stdout}");
    assert!(stdout.ends_with("\n0 anomalous\n"), "{stdout}");
    let first = json(folder.join("out/train_0.jpg.json"));
    assert_eq!(first["anomalous"], false);
    let drawn = image::open(folder.join("out/train_0.jpg.png")).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (112, 112));

    // The file of the bank gives the same scores.
    let arguments = "anomaly new --bank bank.safetensors -o again --mask";
    let (code, stdout, stderr) = run(&folder, &home, arguments);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(json(folder.join("again/train_0.jpg.json")), first);
    let mask = image::open(folder.join("again/train_0.jpg.png")).unwrap();
    assert_eq!((mask.width(), mask.height()), (224, 224));

    fs::create_dir_all(folder.join("broken")).unwrap();
    fs::copy(source.join("train_0.jpg"), folder.join("broken/a.jpg")).unwrap();
    let half = fs::read(source.join("test_0.png")).unwrap();
    fs::write(folder.join("broken/b.png"), &half[..half.len() / 2]).unwrap();
    for (arguments, reason) in [
        ("anomaly new -o out --good broken", "broken/b.png: "),
        ("anomaly new -o out", "--good <SOURCE>|--bank <FILE>"),
        ("anomaly new -o out --good good --bank b", "cannot be used"),
        (
            "anomaly new -o out --bank b --coreset 1",
            "cannot be used with",
        ),
        (
            "anomaly new -o out --bank b --size 112",
            "cannot be used with",
        ),
        ("anomaly new -o out --good none", "none"),
        ("anomaly new -o out --good good --coreset 0", "above 0"),
        (
            "anomaly new -o out --bank new/train_0.jpg",
            "not an anomaly bank",
        ),
    ] {
        let (code, _, stderr) = run(&folder, &home, arguments);
        assert!(code == 1 || code == 2, "{arguments}: {stderr}");
        assert!(stderr.contains(reason), "{arguments}: {stderr}");
    }
}

#[test]
fn a_folder_is_segmented_after_a_few_masks() {
    let folder = scratch("segment");
    let home = home_with_tiny();
    copy_pictures(&folder, &["train_0", "train_1", "train_2"]);
    let arguments = "segment images --images images --masks masks -o out --save s.safetensors";
    let (code, stdout, stderr) = run(&folder, &home, arguments);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(
        stdout.starts_with("3 classes, learned from 3 images"),
        "{stdout}"
    );
    let first = json(folder.join("out/train_0.jpg.json"));
    assert_eq!(first["classes"].as_array().unwrap().len(), 3);
    let mask = image::open(folder.join("out/train_0.jpg.png")).unwrap();
    assert_eq!((mask.width(), mask.height()), (224, 224));
    let arguments = "segment images/train_0.jpg --segmenter s.safetensors -o one --overlay";
    let (code, stdout, stderr) = run(&folder, &home, arguments);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(json(folder.join("one/train_0.jpg.json")), first);

    let arguments = "eval segmentation --images images --masks masks --json result.json";
    let (code, stdout, stderr) = run(&folder, &home, arguments);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.starts_with("3 images: mIoU "), "{stdout}");
    let result = json(folder.join("result.json"));
    let classes = result["classes"].as_array().unwrap();
    let pixels: u64 = classes
        .iter()
        .flat_map(|class| class["found"].as_array().unwrap())
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert!(pixels > 100_000 && pixels <= 3 * 224 * 224, "{pixels}");
    // What was learned is found better than what was held out.
    let arguments = "eval segmentation --images images --masks masks --test-images images \
                     --test-masks masks --json known.json";
    let arguments = arguments.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(run(&folder, &home, &arguments).0, 0);
    let known = json(folder.join("known.json"));
    let miou = |result: &Value| result["mean_iou"].as_f64().unwrap();
    assert!(miou(&known) > miou(&result));

    // Two images of one stem need two masks.
    fs::copy(
        folder.join("images/train_1.jpg"),
        folder.join("images/train_1.jpeg"),
    )
    .unwrap();
    let (code, _, stderr) = run(
        &folder,
        &home,
        "segment images --images images --masks masks -o o",
    );
    assert_eq!(code, 1);
    assert!(
        stderr.contains("have one mask, masks/train_1.png"),
        "{stderr}"
    );
    fs::remove_file(folder.join("images/train_1.jpeg")).unwrap();
    fs::remove_file(folder.join("masks/train_1.png")).unwrap();
    let (code, _, stderr) = run(
        &folder,
        &home,
        "segment images --images images --masks masks -o o",
    );
    assert_eq!(code, 1);
    assert!(
        stderr.contains("train_1.jpg has no mask; expected masks/train_1.png"),
        "{stderr}"
    );
    fs::remove_file(folder.join("images/train_1.jpg")).unwrap();
    fs::remove_file(folder.join("images/train_2.jpg")).unwrap();
    let (code, _, stderr) = run(
        &folder,
        &home,
        "eval segmentation --images images --masks masks",
    );
    assert_eq!(code, 1);
    assert!(
        stderr.contains("train_2.png is the mask of no image"),
        "{stderr}"
    );
    fs::remove_file(folder.join("masks/train_2.png")).unwrap();
    let (code, _, stderr) = run(
        &folder,
        &home,
        "eval segmentation --images images --masks masks",
    );
    assert_eq!(code, 1);
    assert!(stderr.contains("one image cannot be held out"), "{stderr}");
}
