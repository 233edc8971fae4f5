//! Audits of folders and galleries: what is planted is found.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use image::{DynamicImage, codecs::jpeg::JpegEncoder, imageops::FilterType};
use serde_json::Value;

use crate::support::{
    SAMPLES, golden,
    program::{dinoserve, home_with_focus, text},
    scratch,
};

/// Number of crops of each sample.
const CROPS: u32 = 10;

/// Writes crops of the samples, a folder for each, and plants a copy, a small JPEG of an image, an
/// image in a wrong folder, and noise.
fn write_photos(folder: &Path) -> PathBuf {
    let photos = folder.join("photos");
    for sample in SAMPLES {
        let whole = image::open(golden("dinov2-small-focus").join(sample)).unwrap();
        let to = photos.join(sample.split_once('.').unwrap().0);
        fs::create_dir_all(&to).unwrap();
        for index in 0..CROPS {
            let shorter = whole.width().min(whole.height());
            let side = shorter * (55 + 4 * index) / 100;
            let x = (whole.width() - side) * (index * 7 % CROPS) / CROPS;
            let y = (whole.height() - side) * (index * 3 % CROPS) / CROPS;
            let crop = whole.crop_imm(x, y, side, side);
            let crop = crop.resize_exact(160, 160, FilterType::Triangle);
            let crop = if index % 2 == 1 { crop.fliph() } else { crop };
            crop.to_rgb8()
                .save(to.join(format!("{index}.png")))
                .unwrap();
        }
    }
    fs::copy(photos.join("coffee/3.png"), photos.join("coffee/copy.png")).unwrap();
    let small = image::open(photos.join("coffee/8.png")).unwrap();
    let small = small.resize_exact(120, 120, FilterType::Triangle).to_rgb8();
    let file = fs::File::create(photos.join("coffee/small.jpg")).unwrap();
    small
        .write_with_encoder(JpegEncoder::new_with_quality(file, 75))
        .unwrap();
    fs::rename(
        photos.join("rocket/7.png"),
        photos.join("astronaut/wrong.png"),
    )
    .unwrap();
    let noise = image::RgbImage::from_fn(160, 160, |x, y| {
        let value = (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761);
        image::Rgb([(value >> 8) as u8, (value >> 16) as u8, (value >> 24) as u8])
    });
    DynamicImage::from(noise)
        .save(photos.join("coffee/noise.png"))
        .unwrap();
    photos
}

fn run(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let printed = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{printed}{}",
        text(&output.stderr)
    );
    printed
}

fn ids(found: &Value) -> Vec<&str> {
    let ids = found["ids"].as_array().unwrap().iter();
    ids.map(|id| id.as_str().unwrap()).collect()
}

/// Asserts that the findings have what is planted. `finds_bytes` if files are compared, too.
fn assert_found(report: &Value, finds_bytes: bool) {
    let groups = report["duplicates"].as_array().unwrap();
    for planted in [
        ["coffee/3.png", "coffee/copy.png"],
        ["coffee/8.png", "coffee/small.jpg"],
    ] {
        let group = groups.iter().find(|group| ids(group).contains(&planted[0]));
        let group = group.unwrap_or_else(|| panic!("{planted:?}: {groups:?}"));
        assert!(ids(group).contains(&planted[1]), "{group}");
        assert!(group["score"].as_f64().unwrap() >= 0.97);
        // No group has photographs of two things.
        assert!(
            ids(group).iter().all(|id| id[..3] == planted[0][..3]),
            "{group}"
        );
    }
    let of_copy = groups
        .iter()
        .find(|group| ids(group) == ["coffee/3.png", "coffee/copy.png"]);
    if let Some(group) = of_copy {
        assert_eq!(group["identical"].as_bool(), finds_bytes.then_some(true));
    }
    let mislabels = report["mislabels"].as_array().unwrap();
    assert_eq!(mislabels[0]["id"], "astronaut/wrong.png");
    assert_eq!(mislabels[0]["label"], "astronaut");
    assert_eq!(mislabels[0]["suggested"], "rocket");
    assert_eq!(report["outliers"][0]["id"], "coffee/noise.png");
    let clusters = report["clusters"].as_array().unwrap();
    let all: usize = clusters.iter().map(|cluster| ids(cluster).len()).sum();
    assert_eq!(report["images"], all);
}

