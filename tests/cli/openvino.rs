//! OpenVINO: the same features as ONNX Runtime's own kernels, and errors by name where it cannot
//! run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use dinoserve::{
    artifacts::{Home, ModelFile},
    engine::{Device, has_bf16, prefers_bf16},
    model::PositionRule,
    onnx::Precision,
};
use serde_json::Value;

use crate::support::{
    assert_close, convert_file, focus_source, golden, home,
    process::{PROGRAM, Process},
    program::{dinoserve, text},
    runtime_library, scratch,
    server::npy,
    skip, tiny_home, tiny_spec, wave,
};

const TINY: [&str; 3] = ["tiny", "tiny-reg", "tiny-swiglu-reg"];

/// Returns the library with OpenVINO, or `None` where `make test` could not fetch it.
fn library(test: &str) -> Option<PathBuf> {
    let library = home().openvino_library();
    if library.exists() {
        return Some(library);
    }
    skip(&format!("cli::openvino::{test}: OpenVINO is not installed"));
    None
}

/// Makes a home with the weights of the tiny models and of the focus model, not converted.
fn sources() -> PathBuf {
    let folder = tiny_home(&TINY);
    let home = Home::new(Some(folder.clone())).expect("a home");
    let to = home.sources("dinov2-small-focus");
    fs::create_dir_all(&to).expect("a folder");
    fs::copy(focus_source(), to.join("vit_s_focus.onnx")).expect("a copy");
    folder
}

/// Runs the program with a library; returns whether it succeeded, and what it printed.
fn run(library: &Path, home: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = dinoserve();
    command
        .args(arguments)
        .env("ORT_DYLIB_PATH", library)
        .env("DINOSERVE_HOME", home);
    let output = command.output().expect("the program runs");
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.success(), printed)
}

/// Converts a tiny model for OpenVINO.
fn convert_tiny(library: &Path, home: &Path, name: &str, precision: &str) {
    let from = golden(&format!("{name}/model.safetensors"));
    let from = from.to_str().expect("a path");
    let device = ["--device", "openvino", "--precision", precision];
    let convert = [&["models", "convert", name, "--from", from], &device[..]].concat();
    let (converted, printed) = run(library, home, &convert);
    assert!(converted, "{printed}");
}

/// Makes a folder for `models verify --goldens` of a tiny model's reference outputs.
fn tiny_goldens(name: &str) -> PathBuf {
    let folder = scratch("tiny-goldens");
    for (height, width) in [(140, 196), (196, 140), (224, 224), (518, 518), (532, 546)] {
        let size = format!("{height}x{width}");
        let input = folder.join(format!("{size}_input.png"));
        wave(height, width).save(input).expect("a PNG");
        let expected = golden(&format!("{name}/expected_{size}.safetensors"));
        fs::copy(expected, folder.join(format!("{size}.safetensors"))).expect("a copy");
    }
    folder
}

#[test]
fn features_are_those_of_the_references() {
    let Some(library) = library("features_are_those_of_the_references") else {
        return;
    };
    let home = sources();
    let verify = |name: &str, precision: &str, goldens: &Path| {
        let goldens = goldens.to_str().expect("a path");
        let model = ["models", "verify", name, "--precision", precision];
        let device = ["--device", "openvino", "--goldens", goldens];
        run(&library, &home, &[model.as_slice(), &device].concat())
    };
    for name in TINY {
        let (found, printed) = verify(name, "fp32", &tiny_goldens(name));
        let advice = format!("pull {name} --precision fp32 --device openvino");
        assert!(!found && printed.contains(&advice), "{printed}");
        convert_tiny(&library, &home, name, "fp32");
        let (matches, printed) = verify(name, "fp32", &tiny_goldens(name));
        assert!(matches && printed.contains("532x546"), "{name}: {printed}");
    }
    let focus = golden("dinov2-small-focus");
    let pull = [
        "models",
        "pull",
        "dinov2-small-focus",
        "--device",
        "openvino",
    ];
    for precision in ["fp32", "bf16"] {
        let pull = [pull.as_slice(), &["--precision", precision]].concat();
        let (pulled, printed) = run(&library, &home, &pull);
        assert!(pulled, "{printed}");
        let (matches, printed) = verify("dinov2-small-focus", precision, &focus);
        if precision == "bf16" && !has_bf16() {
            let reason = "this processor has no units for bf16 (avx512_bf16); use --precision fp32";
            assert!(!matches && printed.contains(reason), "{printed}");
        } else {
            assert!(matches && printed.contains("rocket_squash518"), "{printed}");
        }
    }
}

