//! What the student is taught: the teacher's distribution over prototypes, of other views of the
//! same image.
//!
//! Each function is one formula of the papers: DINO (Caron et al., 2021), iBOT (Zhou et al., 2022),
//! KoLeo (Sablayrolles et al., 2019) and Sinkhorn–Knopp centring (SwAV, Caron et al., 2020; DINOv2,
//! Oquab et al., 2023).

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

use crate::model::unit_rows;

/// Keeps a logarithm finite (DINOv2's `koleo_loss.py`).
const KOLEO_EPSILON: f64 = 1e-8;
/// Rounds of Sinkhorn–Knopp, as in DINOv2.
const SINKHORN_ROUNDS: usize = 3;

/// How the teacher's logits are kept from favoring few prototypes.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Centring {
    /// DINO's: a running mean of the logits is taken off.
    #[default]
    Mean,
    /// DINOv2's: the assignments of a batch are balanced over the prototypes.
    SinkhornKnopp,
}

/// The teacher's targets: softmax((g − c)/τ), `[n, prototypes]` from logits of that shape and the
/// center `[1, prototypes]`.
pub fn sharpened(logits: Tensor<2>, center: Tensor<2>, temperature: f64) -> Tensor<2> {
    activation::softmax((logits - center) / temperature, 1)
}

/// The center after a batch: c ← m·c + (1 − m)·mean of the teacher's logits `[n, prototypes]`.
pub fn moved_center(center: Tensor<2>, logits: Tensor<2>, momentum: f64) -> Tensor<2> {
    center * momentum + logits.mean_dim(0) * (1.0 - momentum)
}

/// The teacher's targets such that, over the rows, every prototype is taken equally often.
pub fn sinkhorn_knopp(logits: Tensor<2>, temperature: f64) -> Tensor<2> {
    let [rows, prototypes] = logits.dims();
    let logits = logits / temperature;
    let largest = logits.clone().max().unsqueeze::<2>();
    let mut shares = (logits - largest).exp();
    for _ in 0..SINKHORN_ROUNDS {
        let of_prototype = shares.clone().sum_dim(0) * prototypes as f64;
        shares = shares / of_prototype;
        let of_row = shares.clone().sum_dim(1) * rows as f64;
        shares = shares / of_row;
    }
    shares * rows as f64
}

/// DINO's loss: for every view of the teacher and every *other* view of the student
/// H = −Σ p_t · log softmax(g_s/τ_s), averaged over pairs and images.
///
/// `teacher` are the targets of both global views, `[2·batch, prototypes]`, view by view; `global`
/// the student's logits of the same, `local` those of the small views, `[views·batch, prototypes]`,
/// or `None` without any.
pub fn across_views(
    teacher: Tensor<2>,
    global: Tensor<2>,
    local: Option<Tensor<2>>,
    temperature: f64,
) -> Tensor<1> {
    let [rows, prototypes] = teacher.dims();
    let batch = rows / 2;
    let log_global = activation::log_softmax(global / temperature, 1);
    let view = |tensor: &Tensor<2>, index: usize| tensor.clone().narrow(0, index * batch, batch);
    // Summed over the student's views first: one product for each view of the teacher instead of
    // one for each pair.
    let (mut other_than_0, mut other_than_1) = (view(&log_global, 1), view(&log_global, 0));
    let mut pairs = 2;
    if let Some(local) = local {
        let views = local.dims()[0] / batch;
        let log_local = activation::log_softmax(local / temperature, 1);
        let sum = log_local
            .reshape([views, batch, prototypes])
            .sum_dim(0)
            .reshape([batch, prototypes]);
        other_than_0 = other_than_0 + sum.clone();
        other_than_1 = other_than_1 + sum;
        pairs += 2 * views;
    }
    let agreement = view(&teacher, 0) * other_than_0 + view(&teacher, 1) * other_than_1;
    agreement.sum() / -((pairs * batch) as f64)
}

/// iBOT's loss: of every hidden patch, the cross-entropy between the teacher's target, who sees it,
/// and the student's answer. `[n, prototypes]` each; `weights` `[n, 1]` are one over the number of
/// hidden patches of the same crop, and `crops` is the number of crops, those of which nothing is
/// hidden among them (DINOv2's `forward_masked`).
pub fn masked_patches(
    teacher: Tensor<2>,
    student: Tensor<2>,
    weights: Tensor<2>,
    crops: usize,
    temperature: f64,
) -> Tensor<1> {
    let agreement = teacher * activation::log_softmax(student / temperature, 1);
    (agreement.sum_dim(1) * weights).sum() / -(crops as f64)
}

/// KoLeo: −log of the distance to the nearest other row, averaged, of rows `[n, dim]` brought to
/// length 1. Spreads the embeddings of a batch over the sphere.
pub fn koleo(rows: Tensor<2>) -> Tensor<1> {
    let [count, _] = rows.dims();
    let rows = unit_rows(rows);
    let device = rows.device();
    let cosines = rows
        .clone()
        .detach()
        .matmul(rows.clone().detach().transpose());
    let itself = Tensor::<2>::eye(count, &device) * 3.0;
    let nearest = (cosines - itself).argmax(1).reshape([count]);
    let difference = rows.clone() - rows.select(0, nearest) + KOLEO_EPSILON;
    let distances = difference.square().sum_dim(1).sqrt();
    (distances + KOLEO_EPSILON).log().mean().neg()
}

/// −Σ p·ln p of each row, averaged; in nats.
pub fn entropy(probabilities: Tensor<2>) -> Tensor<1> {
    let logs = probabilities.clone().clamp_min(1e-30).log();
    (probabilities * logs).sum_dim(1).mean().neg()
}

/// How far embeddings `[n, dim]` lie apart: the deviation of each coordinate of the unit vectors,
/// averaged, times √dim. 0 if all are equal, about 1 if they point everywhere.
pub fn spread(embeddings: Tensor<2>) -> Tensor<1> {
    let [_, dim] = embeddings.dims();
    let rows = unit_rows(embeddings);
    let mean = rows.clone().mean_dim(0);
    (rows - mean).square().mean_dim(0).sqrt().mean() * (dim as f64).sqrt()
}
