//! A trained model gives the same tokens in `burn` and, over HTTP, in ONNX Runtime.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use dinoserve::{
    artifacts::Home,
    model::Ffn,
    vision::{PatchSize, ResampleFilter, ResizeMode, Transform},
};
use dinoserve_train::{
    config::Config,
    data::{append_normalized, list_images, read_image},
    method::Method,
    run::{EvaluationSources, Run, export},
};

use crate::support::{
    assert_near, prepare_run, server_golden, tensor, text, tiny_config, values, write_images,
};

/// Returns the path of the server's program, which is built with this one.
fn server() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_dinoserve-train")).with_file_name("dinoserve");
    assert!(
        program.exists(),
        "{} is missing: build with `make build`",
        program.display()
    );
    program
}

/// A server that is stopped when it is dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Trains a model on a few images.
fn trained(root: &Path, config: &Config) -> Run {
    let images = root.join("images");
    write_images(&images, 6);
    let folders = EvaluationSources::default();
    let mut run = prepare_run(&images, &root.join("run"), config, &folders).unwrap();
    run.train(1, &AtomicBool::new(false)).unwrap();
    run
}

/// Converts and serves the export of a run, and returns the tokens of an image file: CLS, then the
/// patches.
fn served(root: &Path, file: &Path, name: &str) -> Vec<Vec<f32>> {
    let home = root.join("home");
    let folder = root.join("run/export");
    std::fs::create_dir_all(home.join("catalog")).unwrap();
    let description = format!("{name}.toml");
    std::fs::copy(
        folder.join(&description),
        home.join("catalog").join(&description),
    )
    .unwrap();
    let library = match std::env::var_os("ORT_DYLIB_PATH") {
        Some(path) => PathBuf::from(path),
        None => {
            let real_home = std::env::var_os("DINOSERVE_HOME").map(PathBuf::from);
            Home::new(real_home).unwrap().runtime_library()
        }
    };
    let program = || {
        let mut command = Command::new(server());
        command
            .env("DINOSERVE_HOME", &home)
            .env("ORT_DYLIB_PATH", &library)
            .stdin(Stdio::null());
        command
    };
    let converted = program()
        .args(["models", "convert", name, "--from"])
        .arg(folder.join("model.safetensors"))
        .output()
        .unwrap();
    assert!(
        converted.status.success(),
        "{}",
        String::from_utf8_lossy(&converted.stderr)
    );
    let mut child = program()
        .args(["serve", "--port", "0", "--device", "cpu", "--model", name])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let _serving = Serving(child);
    let url = line
        .trim()
        .strip_prefix("listening on ")
        .unwrap()
        .to_owned();
    let began = Instant::now();
    while ureq::get(format!("{url}/readyz")).call().is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "the server is not ready after 60 seconds"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut answer = ureq::post(format!("{url}/v1/embed?tokens=true&normalize=false"))
        .header("content-type", "image/png")
        .send(std::fs::read(file).unwrap())
        .unwrap();
    let answer: serde_json::Value =
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    let item = &answer["data"][0];
    let vector =
        |value: &serde_json::Value| serde_json::from_value::<Vec<f32>>(value.clone()).unwrap();
    std::iter::once(vector(&item["embedding"]))
        .chain(item["tokens"].as_array().unwrap().iter().map(vector))
        .collect()
}

#[test]
fn a_trained_model_has_the_same_tokens_when_it_is_served() {
    let file = server_golden("dinov2-small-focus/chelsea.png");
    for kind in ["plain", "registers and swiglu", "with labels"] {
        let root = tempfile::tempdir().unwrap();
        let mut config = tiny_config();
        config.crops.global_size = 56;
        config.crops.local_size = 28;
        if kind == "with labels" {
            config.method = Method::Supervised;
        }
        if kind == "registers and swiglu" {
            config.model.registers = 2;
            config.model.ffn = Ffn::Swiglu;
            // The server interpolates the positions of this grid.
            config.model.native_grid = 6;
        }
        let run = trained(root.path(), &config);
        let backbone = &run.trainer().state().teacher.backbone;
        let exported = root.path().join("run/export");
        export(backbone, &config.spec("mine").unwrap(), &exported).unwrap();
        let described: serde_json::Value =
            serde_json::from_slice(&std::fs::read(exported.join("config.json")).unwrap()).unwrap();
        assert_eq!(
            described["mlp_ratio"], 4,
            "{kind}: `transformers` computes the width from a whole number"
        );

        let transform = Transform {
            mode: ResizeMode::Crop,
            size: 56,
            filter: ResampleFilter::Bicubic,
            patch: PatchSize::new(14),
            max_patches: 100,
            shrinks: false,
        };
        let list = list_images(text(&file)).unwrap();
        let (image, _) = transform
            .apply(&read_image(&list.images[0]).unwrap())
            .unwrap();
        let mut pixels = Vec::new();
        append_normalized(&image, &mut pixels);
        let expected = backbone.forward(tensor(&pixels, [1, 3, 56, 56]), None, &mut None);
        let expected = [values(expected.cls), values(expected.patches)].concat();

        let found = served(root.path(), &file, "mine");
        assert_eq!(found.len(), 1 + 16, "{kind}: CLS and 4×4 patches");
        assert_near(kind, &found.concat(), &expected, 0.0, 1e-3);
        let max = expected.iter().map(|value| value.abs()).fold(0.0, f32::max);
        assert!(max > 0.5, "{kind}: the tokens are not all near 0");
    }
}
