//! `dinoserve tune`: what it measures is what `auto` uses.

use std::{fs, path::Path, process::Command};

use dinoserve::engine::has_bf16;
use serde_json::{Value, json};

use crate::support::{
    golden, home,
    process::PROGRAM,
    program::{dinoserve, text},
    tiny_home,
};

/// Runs a command without a given library, as most users do. Returns what it printed.
fn run(home: &Path, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .env("DINOSERVE_HOME", home)
        .env_remove("ORT_DYLIB_PATH");
    let output = command.output().expect("the program runs");
    let [printed, log] = [output.stdout, output.stderr].map(|bytes| text(&bytes));
    (output.status.success(), printed, log)
}

#[test]
fn what_was_measured_is_what_auto_uses() {
    let folder = tiny_home(&["tiny-reg"]);
    let libraries = home().root().join("runtime");
    std::os::unix::fs::symlink(libraries, folder.join("runtime")).expect("a link");
    let has_openvino = home().openvino_library().exists();
    let from = golden("tiny-reg/model.safetensors");
    let from = from.to_str().expect("a path");
    for flags in ["--precision int8", "--device openvino", "--precision bf16"] {
        let flags: Vec<&str> = flags.split(' ').collect();
        let convert = ["models", "convert", "tiny-reg", "--from", from];
        let (converted, _, log) = run(&folder, &[&convert[..], &flags].concat());
        assert!(converted, "{log}");
    }
    let model = ["--model", "tiny-reg", "--offline"];
    let quick = ["--rounds", "1", "--seconds", "0.05", "--size", "56"];
    let tune = [&["tune", "--json"], &model[..], &quick].concat();
    let (tuned, printed, log) = run(&folder, &tune);
    assert!(tuned, "{log}");
    let measured: Value = serde_json::from_str(&printed).expect("JSON");
    let settings = measured["settings"].as_array().expect("settings");
    let of = |name: &str| {
        let precisions = settings.iter().map(|of| &of["setting"]["precision"]);
        precisions.filter(|precision| *precision == name).count()
    };
    assert!(of("fp32") >= 1 && of("int8") == 1, "{printed}");
    assert_eq!(of("bf16") > 0, has_openvino && has_bf16(), "{printed}");
    let speed = |of: &Value| {
        let number = |name: &str| of[name].as_f64().expect("a number");
        assert!((-1.0..=1.0).contains(&number("cosine")), "{of}");
        number("rate") / number("lone_ms")
    };
    assert!(settings.is_sorted_by(|a, b| speed(a) >= speed(b)));
    let reference = settings
        .iter()
        .find(|of| of["setting"]["precision"] == "fp32");
    assert!(
        reference.expect("fp32")["cosine"]
            .as_f64()
            .expect("a number")
            > 0.999_99
    );

    // Not what is fastest here, so that it can only come from the file.
    let path = folder.join("tuning.json");
    let mut kept: Value =
        serde_json::from_slice(&fs::read(&path).expect("it is kept")).expect("JSON");
    let setting = json!({
        "precision": "int8", "device": "cpu", "workers": 1, "intra_threads": 1, "solo_threads": 0,
        "max_batch": null,
    });
    let chosen = json!({"setting": setting, "lone_ms": 1, "rate": 1000, "cosine": 1});
    kept["settings"] = json!([chosen]);
    let bench = |flags: &[&str]| {
        let image = golden("dinov2-small-focus/rocket.jpg");
        let image = image.to_str().expect("a path");
        let quick = ["--rounds", "1", "--seconds", "0", "--sizes", "56", "--json"];
        let (done, printed, log) = run(
            &folder,
            &[&["bench", image], &model[..], &quick, flags].concat(),
        );
        assert!(done, "{log}");
        let report: Value = serde_json::from_str(&printed).expect("JSON");
        let words =
            ["precision", "plan"].map(|name| report[name].as_str().expect("text").to_owned());
        (words.join(" on "), log)
    };
    let auto = ["--precision", "auto"];
    let write = |content: &Value| fs::write(&path, content.to_string()).expect("written");
    write(&kept);
    let of_the_file = "int8 on cpu: 1 worker of 1 thread, batches of up to 1 image";
    assert_eq!(bench(&auto).0, of_the_file);
    let (given, _) = bench(&["--precision", "auto", "--workers", "3"]);
    assert!(given.starts_with("int8 on cpu: 3 workers"), "{given}");
    let (given, _) = bench(&["--precision", "auto", "--device", "cpu"]);
    assert!(given.starts_with("fp32 on cpu: "), "{given}");
    let (given, _) = bench(&["--precision", "fp32"]);
    assert!(given.starts_with("fp32 on cpu: "), "{given}");

    kept["settings"][0]["cosine"] = json!(0.998);
    write(&kept);
    assert!(
        !bench(&auto).0.starts_with("int8"),
        "it is not exact enough"
    );
    kept["min_cosine"] = json!(0.998);
    write(&kept);
    assert_eq!(bench(&auto).0, of_the_file);
    kept["processor"] = json!("another");
    write(&kept);
    assert!(
        !bench(&auto).0.starts_with("int8"),
        "it is of another machine"
    );
    fs::write(&path, "{").expect("written");
    let (found, log) = bench(&auto);
    assert!(!found.starts_with("int8"), "{found}");
    assert!(log.contains("run `dinoserve tune` again"), "{log}");
}

#[test]
fn one_library_for_everything_cannot_be_tuned() {
    let mut command = dinoserve();
    let output = command.arg("tune").output().expect("the program runs");
    let log = text(&output.stderr);
    assert!(
        !output.status.success() && log.contains("unset it"),
        "{log}"
    );
}
