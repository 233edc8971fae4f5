//! What `embed` and `gallery import` take, what they skip, and their exit codes.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::support::{
    golden,
    program::{dinoserve, home_with_tiny, text},
    scratch,
    server::npy,
};

/// The first bytes of a file of an iPhone.
const HEIC: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\x08meta";

/// A folder with two images, one of them without an extension, and files of other kinds.
fn mixed_folder(name: &str) -> PathBuf {
    let folder = scratch(name);
    let images = folder.join("images/more");
    fs::create_dir_all(&images).unwrap();
    let source = golden("dinov2-small-focus");
    fs::copy(source.join("chelsea.png"), images.join("cat.PNG")).unwrap();
    fs::copy(source.join("rocket.jpg"), images.join("IMG_0001")).unwrap();
    for phone in ["IMG_0002.HEIC", "IMG_0003.heic"] {
        fs::write(images.join(phone), HEIC).unwrap();
    }
    fs::write(images.join("notes.txt"), "some notes\n").unwrap();
    fs::write(images.join("LICENSE"), "some rights\n").unwrap();
    folder
}

/// Runs a command in a folder with the tiny model and a list on standard input.
fn run(folder: &Path, home: &Path, arguments: &[&str], list: &str) -> (i32, String, String) {
    let mut command = dinoserve();
    command
        .args(arguments)
        .args(["--model", "tiny", "--device", "cpu"])
        .env("DINOSERVE_HOME", home)
        .current_dir(folder);
    output(&mut command, list)
}

fn output(command: &mut Command, list: &str) -> (i32, String, String) {
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(list.as_bytes()).unwrap();
    drop(stdin);
    let Output {
        status,
        stdout,
        stderr,
    } = process.wait_with_output().unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

const SKIPPED: &str = "4 files skipped, no readable images: 2 HEIC, 1 .txt, 1 without an extension";

#[cfg_attr(
    feature = "heic",
    ignore = "the files are skipped where HEIC is not read"
)]
#[test]
fn files_of_a_folder_are_taken_by_content_or_counted() {
    let folder = mixed_folder("sources-folder");
    let home = home_with_tiny();
    let (code, out, err) = run(&folder, &home, &["embed", "images", "-o", "out.npy"], "");
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("2 images embedded in "), "{out}");
    assert!(
        out.contains(SKIPPED) && out.contains("  HEIC: convert it"),
        "{out}"
    );
    assert_eq!(
        fs::read_to_string(folder.join("out.paths.txt")).unwrap(),
        "more/IMG_0001\nmore/cat.PNG\n"
    );

    let import = ["gallery", "import", "images", "--gallery", "galleries"];
    let (code, out, err) = run(&folder, &home, &import, "");
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.starts_with("2 images stored in `default`, 0 replaced, 0 already there;"),
        "{out}"
    );
    assert!(out.contains(SKIPPED), "{out}");

    // A file that fails is an exit code of 1, whatever the others were.
    fs::write(folder.join("images/broken.png"), b"not an image!").unwrap();
    let (code, out, _) = run(&folder, &home, &["embed", "images", "-o", "out.npy"], "");
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("1 file could not be read:\n  broken.png: the 13 bytes"),
        "{out}"
    );
    let (code, out, _) = run(&folder, &home, &import, "");
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("0 images stored in `default`, 0 replaced, 2 already there;")
            && out.contains("1 file could not be stored:\n  images/broken.png: the 13 bytes"),
        "{out}"
    );

    // A folder of other files alone says so.
    let others = folder.join("others");
    fs::create_dir(&others).unwrap();
    fs::write(others.join("IMG_0004.HEIC"), HEIC).unwrap();
    for command in [
        &["embed", "others", "-o", "out.npy"][..],
        &["gallery", "import", "others", "--gallery", "galleries"],
        &["eval", "knn", "--train", "others", "--test", "images"],
    ] {
        let (code, _, err) = run(&folder, &home, command, "");
        assert_eq!(code, 1, "{err}");
        assert!(
            err.contains("others: the folder has no images; supported extensions: jpg")
                && err.contains("1 file skipped, no readable images: 1 HEIC"),
            "{err}"
        );
    }
}

/// A picture with 12 bits in 16, as cameras and scanners write it.
fn write_dim(path: &Path) {
    let sample = |x: u32, y: u32| image::Luma([((x * 67 + y * 31) % 4096) as u16]);
    let picture = image::ImageBuffer::<image::Luma<u16>, _>::from_fn(64, 64, sample);
    picture.save(path).unwrap();
}

