//! Whole runs: metrics, curves, maps, resuming, stopping, collapse.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
    time::Duration,
};

use burn::tensor::Device;
use dinoserve_train::{
    config::Config,
    model::flatten,
    run::{
        Collapse, EvaluationFolders, KnnMetrics, LabeledSet, Run, RunFiles, RunOutcome,
        StepMetrics, knn_accuracy,
    },
};

use crate::support::{tiny_config, values, write_images};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dinoserve-train");

fn prepared(folder: &Path, out: &Path, config: Config) -> Run {
    let evaluation = EvaluationFolders {
        set: Some(folder.to_owned()),
        gallery: None,
    };
    Run::prepare(
        folder,
        RunFiles::new(out),
        config,
        None,
        &evaluation,
        Device::flex(),
    )
    .unwrap()
}

/// Returns the metrics of a run without those that depend on time.
fn timeless_metrics(run: &Run) -> (Vec<StepMetrics>, Vec<KnnMetrics>) {
    let steps = run.metrics().steps.iter().cloned();
    (
        steps
            .map(|line| StepMetrics {
                images_per_second: 0.0,
                waited: 0.0,
                ..line
            })
            .collect(),
        run.metrics().knn.clone(),
    )
}

/// Returns a configuration with all losses and accumulation.
fn all_losses() -> Config {
    let mut config = tiny_config();
    config.loss.patch_weight = 1.0;
    config.loss.koleo_weight = 0.1;
    config.optimizer.accumulate = 2;
    config
}

#[test]
fn a_run_that_is_stopped_after_every_step_resumes_to_the_same_numbers() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    write_images(&images, 10);
    for (name, config) in [("plain", tiny_config()), ("all losses", all_losses())] {
        let mut whole = prepared(&images, &root.path().join(name), config.clone());
        assert_eq!(
            whole.train(1, &AtomicBool::new(false)).unwrap(),
            RunOutcome::Finished
        );
        let out = root.path().join(format!("{name}-parts"));
        // With `stop` set from the start, a run stops after its first step.
        let mut steps = 0;
        loop {
            let mut part = prepared(&images, &out, config.clone());
            match part.train(1, &AtomicBool::new(true)).unwrap() {
                RunOutcome::Stopped(done) => {
                    steps += 1;
                    assert_eq!(done, steps);
                }
                RunOutcome::Finished => {
                    assert_eq!(steps + 1, whole.steps());
                    assert_eq!(timeless_metrics(&part), timeless_metrics(&whole), "{name}");
                    for (parameter, tensor) in flatten(&part.trainer().state().teacher) {
                        let whole_values =
                            flatten(&whole.trainer().state().teacher)[&parameter].clone();
                        assert_eq!(values(tensor), values(whole_values), "{name}: {parameter}");
                    }
                    break;
                }
            }
        }
    }
}

#[test]
fn a_failed_measurement_loses_no_training_and_is_repeated_on_resume() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    let labeled = root.path().join("labeled");
    let out = root.path().join("run");
    write_images(&images, 8);
    write_images(&labeled, 6);
    let prepare = || {
        let evaluation = EvaluationFolders {
            set: Some(labeled.clone()),
            gallery: None,
        };
        Run::prepare(
            &images,
            RunFiles::new(&out),
            tiny_config(),
            None,
            &evaluation,
            Device::flex(),
        )
        .unwrap()
    };
    assert_eq!(
        prepare().train(1, &AtomicBool::new(true)).unwrap(),
        RunOutcome::Stopped(1)
    );
    let mut run = prepare();
    let away = root.path().join("away.png");
    std::fs::rename(labeled.join("rings/003.png"), &away).unwrap();
    assert!(run.train(1, &AtomicBool::new(false)).is_err());
    assert_eq!(run.steps_done(), 4, "after the first epoch");
    std::fs::rename(&away, labeled.join("rings/003.png")).unwrap();
    drop(run);
    let mut run = prepare();
    assert_eq!(run.steps_done(), 4);
    assert_eq!(
        run.train(1, &AtomicBool::new(false)).unwrap(),
        RunOutcome::Finished
    );
    let measured: Vec<usize> = run.metrics().knn.iter().map(|line| line.step).collect();
    assert_eq!(measured, [0, 4, 8, 12]);
    assert!(RunFiles::new(&out).maps(1).exists());
}

