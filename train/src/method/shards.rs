//! The parts of a batch that are computed at the same time.

use burn::{module::Module, tensor::Tensor};

use super::{StepReport, optimizer::add_gradients};
use crate::{
    data::Batch,
    model::{FlatTensors, Network, gradients_of},
};

/// The student's gradients on a shard, and the shard's part of the batch's losses.
pub(super) struct ShardGradients {
    gradients: FlatTensors,
    losses: StepReport,
}

impl ShardGradients {
    /// Computes the gradients of `loss`, which depends on `student`.
    pub(super) fn backward(student: &Network, loss: &Tensor<1>, losses: StepReport) -> Self {
        let mut gradients = loss.backward();
        Self {
            gradients: gradients_of(student, &mut gradients),
            losses: StepReport {
                loss: number(loss.clone().inner()),
                ..losses
            },
        }
    }

    /// Adds up the shards of a batch, and adds their losses to `report`.
    pub(super) fn sum(shards: Vec<Self>, report: StepReport) -> (FlatTensors, StepReport) {
        shards
            .into_iter()
            .fold((FlatTensors::new(), report), |(sum, report), shard| {
                (
                    add_gradients(sum, shard.gradients),
                    report.plus(shard.losses),
                )
            })
    }
}

/// Returns a copy of the student with separate leaves. The graphs of shards share nothing, so that
/// shards do not wait for each other.
pub(super) fn trained_copy(student: &Network) -> Network {
    student.clone().train()
}

/// Runs `work` for each shard on a thread per shard. These are plain threads: a thread of `rayon`
/// that waits for a product may start another shard, and then wait for itself.
pub(super) fn map_shards<T: Send>(
    shards: &[Batch],
    work: impl Fn(usize, &Batch) -> T + Sync,
) -> Vec<T> {
    if let [only] = shards {
        return vec![work(0, only)];
    }
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = shards
            .iter()
            .enumerate()
            .map(|(index, shard)| scope.spawn(move || work(index, shard)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

/// Copies a value to the host.
pub(super) fn number(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}
