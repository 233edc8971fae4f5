//! A bank as one safetensors file, which NumPy can also read.
//!
//! Tensors: `tokens` `[patches, dim]` in f16, `images` `[images, 2]` in u32 (patches of the image,
//! number of its photograph), `chosen` `[entries]` in u32 and `scores` `[scores]` in f32, as in
//! [`Calibration`]. The threshold and the caller's description are texts in the metadata.

use std::collections::HashMap;

use half::f16;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{Bank, Calibration, GoodImage, GoodImages};
use crate::error::{Error, Result, ResultExt};

/// Name of the caller's description in the metadata.
const ABOUT: &str = "about";
/// Name of the threshold in the metadata.
const THRESHOLD: &str = "threshold";

/// Encodes a bank; `about` is the caller's description.
pub fn encode(bank: &Bank, about: String) -> Result<Vec<u8>> {
    const ACTION: &str = "encoding a bank";
    let good = &bank.good;
    let images = good.images();
    let numbers = images
        .iter()
        .flat_map(|image| [image.patches as u32, image.source]);
    let tokens = good.tokens().iter().copied();
    let tokens: Vec<u8> = tokens.flat_map(f16::to_le_bytes).collect();
    let numbers: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    let chosen = bank.chosen.iter().copied();
    let chosen: Vec<u8> = chosen.flat_map(u32::to_le_bytes).collect();
    let Calibration { scores, threshold } = &bank.calibration;
    let score_bytes: Vec<u8> = scores.iter().copied().flat_map(f32::to_le_bytes).collect();
    let view = |dtype, shape, bytes| TensorView::new(dtype, shape, bytes).internal(ACTION);
    let shape = vec![good.patches(), good.dim()];
    let tensors = [
        ("tokens", view(Dtype::F16, shape, &tokens)?),
        ("images", view(Dtype::U32, vec![images.len(), 2], &numbers)?),
        (
            "chosen",
            view(Dtype::U32, vec![bank.chosen.len()], &chosen)?,
        ),
        (
            "scores",
            view(Dtype::F32, vec![scores.len()], &score_bytes)?,
        ),
    ];
    let mut texts = HashMap::from([(ABOUT.to_owned(), about)]);
    if let Some(threshold) = threshold {
        texts.insert(THRESHOLD.to_owned(), threshold.to_string());
    }
    safetensors::serialize(tensors, Some(texts)).internal(ACTION)
}

/// Decodes a file of [`encode`], and returns the caller's description, too.
///
/// # Errors
/// [`crate::error::Kind::Damaged`] if the file is not a bank.
pub fn decode(file: &[u8]) -> Result<(Bank, String)> {
    let (_, header) = SafeTensors::read_metadata(file).map_err(damaged)?;
    let mut texts = header.metadata().clone().unwrap_or_default();
    let about = texts.remove(ABOUT);
    let about = about.ok_or_else(|| damaged("it has no description"))?;
    let tensors = SafeTensors::deserialize(file).map_err(damaged)?;
    let (shape, tokens) = values(&tensors, "tokens", Dtype::F16, f16::from_le_bytes)?;
    let (_, numbers) = values(&tensors, "images", Dtype::U32, u32::from_le_bytes)?;
    let (_, chosen) = values(&tensors, "chosen", Dtype::U32, u32::from_le_bytes)?;
    let (_, scores) = values(&tensors, "scores", Dtype::F32, f32::from_le_bytes)?;
    let [patches, dim] = shape[..] else {
        return Err(damaged("its tokens are not a matrix"));
    };
    let (pairs, _) = numbers.as_chunks();
    let images = pairs.iter().map(|&[patches, source]| GoodImage {
        patches: patches as usize,
        source,
    });
    let threshold = texts.remove(THRESHOLD).map(|text| text.parse::<f32>());
    let threshold = threshold.transpose().map_err(damaged)?;
    let mut numbers = scores.iter().chain(&threshold);
    if !numbers.all(|value| value.is_finite()) || !tokens.iter().all(|value| value.is_finite()) {
        return Err(damaged("a value is not finite"));
    }
    let is_sorted = chosen.is_sorted_by(|one, other| one < other);
    let last = chosen.last().map(|&last| last as usize);
    if !is_sorted || last.is_none_or(|last| last >= patches) {
        return Err(damaged("it names patches that it does not have"));
    }
    let good = GoodImages::of_parts(dim, tokens, images.collect());
    let good = good.ok_or_else(|| damaged("the sizes of its parts do not fit"))?;
    let calibration = Calibration { scores, threshold };
    let bank = Bank {
        good,
        chosen,
        calibration,
    };
    Ok((bank, about))
}

/// Returns shape and values of a tensor.
fn values<T, const N: usize>(
    tensors: &SafeTensors<'_>,
    name: &str,
    dtype: Dtype,
    read: fn([u8; N]) -> T,
) -> Result<(Vec<usize>, Vec<T>)> {
    let tensor = tensors.tensor(name).map_err(damaged)?;
    if tensor.dtype() != dtype {
        return Err(damaged(format_args!("`{name}` has another type")));
    }
    let (numbers, _) = tensor.data().as_chunks::<N>();
    let values = numbers.iter().map(|&bytes| read(bytes)).collect();
    Ok((tensor.shape().to_vec(), values))
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::damaged(format!("this is not an anomaly bank: {what}"))
}
