//! Training with labels: the loss and its gradients, the labels of batches, and whole runs.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, atomic::AtomicBool},
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use dinoserve_train::{
    config::Config,
    data::{Batch, CropConfig, Dataset, UnreadableImages, list_images},
    method::{
        AdamW, LossConfig, Method, Trainer, TrainerState,
        loss::{accuracy, cross_entropy},
    },
    model::{FlatTensors, Heads, Network, flatten, load},
    run::{EvaluationSources, RunFiles},
};
use rand::{SeedableRng, rngs::ChaCha8Rng};

use crate::{
    step::{architecture, prepared},
    support::{assert_near, prepare_run, tensor, text, tiny_config, values, write_images},
};

const CLASSES: usize = 3;
/// Views of an image in the golden batch: two global and three local ones.
const VIEWS: usize = 5;

fn labels_tensor(labels: &[i64]) -> Tensor<1, Int> {
    let data = TensorData::new(labels.to_vec(), [labels.len()]);
    Tensor::from_data(data, &Device::flex())
}

/// Returns a random network with a classifier.
fn network() -> Network {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let heads = Heads::Classifier { classes: CLASSES };
    let device = Device::flex();
    Network::new(&architecture(), 0.0, 1.0, heads, &mut random, &device)
}

fn trainer(student: Network, shards: usize) -> Trainer {
    let state = TrainerState {
        teacher: student.clone(),
        student,
        center: None,
        patch_center: None,
        optimizer: AdamW::default(),
    };
    Trainer::new(state, LossConfig::default(), 3.0, shards, Device::flex())
}

/// Returns the golden batch, with labels.
fn labeled_batch() -> Batch {
    Batch {
        labels: Some(vec![0, 2, 1, 2]),
        ..prepared().1
    }
}

/// Computes the CLS tokens of all views of a batch, view by view, and the label of each.
fn cls_and_labels(network: &Network, batch: &Batch) -> (Vec<Vec<f32>>, Vec<usize>) {
    let cls = |pixels: &[f32], side: usize| {
        let images = tensor(pixels, [pixels.len() / (3 * side * side), 3, side, side]);
        values(network.backbone.forward(images, None, &mut None).cls)
    };
    let mut rows = cls(&batch.global, batch.global_side);
    rows.extend(cls(&batch.local, batch.local_side));
    let dim = architecture().dim;
    let labels = batch.labels.as_ref().unwrap().repeat(VIEWS);
    (rows.chunks(dim).map(<[f32]>::to_vec).collect(), labels)
}

