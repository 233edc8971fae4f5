//! Training with labels: the cross-entropy between the classes that the student predicts for each
//! view of an image and the label of the image.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{
    StepReport,
    loss::{accuracy, cross_entropy},
    shards::{ShardGradients, map_shards, number, trained_copy},
};
use crate::{
    data::Batch,
    model::{DropPath, FlatTensors, Network},
    seed,
};

/// Computes the student's gradients on a batch of labeled images, by parameter name.
pub(super) fn batch_gradients(
    student: &Network,
    batch: &Batch,
    shards: usize,
    seed: u64,
    device: &Device,
) -> (FlatTensors, StepReport) {
    let shards = batch.shards(shards.clamp(1, batch.images));
    let results = map_shards(&shards, |index, shard| {
        let mut drop = Some(DropPath(seed::random([seed, index as u64, 3])));
        let share = shard.images as f64 / batch.images as f64;
        shard_gradients(student, shard, share, &mut drop, device)
    });
    ShardGradients::sum(results, StepReport::default())
}

/// Computes the gradients on a shard with this share of the batch's images.
fn shard_gradients(
    student: &Network,
    shard: &Batch,
    share: f64,
    drop: &mut Option<DropPath>,
    device: &Device,
) -> ShardGradients {
    let student = trained_copy(student);
    let mut logits = |images: Tensor<4>| {
        let images = Tensor::from_inner(images);
        let tokens = student.backbone.forward(images, None, drop);
        student.head.forward(tokens.cls)
    };
    let global = logits(shard.global_crops(device));
    let logits = match shard.local_crops(device) {
        Some(local) => Tensor::cat(vec![global, logits(local)], 0),
        None => global,
    };
    let views = logits.dims()[0] / shard.images;
    let labels = labels_of_views(shard, views, device);
    let correct = accuracy(logits.clone().inner(), labels.clone()) * share;
    let loss = cross_entropy(logits, labels) * share;
    let losses = StepReport {
        accuracy: Some(number(correct)),
        ..StepReport::default()
    };
    ShardGradients::backward(&student, &loss, losses)
}

/// Returns the label of every view, `[views·images]`, view by view.
fn labels_of_views(shard: &Batch, views: usize, device: &Device) -> Tensor<1, Int> {
    let labels = shard
        .labels
        .as_ref()
        .expect("a network with a classifier is trained on labeled images");
    let labels: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
    let labels = labels.repeat(views);
    let count = labels.len();
    Tensor::from_data(TensorData::new(labels, [count]), device)
}