#[test]
fn images_that_are_nearly_black_are_counted() {
    let folder = scratch("sources-dim");
    let home = home_with_tiny();
    for label in ["a", "b"] {
        let images = folder.join("images").join(label);
        fs::create_dir_all(&images).unwrap();
        write_dim(&images.join("gray12in16.png"));
        fs::copy(
            golden("dinov2-small-focus/chelsea.png"),
            images.join("cat.png"),
        )
        .unwrap();
    }
    let import = ["gallery", "import", "images", "--gallery", "galleries"];
    for (command, hint) in [
        (
            &["embed", "images", "-o", "out.npy"][..],
            "2 images are nearly black; --levels data stretches them\n",
        ),
        (
            &import,
            "2 images are nearly black; --levels data stretches them in a new gallery\n",
        ),
        (
            &[
                "eval", "knn", "--train", "images", "--test", "images", "-k", "1",
            ],
            "4 images are nearly black; --levels data stretches them\n",
        ),
        (
            &["embed", "images/a/gray12in16.png", "-o", "one.npy"],
            "1 image is nearly black; --levels data stretches it\n",
        ),
    ] {
        let (code, out, err) = run(&folder, &home, command, "");
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.contains(hint), "{out}");
        let stretched = [command, &["--levels", "data"]].concat();
        // The gallery was made without the option.
        if command != import {
            let (code, out, err) = run(&folder, &home, &stretched, "");
            assert!(code == 0 && !out.contains("nearly black"), "{out}{err}");
        }
    }
}

#[test]
fn a_resumed_run_counts_its_own_images() {
    let folder = mixed_folder("sources-resumed");
    let home = home_with_tiny();
    // A folder in the place of a file: the results are kept, but cannot be written.
    let blocked = folder.join("out.paths.txt");
    fs::create_dir_all(blocked.join("full")).unwrap();
    let embed = ["embed", "images", "-o", "out.npy"];
    let (code, _, err) = run(&folder, &home, &embed, "");
    assert!(
        code == 1 && folder.join("out.npy.partial").exists(),
        "{err}"
    );
    fs::remove_dir_all(blocked).unwrap();
    let source = golden("dinov2-small-focus/coffee.png");
    fs::copy(source, folder.join("images/new.png")).unwrap();
    let (code, out, err) = run(&folder, &home, &embed, "");
    assert_eq!(code, 0, "{out}{err}");
    let line = out.lines().next().unwrap_or_default();
    assert!(
        line.starts_with("1 image embedded in ")
            && line.ends_with(" images/s), 2 by an earlier run, written to out.npy"),
        "{out}"
    );
    assert_eq!(
        npy(&fs::read(folder.join("out.npy")).unwrap()).shape()[0],
        3
    );
}

#[test]
fn one_image_or_a_list_is_embedded_to_a_file_or_to_standard_output() {
    let folder = mixed_folder("sources-list");
    let home = home_with_tiny();
    let (code, out, err) = run(&folder, &home, &["embed", "images", "-o", "out.npy"], "");
    assert_eq!(code, 0, "{out}{err}");
    let expected = npy(&fs::read(folder.join("out.npy")).unwrap());

    let one = ["embed", "images/more/cat.PNG", "-o", "-"];
    let (code, out, err) = run(&folder, &home, &one, "");
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("1 image embedded in "), "{err}");
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(line["path"], "cat.PNG");
    let row = expected.index_axis(ndarray::Axis(0), 1);
    assert_eq!(line["embedding"].as_array().unwrap().len(), row.len());
    for (value, expected) in line["embedding"].as_array().unwrap().iter().zip(row) {
        assert_eq!(value.as_f64().unwrap() as f32, *expected);
    }

    let list = "images/more/cat.PNG\n\nimages/none.png\nimages/more/IMG_0001\n";
    let (code, out, err) = run(&folder, &home, &["embed", "-", "-o", "-"], list);
    assert_eq!(code, 1, "{err}");
    let paths: Vec<String> = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["path"].to_string())
        .collect();
    assert_eq!(
        paths,
        ["\"images/more/cat.PNG\"", "\"images/more/IMG_0001\""]
    );
    assert!(
        err.contains("1 file could not be read:\n  images/none.png: reading: No such file"),
        "{err}"
    );
    let (code, _, err) = run(&folder, &home, &["embed", "-", "-o", "-"], "");
    assert!(
        code == 1 && err.contains("the list on standard input is empty"),
        "{err}"
    );

    // A gallery takes the same.
    let import = |source| ["gallery", "import", source, "--gallery", "galleries"];
    let list = "images/more/cat.PNG\n{\"path\": \"images/more/IMG_0001\", \"label\": \"rocket\"}\n";
    let (code, out, err) = run(&folder, &home, &import("-"), list);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("2 images stored in `default`"), "{out}");
    let (code, out, err) = run(&folder, &home, &import("images/more/cat.PNG"), "");
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("1 image stored in `default`"), "{out}");
    let export = [
        "gallery",
        "export",
        "--gallery",
        "galleries",
        "-o",
        "items.jsonl",
    ];
    let (code, out, err) = output(dinoserve().args(export).current_dir(&folder), "");
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("3 items written to items.jsonl"), "{out}");
    let items: Vec<(Value, Value)> = fs::read_to_string(folder.join("items.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|item| (item["id"].clone(), item["label"].clone()))
        .collect();
    assert_eq!(
        items,
        [
            ("images/more/cat.PNG".into(), Value::Null),
            ("images/more/IMG_0001".into(), "rocket".into()),
            ("cat.PNG".into(), Value::Null),
        ]
    );
}

#[test]
fn a_changed_file_and_other_options_are_noticed() {
    let folder = mixed_folder("sources-changed");
    let home = home_with_tiny();
    let import = ["gallery", "import", "images", "--gallery", "galleries"];
    let (code, out, err) = run(&folder, &home, &import, "");
    assert_eq!(code, 0, "{out}{err}");
    let file = fs::File::options()
        .append(true)
        .open(folder.join("images/more/cat.PNG"));
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    file.unwrap().set_modified(later).unwrap();
    let (code, out, err) = run(&folder, &home, &import, "");
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("2 already there") && out.contains("1 file changed after being stored"),
        "{out}"
    );

    // Partial results of other options are not continued.
    fs::write(folder.join("out.npy.partial"), "{\"version\":\"0\"}\n").unwrap();
    let (code, _, err) = run(&folder, &home, &["embed", "images", "-o", "out.npy"], "");
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("out.npy.partial has results of another model or of other options"),
        "{err}"
    );
    assert!(!folder.join("out.npy").exists());
}

