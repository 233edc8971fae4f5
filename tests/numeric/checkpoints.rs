//! Checkpoints as training programs and libraries save them (`tests/golden/checkpoints/make.py`).

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use dinoserve::{
    artifacts::{Home, Manifest, ModelFile, WeightFile, convert},
    engine::{Input, RequestedOutputs},
    error::Error,
    model::{ModelSpec, PositionRule},
    onnx::Precision,
    vision::{PatchSize, RgbImage, Size},
};

use crate::support::{Tensors, assert_close, golden, process::PROGRAM, scratch, session};

/// Returns the description of the models in the golden files.
fn description(registers: usize, ffn: &str) -> String {
    format!(
        "name = \"toy\"\nsummary = \"random\"\nlicence = \"none\"\ndim = 8\ndepth = 4\nheads = 2\n\
         registers = {registers}\nffn = \"{ffn}\"\nffn_hidden = 16\nnative_grid = 4\npatch = 4\n\
         embed_size = 16\nmap_size = 16\n"
    )
}

fn spec(file: &str) -> ModelSpec {
    let registers = if file.contains("reg") { 2 } else { 0 };
    let ffn = if file.contains("swiglu") {
        "swiglu"
    } else {
        "mlp"
    };
    ModelSpec::parse(&description(registers, ffn), "toy.toml").expect("a description")
}

fn convert_golden(file: &str, prefix: Option<&str>) -> Result<(Manifest, ModelFile), Error> {
    let to = scratch("checkpoint").join("toy.onnx");
    let source = WeightFile::read(&golden("checkpoints").join(file), None, prefix)?;
    let manifest = convert(&spec(file), &source, Precision::Fp32, &to, &mut ())?;
    Ok((manifest, ModelFile::open(&to, PositionRule::Hub)?))
}

fn fingerprint(file: &str, prefix: Option<&str>) -> String {
    let converted = convert_golden(file, prefix);
    converted
        .unwrap_or_else(|error| panic!("{file}: {error}"))
        .0
        .fingerprint
}

fn error_of(file: &str) -> String {
    match convert_golden(file, None) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{file} is converted"),
    }
}

#[test]
fn the_teacher_is_taken_and_named() {
    let plain = fingerprint("plain.safetensors", None);
    let other = fingerprint("plain_other.safetensors", None);
    assert_ne!(plain, other);
    for (file, taken, student) in [
        ("dino.pth", "teacher.backbone.", "student"),
        ("model_ema.pth", "model_ema.", "model"),
        ("timm_training.pth", "state_dict_ema.module.", "state_dict"),
        (
            "one_dict.pth",
            "state_dict.teacher.module.",
            "state_dict.student.module",
        ),
        (
            "dinov2_training.pth",
            "model.teacher.backbone.",
            "model.student",
        ),
        (
            "lightning.ckpt",
            "state_dict.teacher.",
            "state_dict.student.",
        ),
        ("legacy.pth", "teacher.", "student"),
    ] {
        let (manifest, _) = convert_golden(file, None).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(manifest.source_prefix, taken, "{file}");
        assert_eq!(manifest.fingerprint, plain, "{file}");
        assert_eq!(fingerprint(file, Some(student)), other, "{file}: {student}");
        assert_eq!(fingerprint(file, Some(taken)), plain, "{file}: {taken}");
    }
    let error = convert_golden("dino.pth", Some("ema"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no model under \"ema\"")
            && error.contains("`student.module.backbone`, `teacher.backbone`")
            && error.contains("--weights-prefix"),
        "{error}"
    );
    let error = error_of("unclear.pth");
    assert!(
        error.contains("not clear which model of the file is meant: `a`, `b`;")
            && error.contains("--weights-prefix"),
        "{error}"
    );
    assert_eq!(fingerprint("unclear.pth", Some("b")), other);
}

/// A student is not taken in place of its average without notice.
#[test]
fn an_average_that_cannot_be_read_is_named() {
    let other = fingerprint("plain_other.safetensors", None);
    for (file, average, kind, student) in [
        (
            "teacher_module.pth",
            "teacher",
            "a whole module of class __main__.Model",
            "student.module.backbone",
        ),
        (
            "ema_module.pth",
            "ema",
            "a whole module of class __main__.Model",
            "model",
        ),
        (
            "ema_object.pth",
            "model_ema",
            "an object of class __main__.Average",
            "model",
        ),
        (
            "shadow_params.pth",
            "ema",
            "tensors without the names of a ViT",
            "model",
        ),
    ] {
        let error = error_of(file);
        for text in [
            &format!("seems to be at `{average}`, but that is {kind}"),
            "torch.save(model.state_dict(), \"weights.pth\")",
            &format!("To take `{student}` instead, use --weights-prefix \"{student}\""),
        ] {
            assert!(error.contains(text), "{file}: {error}");
        }
        let (container, _) = student.split_once('.').unwrap_or((student, ""));
        for prefix in [student, container] {
            assert_eq!(fingerprint(file, Some(prefix)), other, "{file}: {prefix}");
        }
        let error = convert_golden(file, Some(average)).unwrap_err().to_string();
        assert!(
            error.contains(kind) || error.contains("no model under"),
            "{file}: {error}"
        );
    }
}

