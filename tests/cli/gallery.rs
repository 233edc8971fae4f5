//! The commands of `dinoserve gallery`.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use dinoserve::{
    gallery::{self, Gallery, GalleryConfig, GalleryName, NewItem, OpenMode, Parts, StoredItem},
    http::access::{NewKey, Role},
};
use futures_util::TryStreamExt;
use serde_json::{Value, json};

use crate::support::{
    SAMPLES, Tensors, cosine, difference, golden,
    items::{DIM, binding, item, read_all},
    program::{Serving, dinoserve, home_with_focus, home_with_tiny, text},
    scratch,
    server::npy,
};

/// Returns a command on the galleries of a folder.
fn gallery(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = dinoserve();
    command
        .arg("gallery")
        .arg(arguments[0])
        .arg("--gallery")
        .arg(folder)
        .args(&arguments[1..]);
    command
}

/// Returns an import with a model of a home.
fn import(folder: &Path, source: &Path, (home, model): (&Path, &str)) -> Command {
    let mut command = gallery(folder, &["import", "--model", model, "--device", "cpu"]);
    command.arg(source).env("DINOSERVE_HOME", home);
    command
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    assert_eq!(status.code(), Some(0), "{}{}", text(&stdout), text(&stderr));
    text(&stdout)
}

/// Runs a command that must end with code 1, and returns what it printed.
#[track_caller]
fn fail(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let printed = format!("{}{}", text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(!printed.contains("panicked"), "{printed}");
    printed
}

async fn open(folder: &Path, mode: OpenMode) -> Gallery {
    gallery::open(folder.to_str().unwrap(), &GalleryConfig::default(), mode)
        .await
        .unwrap()
}

async fn items(folder: &Path, name: &str) -> Vec<StoredItem> {
    let store = open(folder, OpenMode::Read).await;
    let items = store
        .read(&GalleryName::new(name).unwrap(), Parts::ALL)
        .await
        .unwrap();
    items.try_collect().await.unwrap()
}

fn ids(items: &[StoredItem]) -> Vec<&str> {
    items.iter().map(|item| item.item.id.as_str()).collect()
}

/// Writes the sample images, each whole and as two crops in a folder of its own, an image without a
/// folder, and a file that is no image.
fn write_samples(folder: &Path) -> PathBuf {
    let images = folder.join("images");
    for sample in SAMPLES {
        let (from, (label, _)) = (
            golden("dinov2-small-focus").join(sample),
            sample.split_once('.').unwrap(),
        );
        std::fs::create_dir_all(images.join(label).join("crops")).unwrap();
        std::fs::copy(&from, images.join(label).join(sample)).unwrap();
        let whole = image::open(&from).unwrap().into_rgb8();
        for side in [200, 250] {
            let crop = image::imageops::crop_imm(&whole, 20, 20, side, side).to_image();
            crop.save(images.join(label).join(format!("crops/{side}.png")))
                .unwrap();
        }
    }
    std::fs::copy(
        golden("dinov2-small-focus/coffee.png"),
        images.join("lone.png"),
    )
    .unwrap();
    std::fs::write(images.join("chelsea/broken.png"), b"not an image!").unwrap();
    std::fs::write(images.join("chelsea/notes.txt"), b"not an image at all").unwrap();
    images
}

#[tokio::test]
async fn a_folder_is_imported_checked_and_exported() {
    let folder = scratch("gallery-import");
    let images = write_samples(&folder);
    let store = folder.join("galleries");
    let home = home_with_focus("fp32");
    let model = (home.as_path(), "dinov2-small-focus");
    let printed = fail(&mut import(&store, &images, model));
    assert!(
        printed.contains("13 images stored in `default`, 0 replaced, 0 already there;"),
        "{printed}"
    );
    assert!(
        printed.contains("1 file could not be stored:\n")
            && printed.contains("chelsea/broken.png: the 13 bytes"),
        "{printed}"
    );

    let stored = items(&store, "default").await;
    assert_eq!(
        ids(&stored)[..3],
        [
            "astronaut/astronaut.png",
            "astronaut/crops/200.png",
            "astronaut/crops/250.png"
        ]
    );
    assert_eq!(stored.len(), 13);
    for StoredItem {
        item, thumbnail, ..
    } in &stored
    {
        let label = item.id.as_str().split_once('/').map(|(label, _)| label);
        assert_eq!(
            item.label.as_ref().map(gallery::Label::as_str),
            label,
            "{}",
            item.id
        );
        assert!(item.metadata.is_empty());
        let thumbnail = image::load_from_memory(thumbnail.as_ref().unwrap()).unwrap();
        assert!(thumbnail.width() > 32 && thumbnail.height() > 32);
    }
    // Compares with reference features: the vector is CLS, normalized; features begin with CLS in
    // half precision, not normalized.
    for sample in SAMPLES {
        let label = sample.split_once('.').unwrap().0;
        let found = stored
            .iter()
            .find(|item| item.item.id.as_str() == format!("{label}/{sample}"))
            .unwrap();
        let expected = Tensors::read(&format!("dinov2-small-focus/{label}_crop224.safetensors"));
        let cls = expected.get("cls");
        assert!(
            cosine(found.vector.iter().copied(), cls.iter().copied()) > 0.999_999,
            "{sample}"
        );
        assert!((found.vector.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-5);
        let features = found.features.as_ref().unwrap();
        assert_eq!(features.len(), 768);
        assert!(difference(&features[..384], cls).0 < 5e-3, "{sample}");
    }

    // A second import skips everything.
    let printed = fail(&mut import(&store, &images, model));
    assert!(
        printed.contains("0 images stored in `default`, 0 replaced, 13 already there;"),
        "{printed}"
    );
    let one = images.join("chelsea");
    let printed = fail(import(&store, &one, model).args(["--replace", "--name", "cats"]));
    assert!(printed.contains("3 images stored in `cats`"), "{printed}");
    let printed = fail(import(&store, &one, model).args(["--replace", "--name", "cats"]));
    assert!(
        printed.contains("0 images stored in `cats`, 3 replaced"),
        "{printed}"
    );
    let printed = fail(import(&store, &images, model).args(["--pooling", "mean"]));
    assert!(
        printed.contains("the gallery `default` was made with pooling=cls and not pooling=mean"),
        "{printed}"
    );

    // The statistics.
    let statistics: Value =
        serde_json::from_str(&succeed(&mut gallery(&store, &["stats", "--json"]))).unwrap();
    let galleries = statistics["galleries"].as_array().unwrap();
    assert_eq!(
        (galleries[0]["name"].as_str(), galleries[1]["name"].as_str()),
        (Some("cats"), Some("default"))
    );
    let default = &galleries[1];
    assert_eq!(
        default["labels"],
        json!({"astronaut": 3, "chelsea": 3, "coffee": 3, "rocket": 3})
    );
    assert_eq!(
        (default["items"].as_u64(), default["unlabelled"].as_u64()),
        (Some(13), Some(1))
    );
    assert_eq!(galleries[0]["labels"], json!({"crops": 2}));
    assert_eq!(
        (
            default["binding"]["dim"].as_u64(),
            default["binding"]["pooling"].as_str()
        ),
        (Some(384), Some("cls"))
    );
    assert!(
        statistics["bytes"].as_u64().unwrap() > 13 * 384 * 4,
        "{statistics}"
    );
    let printed = succeed(gallery(&store, &["stats"]).args(["--name", "default"]));
    assert!(
        printed.contains("default: 13 items")
            && printed.contains("384 values of dinov2-small-focus"),
        "{printed}"
    );
    assert!(
        printed.contains("       3  chelsea\n") && printed.contains("       1  without a label\n"),
        "{printed}"
    );
    assert!(!printed.contains("cats"), "{printed}");
    let printed = succeed(&mut gallery(&store, &["check"]));
    assert_eq!(
        printed,
        "cats: 3 items, all as written\ndefault: 13 items, all as written\n"
    );

    // The exported files.
    let lines = folder.join("out.jsonl");
    let printed = succeed(gallery(&store, &["export", "-o"]).arg(&lines));
    assert!(printed.contains("13 items written to"), "{printed}");
    let matrix = npy(&std::fs::read(folder.join("out.npy")).unwrap());
    assert_eq!(matrix.shape(), [13, 384]);
    let lines = std::fs::read_to_string(&lines).unwrap();
    assert_eq!(lines.lines().count(), 13);
    for ((line, row), stored) in lines.lines().zip(matrix.outer_iter()).zip(&stored) {
        let line: Value = serde_json::from_str(line).unwrap();
        let item = &stored.item;
        let label = item.label.as_ref().map(gallery::Label::as_str);
        let expected =
            json!({"id": item.id, "label": label, "metadata": {}, "stored_ms": item.stored_ms});
        assert_eq!(line, expected);
        assert!(row.iter().eq(&stored.vector));
    }
    let printed = fail(gallery(&store, &["export", "-o"]).arg(folder.join("out.csv")));
    assert!(
        printed.contains("must end in .jsonl or .parquet"),
        "{printed}"
    );
}

#[tokio::test]
async fn lists_are_imported_with_their_metadata() {
    let folder = scratch("gallery-lists");
    write_samples(&folder);
    let home = home_with_tiny();
    let store = folder.join("galleries");
    let model = (home.as_path(), "tiny");
    let csv = folder.join("list.csv");
    let lines = "path,label,id,metadata\n\
        images/lone.png,cup,,\n\
        images/rocket/rocket.jpg,,the rocket,\
        \"{\"\"year\"\": 1969, \"\"a\"\": [true, \"\"b,c\"\"]}\"\n\
        images/missing.png,,,\n\
        images/lone.png,,the rocket,\n\
        images/lone.png,,other,not JSON\n\
        images/lone.png,,too,many,columns\n";
    std::fs::write(&csv, lines).unwrap();
    let printed = fail(&mut import(&store, &csv, model));
    assert!(
        printed.contains("2 images stored") && printed.contains("4 files could not be stored:"),
        "{printed}"
    );
    for (line, what) in [
        ("line 5", "occurs earlier"),
        ("line 6", "no JSON"),
        ("line 7", "found record with 5 fields"),
        ("images/missing.png", "No such file"),
    ] {
        assert!(
            printed
                .lines()
                .any(|printed| printed.contains(line) && printed.contains(what)),
            "{line}: {printed}"
        );
    }
    let stored = items(&store, "default").await;
    assert_eq!(ids(&stored), ["images/lone.png", "the rocket"]);
    assert_eq!(
        stored[0].item.label.as_ref().map(gallery::Label::as_str),
        Some("cup")
    );
    assert_eq!(
        serde_json::to_value(&stored[1].item.metadata).unwrap(),
        json!({"year": 1969, "a": [true, "b,c"]})
    );

    let jsonl = folder.join("list.jsonl");
    let lines = "{\"path\": \"images/lone.png\", \"id\": \"a\", \"metadata\": {\"n\": 1.5}}\n\n\
        {\"path\": \"images/lone.png\", \"id\": \"b\", \"label\": \"cup\"}\n\
        {\"path\": \"images/lone.png\", \"color\": \"red\"}\n{\"path\":\n";
    std::fs::write(&jsonl, lines).unwrap();
    let printed = fail(import(&store, &jsonl, model).args(["--name", "lines"]));
    assert!(
        printed.contains("2 images stored in `lines`")
            && printed.contains("2 files could not be stored:"),
        "{printed}"
    );
    assert!(
        printed.contains("line 4: option `line`: unknown field `color`")
            && printed.contains("line 5:"),
        "{printed}"
    );
    let stored = items(&store, "lines").await;
    assert_eq!(ids(&stored), ["a", "b"]);
    assert_eq!(stored[0].vector, stored[1].vector);
    assert_eq!(
        serde_json::to_value(&stored[0].item.metadata).unwrap(),
        json!({"n": 1.5})
    );

    // Lists without a usable line, and files that are no list.
    std::fs::write(&csv, "path\nimages/missing.png\n").unwrap();
    assert!(fail(&mut import(&store, &csv, model)).contains("0 images stored"));
    std::fs::write(&csv, "file,label\nimages/lone.png,x\n").unwrap();
    let printed = fail(&mut import(&store, &csv, model));
    assert!(
        printed.contains("its columns must be among path, id, label, metadata"),
        "{printed}"
    );
    for missing in ["list.txt", "none.csv"] {
        let printed = fail(&mut import(&store, &folder.join(missing), model));
        assert!(printed.contains("which must be a folder"), "{printed}");
    }
    assert!(
        fail(&mut import(&store, &scratch("empty"), model)).contains("the folder has no images")
    );
    let printed = fail(
        dinoserve()
            .args(["gallery", "stats"])
            .env_remove("DINOSERVE_GALLERY"),
    );
    assert!(
        printed.contains("give --gallery DIR or --gallery postgres://"),
        "{printed}"
    );
}

/// Writes a list with the same image under many ids.
fn long_list(folder: &Path, lines: usize) -> PathBuf {
    let list = folder.join("long.csv");
    std::fs::copy(
        golden("dinov2-small-focus/coffee.png"),
        folder.join("a.png"),
    )
    .unwrap();
    let text = (0..lines).fold("path,id\n".to_owned(), |mut text, line| {
        writeln!(text, "a.png,id {line}").unwrap();
        text
    });
    std::fs::write(&list, text).unwrap();
    list
}

#[tokio::test]
async fn an_interrupted_import_goes_on() {
    const LINES: usize = 5000;
    let folder = scratch("gallery-resume");
    let list = long_list(&folder, LINES);
    let store = folder.join("galleries");
    let home = home_with_tiny();
    let mut there = 0;
    for signal in ["-INT", "-KILL"] {
        let mut command = import(&store, &list, (&home, "tiny"));
        let process = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let stored = async || {
            let open = gallery::open(
                store.to_str().unwrap(),
                &GalleryConfig::default(),
                OpenMode::Read,
            )
            .await
            .ok()?;
            open.require_gallery(&GalleryName::default())
                .await
                .ok()
                .map(|info| info.items as usize)
        };
        while stored().await.unwrap_or(0) <= there {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{:?}",
                process.wait_with_output()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(
            Command::new("kill")
                .args([signal, &process.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        let output = process.wait_with_output().unwrap();
        let count = stored().await.unwrap();
        assert!(count > there && count < LINES, "{count} of {LINES} items");
        there = count;
        if signal == "-INT" {
            assert_eq!(output.status.code(), Some(130), "{output:?}");
            assert!(
                text(&output.stderr).contains("the same command goes on from there"),
                "{output:?}"
            );
        }
    }
    // The rest of a shorter list, to save time.
    let list = long_list(&folder, there + 100);
    let printed = succeed(&mut import(&store, &list, (&home, "tiny")));
    assert!(
        printed.contains(&format!(
            "100 images stored in `default`, 0 replaced, {there} already there"
        )),
        "{printed}"
    );
    let stored = items(&store, "default").await;
    assert!(
        stored
            .iter()
            .enumerate()
            .all(|(index, item)| item.item.id.as_str() == format!("id {index}"))
    );
    assert_eq!(stored.len(), there + 100);
}

/// Makes a folder with two galleries of made-up items.
async fn made_up(name: &str) -> PathBuf {
    let folder = scratch(name).join("galleries");
    let store = open(&folder, OpenMode::Serve).await;
    for (name, count) in [("default", 200), ("other", 20)] {
        let items: Vec<NewItem> = (0..count)
            .map(|index| item(&format!("id {index}"), 1))
            .collect();
        store
            .put(&GalleryName::new(name).unwrap(), &binding(), items)
            .await
            .unwrap();
    }
    store.close().await;
    folder
}

#[tokio::test]
async fn a_gallery_is_converted_and_renamed() {
    let store = made_up("gallery-converted-command").await;
    let printed = succeed(&mut gallery(&store, &["convert", "--vectors", "b1"]));
    assert_eq!(printed, "default: vectors as b1, before f32\n");
    let stats = succeed(&mut gallery(&store, &["stats"]));
    assert!(stats.contains("vectors as b1"), "{stats}");
    let listed = succeed(&mut gallery(&store, &["list"]));
    assert_eq!(
        listed,
        "default  200 items, none\nother    20 items, none\n"
    );
    let listed = succeed(&mut gallery(&store, &["list", "--json"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (
            &listed[0]["items"],
            &listed[0]["vectors"],
            &listed[1]["binding"]["dim"]
        ),
        (&json!(200), &json!("b1"), &json!(DIM))
    );
    let database = [
        "gallery",
        "convert",
        "--vectors",
        "i8",
        "--gallery",
        "postgres://h/none",
    ];
    let refused = fail(dinoserve().args(database));
    assert!(refused.contains("f32, f16 or b1"), "{refused}");

    let before = items(&store, "default").await;
    let printed = succeed(&mut gallery(&store, &["rename", "--to", "photos"]));
    assert_eq!(printed, "default is photos now\n");
    assert_eq!(items(&store, "photos").await, before);
    let refused = fail(&mut gallery(&store, &["rename", "--to", "others"]));
    assert!(refused.contains("no gallery `default`"), "{refused}");
    let same = ["rename", "--name", "photos", "--to", "photos"];
    let refused = fail(&mut gallery(&store, &same));
    assert!(refused.contains("already"), "{refused}");
    assert_eq!(items(&store, "photos").await, before);
}

#[tokio::test]
async fn a_flipped_byte_is_found() {
    let folder = made_up("gallery-flipped").await;
    assert!(
        succeed(&mut gallery(&folder, &["check"])).contains("default: 200 items, all as written")
    );
    let database = folder.join("data.mdb");
    let whole = std::fs::read(&database).unwrap();
    // Two items that are not in the other gallery.
    let vector: Vec<u8> = item("id 77", 1)
        .vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let pictured = (100..200)
        .map(|index| item(&format!("id {index}"), 1))
        .find(|item| item.thumbnail.is_some())
        .unwrap();
    let thumbnail = pictured.thumbnail.unwrap();
    for (id, bytes) in [
        ("id 77", &vector[..]),
        (pictured.id.as_str(), &thumbnail[..]),
    ] {
        // An unused page may hold the bytes, too, so every occurrence is flipped.
        let mut flipped = whole.clone();
        let places: Vec<usize> = (0..flipped.len() - bytes.len())
            .filter(|&at| flipped[at..].starts_with(bytes))
            .collect();
        assert!(!places.is_empty(), "{id}");
        places
            .iter()
            .for_each(|at| flipped[at + bytes.len() / 2] ^= 4);
        std::fs::write(&database, &flipped).unwrap();
        let printed = fail(&mut gallery(&folder, &["check"]));
        assert!(
            printed.contains("default: 200 items, 1 DAMAGED:\n") && printed.contains(id),
            "{printed}"
        );
        assert!(
            printed.contains("other: 20 items, all as written"),
            "{printed}"
        );
    }
    std::fs::write(&database, &whole).unwrap();
    succeed(&mut gallery(&folder, &["check"]));
}

#[tokio::test]
async fn a_gallery_is_saved_and_restored_by_file() {
    let folder = made_up("gallery-save").await;
    let elsewhere = scratch("gallery-elsewhere").join("galleries");
    let file = folder.join("saved.snapshot");
    let printed = succeed(gallery(&folder, &["snapshot"]).arg(&file));
    assert!(
        printed.contains("200 items (") && printed.contains("of `default` written to"),
        "{printed}"
    );
    let printed = succeed(gallery(&elsewhere, &["restore", "--name", "copy"]).arg(&file));
    assert!(
        printed.contains("200 items (") && printed.contains("restored into `copy`"),
        "{printed}"
    );
    let store = open(&elsewhere, OpenMode::Read).await;
    assert_eq!(
        read_all(&store, &GalleryName::new("copy").unwrap())
            .await
            .len(),
        200
    );
    drop(store);
    let again = folder.join("again.snapshot");
    succeed(gallery(&elsewhere, &["snapshot", "--name", "copy"]).arg(&again));
    assert!(std::fs::read(&file).unwrap() == std::fs::read(&again).unwrap());

    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let printed = fail(gallery(&elsewhere, &["restore", "--replace", "--name", "copy"]).arg(&file));
    assert!(
        printed.contains("saved.snapshot: the snapshot is damaged: it ends early"),
        "{printed}"
    );
    assert!(fail(gallery(&elsewhere, &["snapshot"]).arg(&again)).contains("`default`"));
    succeed(gallery(&elsewhere, &["snapshot", "--name", "copy"]).arg(&again));
    assert!(std::fs::read(&again).unwrap() == whole);

    // Items are deleted only on demand.
    let printed = fail(gallery(&elsewhere, &["restore", "--name", "copy"]).arg(&again));
    assert!(
        printed
            .contains("the gallery `copy` has 200 items, which a restore deletes; give --replace"),
        "{printed}"
    );
    let printed =
        succeed(gallery(&elsewhere, &["restore", "--replace", "--name", "copy"]).arg(&again));
    assert!(printed.contains("in place of 200 items"), "{printed}");
}

#[tokio::test]
async fn a_gallery_is_saved_and_restored_while_a_server_serves_it() {
    let folder = made_up("gallery-served").await;
    let home = home_with_tiny();
    let mut command = dinoserve();
    let (keys, NewKey { entry, secret }) = (
        folder.join("keys.toml"),
        NewKey::random("ops", Role::Admin, None, None).unwrap(),
    );
    std::fs::write(&keys, entry).unwrap();
    command
        .args(["serve", "--model", "tiny", "--device", "cpu", "--gallery"])
        .arg(&folder)
        .arg("--api-keys")
        .arg(&keys)
        .env("DINOSERVE_HOME", &home);
    let server = Serving::start(command);
    let gallery = |folder: &Path, arguments: &[&str]| {
        let mut command = gallery(folder, arguments);
        command.env("DINOSERVE_API_KEY", &secret);
        command
    };
    let direct = folder.join("direct.snapshot");
    let through = folder.join("through.snapshot");
    succeed(gallery(&folder, &["snapshot"]).arg(&direct));
    let printed = fail(
        gallery(&folder, &["snapshot", "--server", &server.address])
            .env_remove("DINOSERVE_API_KEY")
            .arg(&through),
    );
    assert!(
        printed.contains("answered 401") && printed.contains("send an API key"),
        "{printed}"
    );
    succeed(gallery(&folder, &["snapshot", "--server", &server.address]).arg(&through));
    let whole = std::fs::read(&direct).unwrap();
    assert!(whole == std::fs::read(&through).unwrap());
    assert!(
        succeed(&mut gallery(&folder, &["check"])).contains("default: 200 items, all as written")
    );
    succeed(&mut gallery(&folder, &["stats"]));

    let printed = fail(gallery(&folder, &["restore"]).arg(&direct));
    assert!(
        printed.contains("--server http://HOST:PORT")
            && printed.contains("is open in another process"),
        "{printed}"
    );
    let through_server = ["restore", "--name", "other", "--server", &server.address];
    let printed = fail(gallery(&folder, &through_server).arg(&direct));
    assert!(
        printed.contains("the gallery `other` has 20 items, which a restore deletes"),
        "{printed}"
    );
    let printed = succeed(
        gallery(&folder, &through_server)
            .arg("--replace")
            .arg(&direct),
    );
    assert!(printed.contains("in place of 20 items"), "{printed}");
    assert!(
        printed.contains("200 items (") && printed.contains("restored into `other`"),
        "{printed}"
    );
    let page = crate::support::client::client().get(format!(
        "{}/v1/gallery?gallery=other&limit=500",
        server.address
    ));
    let page = page.bearer_auth(&secret).send().await.unwrap();
    assert_eq!(
        page.json::<Value>().await.unwrap()["items"]
            .as_array()
            .unwrap()
            .len(),
        200
    );

    // A truncated file is rejected by the command, and by the server.
    std::fs::write(&direct, &whole[..whole.len() / 2]).unwrap();
    let restore = ["restore", "--replace", "--server", &server.address];
    let printed = fail(gallery(&folder, &restore).arg(&direct));
    assert!(
        printed.contains("the snapshot is damaged: it ends early"),
        "{printed}"
    );
    let put = crate::support::client::client()
        .put(format!("{}/v1/galleries/default/snapshot", server.address));
    let rejected = put
        .bearer_auth(&secret)
        .body(whole[..whole.len() / 2].to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(rejected.status(), 400);
    let printed = fail(
        gallery(
            &folder,
            &["snapshot", "--name", "none", "--server", &server.address],
        )
        .arg(&through),
    );
    assert!(
        printed.contains("/v1/galleries/none/snapshot answered 404") && printed.contains("`none`"),
        "{printed}"
    );
    assert!(
        std::fs::read(&through).unwrap() == whole,
        "the gallery stays"
    );
    assert_eq!(items(&folder, "default").await.len(), 200);
    assert_eq!(items(&folder, "default").await[0].vector.len(), DIM);
}

#[tokio::test]
async fn a_gallery_is_exported_as_parquet() {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::Field,
    };
    let folder = made_up("gallery-parquet").await;
    let file = folder.join("out.parquet");
    let printed = succeed(gallery(&folder, &["export", "-o"]).arg(&file));
    assert!(printed.contains("200 items written to"), "{printed}");
    let reader = SerializedFileReader::new(std::fs::File::open(&file).unwrap()).unwrap();
    let rows: Vec<_> = reader
        .get_row_iter(None)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let stored = items(&folder, "default").await;
    assert_eq!(rows.len(), 200);
    for (row, stored) in rows.iter().zip(&stored) {
        let fields: std::collections::BTreeMap<&str, &Field> = row
            .get_column_iter()
            .map(|(name, field)| (name.as_str(), field))
            .collect();
        assert_eq!(*fields["id"], Field::Str(stored.item.id.to_string()));
        let label = stored
            .item
            .label
            .as_ref()
            .map_or(Field::Null, |label| Field::Str(label.to_string()));
        assert_eq!(*fields["label"], label);
        assert_eq!(
            *fields["metadata"],
            Field::Str(serde_json::to_string(&stored.item.metadata).unwrap())
        );
        assert_eq!(
            *fields["stored"],
            Field::TimestampMillis(stored.item.stored_ms as i64)
        );
        let Field::ListInternal(vector) = fields["vector"] else {
            panic!("{:?}", fields["vector"])
        };
        assert!(
            vector.elements().iter().eq(stored
                .vector
                .iter()
                .map(|&value| Field::Float(value))
                .collect::<Vec<_>>()
                .iter())
        );
    }
}

/// A basis that the command fits is the one that a server fits on the same images.
#[tokio::test]
async fn a_basis_is_fitted_on_a_folder() {
    let folder = scratch("gallery-basis");
    let store = folder.join("galleries");
    let home = home_with_tiny();
    let images = folder.join("images");
    std::fs::create_dir(&images).unwrap();
    let pictures = ["coffee.png", "rocket.jpg"];
    for picture in pictures {
        let source = golden("dinov2-small-focus").join(picture);
        std::fs::copy(source, images.join(picture)).unwrap();
    }
    let arguments = ["basis", "--model", "tiny", "--device", "cpu", "parts"];
    let fit = |source: &Path| {
        let mut command = gallery(&store, &arguments);
        command.arg(source).env("DINOSERVE_HOME", &home);
        command
    };
    let printed = succeed(&mut fit(&images));
    assert!(
        printed.starts_with("basis `parts` stored: 2 images with "),
        "{printed}"
    );
    // The whole is better than nothing: what cannot be read is left out and reported.
    std::fs::write(images.join("broken.png"), b"not an image!").unwrap();
    let printed = fail(&mut fit(&images));
    assert!(
        printed.starts_with("basis `parts` replaced: 2 images with "),
        "{printed}"
    );
    assert!(printed.contains("broken.png"), "{printed}");
    let printed = fail(&mut fit(&images.join("broken.png")));
    assert!(
        printed.contains("there are no images to fit the basis on"),
        "{printed}"
    );
    let printed = fail(fit(&images).args(["--components", "0"]));
    assert!(printed.contains("components"), "{printed}");

    let mut command = dinoserve();
    command
        .args(["serve", "--model", "tiny", "--device", "cpu", "--gallery"])
        .arg(&store)
        .env("DINOSERVE_HOME", &home);
    let server = Serving::start(command);
    let client = crate::support::client::client();
    let url = |name: &str| format!("{}/v1/bases/{name}", server.address);
    let mut form = reqwest::multipart::Form::new();
    for picture in pictures {
        let file = std::fs::read(images.join(picture)).unwrap();
        form = form.part("image", reqwest::multipart::Part::bytes(file));
    }
    let ready = format!("{}/readyz", server.address);
    while !client
        .get(&ready)
        .send()
        .await
        .unwrap()
        .status()
        .is_success()
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let put = client
        .put(url("whole"))
        .multipart(form)
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), 201, "{}", put.text().await.unwrap());
    let mut bases = Vec::new();
    for name in ["parts", "whole"] {
        let answer = client.get(url(name)).send().await.unwrap();
        bases.push(answer.json::<Value>().await.unwrap());
    }
    for same in ["fingerprint", "images", "patches", "size", "resize"] {
        assert_eq!(bases[0][same], bases[1][same], "{same}");
    }
    let [parts, whole] = [0, 1].map(|index| crate::support::server::floats(&bases[index]["mean"]));
    assert!(difference(&parts, &whole).0 < 1e-5);
    let first = |index: usize| crate::support::server::floats(&bases[index]["components"][0]);
    assert!(cosine(first(0), first(1)) > 0.9999);
}
