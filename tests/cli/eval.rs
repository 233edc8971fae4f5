//! Evaluation on labeled folders: compared with reference predictions, and its printed report.

use std::{collections::BTreeMap, path::Path, process::Output};

use dinoserve::{
    eval::{Neighbor, Report, nearest, predict},
    features::vote::Vote,
};
use ndarray::array;
use serde::Deserialize;
use serde_json::Value;

use crate::support::{
    golden,
    program::{dinoserve, home_with_focus, home_with_tiny, text},
    read_golden, scratch,
};

/// Predictions of 20 neighbors for images of CIFAR-10, computed with Meta's model code.
#[derive(Deserialize)]
struct Reference {
    weighted_accuracy: f64,
    majority_accuracy_lowest_label_on_tie: f64,
    weighted_predictions: BTreeMap<String, String>,
    top5_of_first_tests: BTreeMap<String, Vec<(String, f64)>>,
}

fn names(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|&label| label.to_owned()).collect()
}

/// Evaluates both votes of 20 neighbors on images of CIFAR-10. Returns the output and the file.
fn evaluate_cifar10(precision: &str) -> (String, Value) {
    let json = scratch("eval").join("knn.json");
    let images = golden("cifar10-sample");
    let mut command = dinoserve();
    command.args([
        "eval", "knn", "-k", "20", "--vote", "weighted", "--vote", "majority",
    ]);
    command.args([
        "--model",
        "dinov2-small-focus",
        "--device",
        "cpu",
        "--precision",
        precision,
    ]);
    command
        .arg("--train")
        .arg(images.join("train"))
        .arg("--test")
        .arg(images.join("test"));
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .arg("--json")
        .arg(&json)
        .env("DINOSERVE_HOME", home_with_focus(precision))
        .output()
        .unwrap();
    assert!(status.success(), "{}", text(&stderr));
    (
        text(&stdout),
        serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap(),
    )
}

fn text_of<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member]
        .as_str()
        .unwrap_or_else(|| panic!("{member} of {value}"))
}

/// Returns the predicted label of each image.
fn predictions(run: &Value) -> BTreeMap<String, &str> {
    let all = run["predictions"].as_array().unwrap();
    all.iter()
        .map(|one| {
            (
                format!("test/{}", text_of(one, "id")),
                text_of(one, "predicted"),
            )
        })
        .collect()
}

#[test]
fn neighbors_and_both_votes_are_those_of_the_reference() {
    let reference: Reference =
        serde_json::from_slice(&read_golden("knn_cifar10_sample.json")).unwrap();
    let (printed, found) = evaluate_cifar10("fp32");
    let of_run = |run: usize, vote: &str, accuracy: f64| {
        let run = &found["runs"][run];
        assert_eq!((text_of(run, "vote"), run["k"].as_u64()), (vote, Some(20)));
        // Two images of 200.
        assert!(
            (run["accuracy"].as_f64().unwrap() - accuracy).abs() <= 0.01 + 1e-6,
            "{vote}: {}",
            run["accuracy"]
        );
        let predicted = predictions(run);
        assert_eq!(predicted.len(), 200);
        predicted
    };
    let weighted = of_run(0, "weighted", reference.weighted_accuracy);
    let same = reference
        .weighted_predictions
        .iter()
        .filter(|(id, label)| weighted[*id] == **label)
        .count();
    assert!(same >= 196, "{same} of 200 predictions are the same");

    let neighbors: BTreeMap<String, &Vec<Value>> = found["neighbors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| {
            (
                format!("test/{}", text_of(of, "id")),
                of["neighbors"].as_array().unwrap(),
            )
        })
        .collect();
    for (id, expected) in &reference.top5_of_first_tests {
        let found = neighbors[id];
        assert_eq!(found.len(), 20);
        for ((name, score), in_place) in expected.iter().zip(found) {
            let close = |near: &Value| (near["score"].as_f64().unwrap() - score).abs() <= 1e-3;
            assert!(close(in_place), "{id}: {in_place} and not {score}");
            // Neighbors whose scores are closer than that may come in either order.
            let named = found
                .iter()
                .find(|near| format!("train/{}", text_of(near, "id")) == *name);
            assert!(
                named.is_some_and(close),
                "{id}: {named:?} and not {name}, {score}"
            );
        }
    }

    // The reference has no majority vote of single images; it follows from the neighbors.
    let majority = of_run(
        1,
        "majority",
        reference.majority_accuracy_lowest_label_on_tie,
    );
    for (id, near) in neighbors {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        near.iter()
            .for_each(|near| *votes.entry(text_of(near, "label")).or_default() += 1);
        let most = votes.values().max().unwrap();
        let first = votes.iter().find(|(_, count)| *count == most).unwrap().0;
        assert_eq!(majority[&id], *first, "{id}: {votes:?}");
    }

    // The printed report.
    for line in [
        "train  500 images of 10 labels, ",
        "k = 20, weighted vote (T = 0.07)",
        "k = 20, majority vote",
    ] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    let percent = found["runs"][0]["accuracy"].as_f64().unwrap() * 100.0;
    assert!(
        printed.contains(&format!("Accuracy {percent:.1} % (")),
        "{printed}"
    );
    assert_eq!(
        printed
            .lines()
            .filter(|line| line.starts_with("airplane "))
            .count(),
        2,
        "{printed}"
    );
}

