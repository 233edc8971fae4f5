//! What a run is resumed from.

use burn::tensor::Tensor;

use super::{AdamW, Method};
use crate::model::{Head, Network};

/// The state that a run is resumed from.
#[derive(Debug)]
pub struct TrainerState {
    /// Network that learns by gradient descent.
    pub student: Network,
    /// Network that follows the student.
    pub teacher: Network,
    /// Running mean of the teacher's logits, `[1, prototypes]`; none if the images are labeled.
    pub center: Option<Tensor<2>>,
    /// Running mean of the logits of the teacher's patch head, `[1, prototypes]`.
    pub patch_center: Option<Tensor<2>>,
    /// Optimizer with its moments of the student's gradients.
    pub optimizer: AdamW,
}

impl TrainerState {
    /// Returns the method that the network was made for.
    pub fn method(&self) -> Method {
        match self.student.head {
            Head::Projection(_) => Method::Dino,
            Head::Classifier(_) => Method::Supervised,
        }
    }
}