#[test]
fn every_way_of_saving_gives_the_same_model() {
    let plain = fingerprint("plain.safetensors", None);
    for file in [
        "nested.pth",
        "list.pth",
        "chunks_of_their_own.pth",
        "wrapped.pth",
        "objects_2.pth",
        "objects_3.pth",
        "objects_4.pth",
        "objects_5.pth",
        "legacy_4.pth",
        "parameters.pth",
        "strided.pth",
        "shared.pth",
        "float64.pth",
        "float64.safetensors",
        "bias_parts.pth",
        "lora_merged.pth",
        "hf5.safetensors",
    ] {
        assert_eq!(fingerprint(file, None), plain, "{file}");
    }
    for kind in ["reg", "swiglu_reg"] {
        assert_eq!(
            fingerprint(&format!("hf5_{kind}.safetensors"), None),
            fingerprint(&format!("plain_{kind}.safetensors"), None),
            "{kind}"
        );
    }
}

/// transformers 5 and timm compute the same features from these files.
#[test]
fn features_are_those_of_the_libraries() {
    for name in [
        "hf5",
        "hf5_reg",
        "hf5_swiglu_reg",
        "timm",
        "timm_reg",
        "timm_reg_in_positions",
        "timm_swiglu_reg",
    ] {
        let (_, model) = convert_golden(&format!("{name}.safetensors"), None)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = Tensors::read(&format!("checkpoints/expected_{name}.safetensors"));
        let bytes = expected
            .get("pixels")
            .iter()
            .map(|&value| value as u8)
            .collect();
        let pixels = RgbImage::from_raw(16, 16, bytes).expect("16×16 pixels");
        let grid = PatchSize::new(4).grid(Size::of(&pixels));
        let outputs = RequestedOutputs {
            patch_tokens: true,
            ..RequestedOutputs::default()
        };
        let mut session = session(&model);
        let features = session.run(&[(&Input { pixels, grid }, outputs)]);
        let features = features.expect("an inference").remove(0);
        let cls = features.cls.into_dyn();
        assert_close(&format!("{name} cls"), &cls, expected.get("cls"));
        let patches = features.patch_tokens.expect("requested").into_dyn();
        assert_close(
            &format!("{name} patches"),
            &patches,
            expected.get("patch_tokens"),
        );
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    for (file, texts) in [
        (
            "module.pth",
            [
                "a whole module of class __main__.Model",
                "model.state_dict()",
            ],
        ),
        (
            "module_in_dict.pth",
            ["__main__.Model at `model`", "model.state_dict()"],
        ),
        (
            "module_legacy.pth",
            ["__main__.Model", "model.state_dict()"],
        ),
        (
            "script.pt",
            ["__torch__.", "torch.jit.load(FILE).state_dict()"],
        ),
        (
            "lora.pth",
            ["lora_A", "merge first, with model.merge_and_unload()"],
        ),
        ("adapter_model.safetensors", ["lora_A", "merge first"]),
        (
            "dynamo.onnx",
            ["of ONNX files, only", "use the .safetensors or .pth file"],
        ),
        (
            "torchscript.onnx",
            ["of ONNX files, only", "use the .safetensors or .pth file"],
        ),
        (
            "q_norm.pth",
            [
                "are ViT/4, 4 blocks, width 8; they have 4 tensors such as",
                "blocks.0.attn.q_norm.weight, which no supported model has",
            ],
        ),
        (
            "rope.pth",
            [
                "they need positions = \"rope\"",
                "they have no position table",
            ],
        ),
        (
            "other_grid.pth",
            [
                "native_grid = 7 (a position table of 50 rows, for 7×7 patches), but toy has \
                 native_grid = 4",
                "in a file with native_grid = 7, and name it with --spec",
            ],
        ),
    ] {
        let error = error_of(file);
        for text in texts {
            assert!(error.contains(text), "{file}: {error}");
        }
        assert!(
            !error.contains("of this model's architecture"),
            "{file}: {error}"
        );
    }
    // A model of the catalog that fits is named.
    let spec = spec("plain");
    let source = WeightFile::read(&golden("tiny-reg/model.safetensors"), None, None).unwrap();
    let to = scratch("other").join("toy.onnx");
    let error = convert(&spec, &source, Precision::Fp32, &to, &mut ()).unwrap_err();
    assert!(
        error.detail().contains(
            "are ViT/14 with 4 registers, 2 blocks, width 64; they need dim = 64, depth = 2"
        ),
        "{error}"
    );
}

/// Two programs that convert to one cache folder leave the model of one of them, not a mixture.
#[test]
fn conversions_of_a_model_take_turns() {
    for round in 0..20 {
        let home = scratch("turns");
        std::fs::create_dir_all(home.join("catalog")).unwrap();
        std::fs::write(home.join("catalog/toy.toml"), description(0, "mlp")).unwrap();
        let models = |arguments: &[&str]| {
            let mut command = Command::new(PROGRAM);
            command
                .arg("models")
                .args(arguments)
                .env("DINOSERVE_HOME", &home);
            command
        };
        let processes = ["plain", "plain_other"].map(|name| {
            let file = golden("checkpoints").join(format!("{name}.safetensors"));
            let mut command = models(&["convert", "toy", "--from"]);
            command.arg(file).stdout(Stdio::null());
            command.spawn().expect("the program")
        });
        for mut process in processes {
            assert!(process.wait().unwrap().success(), "round {round}");
        }
        let output = models(&["verify", "toy"]).output().unwrap();
        assert!(output.status.success(), "round {round}: {output:?}");
    }
}

/// A process that waits for another's conversion takes its model.
#[test]
fn a_model_that_another_process_converts_is_taken() {
    let folder = scratch("taken");
    let home = Home::new(Some(folder.clone())).unwrap();
    std::fs::create_dir_all(home.catalog()).unwrap();
    let source = "[[sources]]\nformat = \"safetensors\"\nfile = \"plain.safetensors\"\n";
    let text = description(0, "mlp") + source;
    std::fs::write(home.catalog().join("toy.toml"), text).unwrap();
    std::fs::create_dir_all(home.sources("toy")).unwrap();
    let weights = home.sources("toy").join("plain.safetensors");
    std::fs::copy(golden("checkpoints/plain.safetensors"), &weights).unwrap();

    let paths = home.model("toy", Precision::Fp32);
    std::fs::create_dir_all(paths.model.parent().unwrap()).unwrap();
    let lock = std::fs::File::create(folder.join("models/toy/fp32-v1.onnx.lock")).unwrap();
    lock.lock().unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .args(["models", "pull", "toy"])
        .env("DINOSERVE_HOME", &folder)
        .stdout(Stdio::piped());
    let mut process = command.spawn().expect("the program");
    std::thread::sleep(Duration::from_millis(500));
    assert!(process.try_wait().unwrap().is_none(), "it waits");
    let file = golden("checkpoints/plain_other.safetensors");
    let other = WeightFile::read(&file, None, None).unwrap();
    convert(&spec("toy"), &other, Precision::Fp32, &paths.model, &mut ()).unwrap();
    let written = std::fs::metadata(&paths.model).unwrap().modified().unwrap();
    drop(lock);
    let output = process.wait_with_output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let expected = fingerprint("plain_other.safetensors", None);
    assert!(
        output.status.success() && printed.contains(&expected),
        "{printed}"
    );
    let now = std::fs::metadata(&paths.model).unwrap().modified().unwrap();
    assert_eq!(now, written, "the model was not converted again");

    // A later command converts again, and says what it reads.
    let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(
        printed.starts_with("weights: ViT/4, 4 blocks, width 8 under \"\" (no prefix)\n")
            && printed.contains(&fingerprint("plain.safetensors", None)),
        "{printed}"
    );
}

#[test]
fn convert_prints_which_weights_it_takes() {
    let folder = scratch("convert");
    std::fs::write(folder.join("toy.toml"), description(0, "mlp")).unwrap();
    let run = |extra: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command
            .args([
                "models", "convert", "--spec", "toy.toml", "--to", "toy.onnx", "--from",
            ])
            .arg(golden("checkpoints/dino.pth"))
            .args(extra)
            .current_dir(&folder)
            .env("DINOSERVE_HOME", folder.join("home"));
        let output = command.output().expect("the program");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let printed = run(&[]);
    assert_eq!(
        printed.lines().next(),
        Some(
            "weights: ViT/4, 4 blocks, width 8 under `teacher.backbone`; the file also has \
             `student.module.backbone`, see --weights-prefix"
        ),
        "{printed}"
    );
    let printed = run(&["--weights-prefix", "student"]);
    assert!(
        printed.starts_with("weights: ViT/4, 4 blocks, width 8 under `student.module.backbone`;"),
        "{printed}"
    );
}