/// Computes the logits of a row from the parameters of the classifier.
fn logits(parameters: &FlatTensors, cls: &[f32]) -> Vec<f64> {
    let weight = values(parameters["head.fc.weight"].clone());
    let bias = values(parameters["head.fc.bias"].clone());
    let product = |row: &[f32]| -> f64 {
        let terms = row.iter().zip(cls);
        terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let rows = weight.chunks(cls.len()).zip(bias);
    rows.map(|(row, bias)| product(row) + f64::from(bias))
        .collect()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let exp: Vec<f64> = logits.iter().map(|logit| logit.exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|value| value / sum).collect()
}

/// Computes in double precision, from CLS on: the mean cross-entropy over the views, and the share
/// of the views whose label has the largest logit.
fn expected_loss(network: &Network, batch: &Batch) -> (f64, f64) {
    let parameters = flatten(network);
    let (rows, labels) = cls_and_labels(network, batch);
    let mut loss = 0.0;
    let mut correct = 0.0;
    for (cls, label) in rows.iter().zip(&labels) {
        let logits = logits(&parameters, cls);
        loss -= softmax(&logits)[*label].ln();
        let largest = logits.iter().copied().fold(f64::MIN, f64::max);
        if logits[*label] == largest {
            correct += 1.0;
        }
    }
    let count = labels.len() as f64;
    (loss / count, correct / count)
}

/// The expected loss was computed in Python, in double precision: the mean of
/// `max(g) + log(sum(exp(g - max(g)))) - g[label]`.
#[test]
fn cross_entropy_and_accuracy_are_means_over_the_rows() {
    let logits = tensor(
        &[
            2.0, -1.0, 0.5, // right
            0.1, 0.2, 0.3, // wrong
            -3.0, 100.0, 99.0, // right
            -80.0, 0.0, 80.0, // wrong, by 160
        ],
        [4, 3],
    );
    let labels = labels_tensor(&[0, 1, 1, 0]);
    let loss = values(cross_entropy(logits.clone(), labels.clone()));
    assert_near("cross-entropy", &loss, &[40.414_13], 1e-6, 0.0);
    assert_eq!(values(accuracy(logits, labels)), [0.5]);
}

/// The gradient of the classifier has a closed form: (softmax − label)·CLS, a mean over the views.
#[test]
fn loss_and_gradients_of_the_classifier_equal_their_formulas_for_all_shards() {
    let batch = labeled_batch();
    let (loss, correct) = expected_loss(&network(), &batch);
    let parameters = flatten(&network());
    let (rows, labels) = cls_and_labels(&network(), &batch);
    let dim = architecture().dim;
    let mut bias = vec![0.0f64; CLASSES];
    let mut weight = vec![0.0f64; CLASSES * dim];
    for (cls, label) in rows.iter().zip(&labels) {
        let shares = softmax(&logits(&parameters, cls));
        for (class, share) in shares.iter().enumerate() {
            let error = (share - f64::from(u8::from(class == *label))) / labels.len() as f64;
            bias[class] += error;
            for (sum, value) in weight[class * dim..][..dim].iter_mut().zip(cls) {
                *sum += error * f64::from(*value);
            }
        }
    }
    let settings = prepared().2;
    for shards in [1, 2, 3, 4] {
        let mut trainer = trainer(network(), shards);
        let batches = [batch.clone()];
        let gradients = trainer.gradients(&batches, settings, 0);
        for (name, expected) in [("head.fc.bias", &bias), ("head.fc.weight", &weight)] {
            let expected: Vec<f32> = expected.iter().map(|&value| value as f32).collect();
            let what = format!("{name}, {shards} shards");
            let found = values(gradients[name].clone());
            assert_near(&what, &found, &expected, 1e-4, 1e-5);
        }
        let report = trainer.step(&batches, settings, 0);
        assert!((report.loss - loss).abs() < 1e-5, "{} {loss}", report.loss);
        let found = report.accuracy.expect("the images are labeled");
        assert!((found - correct).abs() < 1e-6, "{found} {correct}");
        assert!(report.view_loss.is_none() && report.teacher_entropy.is_none());
    }
}

/// Along the gradient g of a parameter, the loss rises by |g| for each unit of length.
#[test]
fn the_loss_rises_along_each_gradient_of_the_backbone_as_it_says() {
    let batch = labeled_batch();
    let settings = prepared().2;
    let gradients = trainer(network(), 2).gradients(std::slice::from_ref(&batch), settings, 0);
    for name in [
        "backbone.cls_token",
        "backbone.norm.weight",
        "backbone.patch_embed.proj.weight",
        "backbone.blocks.0.attn.qkv.weight",
        "backbone.blocks.1.mlp.fc2.weight",
    ] {
        let gradient = values(gradients[name].clone());
        let square: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
        let length = square.sqrt();
        let loss_at = |distance: f64| {
            let parameters = flatten(&network());
            let moved = load(network(), |parameter, _| {
                let mut moved = values(parameters[parameter].clone());
                if parameter == name {
                    for (value, g) in moved.iter_mut().zip(&gradient) {
                        *value += (distance * f64::from(*g) / length) as f32;
                    }
                }
                Ok::<_, ()>(moved)
            });
            expected_loss(&moved.unwrap(), &batch).0
        };
        let slope = (loss_at(0.02) - loss_at(-0.02)) / 0.04;
        assert!(
            (slope - length).abs() < 0.02 * length,
            "{name}: the loss rises by {slope}, and the gradient says {length}"
        );
    }
}

/// Both methods begin with the same backbone.
#[test]
fn the_method_does_not_change_the_first_backbone() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    write_images(&images, 4);
    let backbone = |method: Method| {
        let mut config = tiny_config();
        config.method = method;
        let out = root.path().join(method.to_string());
        let run = prepare_run(&images, &out, &config, &EvaluationSources::default()).unwrap();
        let state = flatten(&run.trainer().state().student.backbone);
        state
            .into_iter()
            .map(|(name, tensor)| (name, values(tensor)))
            .collect::<Vec<_>>()
    };
    assert_eq!(backbone(Method::Dino), backbone(Method::Supervised));
}

