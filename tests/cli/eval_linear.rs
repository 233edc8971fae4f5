//! `eval linear`: compared with scikit-learn on the same features, and the options it rejects.

use std::{collections::BTreeMap, process::Output};

use serde::Deserialize;
use serde_json::Value;

use crate::support::{
    golden,
    program::{dinoserve, home_with_focus, text},
    read_golden, scratch,
};

/// Predictions of scikit-learn's logistic regression for the test images of CIFAR-10.
#[derive(Deserialize)]
struct Reference {
    l2: f64,
    accuracy: f64,
    predictions: BTreeMap<String, String>,
    probabilities: BTreeMap<String, f64>,
}

fn evaluate(train: &str, more: &[&str]) -> (Output, Option<Value>) {
    let json = scratch("eval-linear").join("linear.json");
    let mut command = dinoserve();
    command
        .args([
            "eval",
            "linear",
            "--model",
            "dinov2-small-focus",
            "--device",
            "cpu",
        ])
        .args(more);
    command
        .arg("--train")
        .arg(golden(train))
        .arg("--test")
        .arg(golden("cifar10-sample/test"));
    let output = command
        .arg("--json")
        .arg(&json)
        .env("DINOSERVE_HOME", home_with_focus("fp32"))
        .output()
        .unwrap();
    let found = std::fs::read(json)
        .ok()
        .map(|bytes| serde_json::from_slice(&bytes).unwrap());
    (output, found)
}

#[test]
fn accuracy_and_predictions_are_those_of_scikit_learn() {
    let reference: Reference =
        serde_json::from_slice(&read_golden("probe/cifar10_sample.json")).unwrap();
    let (output, found) = evaluate("cifar10-sample/train", &["--l2", &reference.l2.to_string()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found = found.unwrap();
    assert_eq!(
        (&found["pooling"], &found["dim"], &found["converged"]),
        (&"cls_mean".into(), &768.into(), &true.into())
    );
    let accuracy = found["accuracy"].as_f64().unwrap();
    assert!(
        (accuracy - reference.accuracy).abs() <= 0.01,
        "{accuracy} and not {}",
        reference.accuracy
    );
    let predictions = found["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 200);
    let mut same = 0;
    for one in predictions {
        let id = one["id"].as_str().unwrap();
        let expected = &reference.predictions[id];
        if one["predicted"] == **expected {
            same += 1;
            // Features differ in the last digits of f32 from machine to machine.
            let difference =
                (one["probability"].as_f64().unwrap() - reference.probabilities[id]).abs();
            assert!(
                difference < 0.01,
                "{one} and not {}",
                reference.probabilities[id]
            );
        }
    }
    assert!(same >= 198, "{same} of 200 predictions are the same");
    let printed = text(&output.stdout);
    for line in [
        "Softmax regression, l2 = 100 (C = 0.01), given",
        "Accuracy 6",
        "Label",
        "airplane",
    ] {
        assert!(printed.contains(line), "{line:?} in {printed}");
    }
}

#[test]
fn the_strength_is_found_by_cross_validation() {
    // Half as many images, which are also the test set: the held-out accuracy counts.
    let (output, found) = evaluate("cifar10-sample/test", &["--pooling", "cls"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found = found.unwrap();
    assert_eq!(
        (&found["pooling"], &found["dim"]),
        (&"cls".into(), &384.into())
    );
    let share = |member: &str| found[member].as_f64().unwrap();
    assert!(share("accuracy") > 0.9, "{}", text(&output.stdout));
    // Chance is 0.1.
    assert!(
        (0.3..0.7).contains(&share("cross_validated_accuracy")),
        "{}",
        text(&output.stdout)
    );
    assert!(text(&output.stdout).contains("chosen by cross-validation"));
}

#[test]
fn impossible_options_are_rejected_before_images_are_read() {
    for (flags, detail) in [
        (["--l2", "0"], "option `l2`: 0 is out of range"),
        (
            ["--folds", "1"],
            "option `folds`: 1 is out of range; it must be 2 to 20",
        ),
        (["--pooling", "max"], "possible values"),
    ] {
        let (output, found) = evaluate("cifar10-sample/train", &flags);
        assert!(!output.status.success() && found.is_none());
        assert!(
            text(&output.stderr).contains(detail),
            "{}",
            text(&output.stderr)
        );
    }
    // One class only.
    let (output, _) = evaluate("cifar10-sample/train/airplane", &[]);
    assert!(
        text(&output.stderr).contains("has no subfolders with images"),
        "{}",
        text(&output.stderr)
    );
}
