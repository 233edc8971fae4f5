//! Softmax regression, compared with scikit-learn and with its definition; rejected inputs.

use dinoserve::{
    error::Kind,
    features::{
        probe::{Examples, Probe, TrainingOptions, train},
        progress::{Progress, Stage},
    },
};
use serde_json::Value;

use crate::support::{difference, read_golden, server::floats};

fn rows(value: &Value) -> Vec<Vec<f32>> {
    value.as_array().expect("rows").iter().map(floats).collect()
}

/// Returns a problem of `tests/golden/probe/softmax.json`.
fn golden(name: &str) -> Value {
    let all: Value = serde_json::from_slice(&read_golden("probe/softmax.json")).expect("JSON");
    all[name].clone()
}

fn examples(problem: &Value) -> Examples {
    let features = rows(&problem["features"]);
    let mut examples = Examples::new(features[0].len(), 100);
    let labels = problem["labels"].as_array().expect("labels");
    for (row, label) in features.into_iter().zip(labels) {
        examples
            .add(row, label.as_str().expect("a label"))
            .expect("an example");
    }
    examples
}

fn trained(examples: &Examples, l2: Option<f64>) -> Probe {
    let options = TrainingOptions {
        l2,
        ..TrainingOptions::default()
    };
    train(examples, &options, &mut |_| true)
        .expect("examples")
        .expect("it is not canceled")
}

#[test]
fn weights_and_probabilities_are_those_of_scikit_learn() {
    let problem = golden("several");
    let examples = examples(&problem);
    for fit in problem["fits"].as_array().unwrap() {
        let l2 = fit["l2"].as_f64().unwrap();
        let probe = trained(&examples, Some(l2));
        assert!(probe.converged, "{l2}");
        assert_eq!(probe.classes, ["class 0", "class 1", "class 2", "class 3"]);
        let (weights, _) = difference(&probe.weights, &floats(&fit["weights"]));
        let (biases, _) = difference(&probe.biases, &floats(&fit["biases"]));
        assert!(
            weights <= 1e-3 && biases <= 1e-3,
            "l2 = {l2}: weights differ by {weights}, biases by {biases}"
        );
        for (features, expected) in rows(&problem["new"])
            .iter()
            .zip(rows(&fit["probabilities"]))
        {
            let (largest, _) = difference(&probe.probabilities(features).unwrap(), &expected);
            assert!(largest <= 1e-3, "l2 = {l2}: {largest}");
        }
    }
}

#[test]
fn two_classes_match_scikit_learn_with_its_other_penalty() {
    let problem = golden("two");
    let probe = trained(&examples(&problem), problem["fits"][0]["l2"].as_f64());
    for (features, expected) in rows(&problem["new"])
        .iter()
        .zip(rows(&problem["fits"][0]["probabilities"]))
    {
        let (largest, _) = difference(&probe.probabilities(features).unwrap(), &expected);
        assert!(largest <= 1e-3, "{largest}");
    }
}

/// Computes the objective by its definition.
fn objective(problem: &Value, probe: &Probe, l2: f64) -> f64 {
    let labels = problem["labels"].as_array().unwrap();
    let loss = |(features, label): (Vec<f32>, &Value)| {
        let logit = |class: usize| {
            let weights = &probe.weights[class * features.len()..][..features.len()];
            let products = weights
                .iter()
                .zip(&features)
                .map(|(&w, &x)| f64::from(w) * f64::from(x));
            products.sum::<f64>() + f64::from(probe.biases[class])
        };
        let class = probe
            .classes
            .iter()
            .position(|name| name == label.as_str().unwrap())
            .unwrap();
        (0..probe.classes.len())
            .map(|class| logit(class).exp())
            .sum::<f64>()
            .ln()
            - logit(class)
    };
    let penalty: f64 = probe
        .weights
        .iter()
        .map(|&weight| f64::from(weight).powi(2))
        .sum();
    rows(&problem["features"])
        .into_iter()
        .zip(labels)
        .map(loss)
        .sum::<f64>()
        + l2 / 2.0 * penalty
}

#[test]
fn the_gradient_at_a_trained_probe_is_zero() {
    let problem = golden("several");
    let l2 = 1.0;
    let best = trained(&examples(&problem), Some(l2));
    let blank = Probe {
        weights: vec![0.0; best.weights.len()],
        biases: vec![0.0; best.biases.len()],
        ..best.clone()
    };
    let slope = |at: &Probe, index: usize| {
        let moved = |by: f32| {
            let mut probe = at.clone();
            match probe.weights.get_mut(index) {
                Some(weight) => *weight += by,
                None => probe.biases[index - at.weights.len()] += by,
            }
            objective(&problem, &probe, l2)
        };
        let step = 1.0 / 1024.0;
        (moved(step) - moved(-step)) / (2.0 * f64::from(step))
    };
    let steepest = |at: &Probe| {
        (0..at.weights.len() + at.biases.len())
            .map(|index| slope(at, index).abs())
            .fold(0.0, f64::max)
    };
    let before = steepest(&blank);
    let after = steepest(&best);
    assert!(
        before > 10.0 && after < 1e-3,
        "{before} before, {after} after"
    );
}

