//! The commands of all documents, run in their order in one shell for each document.

use std::path::{Path, PathBuf};

use dinoserve::{artifacts::Home, http::HttpConfig, model::ModelSpec, onnx::Precision};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    support::{
        convert_file, focus, golden,
        process::PROGRAM,
        runtime_library, scratch,
        server::{Server, floats, new_gallery},
        tiny_home,
    },
    tidy::text,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// What `IMG` stands for in `docs/from-pytorch.md`, which says so.
const IMG: &str = "--data-binary @photo.jpg -H 'Content-Type: image/jpeg'";

/// Returns the shell blocks of a document, and the commands in its text.
fn commands(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, part) in document.split("```").enumerate() {
        if index % 2 == 0 {
            let spans = part.split('`').skip(1).step_by(2);
            found.extend(spans.filter_map(|span| command(&span.replace('\n', " "))));
        } else if let Some(block) = part.strip_prefix("sh\n") {
            found.push(block.to_owned());
        }
    }
    found
}

/// Returns the command that `code` in a text stands for; `None` if it is something else, or has a
/// placeholder.
fn command(code: &str) -> Option<String> {
    if let Some(route) = code.strip_prefix("…/v1/") {
        return Some(format!("curl {IMG} 'localhost:8080/v1/{route}' > span.bin"));
    }
    if code.starts_with("curl ") {
        return Some(format!(
            "{} > span.bin",
            code.replace(" IMG ", &format!(" {IMG} "))
        ));
    }
    let is_placeholder =
        |word: &str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    let words = code.strip_prefix("dinoserve ")?;
    let has_operands = words == "models list" || words.contains(['/', '.']) || words.contains("--");
    let is_whole = has_operands && !words.split(' ').any(is_placeholder);
    is_whole.then(|| code.to_owned())
}

/// Writes the files that the documents name, the models `dinov2-small` and `vit-small` in a home,
/// and exports of trained models.
fn write_files(folder: &Path) {
    let home = tiny_home(&["tiny"]);
    let description = std::fs::read_to_string(home.join("catalog/tiny.toml")).unwrap();
    let named = |name: &str| description.replacen("\"tiny\"", &format!("\"{name}\""), 1);
    for name in ["dinov2-small", "vit-small"] {
        let spec = ModelSpec::parse(&named(name), name).unwrap();
        let to = Home::new(Some(home.clone())).unwrap();
        let to = to.model(name, Precision::Fp32).model;
        let from = golden("tiny/model.safetensors");
        convert_file(&spec, &from, Precision::Fp32, &to).unwrap();
        std::fs::write(home.join(format!("catalog/{name}.toml")), named(name)).unwrap();
    }
    std::fs::create_dir_all(folder.join(".cache")).unwrap();
    std::fs::rename(home, folder.join(".cache/dinoserve")).unwrap();
    std::fs::copy(golden("tiny/hub_pretrain.pth"), folder.join("mine.pth")).unwrap();
    for name in ["mine", "clothes", "clothes-labels"] {
        let export = folder.join("runs").join(name).join("export");
        std::fs::create_dir_all(&export).unwrap();
        std::fs::write(export.join(format!("{name}.toml")), named(name)).unwrap();
        let weights = golden("tiny/model.safetensors");
        std::fs::copy(weights, export.join("model.safetensors")).unwrap();
    }

    for (sample, label, files) in [
        (
            "chelsea.png",
            "cat",
            ["cat.jpg", "kitten.jpg", "photo.jpg", "a.jpg"],
        ),
        (
            "coffee.png",
            "cup",
            ["cup.jpg", "mug.jpg", "new.jpg", "b.jpg"],
        ),
    ] {
        let whole = image::open(golden("dinov2-small-focus").join(sample))
            .unwrap()
            .into_rgb8();
        let crop =
            |step: u32| image::imageops::crop_imm(&whole, step * 15, step * 4, 300, 260).to_image();
        for (step, file) in (0..).zip(files) {
            crop(step).save(folder.join(file)).unwrap();
        }
        for set in [
            "photos",
            "images",
            "labeled",
            "train",
            "test",
            "clothes/train",
            "clothes/val",
        ] {
            let labeled = folder.join(set).join(label);
            std::fs::create_dir_all(&labeled).unwrap();
            for step in 0..10 {
                crop(step)
                    .save(labeled.join(format!("{step}.jpg")))
                    .unwrap();
            }
        }
    }
}

/// Writes pictures with masks of the left half, good images and one to score.
fn write_examples(folder: &Path) {
    for set in ["good", "pictures", "masks"] {
        std::fs::create_dir_all(folder.join(set)).unwrap();
    }
    for step in 0..5 {
        let picture = folder.join(format!("train/cat/{step}.jpg"));
        for set in ["good", "pictures"] {
            std::fs::copy(&picture, folder.join(format!("{set}/{step}.jpg"))).unwrap();
        }
        let mask = image::GrayImage::from_fn(300, 260, |x, _| image::Luma([u8::from(x < 150)]));
        mask.save(folder.join(format!("masks/{step}.png"))).unwrap();
    }
    std::fs::copy(folder.join("cup.jpg"), folder.join("part.jpg")).unwrap();
}

