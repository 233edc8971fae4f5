//! Maps of images, in a basis that is fitted on them or in a stored one.

use ndarray::{Array2, ArrayView2, Axis, CowArray, Ix2};

use super::{Basis, Foreground, Pca, Range};
use crate::error::{Error, Result, ResultExt};

/// PCA maps of some images in one basis.
#[derive(Debug, Clone)]
pub struct PcaMaps {
    /// Basis that all maps share.
    pub basis: Pca,
    /// Maps `[patches, components]` per image, each component scaled to 0..1 over all images;
    /// background is 0.
    pub maps: Vec<Array2<f32>>,
    /// Foreground mask per image; `None` if all patches are shown.
    pub foreground: Option<Vec<Vec<bool>>>,
}

/// Computes PCA maps of one or more images in one joint basis.
///
/// `tokens` is `[patches, dim]` per image. `cls_attention` is the mean attention of CLS to each
/// patch, per image, and is read only for [`Foreground::Auto`]. Fails as [`Pca::fit`] does.
pub fn maps(
    tokens: &[ArrayView2<'_, f32>],
    cls_attention: &[Vec<f32>],
    count: usize,
    foreground: Foreground,
) -> Result<PcaMaps> {
    let all = joined(tokens)?;
    let (basis, shown) = match foreground {
        Foreground::None => (Pca::fit(all.view(), count)?, None),
        Foreground::Auto => {
            let shown = foreground_of(all.view(), &joined_attention(cls_attention))?;
            let rows: Vec<usize> = (0..shown.len()).filter(|&row| shown[row]).collect();
            if rows.len() > count {
                let chosen = all.select(Axis(0), &rows);
                (Pca::fit(chosen.view(), count)?, Some(shown))
            } else {
                (Pca::fit(all.view(), count)?, None)
            }
        }
    };
    let mut projected = basis.project(all.view());
    let columns = projected.columns().into_iter();
    let ranges: Vec<Range> = columns
        .map(|column| Range::of(column, shown.as_deref()))
        .collect();
    Range::scale(&ranges, &mut projected);
    Ok(PcaMaps::new(basis, projected, shown, tokens))
}

/// Computes PCA maps of images in the first `count` components of a stored basis, so that a token
/// always has the same values. [`Foreground::Auto`] shows the side of the basis' first component
/// that the attention favors in these images. The other arguments are those of [`maps`].
///
/// # Errors
/// [`crate::error::Kind::InvalidOption`] if the basis has fewer components.
pub fn maps_in(
    basis: &Basis,
    tokens: &[ArrayView2<'_, f32>],
    cls_attention: &[Vec<f32>],
    count: usize,
    foreground: Foreground,
) -> Result<PcaMaps> {
    let max = basis.ranges.len();
    if count == 0 || count > max {
        let detail = format!("the basis has {max} components, and not {count}");
        return Err(Error::option("components", detail));
    }
    let all = joined(tokens)?;
    let shown = (foreground == Foreground::Auto)
        .then(|| foreground_side(&basis.pca, all.view(), &joined_attention(cls_attention)));
    let pca = basis.pca.first(count);
    let mut projected = pca.project(all.view());
    Range::scale(&basis.ranges[..count], &mut projected);
    Ok(PcaMaps::new(pca, projected, shown, tokens))
}

impl PcaMaps {
    /// Splits the `projected` tokens of all images by image, and sets those that are not `shown` to
    /// 0.
    fn new(
        basis: Pca,
        mut projected: Array2<f32>,
        shown: Option<Vec<bool>>,
        tokens: &[ArrayView2<'_, f32>],
    ) -> Self {
        if let Some(shown) = &shown {
            for (mut row, shown) in projected.rows_mut().into_iter().zip(shown) {
                if !shown {
                    row.fill(0.0);
                }
            }
        }
        let mut maps = Vec::with_capacity(tokens.len());
        let mut masks = Vec::new();
        let mut start = 0;
        for image in tokens {
            let end = start + image.nrows();
            maps.push(projected.slice(ndarray::s![start..end, ..]).to_owned());
            masks.extend(shown.as_ref().map(|shown| shown[start..end].to_vec()));
            start = end;
        }
        Self {
            basis,
            maps,
            foreground: shown.is_some().then_some(masks),
        }
    }
}

/// Joins the attention of all images. Each is multiplied by its number of patches, as the attention
/// of an image adds up to about 1 whatever their number is.
fn joined_attention(cls_attention: &[Vec<f32>]) -> Vec<f32> {
    let images = cls_attention.iter();
    images
        .flat_map(|image| image.iter().map(|&value| value * image.len() as f32))
        .collect()
}

/// Joins the tokens of all images; those of a single image are not copied.
fn joined<'a>(tokens: &[ArrayView2<'a, f32>]) -> Result<CowArray<'a, f32, Ix2>> {
    match tokens {
        [one] => Ok(CowArray::from(*one)),
        several => {
            let all = ndarray::concatenate(Axis(0), several);
            Ok(all.internal("joining the tokens of images")?.into())
        }
    }
}

/// Computes the foreground mask of `tokens` `[patches, dim]`: the side of their first component
/// with more attention. `cls_attention` `[patches]` is the mean attention of CLS. Fails as
/// [`Pca::fit`] does.
pub fn foreground_of(tokens: ArrayView2<'_, f32>, cls_attention: &[f32]) -> Result<Vec<bool>> {
    let basis = Pca::fit(tokens, 1)?;
    Ok(foreground_side(&basis, tokens, cls_attention))
}

/// Computes the foreground masks of several images, from one component that is fitted on all of
/// them. The arguments are those of [`maps`]. Fails as [`Pca::fit`] does.
pub fn joint_foreground(
    tokens: &[ArrayView2<'_, f32>],
    cls_attention: &[Vec<f32>],
) -> Result<Vec<Vec<bool>>> {
    let all = joined(tokens)?;
    let mut rest = foreground_of(all.view(), &joined_attention(cls_attention))?;
    let masks = tokens.iter();
    Ok(masks
        .map(|image| rest.drain(..image.nrows()).collect())
        .collect())
}

/// Computes which of the `tokens` lie on the side of the first component of `basis` with more
/// attention.
fn foreground_side(basis: &Pca, tokens: ArrayView2<'_, f32>, cls_attention: &[f32]) -> Vec<bool> {
    let first = basis.first(1).project(tokens).remove_axis(Axis(1));
    let mean_on = |positive: bool| {
        let mut sum = 0.0;
        let mut count = 0;
        for (&c, &attention) in first.iter().zip(cls_attention) {
            if (c > 0.0) == positive {
                sum += f64::from(attention);
                count += 1;
            }
        }
        sum / f64::from(count.max(1))
    };
    let positive = mean_on(true) >= mean_on(false);
    first.iter().map(|&c| (c > 0.0) == positive).collect()
}