#[test]
fn the_strength_is_chosen_by_held_out_examples_and_reproducible() {
    let examples = examples(&golden("several"));
    let mut stages = Vec::new();
    let options = TrainingOptions::default();
    let mut watch = |progress: Progress| {
        stages.push(progress);
        true
    };
    let probe = train(&examples, &options, &mut watch).unwrap().unwrap();
    assert_eq!(probe, trained(&examples, None), "twice the same");
    assert!(
        probe.accuracy > 0.6 && probe.accuracy < 1.0,
        "the classes overlap: {}",
        probe.accuracy
    );
    assert_eq!(probe.examples, 90);
    // No other strength is better, and no equally good one is stronger.
    for l2 in [1e5, 1e4, 1e3, 1e2, 1e1, 1e0, 1e-1, 1e-2] {
        let other = trained(&examples, Some(l2));
        assert!(
            other.accuracy < probe.accuracy + 0.02,
            "{l2}: {}",
            other.accuracy
        );
    }
    let validating = stages
        .iter()
        .filter(|progress| progress.stage == Stage::Validating);
    assert_eq!(
        validating.clone().map(|progress| progress.total).max(),
        Some(Some(40))
    );
    assert_eq!(validating.map(|progress| progress.done).max(), Some(39));
    assert!(
        stages
            .windows(2)
            .all(|pair| pair[0].stage != Stage::Fitting || pair[1].stage == Stage::Fitting)
    );
}

#[test]
fn impossible_training_sets_are_rejected() {
    let made = |counts: &[usize]| {
        let mut examples = Examples::new(2, 100);
        for (class, &count) in counts.iter().enumerate() {
            (0..count).for_each(|i| {
                examples
                    .add(vec![class as f32, i as f32], &format!("c{class}"))
                    .unwrap();
            });
        }
        examples
    };
    let options = TrainingOptions::default();
    let cases = [
        (made(&[]), options, "no labeled features"),
        (made(&[9]), options, "there is one class only, `c0`"),
        (made(&[9, 1]), options, "the class `c1` has one example"),
        (
            made(&[9, 9]),
            TrainingOptions {
                l2: Some(0.0),
                ..options
            },
            "option `l2`: 0 is out of range",
        ),
        (
            made(&[9, 9]),
            TrainingOptions {
                l2: Some(f64::NAN),
                ..options
            },
            "option `l2`: NaN is out of range",
        ),
        (
            made(&[9, 9]),
            TrainingOptions {
                folds: 1,
                ..options
            },
            "option `folds`: 1 is out of range; it must be 2 to 20",
        ),
    ];
    for (examples, options, detail) in cases {
        let error = train(&examples, &options, &mut |_| true).expect_err(detail);
        assert_eq!(error.kind(), Kind::InvalidOption, "{detail}: {error}");
        assert!(error.detail().contains(detail), "{detail}: {error}");
    }
    let mut examples = Examples::new(2, 2);
    let error = examples.add(vec![1.0, f32::NAN], "a").unwrap_err();
    assert!(
        error
            .detail()
            .contains("`a` contain a value that is not a finite number"),
        "{error}"
    );
    assert!(examples.add(vec![1.0], "a").is_err());
    examples.add(vec![1.0, 2.0], "a").unwrap();
    examples.add(vec![1.0, 2.0], "b").unwrap();
    let error = examples.add(vec![1.0, 2.0], "c").unwrap_err();
    assert_eq!(
        (error.kind(), error.limit().unwrap().flag),
        (Kind::TooLarge, "--max-probe-classes")
    );
    assert_eq!(examples.len(), 2, "rejected examples are not added");
}

#[test]
fn a_class_of_two_has_one_held_out_example() {
    let mut examples = Examples::new(1, 100);
    (0..20).for_each(|i| examples.add(vec![-1.0 - i as f32], "many").unwrap());
    (0..2).for_each(|i| examples.add(vec![1.0 + i as f32], "few").unwrap());
    let mut most = None;
    let options = TrainingOptions {
        l2: Some(0.1),
        ..TrainingOptions::default()
    };
    let probe = train(&examples, &options, &mut |progress| {
        most = most.max(progress.total);
        true
    });
    assert_eq!(probe.unwrap().unwrap().accuracy, 1.0);
    assert_eq!(
        most,
        Some(2),
        "two parts, as the smaller class has two examples"
    );
}

#[test]
fn constant_features_give_the_class_frequencies() {
    let mut examples = Examples::new(3, 100);
    (0..30).for_each(|_| examples.add(vec![7.0, 7.0, 7.0], "a").unwrap());
    (0..10).for_each(|_| examples.add(vec![7.0, 7.0, 7.0], "b").unwrap());
    let probe = trained(&examples, None);
    assert_eq!(
        (probe.accuracy, probe.l2),
        (0.75, 1e5),
        "all strengths are equal, so the strongest is taken"
    );
    let (largest, _) = difference(
        &probe.probabilities(&[7.0, 7.0, 7.0]).unwrap(),
        &[0.75, 0.25],
    );
    assert!(largest < 1e-5, "{largest}");
}

#[test]
fn a_training_can_be_canceled() {
    let examples = examples(&golden("several"));
    for calls in [0usize, 1, 50, 400] {
        let mut left = calls;
        let stopped = train(&examples, &TrainingOptions::default(), &mut |_| {
            let go_on = left > 0;
            left = left.saturating_sub(1);
            go_on
        });
        assert_eq!(stopped.unwrap(), None, "after {calls} calls");
    }
}

#[test]
fn a_probe_survives_serialization() {
    let probe = trained(&examples(&golden("several")), Some(1.0));
    let about = [("gallery".to_owned(), "birds".to_owned())].into();
    let file = probe.to_safetensors(about).unwrap();
    let (read, about) = Probe::from_safetensors(&file).unwrap();
    assert_eq!(read, probe);
    assert_eq!(about["gallery"], "birds");
    for damaged in [&file[..file.len() - 1], &file[..8], b"{}"] {
        assert_eq!(
            Probe::from_safetensors(damaged).unwrap_err().kind(),
            Kind::Damaged
        );
    }
    assert!(
        probe
            .probabilities(&[0.0; 9])
            .unwrap_err()
            .detail()
            .contains("of width 10, not 9")
    );
}