/// Runs the commands of a document, and returns what each block printed.
async fn run(document: &str, server: &str, folder: &Path) -> Vec<String> {
    let mut script = include_str!("session.sh").to_owned();
    let blocks = commands(document);
    for (index, block) in blocks.iter().enumerate() {
        let block = block
            .replace("localhost:8080", server)
            .replace("http://127.0.0.1:8080", &format!("http://{server}"));
        script += &format!("echo 'block {index}' >&2; exec > block-{index}.txt\n{block}\n");
    }
    let file = folder.join("session.sh");
    std::fs::write(&file, script).unwrap();
    let programs = Path::new(PROGRAM).parent().unwrap().to_str().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .arg(&file)
        .current_dir(folder)
        .env("PATH", format!("{programs}:{path}"))
        .env("ROOT", ROOT)
        .env("HOME", folder)
        .env("ORT_DYLIB_PATH", runtime_library())
        .env("DINOSERVE_MODEL", "tiny")
        .env("NO_PROXY", "*")
        .env_remove("DINOSERVE_HOME")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("MAKEFLAGS")
        .output()
        .await
        .expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    let failed = errors
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("block "));
    let failed = failed.and_then(|index| blocks.get(index.parse::<usize>().ok()?));
    assert!(output.status.success(), "{errors}\n{failed:?}");
    (0..blocks.len())
        .map(|index| {
            let bytes = std::fs::read(folder.join(format!("block-{index}.txt"))).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
        .collect()
}

/// Starts a server for a document, and prepares a folder.
async fn prepare(name: &str) -> (Server, PathBuf) {
    let server =
        Server::start_on(new_gallery().await, focus().clone(), HttpConfig::default()).await;
    let folder = scratch(name);
    write_files(&folder);
    write_examples(&folder);
    (server, folder)
}

/// Returns the JSON documents in a text.
fn answers(text: &str) -> Vec<Value> {
    let found = serde_json::Deserializer::from_str(text).into_iter();
    found.map(|value| value.expect("JSON")).collect()
}

#[tokio::test]
async fn the_readme_can_be_followed() {
    let (server, folder) = prepare("readme").await;
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let printed = run(&readme, &server.address.to_string(), &folder).await;
    let blocks: Vec<Vec<Value>> = printed
        .iter()
        .filter(|text| text.starts_with('{'))
        .map(|text| answers(text))
        .collect();
    let [requests, gallery] = blocks.as_slice() else {
        panic!("other blocks print JSON: {printed:?}");
    };
    let embedding = floats(&requests[0]["data"][0]["embedding"]);
    let length: f32 = embedding.iter().map(|value| value * value).sum();
    assert!(
        embedding.len() == 384 && (length - 1.0).abs() < 1e-4,
        "{embedding:?}"
    );
    for file in ["pca.png", "heads.png"] {
        let rendering = image::open(folder.join(file));
        assert!(rendering.is_ok_and(|png| png.width() > 300), "{file}");
    }
    // Stored items, neighbors, neighbors with a condition, a class, a probe, its class.
    let [stored, nearest, recent, vote, probe, class] = gallery.as_slice() else {
        panic!("{gallery:?}");
    };
    assert_eq!(stored["data"].as_array().map(Vec::len), Some(4), "{stored}");
    assert_eq!(nearest["neighbors"][0]["id"], "cat-2", "{nearest}");
    let ids: Vec<&Value> = recent["neighbors"]
        .as_array()
        .expect("neighbors")
        .iter()
        .map(|neighbor| &neighbor["id"])
        .collect();
    assert_eq!(ids, ["cup-2"], "{recent}");
    assert_eq!(vote["label"], "cup", "{vote}");
    assert_eq!(probe["name"], "mine", "{probe}");
    assert_eq!(class["label"], "cup", "{class}");
    let keys = std::fs::read_to_string(folder.join("keys.toml")).unwrap();
    assert!(keys.contains("shop"), "{keys}");
    server.stopped().await;
}

#[tokio::test]
async fn the_commands_of_all_documents_run_in_order() {
    let mut count = 0;
    for (file, document) in text::read("", ".md") {
        // The README has a test of its own. The peers answer on a port of theirs.
        if file == "README.md" || file == "loadtest/peers/README.md" {
            continue;
        }
        let found = commands(&document).len();
        if found == 0 {
            continue;
        }
        let (server, folder) = prepare("document").await;
        // As the server that the documents speak of, with a gallery that is in use.
        for label in ["cat", "cup"] {
            for step in 0..3 {
                let body = std::fs::read(folder.join(format!("train/{label}/{step}.jpg"))).unwrap();
                let path = format!("/v1/gallery/{label}-{step}?label={label}");
                let request = server.client.put(server.url(&path)).body(body);
                let request = request.header("content-type", "image/jpeg");
                assert_eq!(request.send().await.unwrap().status(), 201, "{path}");
            }
        }
        println!("{file}: {found} blocks and commands");
        run(&document, &server.address.to_string(), &folder).await;
        count += found;
        server.stopped().await;
    }
    assert!(count > 30, "{count} commands");
}