#[test]
fn int8_costs_at_most_one_point_of_accuracy() {
    let reference: Reference =
        serde_json::from_slice(&read_golden("knn_cifar10_sample.json")).unwrap();
    let (_, found) = evaluate_cifar10("int8");
    let accuracies = [
        reference.weighted_accuracy,
        reference.majority_accuracy_lowest_label_on_tie,
    ];
    for (run, expected) in found["runs"].as_array().unwrap().iter().zip(accuracies) {
        let accuracy = run["accuracy"].as_f64().unwrap();
        assert!(
            accuracy >= expected - 0.01 - 1e-6,
            "{}: {accuracy}, and fp32 has {expected}",
            run["vote"]
        );
    }
}

#[test]
fn bad_files_and_labels_are_reported() {
    let folder = scratch("eval-folders");
    let copy = |from: &str, to: &str| {
        let to = folder.join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(golden(&format!("dinov2-small-focus/{from}")), to).unwrap();
    };
    copy("chelsea.png", "train/cat/one.png");
    copy("coffee.png", "train/cup/deep/er/two.png");
    copy("astronaut.png", "train/stray.png");
    copy("chelsea.png", "test/cat/three.png");
    copy("rocket.jpg", "test/rocket/four.jpg");
    std::fs::write(folder.join("test/cat/broken.png"), b"not an image!").unwrap();
    std::fs::create_dir_all(folder.join("empty/cat")).unwrap();

    let home = home_with_tiny();
    let evaluate = |train: &str, test: &str, more: &[&str]| {
        let mut command = dinoserve();
        command
            .args(["eval", "knn", "--model", "tiny", "--device", "cpu"])
            .args(more);
        command
            .arg("--train")
            .arg(folder.join(train))
            .arg("--test")
            .arg(folder.join(test));
        let Output {
            status,
            stdout,
            stderr,
        } = command.env("DINOSERVE_HOME", &home).output().unwrap();
        (status.code(), text(&stdout), text(&stderr))
    };
    let (code, printed, error) = evaluate("train", "test", &["-k", "1,2", "--size", "112"]);
    assert_eq!(code, Some(1), "a file could not be read: {error}");
    for line in [
        "tiny (fp32), cls, crop 112: 64 values an image",
        "train  2 images of 2 labels, ",
        "test   2 images of 2 labels, ",
        "  stray.png: is in no subfolder, whose name would be its label",
        "  cat/broken.png: the 13 bytes",
        "Label `rocket` has no images to learn from, so its test image counts as wrong.",
        "k = 1, weighted vote (T = 0.07)\nAccuracy 50.0 % (1 of 2)",
        "    1  weighted        50.0",
    ] {
        assert!(printed.contains(line), "{line} in {printed}");
    }

    let fails = |(code, _, error): (Option<i32>, String, String), expected: &str| {
        assert!(
            code == Some(1) && error.contains(expected),
            "{expected} in {error}"
        );
    };
    fails(
        evaluate("train", "test", &["-k", "3"]),
        "-k: with 2 images to learn from, k must be 1 to 2",
    );
    fails(evaluate("train", "test", &["-k", "0"]), "k must be 1 to 2");
    fails(
        evaluate("train", "test", &["-k", "1", "--temperature", "0"]),
        "--temperature 0 is out of range; it must be above 0",
    );
    fails(
        evaluate("empty", "test", &["-k", "1"]),
        "empty: the folder has no images; supported extensions: jpg",
    );
    fails(
        evaluate("train/cat", "test", &["-k", "1"]),
        "has no subfolders with images; it needs one for each label",
    );
    fails(evaluate("missing", "test", &["-k", "1"]), "cannot read");
    fails(
        evaluate("train", "test", &["-k", "1", "--size", "113"]),
        "113 is not a multiple of the patch size 14",
    );
    assert!(Path::new(&home).exists());
}

