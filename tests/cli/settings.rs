//! Settings and their sources, the doctor, and completions.

use std::{net::TcpListener, path::Path, process::Command};

use serde_json::{Value, json};

use super::download::{Hub, TINY};
use crate::support::{
    focus_source,
    program::{dinoserve, home_with_tiny, text},
    scratch,
};

/// Runs a command. Returns the exit code, standard output and standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    (
        output.status.code().expect("an exit code"),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn config(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = dinoserve();
    command
        .arg("config")
        .args(arguments)
        .current_dir(folder)
        .env_remove("DINOSERVE_LOG");
    command
}

fn effective(command: &mut Command) -> Value {
    let (code, out, err) = run(command.arg("--json"));
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn flags_override_the_environment_and_the_file() {
    let folder = scratch("settings");
    let file = "port = 9001\nhost = \"0.0.0.0\"\nworkers = 3\noffline = true\n\
                gallery = \"postgres://me:secret@db/x\"\nlog = \"warn\"\n";
    std::fs::write(folder.join("dinoserve.toml"), file).unwrap();
    let found = effective(
        config(&folder, &["--port", "9003"])
            .env("DINOSERVE_PORT", "9002")
            .env("DINOSERVE_HOST", "::1"),
    );
    let of = |name: &str| {
        (
            found[name]["value"].clone(),
            found[name]["source"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(of("port"), (json!(9003), "--port".to_owned()));
    assert_eq!(of("host"), (json!("::1"), "DINOSERVE_HOST".to_owned()));
    assert_eq!(of("workers"), (json!(3), "dinoserve.toml".to_owned()));
    assert_eq!(of("offline"), (json!(true), "dinoserve.toml".to_owned()));
    assert_eq!(of("log"), (json!("warn"), "dinoserve.toml".to_owned()));
    assert_eq!(of("queue-depth"), (json!(64), "default".to_owned()));
    assert_eq!(of("max-batch"), (json!(null), "default".to_owned()));
    assert_eq!(of("gallery").0, "postgres://me:***@db/x");

    // The output is a settings file with the same settings.
    let (_, printed, _) = run(&mut config(&folder, &["--gallery", "here"]));
    assert!(
        printed.contains("\nworkers = 3 ") && printed.contains("\n# max-batch ="),
        "{printed}"
    );
    let again = folder.join("printed.toml");
    std::fs::write(&again, &printed).unwrap();
    let named = again.to_str().unwrap();
    let elsewhere = scratch("settings-elsewhere");
    let found = effective(&mut config(&elsewhere, &["--config", named]));
    assert_eq!(
        (&found["workers"]["value"], &found["gallery"]["value"]),
        (&json!(3), &json!("here"))
    );
    assert_eq!(found["workers"]["source"], named);
    let found = effective(config(&elsewhere, &[]).env("DINOSERVE_CONFIG", named));
    assert_eq!(found["port"]["value"], 9001);
    // Other commands with the flag use the setting. A flag of the same name with another meaning
    // does not.
    let (code, _, err) = run(dinoserve()
        .args(["gallery", "stats", "--config", named])
        .current_dir(&elsewhere));
    assert_eq!((code, err.contains("here")), (1, true), "{err}");
}

#[test]
fn wrong_settings_are_named() {
    let folder = scratch("settings-wrong");
    for (file, message) in [
        (
            "prot = 9000",
            "dinoserve.toml: unknown setting `prot`; expected one of api-keys, bank-cache-bytes, ",
        ),
        (
            "port = \"many\"",
            "invalid value 'many' for '--port <PORT>'",
        ),
        (
            "port = [1]",
            "dinoserve.toml: `port` must be a text, a number, true or false",
        ),
        ("port 9000", "reading the settings in dinoserve.toml"),
        ("config = \"other.toml\"", "unknown setting `config`"),
    ] {
        std::fs::write(folder.join("dinoserve.toml"), file).unwrap();
        let (code, _, err) = run(&mut config(&folder, &[]));
        assert!(code == 2 && err.contains(message), "{file}: {code} {err}");
        assert!(!err.contains("panicked"), "{err}");
    }
    std::fs::write(folder.join("dinoserve.toml"), "port = \"many\"").unwrap();
    assert!(
        run(&mut config(&folder, &[]))
            .2
            .contains("The value is in dinoserve.toml.")
    );
    let (code, _, err) = run(&mut config(&folder, &["--config", "none.toml"]));
    assert!(
        code == 2 && err.contains("reading the settings in none.toml: No such file"),
        "{err}"
    );
}

#[test]
fn the_doctor_finds_problems_and_says_what_to_do() {
    let home = home_with_tiny();
    let folder = scratch("doctor");
    let doctor = |arguments: &[&str]| {
        let mut command = dinoserve();
        command
            .args(["doctor", "--json", "--device", "cpu"])
            .args(arguments);
        command
            .env("DINOSERVE_HOME", &home)
            .env("DINOSERVE_MODEL", "tiny")
            .current_dir(&folder);
        command
    };
    let findings = |command: &mut Command| -> (i32, Vec<(String, String, String)>) {
        let (code, out, err) = run(command);
        let found: Vec<Value> =
            serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {err}"));
        let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
        let each = |finding: &Value| {
            (
                text(finding, "check"),
                text(finding, "verdict"),
                text(finding, "detail"),
            )
        };
        (code, found.iter().map(each).collect())
    };
    let of = |found: &[(String, String, String)], check: &str| {
        let (_, verdict, detail) = found
            .iter()
            .find(|finding| finding.0 == check)
            .unwrap()
            .clone();
        (verdict, detail)
    };

    let (code, found) = findings(&mut doctor(&["--port", "0", "--gallery", "new"]));
    assert_eq!(
        (code, found.iter().all(|finding| finding.1 == "good")),
        (0, true),
        "{found:?}"
    );
    assert!(
        of(&found, "device").1.starts_with("the model runs: "),
        "{found:?}"
    );
    assert_eq!(of(&found, "gallery").1, "new will be made");
    assert!(!folder.join("new").exists(), "a check makes nothing");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    std::fs::write(folder.join("file"), "no folder").unwrap();
    let (code, found) = findings(&mut doctor(&["--port", &port, "--gallery", "file"]));
    assert_eq!(code, 1);
    let (verdict, detail) = of(&found, "port");
    assert!(
        verdict == "bad" && detail.contains("stop what listens there, or choose another by --port"),
        "{detail}"
    );
    assert_eq!(of(&found, "gallery").0, "bad", "{found:?}");

    let (code, found) =
        findings(doctor(&["--port", "0"]).env("ORT_DYLIB_PATH", folder.join("none.so")));
    assert_eq!((code, of(&found, "device").0.as_str()), (1, "skipped"));
    assert!(
        of(&found, "runtime").1.contains("run `make setup`"),
        "{found:?}"
    );

    let (code, found) = findings(&mut doctor(&[
        "--port",
        "0",
        "--model",
        "dinov2-base",
        "--offline",
    ]));
    assert_eq!(code, 1);
    assert!(
        of(&found, "model")
            .1
            .contains("run `dinoserve models pull dinov2-base` where there is a network"),
        "{found:?}"
    );
    // The first start would pull it; whether it can is tried out.
    let absent = TINY.replace("tiny", "absent")
        + "[[sources]]\nformat = \"safetensors\"\nfile = \"model.safetensors\"\n\
           url = \"{hub}/absent/model.safetensors\"\n";
    std::fs::write(home.join("catalog/absent.toml"), absent).unwrap();
    let hub = Hub::start(b"weights".to_vec(), Vec::new());
    let pull = ["--port", "0", "--model", "absent", "--hub"];
    let (code, found) = findings(doctor(&pull).arg(&hub.address));
    assert_eq!(
        (code, of(&found, "model").0.as_str()),
        (0, "note"),
        "{found:?}"
    );
    let (code, found) = findings(doctor(&pull).arg("http://127.0.0.1:9"));
    assert_eq!(code, 1);
    let (verdict, detail) = of(&found, "model");
    assert!(
        verdict == "bad" && detail.contains("cannot be pulled: http://127.0.0.1:9/"),
        "{detail}"
    );

    // A damaged model is found before it is served.
    let data = std::fs::read_dir(home.join("models/tiny"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let data = data
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let (code, found) = findings(&mut doctor(&["--port", "0"]));
    assert_eq!(code, 1);
    assert!(
        of(&found, "model")
            .1
            .contains("`dinoserve models pull tiny` replaces it"),
        "{found:?}"
    );

    // Files of keys and certificates are read.
    let keys = home.join("keys.toml");
    std::fs::write(&keys, "[[key]]\nname = 1\n").unwrap();
    let keys = keys.to_str().unwrap();
    for (check, flags) in [
        ("keys", vec!["--port", "0", "--api-keys", keys]),
        (
            "tls",
            vec!["--port", "0", "--tls-cert", keys, "--tls-key", keys],
        ),
    ] {
        let (code, found) = findings(&mut doctor(&flags));
        let (verdict, detail) = of(&found, check);
        assert!(
            code == 1 && verdict == "bad" && detail.contains("keys.toml"),
            "{found:?}"
        );
    }

    // The text has colors only on a terminal.
    let (_, out, _) = run(dinoserve()
        .args(["doctor", "--port", "0"])
        .env("DINOSERVE_HOME", &home));
    assert!(out.lines().count() == 7 && !out.contains('\x1b'), "{out}");
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = scratch("man");
    let pages = folder.join("man1");
    let (code, out, err) = run(dinoserve().arg("man").arg(&pages));
    assert_eq!(code, 0, "{err}");
    let names: Vec<String> = std::fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        out,
        format!("{} pages written to {}\n", names.len(), pages.display())
    );
    for page in [
        "dinoserve.1",
        "dinoserve-serve.1",
        "dinoserve-eval-compare.1",
    ] {
        assert!(names.iter().any(|name| name == page), "{page}: {names:?}");
    }
    assert!(
        !names.iter().any(|name| name.contains("decode")),
        "{names:?}"
    );
    let serve = std::fs::read_to_string(pages.join("dinoserve-serve.1")).unwrap();
    // The headings of the flags are those of `serve -h`.
    let (_, help, _) = run(dinoserve().args(["serve", "-h"]));
    for heading in [
        "Model and device",
        "Limits of images",
        "Galleries",
        "HTTP",
        "Access",
    ] {
        assert!(
            help.contains(&format!("\n{heading}:\n")),
            "{heading}: {help}"
        );
    }
    assert!(serve.contains("max\\-patches"), "{serve}");
}

#[test]
fn shells_can_complete_the_command_line() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = run(dinoserve().args(["completions", shell]));
        assert!(
            code == 0 && out.contains("snapshot") && out.contains("max-patches"),
            "{shell}: {err}"
        );
    }
    // An installed shell accepts its script.
    let (_, script, _) = run(dinoserve().args(["completions", "bash"]));
    let asked = format!(
        "{script}\nCOMP_WORDS=(dinoserve mod); COMP_CWORD=1; \
         _dinoserve dinoserve mod dinoserve; echo \"${{COMPREPLY[@]}}\""
    );
    // The script is too long for an argument.
    let folder = scratch("completions");
    let file = folder.join("asked.sh");
    std::fs::write(&file, asked).unwrap();
    let output = Command::new("bash").arg(&file).output().unwrap();
    assert_eq!(
        text(&output.stdout).trim(),
        "models",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_stopped_command_leaves_no_partial_file() {
    let folder = scratch("stopped");
    let mut command = dinoserve();
    command
        .args(["models", "convert", "dinov2-small-focus", "--from"])
        .arg(focus_source());
    command
        .arg("--to")
        .arg(folder.join("model.onnx"))
        .stderr(std::process::Stdio::null());
    let mut process = command.spawn().unwrap();
    let begun = || {
        std::fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with(".writing-"))
    };
    let started = std::time::Instant::now();
    while !begun() && process.try_wait().unwrap().is_none() {
        assert!(started.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(
        process.try_wait().unwrap().is_none(),
        "it was still at work"
    );
    assert!(
        Command::new("kill")
            .args(["-INT", &process.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(process.wait().unwrap().code(), Some(130));
    let left: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
