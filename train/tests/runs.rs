//! Whole runs: metrics, pictures, resuming, stopping, collapse.

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
        Collapse, Ended, Evaluation, KnnLine, LabeledSet, Run, RunFiles, StepLine, knn_accuracy,
    },
};

use crate::support::{folder_of_pictures, tiny_config, values};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dinoserve-train");

fn prepared(folder: &Path, out: &Path, config: Config) -> Run {
    let evaluation = Evaluation {
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

/// What does not depend on time.
fn told(run: &Run) -> (Vec<StepLine>, Vec<KnnLine>) {
    let steps = run.metrics().steps.iter().cloned();
    (
        steps
            .map(|line| StepLine {
                images_per_second: 0.0,
                waited: 0.0,
                ..line
            })
            .collect(),
        run.metrics().knn.clone(),
    )
}

fn everything() -> Config {
    let mut config = tiny_config();
    config.loss.patch_weight = 1.0;
    config.loss.koleo_weight = 0.1;
    config.optimiser.accumulate = 2;
    config
}

#[test]
fn a_run_that_is_stopped_at_any_step_goes_on_to_the_same_numbers() {
    let root = tempfile::tempdir().unwrap();
    let pictures = root.path().join("pictures");
    folder_of_pictures(&pictures, 10);
    for (name, config) in [("plain", tiny_config()), ("everything", everything())] {
        let mut whole = prepared(&pictures, &root.path().join(name), config.clone());
        assert_eq!(
            whole.train(1, &AtomicBool::new(false)).unwrap(),
            Ended::Finished
        );
        let out = root.path().join(format!("{name}-parts"));
        // Asked to stop before it begins, a run stops after each step.
        let mut steps = 0;
        loop {
            let mut part = prepared(&pictures, &out, config.clone());
            match part.train(1, &AtomicBool::new(true)).unwrap() {
                Ended::Stopped(done) => {
                    steps += 1;
                    assert_eq!(done, steps);
                }
                Ended::Finished => {
                    assert_eq!(steps + 1, whole.steps());
                    assert_eq!(told(&part), told(&whole), "{name}");
                    for (parameter, tensor) in flatten(&part.trainer().state().teacher) {
                        let of_whole =
                            flatten(&whole.trainer().state().teacher)[&parameter].clone();
                        assert_eq!(values(tensor), values(of_whole), "{name}: {parameter}");
                    }
                    break;
                }
            }
        }
    }
}

/// An error of a measurement costs neither what was learned nor, once it can be made, the
/// measurement.
#[test]
fn what_could_not_be_measured_is_made_up_for() {
    let root = tempfile::tempdir().unwrap();
    let (pictures, labeled, out) = (
        root.path().join("pictures"),
        root.path().join("labeled"),
        root.path().join("run"),
    );
    folder_of_pictures(&pictures, 8);
    folder_of_pictures(&labeled, 6);
    let prepare = || {
        let evaluation = Evaluation {
            set: Some(labeled.clone()),
            gallery: None,
        };
        Run::prepare(
            &pictures,
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
        Ended::Stopped(1)
    );
    let mut run = prepare();
    let away = root.path().join("away.png");
    std::fs::rename(labeled.join("rings/003.png"), &away).unwrap();
    assert!(run.train(1, &AtomicBool::new(false)).is_err());
    assert_eq!(run.done(), 4, "after the first epoch");
    std::fs::rename(&away, labeled.join("rings/003.png")).unwrap();
    drop(run);
    let mut run = prepare();
    assert_eq!(run.done(), 4);
    assert_eq!(
        run.train(1, &AtomicBool::new(false)).unwrap(),
        Ended::Finished
    );
    let measured: Vec<usize> = run.metrics().knn.iter().map(|line| line.step).collect();
    assert_eq!(measured, [0, 4, 8, 12]);
    assert!(RunFiles::new(&out).maps(1).exists());
}

#[test]
fn a_run_among_its_images_does_not_learn_from_its_own_maps() {
    let root = tempfile::tempdir().unwrap();
    folder_of_pictures(root.path(), 8);
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
        &Evaluation::default(),
        Device::flex(),
    );
    let again = again.unwrap();
    assert_eq!((again.steps(), again.done()), (steps, steps));
}

#[test]
fn a_run_learns_writes_its_metrics_and_draws() {
    let root = tempfile::tempdir().unwrap();
    let (pictures, out) = (root.path().join("pictures"), root.path().join("run"));
    folder_of_pictures(&pictures, 16);
    let mut config = tiny_config();
    config.optimiser.epochs = 12;
    config.optimiser.learning_rate = 0.06;
    // A teacher that stays as it is, so that the loss can only fall.
    config.optimiser.teacher_momentum = [1.0, 1.0];
    config.loss.center_momentum = 1.0;
    config.run.picture_epochs = 12;
    let mut run = prepared(&pictures, &out, config);
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
        "pixels are measured once"
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
        assert!(curves.contains(word), "the curves show {word:?}");
    }
    let maps = image::open(files.maps(12)).unwrap().into_rgb8();
    // Two images, each with its attention and its components, at 4×56 pixels.
    assert_eq!(maps.dimensions(), (6 * (224 + 8) + 8, 224 + 2 * 8));
    let colors: std::collections::BTreeSet<[u8; 3]> = maps.pixels().map(|pixel| pixel.0).collect();
    assert!(colors.len() > 100, "{} colors", colors.len());
}

#[test]
fn ctrl_c_saves_and_the_same_command_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let (pictures, out) = (root.path().join("pictures"), root.path().join("run"));
    folder_of_pictures(&pictures, 8);
    let config = root.path().join("config.toml");
    let mut chosen = tiny_config();
    chosen.optimiser.epochs = 500;
    std::fs::write(&config, chosen.to_toml()).unwrap();
    let start = |settings: &[&str]| {
        Command::new(PROGRAM)
            .args([
                "run",
                pictures.to_str().unwrap(),
                "--out",
                out.to_str().unwrap(),
                "--config",
                config.to_str().unwrap(),
            ])
            .args(settings)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    // As of a process that was killed while it wrote a checkpoint.
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
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another process runs in"), "{said}");
    assert!(!out.join(".tmpHalf").exists());
    Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(
        said.contains("the same command goes on from there"),
        "{said}"
    );
    let done: usize = said
        .split("Stopped after step ")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .parse()
        .unwrap();

    let ended = start(&["--batch", "2"]).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(
        said.contains("has learned from 16 images, 4 in a step, and is now given 16 and 2"),
        "{said}"
    );
    let (old, new) = (
        pictures.join("rings/000.png"),
        pictures.join("rings/renamed.png"),
    );
    std::fs::rename(&old, &new).unwrap();
    let ended = start(&[]).wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&ended.stderr).contains("or others, which moves its epochs"));
    std::fs::rename(&new, &old).unwrap();

    let epochs = done.div_ceil(4) + 1;
    let ended = start(&["--epochs", &epochs.to_string()])
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(
        said.contains(&format!("going on after step {done}")),
        "{said}"
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
        "every step once"
    );
    assert!(out.join("export/run.toml").exists() && out.join("export/model.safetensors").exists());
}