#[test]
fn neighbors_come_by_falling_score_and_equals_in_their_order() {
    let train = array![[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]];
    let near = nearest(train.view(), array![[1.0, 0.0], [0.0, -1.0]].view(), 3).unwrap();
    let expected = [
        [(0, 1.0), (2, 1.0), (3, 0.6)],
        [(0, 0.0), (2, 0.0), (3, -0.8)],
    ];
    for (near, expected) in near.iter().zip(expected) {
        assert_eq!(
            near.as_slice(),
            expected.map(|(index, score)| Neighbor { index, score })
        );
    }
    assert!(nearest(train.view(), train.view(), 0).is_err());
    assert!(
        nearest(train.view(), train.view(), 5)
            .unwrap_err()
            .to_string()
            .contains("use 1 to 4")
    );
}

#[test]
fn the_lowest_class_wins_a_tie_and_the_nearest_outweigh_many() {
    let near = |scores: &[f32]| -> Vec<Neighbor> {
        scores
            .iter()
            .enumerate()
            .map(|(index, &score)| Neighbor { index, score })
            .collect()
    };
    let labels = [2, 1, 1, 2, 0];
    let neighbors = near(&[0.9, 0.5, 0.5, 0.5, 0.1]);
    assert_eq!(
        predict(&neighbors, 4, &labels, 3, Vote::Majority, 0.07),
        Some(1),
        "two against two"
    );
    assert_eq!(
        predict(&neighbors, 3, &labels, 3, Vote::Majority, 0.07),
        Some(1)
    );
    // exp(0.9/0.07) is 303 times exp(0.5/0.07).
    assert_eq!(
        predict(&neighbors, 3, &labels, 3, Vote::Weighted, 0.07),
        Some(2)
    );
    assert_eq!(
        predict(&neighbors, 3, &labels, 3, Vote::Weighted, 100.0),
        Some(1),
        "nearly a majority vote"
    );
}

#[test]
fn a_report_counts_confusions() {
    let classes = names(&["ant", "bee", "cow"]);
    let truth = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1];
    let predicted = [
        Some(0),
        Some(0),
        Some(1),
        None,
        Some(1),
        Some(1),
        Some(1),
        Some(0),
        Some(1),
        Some(1),
    ];
    let report = Report::new(&classes, &truth, &predicted);
    assert_eq!(
        (report.correct, report.count, report.accuracy),
        (7, 10, 0.7)
    );
    assert_eq!(report.confusion, [[2, 1, 0], [1, 5, 0], [0, 0, 0]]);
    assert_eq!(report.unpredicted, [1, 0, 0]);
    let of = |index: usize| {
        let class = &report.classes[index];
        (class.precision, class.recall, class.f1, class.count)
    };
    assert_eq!(of(0), (Some(2.0 / 3.0), Some(0.5), Some(4.0 / 7.0), 4));
    assert_eq!(
        of(1),
        (Some(5.0 / 6.0), Some(5.0 / 6.0), Some(10.0 / 12.0), 6)
    );
    assert_eq!(
        of(2),
        (None, None, None, 0),
        "a class that is neither there nor predicted"
    );

    let expected = "\
Accuracy 70.0 % (7 of 10)

Taken for (columns are numbered as the labels)
          1  2  3  none
1  ant    2  1  ·     1
2  bee    1  5  ·     0
3  cow    ·  ·  ·     0

Label  precision %  recall %   F1 %  images
ant           66.7      50.0   57.1       4
bee           83.3      83.3   83.3       6
cow              –         –      –       0
";
    assert_eq!(report.to_string(), expected);
    assert_eq!(
        serde_json::to_value(&report).unwrap()["classes"][2]["precision"],
        Value::Null
    );
}

#[test]
fn a_report_of_many_classes_lists_frequent_confusions() {
    let classes: Vec<String> = (0..30).map(|class| format!("class {class:02}")).collect();
    let truth: Vec<usize> = (0..30).flat_map(|class| [class; 3]).collect();
    let predicted: Vec<Option<usize>> = truth
        .iter()
        .enumerate()
        .map(|(row, &label)| Some(if label == 7 || row == 0 { 4 } else { label }))
        .collect();
    let printed = Report::new(&classes, &truth, &predicted).to_string();
    assert!(
        printed.starts_with("Accuracy 95.6 % (86 of 90)"),
        "{printed}"
    );
    assert!(
        printed.contains(
            "Most often confused\n     3 ×  class 07 taken for class 04\n     1 ×  class 00 taken"
        ),
        "{printed}"
    );
}
