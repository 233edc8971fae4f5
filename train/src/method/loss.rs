//! The losses: the student learns the teacher's distribution over prototypes for other views of the
//! same image, or the label of the image.
//!
//! Each function is one formula of the papers: DINO (Caron et al., 2021), iBOT (Zhou et al., 2022),
//! KoLeo (Sablayrolles et al., 2019) and Sinkhorn–Knopp centering (SwAV, Caron et al., 2020;
//! DINOv2, Oquab et al., 2023).

use burn::tensor::{Int, Tensor, activation};
use serde::{Deserialize, Serialize};

use super::mask::MaskConfig;
use crate::{check, model::unit_rows};

/// Constant that keeps the logarithm finite (DINOv2's `koleo_loss.py`).
const KOLEO_EPSILON: f64 = 1e-8;
/// Number of Sinkhorn–Knopp rounds, as in DINOv2.
const SINKHORN_ROUNDS: usize = 3;

/// Section `loss`: what is minimized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// Temperature of the student's softmax.
    pub student_temperature: f64,
    /// Temperature of the teacher's softmax, at first and after the warm-up.
    pub teacher_temperature: [f64; 2],
    /// Number of epochs until the second temperature.
    pub teacher_warmup_epochs: f64,
    /// Centering of the teacher's logits.
    #[serde(rename = "centring")]
    pub centering: Centering,
    /// Share of the center that a batch keeps.
    pub center_momentum: f64,
    /// Weight of iBOT's masked-patch loss; 0 leaves out the loss and its head. DINOv2 has 1.
    pub patch_weight: f64,
    /// Amount of masked patches.
    pub mask: MaskConfig,
    /// Weight of KoLeo; 0 leaves it out. DINOv2 has 0.1.
    pub koleo_weight: f64,
}

/// Centering of the teacher's logits, so that they do not favor few prototypes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Centering {
    /// DINO: subtract a running mean of the logits.
    #[default]
    Mean,
    /// DINOv2: balance the assignments of a batch over the prototypes.
    SinkhornKnopp,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            student_temperature: 0.1,
            teacher_temperature: [0.04, 0.04],
            teacher_warmup_epochs: 0.0,
            centering: Centering::Mean,
            center_momentum: 0.9,
            patch_weight: 0.0,
            mask: MaskConfig::default(),
            koleo_weight: 0.0,
        }
    }
}

impl LossConfig {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        check::shares(&[
            ("loss.center_momentum", self.center_momentum),
            ("loss.mask.images", self.mask.images),
            ("loss.mask.ratio", self.mask.ratio[0]),
            ("loss.mask.ratio", self.mask.ratio[1]),
        ])?;
        check::above_zero(&[
            ("loss.student_temperature", self.student_temperature),
            ("loss.teacher_temperature", self.teacher_temperature[0]),
            ("loss.teacher_temperature", self.teacher_temperature[1]),
        ])?;
        check::not_negative(&[
            ("loss.patch_weight", self.patch_weight),
            ("loss.koleo_weight", self.koleo_weight),
            ("loss.teacher_warmup_epochs", self.teacher_warmup_epochs),
        ])
    }
}

/// Computes the teacher's targets softmax((g − c)/τ), `[n, prototypes]`, from logits of that shape
/// and the center `[1, prototypes]`.
pub fn sharpen(logits: Tensor<2>, center: Tensor<2>, temperature: f64) -> Tensor<2> {
    activation::softmax((logits - center) / temperature, 1)
}

/// Updates the center after a batch: c ← m·c + (1 − m)·mean of the teacher's logits
/// `[n, prototypes]`.
pub fn update_center(center: Tensor<2>, logits: Tensor<2>, momentum: f64) -> Tensor<2> {
    center * momentum + logits.mean_dim(0) * (1.0 - momentum)
}

/// Computes the teacher's targets such that the rows use every prototype equally often.
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

