//! A basis with its moments as one safetensors file, which NumPy can also read.
//!
//! Tensors: `mean` `[dim]` and `scatter` (the rows of its lower triangle) in f64, `sample` `[n,
//! dim]` in f16, `components` `[components, dim]`, `explained` `[components]` and `ranges`
//! `[components, 2]` in f32. The counts and the caller's description are texts in the metadata.

use std::collections::HashMap;

use faer::Mat;
use half::f16;
use ndarray::{Array1, Array2};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{Basis, Moments, Pca, Range};
use crate::error::{Error, Result, ResultExt};

/// Maximum number of images and of patches: f64 counts them exactly, and sums do not overflow.
const MAX_COUNT: u64 = 1 << 53;

/// Encodes a file; `about` is the caller's description.
pub fn encode(basis: &Basis, moments: &Moments, about: &str) -> Result<Vec<u8>> {
    let (count, dim) = basis.pca.components.dim();
    let scatter: Vec<f64> = (0..dim)
        .flat_map(|row| (0..=row).map(move |column| moments.scatter[(row, column)]))
        .collect();
    let scatter_shape = vec![scatter.len()];
    let sample_shape = vec![moments.sample.len(), dim];
    let ranges = basis.ranges.iter();
    let ranges = ranges.flat_map(|range| [range.low, range.high]);
    let mean = little_endian(moments.mean.iter().copied(), f64::to_le_bytes);
    let scatter = little_endian(scatter, f64::to_le_bytes);
    let sample = little_endian(moments.sample.values().flatten().copied(), f16::to_le_bytes);
    let components = little_endian(basis.pca.components.iter().copied(), f32::to_le_bytes);
    let explained = little_endian(basis.pca.explained.iter().copied(), f32::to_le_bytes);
    let ranges = little_endian(ranges, f32::to_le_bytes);
    let tensors = [
        ("mean", Dtype::F64, vec![dim], &mean),
        ("scatter", Dtype::F64, scatter_shape, &scatter),
        ("sample", Dtype::F16, sample_shape, &sample),
        ("components", Dtype::F32, vec![count, dim], &components),
        ("explained", Dtype::F32, vec![count], &explained),
        ("ranges", Dtype::F32, vec![count, 2], &ranges),
    ];
    let mut views = Vec::with_capacity(tensors.len());
    for (name, dtype, shape, bytes) in tensors {
        let view = TensorView::new(dtype, shape, bytes).internal("encoding a basis")?;
        views.push((name, view));
    }
    let texts = [
        ("about", about.to_owned()),
        ("images", moments.images.to_string()),
        ("patches", moments.patches.to_string()),
    ];
    let texts: HashMap<String, String> = texts.map(|(name, text)| (name.to_owned(), text)).into();
    safetensors::serialize(views, Some(texts)).internal("encoding a basis")
}

/// A file of a basis.
#[derive(Debug)]
pub struct Document<'a> {
    tensors: SafeTensors<'a>,
    texts: HashMap<String, String>,
}

impl<'a> Document<'a> {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// [`crate::error::Kind::Damaged`] if the file is damaged, as in all methods.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let texts = header.metadata().clone().unwrap_or_default();
        let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
        Ok(Self { tensors, texts })
    }

    /// Returns the description that was passed to [`encode`].
    pub fn about(&self) -> Result<&str> {
        self.text("about")
    }

    /// Reads the basis.
    pub fn basis(&self) -> Result<Basis> {
        let (shape, components) = self.values("components", Dtype::F32, f32::from_le_bytes)?;
        let (_, mean) = self.values("mean", Dtype::F64, f64::from_le_bytes)?;
        let (_, explained) = self.values("explained", Dtype::F32, f32::from_le_bytes)?;
        let (_, ranges) = self.values("ranges", Dtype::F32, f32::from_le_bytes)?;
        let [count, dim] = shape[..] else {
            return Err(damaged("the components are not a matrix"));
        };
        let has_sizes = mean.len() == dim && explained.len() == count && ranges.len() / 2 == count;
        if !has_sizes || !(1..=dim).contains(&count) {
            return Err(damaged("the sizes of its parts do not fit"));
        }
        let mut values = components.iter().chain(&ranges);
        if !values.all(|value| value.is_finite()) || !mean.iter().all(|value| value.is_finite()) {
            return Err(damaged("a value is not finite"));
        }
        let components = Array2::from_shape_vec((count, dim), components).map_err(damaged)?;
        let mean = mean.into_iter().map(|value| value as f32).collect();
        let (pairs, _) = ranges.as_chunks();
        let ranges = pairs.iter().map(|&[low, high]| Range { low, high });
        Ok(Basis {
            pca: Pca {
                mean,
                components,
                explained,
            },
            ranges: ranges.collect(),
        })
    }

    /// Reads the moments, to which further images can be added.
    pub fn moments(&self) -> Result<Moments> {
        let (_, mean) = self.values("mean", Dtype::F64, f64::from_le_bytes)?;
        let (_, scatter) = self.values("scatter", Dtype::F64, f64::from_le_bytes)?;
        let (_, sample) = self.values("sample", Dtype::F16, f16::from_le_bytes)?;
        let dim = mean.len();
        if dim == 0 || scatter.len() != dim * (dim + 1) / 2 || !sample.len().is_multiple_of(dim) {
            return Err(damaged("the sizes of its parts do not fit"));
        }
        if !mean.iter().chain(&scatter).all(|value| value.is_finite()) {
            return Err(damaged("a value is not finite"));
        }
        let mut moments = Moments::new(dim);
        moments.images = self.count("images")?;
        moments.patches = self.count("patches")?;
        moments.mean = Array1::from(mean);
        moments.scatter = Mat::from_fn(dim, dim, |row, column| {
            let in_triangle = column <= row;
            let index = row * (row + 1) / 2 + column;
            if in_triangle { scatter[index] } else { 0.0 }
        });
        let tokens = sample.chunks_exact(dim);
        tokens.for_each(|token| moments.keep(token.into()));
        Ok(moments)
    }

    fn count(&self, name: &str) -> Result<u64> {
        let number = self.text(name)?.parse().ok();
        let number = number.filter(|&number| number <= MAX_COUNT);
        number.ok_or_else(|| damaged(format!("{name} is no possible number")))
    }

    fn text(&self, name: &str) -> Result<&str> {
        let text = self.texts.get(name).map(String::as_str);
        text.ok_or_else(|| damaged(format!("it has no {name}")))
    }

    /// Returns shape and values of a tensor.
    fn values<T, const N: usize>(
        &self,
        name: &str,
        dtype: Dtype,
        read: fn([u8; N]) -> T,
    ) -> Result<(Vec<usize>, Vec<T>)> {
        let info = self.tensors.tensor(name).map_err(damaged)?;
        if info.dtype() != dtype {
            return Err(damaged(format!("{name} has another type")));
        }
        let (numbers, _) = info.data().as_chunks::<N>();
        let values = numbers.iter().map(|&bytes| read(bytes)).collect();
        Ok((info.shape().to_vec(), values))
    }
}

fn little_endian<T, const N: usize>(
    values: impl IntoIterator<Item = T>,
    bytes: fn(T) -> [u8; N],
) -> Vec<u8> {
    values.into_iter().flat_map(bytes).collect()
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::damaged(format!("a stored basis is damaged: {what}"))
}
