//! The program `dinoserve-train run`: stopping, resuming, and error messages.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use dinoserve_train::{
    config::Config,
    run::{EvaluationSources, RunFiles},
};

use crate::support::{prepare_run, server_golden, tiny_config, write_images};

/// Returns the command `run` on a folder of images.
fn run_command(images: &Path, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dinoserve-train"));
    command
        .arg("run")
        .arg(images)
        .arg("--out")
        .arg(out)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Writes a configuration file, and returns the command `run` with it.
fn run_with_config(images: &Path, out: &Path, file: &Path, config: &Config) -> Command {
    std::fs::write(file, config.to_toml()).unwrap();
    let mut command = run_command(images, out);
    command.arg("--config").arg(file);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn ctrl_c_saves_and_the_same_command_resumes() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    let out = root.path().join("run");
    write_images(&images, 8);
    let mut config = tiny_config();
    config.optimizer.epochs = 500;
    let file = root.path().join("config.toml");
    let start = |arguments: &[&str]| {
        run_with_config(&images, &out, &file, &config)
            .args(arguments)
            .spawn()
            .unwrap()
    };
    // A leftover of a process that was killed while it wrote a file.
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(out.join(".tmpHalf"), "half").unwrap();
    let child = start(&[]);
    let metrics = RunFiles::new(&out).metrics();
    while std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 3 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = start(&[]).wait_with_output().unwrap();
    let text = stderr(&second);
    assert_eq!(second.status.code(), Some(1), "{text}");
    assert!(text.contains("another process is running in"), "{text}");
    assert!(!out.join(".tmpHalf").exists());
    Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    let ended = child.wait_with_output().unwrap();
    let text = stderr(&ended);
    assert!(ended.status.success(), "{text}");
    assert!(
        text.contains("run the same command again to resume"),
        "{text}"
    );
    let (_, after) = text.split_once("Stopped after step ").unwrap();
    let done: usize = after.split(';').next().unwrap().parse().unwrap();

    let ended = start(&["--batch", "2"]).wait_with_output().unwrap();
    let text = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{text}");
    assert!(
        text.contains("was trained on 16 images, 4 in a step, and now has 16 images, 2 in a step"),
        "{text}"
    );
    let old = images.join("rings/000.png");
    let new = images.join("rings/renamed.png");
    std::fs::rename(&old, &new).unwrap();
    let ended = start(&[]).wait_with_output().unwrap();
    assert!(stderr(&ended).contains("or images of other names"));
    std::fs::rename(&new, &old).unwrap();

    let epochs = done.div_ceil(4) + 1;
    let ended = start(&["--epochs", &epochs.to_string()])
        .wait_with_output()
        .unwrap();
    let text = stderr(&ended);
    assert!(ended.status.success(), "{text}");
    assert!(
        text.contains(&format!("resumed after step {done}")),
        "{text}"
    );
    let text = std::fs::read_to_string(&metrics).unwrap();
    let steps: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line.get("loss").is_some())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(
        steps,
        (0..4 * epochs as u64).collect::<Vec<_>>(),
        "the metrics have every step once"
    );
    assert!(out.join("export/run.toml").exists() && out.join("export/model.safetensors").exists());
}

#[test]
fn wrong_commands_fail_with_a_helpful_message() {
    let root = tempfile::tempdir().unwrap();
    write_images(root.path(), 2);
    let out = root.path().join("run");
    let rows: [(&str, &[&str]); 5] = [
        (
            "",
            &["has 4 images, but a step needs 64; lower optimiser.batch"],
        ),
        ("--init no-such", &["there is no model \"no-such\""]),
        ("--set crops.local_size=15", &["crops.local_size is 15"]),
        ("--device tpu", &["it must be `cpu` or `cuda`"]),
        (
            "--device cuda",
            &["built without CUDA", "no CUDA device was found"],
        ),
    ];
    for (arguments, texts) in rows {
        let mut command = run_command(root.path(), &out);
        let output = command.args(arguments.split_whitespace()).output().unwrap();
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(
            texts.iter().any(|text| error.contains(text)),
            "{arguments:?}: {error}"
        );
    }
    let missing = root.path().join("missing");
    let folders = EvaluationSources::default();
    let Err(error) = prepare_run(&missing, &out, &tiny_config(), &folders) else {
        panic!("a missing folder is accepted");
    };
    assert!(
        error
            .to_string()
            .contains("missing, which must be a folder"),
        "{error}"
    );
}

/// A file of several models is one of whose weights the user has to know.
#[test]
fn the_initial_weights_are_named() {
    let root = tempfile::tempdir().unwrap();
    write_images(root.path(), 2);
    let weights = server_golden("checkpoints/dino.pth");
    for (prefix, taken, other) in [
        (None, "teacher.backbone", "student.module.backbone"),
        (
            Some("student"),
            "student.module.backbone",
            "teacher.backbone",
        ),
    ] {
        let mut command = run_command(root.path(), &root.path().join("run"));
        command.arg("--init").arg(&weights);
        command.args(
            prefix
                .iter()
                .flat_map(|prefix| ["--weights-prefix", prefix]),
        );
        // The default model is larger than the one in the file.
        let error = stderr(&command.output().unwrap());
        let expected = format!(
            "weights: ViT/4, 4 blocks, width 8 under `{taken}`; the file also has `{other}`, see \
             --weights-prefix"
        );
        assert!(error.contains(&expected), "{error}");
    }
}

/// A sharp teacher with a constant center collapses to one prototype.
#[test]
fn a_run_reports_a_collapse() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    let out = root.path().join("run");
    write_images(&images, 8);
    let mut config = tiny_config();
    config.optimizer.epochs = 40;
    config.optimizer.learning_rate = 0.05;
    config.optimizer.teacher_momentum = [0.5, 0.5];
    config.loss.center_momentum = 1.0;
    config.loss.teacher_temperature = [0.005, 0.005];
    let file = root.path().join("config.toml");
    let output = run_with_config(&images, &out, &file, &config)
        .output()
        .unwrap();
    let text = stderr(&output);
    assert!(text.contains("training has collapsed"), "{text}");
}

/// Unknown options are rejected before the help is printed.
#[test]
fn the_commands_of_the_readme_parse() {
    let readme = include_str!("../README.md").replace("\\\n", " ");
    let commands: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("dinoserve-train "))
        .collect();
    for command in &commands {
        let output = Command::new(env!("CARGO_BIN_EXE_dinoserve-train"))
            .args(command.split_whitespace())
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(
            help.contains("Usage: dinoserve-train run"),
            "{command}: {help}"
        );
    }
    assert_eq!(commands.len(), 3, "{commands:?}");
}