/// The fingerprint says whether features can be compared.
#[test]
fn the_fingerprint_is_that_of_the_precision() {
    let home = Home::new(Some(tiny_home(&["tiny"]))).expect("a home");
    let from = golden("tiny/model.safetensors");
    let fingerprint = |device: Device, precision: Precision| {
        let conversion = device.conversion(precision).expect("a conversion");
        let paths = home.model("tiny", conversion);
        convert_file(&tiny_spec("tiny"), &from, conversion, &paths.model).expect("conversion");
        let model = ModelFile::open(&paths.model, PositionRule::Hub).expect("a model");
        assert_eq!(model.dialect, conversion.dialect);
        model.fingerprint
    };
    let openvino: Device = "openvino".parse().expect("a device");
    let on_cpu = fingerprint(Device::Cpu, Precision::Fp32);
    assert_eq!(fingerprint(openvino.clone(), Precision::Fp32), on_cpu);
    assert_ne!(fingerprint(openvino, Precision::Bf16), on_cpu);
}

#[test]
fn every_output_equals_that_of_the_other_provider() {
    let Some(library) = library("every_output_equals_that_of_the_other_provider") else {
        return;
    };
    let home = sources();
    let start = |device: &str| {
        let command = Command::new(PROGRAM);
        let model = ["--model", "tiny-reg", "--offline", "--device", device];
        let batches = ["--workers", "1", "--solo-threads", "0", "--max-batch", "8"];
        let flags = [model.as_slice(), &batches].concat();
        convert_tiny(&library, &home, "tiny-reg", "fp32");
        let mut server = Process::spawn_in_place(command, &home, &flags, &library);
        server.wait_until_ready();
        server
    };
    let cpu = start("cpu");
    let openvino = start("openvino");
    openvino.assert_logs("openvino:CPU: ");
    let chelsea = fs::read(golden("dinov2-small-focus/chelsea.png")).expect("a photograph");
    let ask = |server: &Process, path: &str| {
        let sent = ureq::post(format!("{}{path}", server.url))
            .header("accept", "application/x-npy")
            .send(&chelsea[..]);
        let mut answer = sent.unwrap_or_else(|error| panic!("{path}: {error}"));
        answer.body_mut().read_to_vec().expect("a body")
    };
    for path in [
        "/v1/embed",
        "/v1/embed?layers=2&pooling=cls_mean",
        "/v1/embed?tokens=true&size=518&resize=fit",
        "/v1/attention?head=all",
    ] {
        let found = npy(&ask(&openvino, path));
        assert_close(path, &found, &npy(&ask(&cpu, path)));
    }
    // Requests that come at once are computed in batches.
    let alone = npy(&ask(&openvino, "/v1/embed"));
    std::thread::scope(|scope| {
        let asked = (0..16).map(|_| scope.spawn(|| npy(&ask(&openvino, "/v1/embed"))));
        for answer in asked.collect::<Vec<_>>() {
            assert_close("in a batch", &answer.join().expect("no panic"), &alone);
        }
    });
    let largest = openvino.metric("dinoserve_batch_images_bucket{model=\"tiny-reg\",le=\"1\"}");
    let all = openvino.metric("dinoserve_batch_images_count{model=\"tiny-reg\"}");
    assert!(largest < all, "{largest} of {all} batches had one image");
}