#[test]
fn a_failed_command_leaves_nothing_behind_and_names_a_path_once() {
    let folder = mixed_folder("sources-failed");
    let home = home_with_tiny();
    let store = "new/galleries";
    for more in [
        &["--layers", "9"][..],
        &["--size", "225"],
        &["--model", "none"],
    ] {
        let mut arguments = vec!["gallery", "import", "images", "--gallery", store];
        arguments.extend(more);
        let mut command = dinoserve();
        command
            .args(&arguments)
            .env("DINOSERVE_HOME", &home)
            .current_dir(&folder);
        if !more.contains(&"--model") {
            command.args(["--model", "tiny"]);
        }
        let (code, out, err) = output(&mut command, "");
        assert_eq!(code, 1, "{more:?}: {out}{err}");
        assert!(!folder.join("new").exists(), "{more:?}");
    }
    fs::write(folder.join("bad.snapshot"), "no snapshot").unwrap();
    let restore = ["gallery", "restore", "bad.snapshot", "--gallery", store];
    let (code, _, err) = output(dinoserve().args(restore).current_dir(&folder), "");
    assert!(code == 1 && !folder.join("new").exists(), "{err}");
    assert_eq!(err.matches("bad.snapshot").count(), 1, "{err}");

    let convert = ["models", "convert", "tiny", "--from", "none.safetensors"];
    let (code, _, err) = output(
        dinoserve()
            .args(convert)
            .env("DINOSERVE_HOME", &home)
            .current_dir(&folder),
        "",
    );
    assert_eq!(code, 1);
    assert_eq!(err.matches("none.safetensors").count(), 1, "{err}");
    assert_eq!(err.matches("No such file").count(), 1, "{err}");
    let (code, _, err) = run(&folder, &home, &["embed", "none", "-o", "out.npy"], "");
    assert_eq!(code, 1);
    assert_eq!(err.matches("No such file").count(), 1, "{err}");
}

/// Only the first command with a model says what to know about it, and a machine without an NVIDIA
/// GPU is not warned of it.
#[test]
fn commands_print_no_notice_twice() {
    let folder = mixed_folder("sources-notice");
    let home = scratch("focus-home");
    let mut convert = dinoserve();
    convert
        .args(["models", "convert", "dinov2-small-focus", "--from"])
        .arg(crate::support::focus_source())
        .env("DINOSERVE_LOG", "info")
        .env("DINOSERVE_HOME", &home);
    let (code, _, err) = output(&mut convert, "");
    assert!(code == 0 && err.contains("NOT Meta's checkpoint"), "{err}");
    let mut embed = dinoserve();
    embed
        .args([
            "embed",
            "images",
            "-o",
            "out.npy",
            "--model",
            "dinov2-small-focus",
        ])
        .env("DINOSERVE_HOME", &home)
        .env("DINOSERVE_LOG", "info")
        .current_dir(&folder);
    let (code, _, err) = output(&mut embed, "");
    assert_eq!(code, 0, "{err}");
    assert!(!err.contains("NOT Meta's"), "{err}");
    if !Path::new("/dev/nvidiactl").exists() {
        assert!(!err.contains("CUDA"), "{err}");
    }
}