/// Computes DINO's loss: H = −Σ p_t · log softmax(g_s/τ_s) for every view of the teacher and every
/// *other* view of the student, averaged over pairs and images.
///
/// `teacher` holds the targets of both global views, `[2·batch, prototypes]`, view by view.
/// `global` holds the student's logits of the same views, and `local` those of the local views,
/// `[views·batch, prototypes]`.
pub fn cross_view_loss(
    teacher: Tensor<2>,
    global: Tensor<2>,
    local: Option<Tensor<2>>,
    temperature: f64,
) -> Tensor<1> {
    let [rows, prototypes] = teacher.dims();
    let batch = rows / 2;
    let log_global = activation::log_softmax(global / temperature, 1);
    let view = |tensor: &Tensor<2>, index: usize| tensor.clone().narrow(0, index * batch, batch);
    // The student's views are summed first: one product for each view of the teacher instead of one
    // for each pair.
    let mut other_than_0 = view(&log_global, 1);
    let mut other_than_1 = view(&log_global, 0);
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

/// Computes iBOT's loss: the cross-entropy of the masked patches between the teacher, which sees
/// them, and the student (DINOv2's `forward_masked`).
///
/// `teacher` holds targets and `student` logits, both `[n, prototypes]`. `weights` `[n, 1]` are one
/// over the number of masked patches of the same crop. `crops` counts all crops, also those without
/// masked patches.
pub fn masked_patch_loss(
    teacher: Tensor<2>,
    student: Tensor<2>,
    weights: Tensor<2>,
    crops: usize,
    temperature: f64,
) -> Tensor<1> {
    let agreement = teacher * activation::log_softmax(student / temperature, 1);
    (agreement.sum_dim(1) * weights).sum() / -(crops as f64)
}

/// Computes KoLeo: the mean of −log of the distance to the nearest other row, for rows `[n, dim]`
/// scaled to length 1. It spreads the embeddings of a batch over the sphere.
pub fn koleo(rows: Tensor<2>) -> Tensor<1> {
    let [count, _] = rows.dims();
    let rows = unit_rows(rows);
    let device = rows.device();
    let cosines = rows
        .clone()
        .detach()
        .matmul(rows.clone().detach().transpose());
    let self_penalty = Tensor::<2>::eye(count, &device) * 3.0;
    let nearest = (cosines - self_penalty).argmax(1).reshape([count]);
    let difference = rows.clone() - rows.select(0, nearest) + KOLEO_EPSILON;
    let distances = difference.square().sum_dim(1).sqrt();
    (distances + KOLEO_EPSILON).log().mean().neg()
}

/// Computes the cross-entropy −log softmax(g)[label], averaged over the rows of the logits
/// `[n, classes]` with labels `[n]`.
pub fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    activation::log_softmax(logits, 1)
        .gather(1, labels.unsqueeze_dim(1))
        .mean()
        .neg()
}

/// Computes the share of the rows of `[n, classes]` whose largest logit is that of the label.
pub fn accuracy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let predicted = logits.argmax(1).squeeze_dim::<1>(1);
    predicted.equal(labels).float().mean()
}

/// Computes the mean entropy of the rows, −Σ p·ln p, in nats.
pub fn entropy(probabilities: Tensor<2>) -> Tensor<1> {
    let logs = probabilities.clone().clamp_min(1e-30).log();
    (probabilities * logs).sum_dim(1).mean().neg()
}

/// Computes the spread of embeddings `[n, dim]`: the mean standard deviation of the coordinates of
/// the unit vectors, times √dim. It is 0 if all are equal, and about 1 if they point everywhere.
pub fn spread(embeddings: Tensor<2>) -> Tensor<1> {
    let [_, dim] = embeddings.dims();
    let rows = unit_rows(embeddings);
    let mean = rows.clone().mean_dim(0);
    (rows - mean).square().mean_dim(0).sqrt().mean() * (dim as f64).sqrt()
}
