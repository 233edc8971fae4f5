//! Whole runs: metrics, curves, maps, resuming, stopping, collapse.

use std::{path::Path, sync::atomic::AtomicBool};

use dinoserve_train::{
    config::Config,
    data::list_images,
    method::{Method, StepReport},
    model::flatten,
    run::{
        Collapse, EvaluationSources, KnnMetrics, LabeledSet, Run, RunFiles, RunOutcome,
        StepMetrics, knn_accuracy,
    },
};

use crate::support::{prepare_run, text, tiny_config, values, write_images};

/// Prepares a run whose accuracy is measured on the images of `labeled`.
fn prepare(images: &Path, labeled: &Path, out: &Path, config: &Config) -> Run {
    let evaluation = EvaluationSources {
        set: Some(text(labeled).to_owned()),
        gallery: None,
    };
    prepare_run(images, out, config, &evaluation).unwrap()
}

/// Returns the metrics of a run without those that depend on time.
fn timeless_metrics(run: &Run) -> (Vec<StepMetrics>, Vec<KnnMetrics>) {
    let mut steps = run.metrics().steps.clone();
    for line in &mut steps {
        line.images_per_second = 0.0;
        line.waited = 0.0;
    }
    (steps, run.metrics().knn.clone())
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
    let mut with_labels = tiny_config();
    with_labels.method = Method::Supervised;
    for (name, config) in [
        ("plain", tiny_config()),
        ("all losses", all_losses()),
        ("labels", with_labels),
    ] {
        let mut whole = prepare(&images, &images, &root.path().join(name), &config);
        let outcome = whole.train(1, &AtomicBool::new(false)).unwrap();
        assert_eq!(outcome, RunOutcome::Finished, "{name}");
        let out = root.path().join(format!("{name}-parts"));
        // With `stop` set from the start, a run stops after its first step.
        let mut steps = 0;
        loop {
            let mut part = prepare(&images, &images, &out, &config);
            match part.train(1, &AtomicBool::new(true)).unwrap() {
                RunOutcome::Stopped(done) => {
                    steps += 1;
                    assert_eq!(done, steps, "{name}");
                }
                RunOutcome::Finished => {
                    assert_eq!(steps + 1, whole.steps(), "{name}");
                    assert_eq!(timeless_metrics(&part), timeless_metrics(&whole), "{name}");
                    let mut expected = flatten(&whole.trainer().state().teacher);
                    for (parameter, tensor) in flatten(&part.trainer().state().teacher) {
                        let expected = expected.remove(&parameter).unwrap();
                        assert_eq!(values(tensor), values(expected), "{name}: {parameter}");
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
    let prepare = || prepare(&images, &labeled, &out, &tiny_config());
    let outcome = prepare().train(1, &AtomicBool::new(true)).unwrap();
    assert_eq!(outcome, RunOutcome::Stopped(1));
    let mut run = prepare();
    let away = root.path().join("away.png");
    std::fs::rename(labeled.join("rings/003.png"), &away).unwrap();
    assert!(run.train(1, &AtomicBool::new(false)).is_err());
    assert_eq!(run.steps_done(), 4, "after the first epoch");
    std::fs::rename(&away, labeled.join("rings/003.png")).unwrap();
    drop(run);
    let mut run = prepare();
    assert_eq!(run.steps_done(), 4);
    let outcome = run.train(1, &AtomicBool::new(false)).unwrap();
    assert_eq!(outcome, RunOutcome::Finished);
    let measured: Vec<usize> = run.metrics().knn.iter().map(|line| line.step).collect();
    assert_eq!(measured, [0, 4, 8, 12]);
    assert!(RunFiles::new(&out).maps(1).exists());
}

#[test]
fn a_run_folder_inside_the_image_folder_is_not_trained_on() {
    let root = tempfile::tempdir().unwrap();
    write_images(root.path(), 8);
    let out = root.path().join("run");
    let prepare = || prepare(root.path(), root.path(), &out, &tiny_config());
    let steps = prepare().steps();
    prepare().train(1, &AtomicBool::new(false)).unwrap();
    assert!(RunFiles::new(&out).maps(1).exists());
    let again = prepare();
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
    let mut run = prepare(&images, &images, &out, &config);
    run.train(2, &AtomicBool::new(false)).unwrap();
    let lines = &run.metrics().steps;
    assert_eq!(lines.len(), run.steps());
    let losses: Vec<f64> = lines
        .chunks(8)
        .map(|lines| lines.iter().map(|line| line.report.loss).sum::<f64>() / 8.0)
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
fn every_kind_of_collapse_is_detected() {
    let max_entropy = 64.0_f64.ln();
    let lines = |teacher_entropy: f64, usage_entropy: f64, spread: f64| {
        let line = StepMetrics {
            step: 0,
            epoch: 0.0,
            report: StepReport {
                loss: 1.0,
                teacher_entropy: Some(teacher_entropy),
                usage_entropy: Some(usage_entropy),
                spread: Some(spread),
                ..StepReport::default()
            },
            learning_rate: 1.0,
            images_per_second: 1.0,
            waited: 0.0,
        };
        vec![line; 10]
    };
    for (entropies_and_spread, collapse) in [
        ([1.0, 3.0, 0.5], None),
        ([0.001, 0.01, 0.5], Some(Collapse::OnePrototype)),
        ([max_entropy, max_entropy, 0.5], Some(Collapse::Uniform)),
        ([1.0, 3.0, 0.001], Some(Collapse::OnePoint)),
    ] {
        let [teacher_entropy, usage_entropy, spread] = entropies_and_spread;
        let lines = lines(teacher_entropy, usage_entropy, spread);
        assert_eq!(Collapse::detect(&lines, 64), collapse, "{collapse:?}");
        assert_eq!(
            Collapse::detect(&lines[..9], 64),
            None,
            "nine steps are too few"
        );
    }
    let mut infinite = lines(1.0, 3.0, 0.5);
    infinite[9].report.loss = f64::NAN;
    assert_eq!(Collapse::detect(&infinite, 64), Some(Collapse::NotFinite));
    assert!(
        Collapse::OnePrototype
            .to_string()
            .contains("loss.centring=sinkhorn_knopp")
    );
}

/// A list in place of the folder, with the same ids, changes nothing.
#[test]
fn a_run_reads_any_source() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    write_images(&images, 6);
    let list = root.path().join("list.jsonl");
    let lines = list_images(text(&images)).unwrap().images.into_iter();
    let lines = lines.map(|image| {
        let path = format!("images/{}", image.id);
        let line = serde_json::json!({"path": path, "id": image.id, "label": image.label});
        format!("{line}\n")
    });
    std::fs::write(&list, lines.collect::<String>()).unwrap();
    let config = tiny_config();
    let metrics = [("folder", &images), ("list", &list)].map(|(name, source)| {
        let mut run = prepare(source, source, &root.path().join(name), &config);
        run.train(2, &AtomicBool::new(false)).unwrap();
        timeless_metrics(&run)
    });
    assert_eq!(metrics[0], metrics[1]);
    assert!(!metrics[0].0.is_empty() && !metrics[0].1.is_empty());
}

#[test]
fn an_image_is_not_its_own_neighbor_within_a_set() {
    let root = tempfile::tempdir().unwrap();
    write_images(root.path(), 6);
    let (sets, classes) = LabeledSet::find(&[text(root.path())], 28).unwrap();
    assert_eq!(classes, ["rings", "stripes"]);
    let vectors = sets[0].pixels().unwrap();
    let labels = &sets[0].labels;
    assert_eq!(labels.len(), 12);
    // Against the set as a gallery, the nearest neighbor is the image itself.
    let with_itself =
        knn_accuracy(vectors.view(), labels, Some((vectors.view(), labels)), 2, 1).unwrap();
    assert_eq!(with_itself, 1.0);
    // Within the set, all eleven others vote nearly alike: five of the same class, six of the
    // other.
    let without_itself = knn_accuracy(vectors.view(), labels, None, 2, 11).unwrap();
    assert!(without_itself < 0.7, "{without_itself}");
}