#[test]
fn wrong_commands_are_refused_in_words() {
    let root = tempfile::tempdir().unwrap();
    folder_of_pictures(root.path(), 2);
    let refused = |arguments: &[&str]| {
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
    assert!(refused(&[]).contains("holds 4 images, and a step takes 64; lower optimiser.batch"));
    assert!(refused(&["--init", "no-such"]).contains("there is no model \"no-such\""));
    assert!(refused(&["--set", "crops.local_size=15"]).contains("crops.local_size is 15"));
    assert!(refused(&["--device", "tpu"]).contains("it must be `cpu` or `cuda`"));
    let cuda = refused(&["--device", "cuda"]);
    assert!(
        cuda.contains("built for the CPU alone") || cuda.contains("no CUDA device was found"),
        "{cuda}"
    );
    let error = Run::prepare(
        &root.path().join("missing"),
        RunFiles::new(&root.path().join("run")),
        tiny_config(),
        None,
        &Evaluation::default(),
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
fn collapse_is_said_in_words() {
    let most = 64.0_f64.ln();
    let lines = |teacher_entropy: f64, usage_entropy: f64, spread: f64| {
        let line = StepLine {
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
    assert_eq!(Collapse::of(&lines(1.0, 3.0, 0.5), 64), None);
    assert_eq!(
        Collapse::of(&lines(0.001, 0.01, 0.5), 64),
        Some(Collapse::OnePrototype)
    );
    assert_eq!(
        Collapse::of(&lines(most, most, 0.5), 64),
        Some(Collapse::Uniform)
    );
    assert_eq!(
        Collapse::of(&lines(1.0, 3.0, 0.001), 64),
        Some(Collapse::OnePoint)
    );
    assert_eq!(
        Collapse::of(&lines(0.001, 0.01, 0.5)[..9], 64),
        None,
        "not for a few steps"
    );
    let mut broken = lines(1.0, 3.0, 0.5);
    broken[9].loss = f64::NAN;
    assert_eq!(Collapse::of(&broken, 64), Some(Collapse::NotANumber));
    assert!(
        Collapse::OnePrototype
            .to_string()
            .contains("loss.centring=sinkhorn_knopp")
    );
}

/// A teacher without a center that sharpens much collapses to one prototype; the run says so.
#[test]
fn a_run_that_collapses_says_so() {
    let root = tempfile::tempdir().unwrap();
    let (pictures, out) = (root.path().join("pictures"), root.path().join("run"));
    folder_of_pictures(&pictures, 8);
    let config = root.path().join("config.toml");
    let mut chosen = tiny_config();
    chosen.optimiser.epochs = 40;
    chosen.optimiser.learning_rate = 0.05;
    chosen.optimiser.teacher_momentum = [0.5, 0.5];
    chosen.loss.center_momentum = 1.0;
    chosen.loss.teacher_temperature = [0.005, 0.005];
    std::fs::write(&config, chosen.to_toml()).unwrap();
    let ended = Command::new(PROGRAM)
        .args([
            "run",
            pictures.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("nothing is learned any more"), "{said}");
}

#[test]
fn neighbors_are_told_apart_from_the_image_itself() {
    let root = tempfile::tempdir().unwrap();
    folder_of_pictures(root.path(), 6);
    let (sets, classes) =
        LabeledSet::find(&[root.path()], 28, &mut |_, _| panic!("all can be read")).unwrap();
    assert_eq!(classes, ["rings", "stripes"]);
    let vectors = sets[0].pixels().unwrap();
    let labels = &sets[0].labels;
    // Among others, a vote of one image is that of another; among all, it is its own.
    let own = knn_accuracy(vectors.view(), labels, Some((vectors.view(), labels)), 2, 1).unwrap();
    assert_eq!(own, 1.0);
    let others = knn_accuracy(vectors.view(), labels, None, 2, 11).unwrap();
    // All eleven others vote nearly alike, five of the own class and six of the other.
    assert!(others < 0.7, "{others}");
}