#[test]
fn what_is_planted_in_a_folder_and_a_gallery_is_found() {
    let folder = scratch("audit");
    let photos = write_photos(&folder);
    let home = home_with_focus("fp32");
    let command = |arguments: &[&str]| {
        let mut command = dinoserve();
        command
            .args(arguments)
            .env("DINOSERVE_HOME", &home)
            .current_dir(&folder);
        command
    };
    let model = ["--model", "dinov2-small-focus", "--device", "cpu"];
    let outputs = ["-o", "report.html", "-o", "found.json", "-o", "found.csv"];
    let printed = run(command(&["audit", "photos"]).args(model).args(outputs), 0);
    assert!(printed.starts_with("43 images: "), "{printed}");
    let report: Value =
        serde_json::from_slice(&fs::read(folder.join("found.json")).unwrap()).unwrap();
    assert_found(&report, true);
    let csv = fs::read_to_string(folder.join("found.csv")).unwrap();
    assert!(
        csv.starts_with("finding,group,id,label,suggested,score\n"),
        "{csv}"
    );
    assert!(
        csv.contains("\nmislabel,,astronaut/wrong.png,astronaut,rocket,"),
        "{csv}"
    );
    let clustered = csv
        .lines()
        .filter(|line| line.starts_with("cluster,"))
        .count();
    assert_eq!(clustered, 43);
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains("wrong.png") && page.contains("data:image/jpeg;base64,"));
    assert!(!page.contains("http://") && !page.contains("https://"));

    // The gallery of the same images has the same findings, and its thumbnails are the pictures.
    run(
        command(&["gallery", "import", "photos", "--gallery", "g"]).args(model),
        0,
    );
    let audit = ["gallery", "audit", "--gallery", "g"];
    let of_gallery = run(command(&audit).args(["--json", "-o", "gallery.html"]), 0);
    let of_gallery: Value = serde_json::from_str(&of_gallery).unwrap();
    assert_found(&of_gallery, false);
    let page = fs::read_to_string(folder.join("gallery.html")).unwrap();
    assert!(!page.contains("no picture"));

    // A file that cannot be read is reported, and the others are audited.
    fs::write(photos.join("rocket/broken.png"), b"no image").unwrap();
    let clusters = ["--clusters", "4", "-o", "four.json"];
    let printed = run(command(&["audit", "photos"]).args(model).args(clusters), 1);
    assert!(
        printed.contains("4 clusters") && printed.contains("rocket/broken.png"),
        "{printed}"
    );
    let four: Value = serde_json::from_slice(&fs::read(folder.join("four.json")).unwrap()).unwrap();
    let clusters = four["clusters"].as_array().unwrap().iter();
    let mut labels: Vec<&str> = clusters
        .map(|cluster| cluster["label"].as_str().unwrap())
        .collect();
    labels.sort_unstable();
    assert_eq!(labels, ["astronaut", "chelsea", "coffee", "rocket"]);
    // Findings name ids, so of two images with one id the second is left out.
    let list = "{\"path\": \"photos/rocket/1.png\", \"id\": \"a\"}\n\
                {\"path\": \"photos/rocket/2.png\", \"id\": \"b\"}\n\
                {\"path\": \"photos/rocket/3.png\", \"id\": \"a\"}\n";
    fs::write(folder.join("list.jsonl"), list).unwrap();
    let printed = run(command(&["audit", "list.jsonl"]).args(model), 1);
    assert!(printed.starts_with("2 images: "), "{printed}");
    assert!(printed.contains("\"a\" occurs earlier"), "{printed}");
    for (wrong, part) in [
        (&["--clusters", "44"][..], "clusters"),
        (&["--duplicates-above", "1.5"], "duplicates_above"),
        (&["--neighbors", "0"], "neighbors"),
        (&["-o", "report.pdf"], ".html, .json or .csv"),
    ] {
        let output = command(&audit).args(wrong).output().unwrap();
        assert!(!output.status.success());
        assert!(
            text(&output.stderr).contains(part),
            "{}",
            text(&output.stderr)
        );
    }
}