/// A file that cannot be read is replaced by another image, which brings its own label.
#[test]
fn each_image_of_a_batch_has_the_label_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths: Vec<PathBuf> = Vec::new();
    // The order of the list is that of the names. The color of an image is its label.
    for class in 0..4u8 {
        for index in 0..5 {
            let path = folder.path().join(format!("{class}-{index}.png"));
            let color = image::Rgb([60 * class; 3]);
            image::RgbImage::from_pixel(20, 20, color)
                .save(&path)
                .unwrap();
            paths.push(path);
        }
    }
    let labels = (0..paths.len()).map(|index| index / 5).collect();
    for broken in [0, 7, 8, 13] {
        std::fs::write(&paths[broken], "no image").unwrap();
    }
    let dataset = Dataset {
        images: list_images(text(folder.path())).unwrap().images,
        labels: Some(labels),
        crops: CropConfig {
            global_size: 14,
            local_count: 0,
            ..CropConfig::default()
        },
        batch: 10,
        seed: 3,
    };
    let unreadable = Mutex::new(UnreadableImages::default());
    let mut seen = [0; 4];
    let mut light = [(f32::MAX, f32::MIN); 4];
    for number in 0..6 {
        let batch = dataset.batch(number, &unreadable).unwrap();
        let labels = batch.labels.as_ref().unwrap();
        assert_eq!(labels.len(), 10);
        // Only brightness differs, and jitter scales it by 0.6 to 1.4; the first view is not
        // solarized.
        let views = batch.global.chunks(3 * 14 * 14).take(10);
        for (view, &label) in views.zip(labels) {
            seen[label] += 1;
            let red = view[0] * 0.229 + 0.485;
            light[label] = (light[label].0.min(red), light[label].1.max(red));
        }
    }
    assert_eq!(unreadable.lock().unwrap().take_unreported().len(), 4);
    assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
    for (label, (darkest, brightest)) in light.into_iter().enumerate() {
        let level = 60.0 / 255.0 * label as f32;
        let what = format!("label {label} has levels {darkest} to {brightest}");
        assert!(darkest >= 0.55 * level - 0.01, "{what}");
        assert!(brightest <= 1.45 * level + 0.01, "{what}");
    }
}

fn supervised_config() -> Config {
    let mut config = tiny_config();
    config.method = Method::Supervised;
    config
}

#[test]
fn a_run_with_labels_learns_them_and_writes_its_own_metrics_and_curves() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    let out = root.path().join("run");
    write_images(&images, 16);
    let mut config = supervised_config();
    config.optimizer.epochs = 20;
    config.optimizer.learning_rate = 0.1;
    config.optimizer.teacher_momentum = [0.8, 0.8];
    config.run.knn_epochs = 20;
    config.run.map_epochs = 20;
    let evaluation = EvaluationSources {
        set: Some(text(&images).to_owned()),
        gallery: None,
    };
    let mut run = prepare_run(&images, &out, &config, &evaluation).unwrap();
    assert_eq!(run.classes(), ["rings", "stripes"]);
    run.train(2, &AtomicBool::new(false)).unwrap();
    let accuracies: Vec<f64> = run
        .metrics()
        .steps
        .chunks(16)
        .map(|lines| {
            let sum: f64 = lines.iter().map(|line| line.report.accuracy.unwrap()).sum();
            sum / lines.len() as f64
        })
        .collect();
    let last = accuracies[accuracies.len() - 1];
    assert!(last > accuracies[0] + 0.15, "{accuracies:?}");

    let files = RunFiles::new(&out);
    let metrics = std::fs::read_to_string(files.metrics()).unwrap();
    assert!(metrics.contains("\"accuracy\":"));
    for absent in ["view_loss", "teacher_entropy", "spread"] {
        assert!(!metrics.contains(absent), "the metrics have {absent}");
    }
    let curves = std::fs::read_to_string(files.curves()).unwrap();
    for title in ["Loss", "Accuracy on training views, %", "k-NN accuracy, %"] {
        assert!(curves.contains(title), "the curves have no {title:?}");
    }
    assert!(!curves.contains("Entropy"));
    assert!(files.maps(20).exists());
}

