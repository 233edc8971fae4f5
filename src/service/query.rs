//! Inputs of gallery requests: images and vectors.

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::stages::Timed;
use crate::{
    error::{Error, Result},
    gallery::check_width,
};

/// Content of a new item, or input of a search or classification.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryInput {
    /// An image file.
    Image(Bytes),
    /// A vector of the kind that the gallery holds, of any length but 0.
    Vector(Vec<f32>),
}

impl QueryInput {
    /// Returns whether the input must go through the model.
    pub(super) fn is_image(&self) -> bool {
        matches!(self, Self::Image(_))
    }
}

/// Turns each input into a vector: embeds images, `concurrency` at a time, and checks vectors.
pub(super) async fn resolve<F>(
    inputs: Vec<QueryInput>,
    concurrency: usize,
    embed: impl Fn(Bytes) -> F,
    check: impl Fn(Vec<f32>) -> Result<Vec<f32>>,
) -> Timed<Vec<Result<Vec<f32>>>>
where
    F: Future<Output = Result<Timed<Vec<f32>>>>,
{
    let (embed, check) = (&embed, &check);
    let vectors = stream::iter(inputs)
        .map(|input| async move {
            match input {
                QueryInput::Image(file) => embed(file).await,
                QueryInput::Vector(vector) => check(vector).map(Timed::instant),
            }
        })
        .buffered(concurrency);
    Timed::collect(vectors).await
}

/// Scales a vector of the model to length 1. A vector without a direction is an internal error:
/// half precision can overflow on a GPU.
pub(super) fn unit_vector_of_model(vector: Vec<f32>, dim: usize) -> Result<Vec<f32>> {
    unit_vector(vector, dim)
        .map_err(|error| Error::internal(format!("the model's output is not a vector: {error}")))
}

/// Scales a client's vector to length 1. Rejects a vector that has not `dim` values, has a value
/// that is not finite, or has length 0.
pub(super) fn unit_vector(mut vector: Vec<f32>, dim: usize) -> Result<Vec<f32>> {
    check_width(&vector, dim)?;
    check_finite(&vector)?;
    // Squares of the largest and of the smallest f32 are within f64.
    let squares = vector.iter().map(|&value| f64::from(value).powi(2));
    let length = squares.sum::<f64>().sqrt();
    if length == 0.0 {
        let detail = "all values are 0, so it has no direction to compare";
        return Err(Error::option("vector", detail));
    }
    for value in &mut vector {
        *value = (f64::from(*value) / length) as f32;
    }
    Ok(vector)
}

/// Rejects a client's vector with a value that is not finite.
pub(super) fn check_finite(vector: &[f32]) -> Result<()> {
    let Some(index) = vector.iter().position(|value| !value.is_finite()) else {
        return Ok(());
    };
    let detail = format_args!("value {index} is not finite, or too large for single precision");
    Err(Error::option("vector", detail))
}
