//! `dinoserve objects` and `dinoserve match`.

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use crate::support::{
    golden,
    program::{dinoserve, home_with_tiny, text},
    scratch,
};

fn run(folder: &Path, home: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = dinoserve()
        .args(arguments)
        .args(["--model", "tiny", "--device", "cpu", "--size", "112"])
        .env("DINOSERVE_HOME", home)
        .current_dir(folder)
        .output()
        .unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

#[test]
fn folders_become_pictures_and_descriptions() {
    let folder = scratch("patches");
    let home = home_with_tiny();
    let images = folder.join("images/more");
    fs::create_dir_all(&images).unwrap();
    let source = golden("dinov2-small-focus");
    fs::copy(source.join("chelsea.png"), folder.join("images/cat.png")).unwrap();
    fs::copy(source.join("rocket.jpg"), images.join("rocket.jpg")).unwrap();
    fs::write(images.join("broken.png"), b"\x89PNG\r\n\x1a\nno image").unwrap();

    let arguments = ["objects", "images", "-o", "out", "--method", "attention"];
    let (code, stdout, stderr) = run(&folder, &home, &arguments);
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stdout.contains("2 images in "), "{stdout}");
    assert!(stdout.contains("more/broken.png"), "{stdout}");
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_else(|_| panic!("{name}"));
    let json = |name: &str| serde_json::from_slice::<Value>(&read(name)).unwrap();
    let cat = json("out/cat.png.json");
    assert_eq!(
        (cat["width"].as_u64(), cat["size"].as_u64()),
        (Some(451), Some(112))
    );
    let drawn = image::load_from_memory(&read("out/more/rocket.jpg.png")).unwrap();
    assert_eq!(drawn.height(), 112);
    let arguments = ["objects", "images/cat.png", "-o", "masks", "--mask"];
    assert_eq!(run(&folder, &home, &arguments).0, 0);
    let mask = image::open(folder.join("masks/cat.png.png")).unwrap();
    assert_eq!((mask.width(), mask.height()), (451, 300));

    let arguments = [
        "match",
        "images/cat.png",
        "images",
        "-o",
        "pairs",
        "--geometry",
        "similarity",
        "--no-subpixel",
    ];
    let (code, stdout, stderr) = run(&folder, &home, &arguments);
    assert_eq!(code, 1, "{stdout}{stderr}");
    // An image matches itself.
    let same = json("pairs/cat.png.json");
    let matches = same["matches"].as_array().unwrap();
    assert!(matches.len() > 40, "{}", matches.len());
    assert!(matches.iter().all(|found| found["a"] == found["b"]));
    assert!(folder.join("pairs/more/rocket.jpg.png").exists());

    let arguments = ["match", "missing.png", "images", "-o", "pairs"];
    let (code, _, stderr) = run(&folder, &home, &arguments);
    assert_eq!(code, 1);
    assert!(stderr.contains("missing.png"), "{stderr}");
    let arguments = ["objects", "images", "-o", "out", "--max-objects", "0"];
    let (code, _, stderr) = run(&folder, &home, &arguments);
    assert_eq!(code, 1);
    assert!(stderr.contains("it must be 1 to 10"), "{stderr}");
}