#[test]
fn what_openvino_cannot_run_is_an_error_by_name() {
    let home = tiny_home(&["tiny"]);
    let model = ["doctor", "--model", "tiny", "--offline", "--port", "0"];
    let doctor =
        |library: &Path, flags: &[&str]| run(library, &home, &[model.as_slice(), flags].concat());
    let plain = runtime_library();
    for (flags, expected) in [
        (
            &["--device", "openvino", "--precision", "int8"][..],
            "OpenVINO runs fp32 and bf16 models; for others use --device cpu or cuda",
        ),
        (
            &["--device", "cpu", "--precision", "bf16"],
            "bf16 models run by OpenVINO; use --device openvino",
        ),
        (
            &["--device", "openvino:GPU", "--precision", "bf16"],
            "OpenVINO runs bf16 models on the CPU alone",
        ),
        (
            &["--device", "cuda", "--precision", "bf16"],
            "int8 and bf16 models run on the CPU",
        ),
        (&["--device", "openvino:TPU"], "must be `openvino:CPU`"),
        (
            &["--device", "openvino"],
            "the loaded ONNX Runtime has no OpenVINO",
        ),
    ] {
        let (runs, printed) = doctor(&plain, flags);
        assert!(!runs && printed.contains(expected), "{flags:?}: {printed}");
    }

    // Not installed.
    let mut command = dinoserve();
    command.args(model).args(["--device", "openvino"]);
    let command = command
        .env_remove("ORT_DYLIB_PATH")
        .env("DINOSERVE_HOME", &home);
    let output = command.output().expect("the program runs");
    let printed = text(&output.stdout);
    assert!(
        !output.status.success() && printed.contains("deploy/setup.py --runtime openvino"),
        "{printed}"
    );

    let Some(library) = library("what_openvino_cannot_run_is_an_error_by_name") else {
        return;
    };
    convert_tiny(&library, &home, "tiny", "fp32");
    let (runs, printed) = doctor(&library, &["--device", "openvino:NPU"]);
    assert!(
        !runs && printed.contains("OpenVINO's NPU cannot be used: "),
        "{printed}"
    );
    // A library of it is missing.
    let incomplete = scratch("incomplete");
    for file in fs::read_dir(library.parent().expect("a folder")).expect("a folder") {
        let file = file.expect("a file").path();
        let name = file.file_name().expect("a name");
        if name != "libopenvino_intel_cpu_plugin.so" {
            // Links would be followed to the folder that has it.
            fs::copy(&file, incomplete.join(name)).expect("a copy");
        }
    }
    let (runs, printed) = doctor(
        &incomplete.join("libonnxruntime.so"),
        &["--device", "openvino"],
    );
    assert!(
        !runs && printed.contains("OpenVINO's CPU cannot be used: "),
        "{printed}"
    );
}

/// Compiles the library that fails on demand; `None` without a C compiler.
fn faulty_library(folder: &Path) -> Option<PathBuf> {
    let faulty = folder.join("libonnxruntime.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faulty/onnxruntime.c");
    let mut compile = Command::new("cc");
    compile
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&faulty, &source]);
    let Ok(compiled) = compile.arg("-ldl").output() else {
        skip("cli::openvino: there is no C compiler, cc");
        return None;
    };
    let success = compiled.status.success();
    assert!(success, "{}", text(&compiled.stderr));
    Some(faulty)
}

