//! The classifiers that judge the features of a model.

use ndarray::{Array2, Axis, s};
use serde::Serialize;

use crate::{
    cli::eval::{datasets::Datasets, linear::learn},
    eval::{LabeledVectors, Neighbor, Report, nearest, predict, probabilities},
    features::{
        probe::TrainingOptions,
        vote::{self, Vote},
    },
    names::option_enum,
};

option_enum! {
    /// A way to tell classes apart by features.
    pub(super) enum Classifier {
        /// Vote of the nearest images, weighted by similarity.
        KnnWeighted,
        /// Vote of the nearest images, one each.
        KnnMajority,
        /// Softmax regression on CLS and the mean of the patch tokens.
        Linear,
    }
}

/// How well one model's features tell the classes apart.
#[derive(Debug, Serialize)]
pub(super) struct ModelResult {
    pub(super) model: String,
    fingerprint: String,
    precision: String,
    size: usize,
    pub(super) outcomes: Vec<Outcome>,
    /// The neighbors of each test image.
    #[serde(skip)]
    pub(super) neighbors: Vec<Vec<Neighbor>>,
}

/// Predictions of one classifier for all test images.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) classifier: Classifier,
    #[serde(flatten)]
    pub(super) report: Report,
    /// Index of the predicted class of each test image.
    pub(super) predicted: Vec<Option<usize>>,
    #[serde(skip)]
    pub(super) is_right: Vec<bool>,
}

impl Outcome {
    fn new(classifier: Classifier, datasets: &Datasets, predicted: Vec<Option<usize>>) -> Self {
        let truth = datasets.test.vectors.indices(&datasets.classes);
        let is_right = truth.iter().zip(&predicted);
        Self {
            classifier,
            report: Report::new(&datasets.classes, &truth, &predicted),
            is_right: is_right
                .map(|(truth, found)| *found == Some(*truth))
                .collect(),
            predicted,
        }
    }
}

/// Judges the features of a model by votes of `k` neighbors; with `linear`, where features are CLS
/// and the mean of the patch tokens, also by a probe.
pub(super) fn evaluate(
    datasets: &Datasets,
    k: usize,
    temperature: f32,
    linear: bool,
) -> anyhow::Result<ModelResult> {
    let (train, test) = (&datasets.train.vectors, &datasets.test.vectors);
    let neighbors = match linear {
        true => nearest(unit_cls(train).view(), unit_cls(test).view(), k)?,
        false => nearest(train.vectors.view(), test.vectors.view(), k)?,
    };
    let classes = &datasets.classes;
    let labels = train.indices(classes);
    let vote = |vote| {
        let predict = |near: &Vec<_>| predict(near, k, &labels, classes.len(), vote, temperature);
        neighbors.iter().map(predict).collect()
    };
    let mut outcomes = vec![
        Outcome::new(Classifier::KnnWeighted, datasets, vote(Vote::Weighted)),
        Outcome::new(Classifier::KnnMajority, datasets, vote(Vote::Majority)),
    ];
    if linear {
        let predicted = classify_linearly(datasets)?;
        outcomes.push(Outcome::new(Classifier::Linear, datasets, predicted));
    }
    Ok(ModelResult {
        model: datasets.model.clone(),
        fingerprint: datasets.fingerprint.clone(),
        precision: datasets.precision.clone(),
        size: datasets.size,
        outcomes,
        neighbors,
    })
}

/// Returns the first half of each row, which is CLS, scaled to length 1.
fn unit_cls(images: &LabeledVectors) -> Array2<f32> {
    let width = images.vectors.ncols() / 2;
    let mut cls = images.vectors.slice(s![.., ..width]).to_owned();
    for mut row in cls.axis_iter_mut(Axis(0)) {
        let length = row.dot(&row).sqrt().max(f32::MIN_POSITIVE);
        row /= length;
    }
    cls
}

fn classify_linearly(datasets: &Datasets) -> anyhow::Result<Vec<Option<usize>>> {
    let probe = learn(datasets, &TrainingOptions::default())?;
    let shares = probabilities(&probe, &datasets.test.vectors)?;
    // The probe knows the classes of the training images only, which have other indices.
    let index = |class: usize| {
        let name = &probe.classes[class];
        datasets.classes.iter().position(|known| known == name)
    };
    let predicted = shares
        .iter()
        .map(|shares| vote::winner(shares).and_then(index));
    Ok(predicted.collect())
}
