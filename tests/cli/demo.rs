//! `dinoserve demo`: a page with pictures.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use dinoserve::http::HttpConfig;

use crate::support::{
    focus, golden,
    program::{dinoserve, home_with_focus, home_with_tiny, text},
    scratch,
    server::{Server, ok_bytes},
};

/// Runs the command with a home and arguments in `folder`.
fn demo(home: &Path, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = dinoserve();
    command
        .args(["demo", "--offline", "--device", "cpu"])
        .args(arguments)
        .current_dir(folder)
        .env("DINOSERVE_HOME", home);
    command.output().unwrap()
}

/// Returns what is between `before` and the next quote, for each place of `before`.
fn quoted(page: &str, before: &str) -> Vec<String> {
    let parts = page.split(before).skip(1);
    parts
        .map(|part| part.split(['"', '<']).next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_page_shows_what_the_requests_below_its_pictures_answer() {
    let folder = scratch("demo");
    let output = demo(&home_with_focus("fp32"), &folder, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(printed.starts_with("4 photographs drawn in "), "{printed}");
    let index = folder.join("demo-output/index.html");
    assert!(printed.trim_end().ends_with(index.to_str().unwrap()));

    let page = fs::read_to_string(index).unwrap();
    let files = quoted(&page, "<img src=\"");
    let routes = quoted(&page, "<code>POST ");
    assert_eq!((files.len(), routes.len()), (32, 28));
    let server = Server::start(focus().clone(), HttpConfig::default()).await;
    let read = |file: &str| fs::read(folder.join("demo-output").join(file)).unwrap();
    for (index, file) in files.iter().enumerate() {
        let drawn = read(file);
        let size = image::load_from_memory(&drawn).unwrap();
        assert!(size.width().min(size.height()) >= 224, "{file}");
        // The original comes before its seven renderings.
        let (photograph, rendering) = (index / 8, index % 8);
        if rendering == 0 {
            continue;
        }
        let route = routes[photograph * 7 + rendering - 1].replace("&amp;", "&");
        let route = route.replace("&#x2f;", "/");
        let name = &files[photograph * 8];
        let original = fs::read(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("src/http/page/assets")
                .join(name.replace("-original", "")),
        );
        let request = server
            .post(&route)
            .header("content-type", "image/jpeg")
            .header("accept", "image/png")
            .body(original.unwrap());
        assert!(ok_bytes(request).await == drawn, "{file}: {route}");
    }
}

#[test]
fn own_photographs_are_drawn_under_names_of_their_own() {
    let folder = scratch("demo-own");
    let other = folder.join("other");
    fs::create_dir(&other).unwrap();
    // Names that differ only in case would be one file on some systems.
    let photographs = [folder.join("my cat.png"), other.join("My-cat.jpg")];
    fs::copy(golden("dinov2-small-focus/chelsea.png"), &photographs[0]).unwrap();
    fs::copy(golden("dinov2-small-focus/rocket.jpg"), &photographs[1]).unwrap();
    let opener = folder.join("bin/xdg-open");
    fs::create_dir(folder.join("bin")).unwrap();
    fs::write(&opener, "#!/bin/sh\necho \"$1\" > opened.txt\n").unwrap();
    fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = dinoserve()
        .args(["demo", "--model", "tiny", "-o", "out", "--open"])
        .args(&photographs)
        .current_dir(&folder)
        .env("DINOSERVE_HOME", home_with_tiny())
        .env("PATH", format!("{}:{path}", folder.join("bin").display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let names: BTreeSet<PathBuf> = fs::read_dir(folder.join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into())
        .collect();
    assert_eq!(names.len(), 2 * 8 + 1, "{names:?}");
    assert!(names.contains(Path::new("my-cat-pca.png")));
    assert!(names.contains(Path::new("My-cat-2-pca.png")));
    let opened = fs::read_to_string(folder.join("opened.txt")).unwrap();
    assert_eq!(
        opened.trim(),
        folder.join("out/index.html").to_str().unwrap()
    );
}

#[test]
fn a_photograph_that_cannot_be_read_is_named() {
    let folder = scratch("demo-bad");
    fs::write(folder.join("notes.jpg"), "not a picture").unwrap();
    for (file, reason) in [
        ("notes.jpg", "notes: "),
        ("missing.jpg", "reading missing.jpg: "),
    ] {
        let output = demo(&home_with_tiny(), &folder, &["--model", "tiny", file]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(reason), "{error}");
        assert!(!folder.join("demo-output/index.html").exists());
    }
}