/// The promises of `tests/FAULTS.md`, with both providers.
#[test]
fn a_provider_that_fails_in_the_middle_costs_only_its_images() {
    let folder = scratch("faulty");
    let Some(faulty) = faulty_library(&folder) else {
        return;
    };
    let home = sources();
    let openvino = library("a_provider_that_fails_in_the_middle_costs_only_its_images");
    let cpu = Some(runtime_library());
    for (device, version, library) in [("cpu", "1.32.0", cpu), ("openvino", "1.24.1", openvino)] {
        let Some(library) = library else { continue };
        convert_tiny(&library, &home, "tiny-reg", "fp32");
        let height = folder.join("height");
        fs::write(&height, "-1").expect("a file");
        let mut command = Command::new(PROGRAM);
        command
            .env("FAULTY_LIBRARY", &library)
            .env("FAULTY_VERSION", version)
            .env("FAULTY_HEIGHT", &height);
        let flags = ["--model", "tiny-reg", "--offline", "--device", device];
        let mut server = Process::spawn_in_place(command, &home, &flags, &faulty);
        server.wait_until_ready();
        let chelsea = fs::read(golden("dinov2-small-focus/chelsea.png")).expect("a photograph");
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let address = server.url.clone();
        let ask = |size: usize| {
            let url = format!("{address}/v1/embed?size={size}");
            let mut answer = agent.post(url).send(&chelsea[..]).expect("an answer");
            let body = answer.body_mut().read_to_string().expect("a body");
            (answer.status().as_u16(), body)
        };
        let (status, before) = ask(224);
        assert_eq!(status, 200, "{device}: {before}");

        // A grid that the provider refuses, among others.
        fs::write(&height, "448").expect("a file");
        std::thread::scope(|scope| {
            let asked =
                [224, 448, 224, 448, 224].map(|size| scope.spawn(move || (size, ask(size))));
            for answer in asked {
                let (size, (status, body)) = answer.join().expect("no panic");
                let expected = if size == 448 { 500 } else { 200 };
                assert_eq!(status, expected, "{device}, {size}: {body}");
            }
        });
        assert!(server.is_ready(), "{device}: {}", server.log());
        assert_eq!(
            server.metric("dinoserve_worker_restarts_total{model=\"tiny-reg\"}"),
            0.0,
            "{device}"
        );

        // A provider that fails altogether, until it works again.
        fs::write(&height, "0").expect("a file");
        let began = Instant::now();
        while server.is_ready() {
            let (status, body) = ask(224);
            assert!(status == 500 || status == 503, "{device}: {status} {body}");
            assert!(began.elapsed() < Duration::from_secs(30), "{device}");
        }
        let (status, body) = ask(224);
        assert!(
            status == 503 && body.contains("the provider failed"),
            "{device}: {status} {body}"
        );
        fs::write(&height, "-1").expect("a file");
        server.wait_until_ready();
        let (status, after) = ask(224);
        assert_eq!(status, 200, "{device}: {after}");
        let embedding = |body: &str| -> Value {
            let answer: Value = serde_json::from_str(body).expect("JSON");
            answer["data"][0]["embedding"].clone()
        };
        assert_eq!(embedding(&after), embedding(&before), "{device}");
        assert!(
            server.metric("dinoserve_worker_restarts_total{model=\"tiny-reg\"}") >= 1.0,
            "{device}"
        );
    }
}

/// All families, in the dialect of OpenVINO.
#[test]
fn other_families_have_the_features_of_the_references() {
    let Some(library) = library("other_families_have_the_features_of_the_references") else {
        return;
    };
    let home = scratch("home");
    for family in [
        "tiny-dino1",
        "tiny-dino1-p8",
        "tiny-vit",
        "tiny-deit",
        "tiny-dinov3",
        "tiny-dinov3-plus",
    ] {
        let folder = golden(family);
        let folder = folder.to_str().expect("a path");
        let verify = ["models", "verify", "--goldens", folder];
        let flags = [verify.as_slice(), &["--device", "openvino"]].concat();
        let (matches, printed) = run(&library, &home, &flags);
        assert!(matches, "{family}: {printed}");
    }
}

#[test]
fn auto_takes_bf16_where_the_processor_is_faster() {
    let Some(library) = library("auto_takes_bf16_where_the_processor_is_faster") else {
        return;
    };
    let home = tiny_home(&["tiny"]);
    convert_tiny(&library, &home, "tiny", "bf16");
    let start = |library: &Path| {
        let command = Command::new(PROGRAM);
        let flags = [
            "--model",
            "tiny",
            "--precision",
            "auto",
            "--device",
            "auto",
            "--offline",
        ];
        let mut server = Process::spawn_in_place(command, &home, &flags, library);
        server.wait_until_ready();
        let url = format!("{}/v1/models", server.url);
        let mut answer = ureq::get(url).call().expect("the models");
        let models = answer.body_mut().read_to_string().expect("a body");
        let models: Value = serde_json::from_str(&models).expect("JSON");
        let precision = models["data"][0]["precision"]
            .as_str()
            .expect("a precision")
            .to_owned();
        (precision, server.log())
    };
    let (precision, log) = start(&library);
    if prefers_bf16() {
        assert_eq!(precision, "bf16", "{log}");
        assert!(log.contains("the processor is faster in bf16"), "{log}");
    } else {
        assert_eq!(precision, "fp32", "{log}");
        assert!(log.contains("the processor is not faster in bf16"), "{log}");
    }
    let (precision, log) = start(&runtime_library());
    assert_eq!(precision, "fp32", "{log}");
}