#[test]
fn a_run_folder_inside_the_image_folder_is_not_trained_on() {
    let root = tempfile::tempdir().unwrap();
    write_images(root.path(), 8);
    let out = root.path().join("run");
    let steps = prepared(root.path(), &out, tiny_config()).steps();
    prepared(root.path(), &out, tiny_config())
        .train(1, &AtomicBool::new(false))
        .unwrap();
    assert!(RunFiles::new(&out).maps(1).exists());
    let again = Run::prepare(
        root.path(),
        RunFiles::new(&out),
        tiny_config(),
        None,
        &EvaluationFolders::default(),
        Device::flex(),
    );
    let again = again.unwrap();
    assert_eq!((again.steps(), again.steps_done()), (steps, steps));
}

#[test]
fn a_run_learns_and_writes_metrics_curves_and_maps() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    let out = root.path().join("run");
    write_images(&images, 16);
    let mut config = tiny_config();
    config.optimizer.epochs = 12;
    config.optimizer.learning_rate = 0.06;
    // With a constant teacher the loss can only fall.
    config.optimizer.teacher_momentum = [1.0, 1.0];
    config.loss.center_momentum = 1.0;
    config.run.map_epochs = 12;
    let mut run = prepared(&images, &out, config);
    run.train(2, &AtomicBool::new(false)).unwrap();
    let lines = &run.metrics().steps;
    assert_eq!(lines.len(), run.steps());
    let losses: Vec<f64> = lines
        .chunks(8)
        .map(|lines| lines.iter().map(|line| line.loss).sum::<f64>() / 8.0)
        .collect();
    assert!(
        losses[losses.len() - 1] < losses[0] - 0.3,
        "the loss falls: {losses:?}"
    );
    assert!(
        run.metrics().knn[0].knn_of_pixels.is_some(),
        "the pixels are measured before the first step"
    );
    assert_eq!(run.metrics().knn.len(), 13, "before, and after each epoch");

    let files = RunFiles::new(&out);
    let text = std::fs::read_to_string(files.metrics()).unwrap();
    assert_eq!(text.lines().count(), lines.len() + 13);
    let curves = std::fs::read_to_string(files.curves()).unwrap();
    for word in [
        "Loss",
        "Entropy of the teacher, nats",
        "k-NN accuracy, %",
        "pixels:",
    ] {
        assert!(curves.contains(word), "the curves have no {word:?}");
    }
    let maps = image::open(files.maps(12)).unwrap().into_rgb8();
    // Two images with their attention and components, 56 pixels enlarged four times.
    assert_eq!(maps.dimensions(), (6 * (224 + 8) + 8, 224 + 2 * 8));
    let colors: std::collections::BTreeSet<[u8; 3]> = maps.pixels().map(|pixel| pixel.0).collect();
    assert!(colors.len() > 100, "{} colors", colors.len());
}

#[test]
fn ctrl_c_saves_and_the_same_command_resumes() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    let out = root.path().join("run");
    write_images(&images, 8);
    let config = root.path().join("config.toml");
    let mut settings = tiny_config();
    settings.optimizer.epochs = 500;
    std::fs::write(&config, settings.to_toml()).unwrap();
    let start = |arguments: &[&str]| {
        Command::new(PROGRAM)
            .args([
                "run",
                images.to_str().unwrap(),
                "--out",
                out.to_str().unwrap(),
                "--config",
                config.to_str().unwrap(),
            ])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    // A leftover of a process that was killed while it wrote a file.
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(out.join(".tmpHalf"), "half").unwrap();
    let child = start(&[]);
    let metrics = RunFiles::new(&out).metrics();
    while std::fs::read_to_string(&metrics)
        .unwrap_or_default()
        .lines()
        .count()
        < 3
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = start(&[]).wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("another process is running in"), "{stderr}");
    assert!(!out.join(".tmpHalf").exists());
    Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{stderr}");
    assert!(
        stderr.contains("run the same command again to resume"),
        "{stderr}"
    );
    let done: usize = stderr
        .split("Stopped after step ")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .parse()
        .unwrap();

    let ended = start(&["--batch", "2"]).wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(
        stderr
            .contains("was trained on 16 images, 4 in a step, and now has 16 images, 2 in a step"),
        "{stderr}"
    );
    let old = images.join("rings/000.png");
    let new = images.join("rings/renamed.png");
    std::fs::rename(&old, &new).unwrap();
    let ended = start(&[]).wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&ended.stderr).contains("or images of other names"));
    std::fs::rename(&new, &old).unwrap();

    let epochs = done.div_ceil(4) + 1;
    let ended = start(&["--epochs", &epochs.to_string()])
        .wait_with_output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{stderr}");
    assert!(
        stderr.contains(&format!("resumed after step {done}")),
        "{stderr}"
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
    let stderr_of = |arguments: &[&str]| {
        let out = root.path().join("run");
        let folder = root.path().to_str().unwrap();
        let ended = Command::new(PROGRAM)
            .args(["run", folder, "--out", out.to_str().unwrap()])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(1));
        String::from_utf8_lossy(&ended.stderr).into_owned()
    };
    assert!(stderr_of(&[]).contains("has 4 images, but a step needs 64; lower optimiser.batch"));
    assert!(stderr_of(&["--init", "no-such"]).contains("there is no model \"no-such\""));
    assert!(stderr_of(&["--set", "crops.local_size=15"]).contains("crops.local_size is 15"));
    assert!(stderr_of(&["--device", "tpu"]).contains("it must be `cpu` or `cuda`"));
    let cuda = stderr_of(&["--device", "cuda"]);
    assert!(
        cuda.contains("built without CUDA") || cuda.contains("no CUDA device was found"),
        "{cuda}"
    );
    let error = Run::prepare(
        &root.path().join("missing"),
        RunFiles::new(&root.path().join("run")),
        tiny_config(),
        None,
        &EvaluationFolders::default(),
        Device::flex(),
    );
    assert!(
        error
            .err()
            .unwrap()
            .to_string()
            .contains("cannot read the folder")
    );
}