fn run_program(images: &Path, out: &Path, config: &Path, method: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dinoserve-train"))
        .arg("run")
        .arg(images)
        .arg("--out")
        .arg(out)
        .arg("--config")
        .arg(config)
        .args(["--method", method])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

#[test]
fn the_program_trains_with_labels_and_refuses_what_has_none() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    let out = root.path().join("run");
    write_images(&images, 6);
    std::fs::copy(images.join("rings/000.png"), images.join("stray.png")).unwrap();
    // The same file serves both methods.
    let mut config = tiny_config();
    config.loss.patch_weight = 1.0;
    config.loss.koleo_weight = 0.1;
    let file = root.path().join("config.toml");
    std::fs::write(&file, config.to_toml()).unwrap();

    let (code, text) = run_program(&images, &out, &file, "supervised");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("4 images each with 2 labels"), "{text}");
    assert!(
        text.contains("left out images without a label: 1, such as stray.png"),
        "{text}"
    );
    let description = std::fs::read_to_string(out.join("export/run.toml")).unwrap();
    assert!(description.contains("with labels"), "{description}");

    let dino = root.path().join("dino");
    let (code, text) = run_program(&images, &dino, &file, "dino");
    assert_eq!(code, Some(0), "{text}");
    for (out, first, second) in [(&out, "supervised", "dino"), (&dino, "dino", "supervised")] {
        let (code, text) = run_program(&images, out, &file, second);
        assert_eq!(code, Some(1), "{text}");
        let expected = format!("by the method {first}; resume it with `--method {first}`");
        assert!(text.contains(&expected), "{text}");
    }
    let relabeled = images.join("circles");
    std::fs::rename(images.join("rings"), &relabeled).unwrap();
    let (code, text) = run_program(&images, &out, &file, "supervised");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("or images of other names"), "{text}");
    std::fs::rename(&relabeled, images.join("rings")).unwrap();

    let (code, text) = run_program(&images.join("rings"), &out, &file, "supervised");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("has no subfolders with images"), "{text}");
    std::fs::remove_dir_all(images.join("stripes")).unwrap();
    let (code, text) = run_program(&images, &out, &file, "supervised");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("have the label \"rings\""), "{text}");
    let (code, text) = run_program(&images, &out, &file, "no-such");
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("[possible values: dino, supervised]"),
        "{text}"
    );
}

/// Checkpoints from before there was a choice have no method.
#[test]
fn a_checkpoint_without_a_method_is_of_dino() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("images");
    let out = root.path().join("run");
    write_images(&images, 6);
    let config = tiny_config();
    let prepare =
        |config: &Config| prepare_run(&images, &out, config, &EvaluationSources::default());
    prepare(&config)
        .unwrap()
        .train(1, &AtomicBool::new(true))
        .unwrap();
    let path = RunFiles::new(&out).checkpoint();
    let bytes = std::fs::read(&path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let mut metadata = header.metadata().clone().unwrap();
    assert_eq!(metadata.remove("method").as_deref(), Some("dino"));
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    safetensors::serialize_to_file(tensors.iter(), Some(metadata), &path).unwrap();
    assert_eq!(prepare(&config).unwrap().steps_done(), 1);
    assert!(prepare(&supervised_config()).is_err());
}