#[test]
fn every_kind_of_collapse_is_detected() {
    let max_entropy = 64.0_f64.ln();
    let lines = |teacher_entropy: f64, usage_entropy: f64, spread: f64| {
        let line = StepMetrics {
            step: 0,
            epoch: 0.0,
            loss: 1.0,
            view_loss: 1.0,
            patch_loss: None,
            koleo: None,
            teacher_entropy,
            usage_entropy,
            spread,
            gradient: 1.0,
            learning_rate: 1.0,
            images_per_second: 1.0,
            waited: 0.0,
        };
        vec![line; 10]
    };
    assert_eq!(Collapse::detect(&lines(1.0, 3.0, 0.5), 64), None);
    assert_eq!(
        Collapse::detect(&lines(0.001, 0.01, 0.5), 64),
        Some(Collapse::OnePrototype)
    );
    assert_eq!(
        Collapse::detect(&lines(max_entropy, max_entropy, 0.5), 64),
        Some(Collapse::Uniform)
    );
    assert_eq!(
        Collapse::detect(&lines(1.0, 3.0, 0.001), 64),
        Some(Collapse::OnePoint)
    );
    assert_eq!(
        Collapse::detect(&lines(0.001, 0.01, 0.5)[..9], 64),
        None,
        "nine steps are too few"
    );
    let mut infinite = lines(1.0, 3.0, 0.5);
    infinite[9].loss = f64::NAN;
    assert_eq!(Collapse::detect(&infinite, 64), Some(Collapse::NotFinite));
    assert!(
        Collapse::OnePrototype
            .to_string()
            .contains("loss.centring=sinkhorn_knopp")
    );
}

/// A sharp teacher with a constant center collapses to one prototype.
#[test]
fn a_run_reports_a_collapse() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    let out = root.path().join("run");
    write_images(&images, 8);
    let config = root.path().join("config.toml");
    let mut settings = tiny_config();
    settings.optimizer.epochs = 40;
    settings.optimizer.learning_rate = 0.05;
    settings.optimizer.teacher_momentum = [0.5, 0.5];
    settings.loss.center_momentum = 1.0;
    settings.loss.teacher_temperature = [0.005, 0.005];
    std::fs::write(&config, settings.to_toml()).unwrap();
    let ended = Command::new(PROGRAM)
        .args([
            "run",
            images.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(stderr.contains("training has collapsed"), "{stderr}");
}

#[test]
fn an_image_is_not_its_own_neighbor_within_a_set() {
    let root = tempfile::tempdir().unwrap();
    write_images(root.path(), 6);
    let (sets, classes) = LabeledSet::find(&[root.path()], 28, &mut |_, _| {
        panic!("all images can be read")
    })
    .unwrap();
    assert_eq!(classes, ["rings", "stripes"]);
    let vectors = sets[0].pixels().unwrap();
    let labels = &sets[0].labels;
    // Against the set as a gallery, the nearest neighbor is the image itself.
    let with_itself =
        knn_accuracy(vectors.view(), labels, Some((vectors.view(), labels)), 2, 1).unwrap();
    assert_eq!(with_itself, 1.0);
    // Within the set, all eleven others vote nearly alike: five of the same class, six of the other.
    let without_itself = knn_accuracy(vectors.view(), labels, None, 2, 11).unwrap();
    assert!(without_itself < 0.7, "{without_itself}");
}
