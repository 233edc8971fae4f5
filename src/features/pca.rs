//! Principal components of patch tokens, as colours.
//!
//! The first eigenvectors of the D×D covariance, by subspace iteration with Rayleigh–Ritz steps (Golub & Van Loan, Matrix
//! Computations, §8.2), which needs about ten thin products where all eigenvectors take D³ steps. Where it does not
//! converge fast, as among variances that lie close together, all are computed. The sign of a component is free, so it
//! is fixed: the entry of largest magnitude is positive, and the same image always has the same colours.

use faer::{
    Accum, Mat, MatRef, Par, Side,
    linalg::matmul::{
        matmul,
        triangular::{self, BlockStructure},
    },
};
use ndarray::{Array1, Array2, ArrayView2, Axis, CowArray};

use crate::error::{Error, Result};

/// Which patches the components are fitted on and shown for.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    serde::Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Foreground {
    /// All patches.
    #[default]
    None,
    /// Only the foreground: the side of the first component that the attention of CLS favours. The rest is black.
    Auto,
}

/// A fitted basis.
#[derive(Debug, Clone)]
pub struct Pca {
    mean: Array1<f32>,
    /// `[components, dim]`, orthonormal rows, by falling variance.
    components: Array2<f32>,
    /// Share of the total variance that each component explains.
    explained: Vec<f32>,
}

/// PCA maps of some images in one basis.
#[derive(Debug, Clone)]
pub struct PcaMaps {
    /// The basis that all maps share.
    pub basis: Pca,
    /// `[patches, components]` per image, each component scaled to 0..1 over all images; background is 0.
    pub maps: Vec<Array2<f32>>,
    /// Which patches are foreground, per image. `None` if all are shown.
    pub foreground: Option<Vec<Vec<bool>>>,
}

impl Pca {
    /// Fits `count` components on the rows of `tokens` `[n, dim]`.
    ///
    /// # Errors
    /// [`crate::error::Kind::InvalidOption`] if there are fewer than two rows, or more components than dimensions or
    /// than rows allow.
    pub fn fit(tokens: ArrayView2<'_, f32>, count: usize) -> Result<Self> {
        let (rows, dim) = tokens.dim();
        let most = dim.min(rows.saturating_sub(1));
        if count == 0 || count > most {
            return Err(Error::option(
                "components",
                format!("{count} components cannot be fitted on {rows} patches of dimension {dim}; use 1 to {most}"),
            ));
        }
        let mean = tokens.mean_axis(Axis(0)).ok_or_else(|| Error::internal("there are no tokens"))?;
        let centred = &tokens - &mean;
        let data = centred.as_slice().ok_or_else(|| Error::internal("a fresh array is contiguous"))?;
        let data = MatRef::from_row_major_slice(data, rows, dim);
        let covariance = scaled_gram(data, 1.0 / rows as f32);
        let total: f32 = (0..dim).map(|i| covariance[(i, i)]).sum();

        let (values, vectors) = match largest_eigen(&covariance, count) {
            Some(found) => found,
            None => all_eigen(&covariance)?,
        };
        let mut components = Array2::zeros((count, dim));
        let mut explained = Vec::with_capacity(count);
        for (i, mut component) in components.rows_mut().into_iter().enumerate() {
            component.iter_mut().enumerate().for_each(|(d, v)| *v = vectors[(d, i)]);
            let largest = component.iter().copied().fold(0.0f32, |a, b| if b.abs() > a.abs() { b } else { a });
            component *= largest.signum();
            explained.push(if total > 0.0 { values[i].max(0.0) / total } else { 0.0 });
        }
        Ok(Self { mean, components, explained })
    }

    /// Coordinates of `tokens` `[n, dim]` in this basis: `[n, components]`.
    pub fn project(&self, tokens: ArrayView2<'_, f32>) -> Array2<f32> {
        let shift = self.components.dot(&self.mean);
        tokens.dot(&self.components.t()) - shift
    }

    /// Share of the total variance that each component explains.
    pub fn explained(&self) -> &[f32] {
        &self.explained
    }

    /// `[components, dim]`.
    pub fn components(&self) -> ArrayView2<'_, f32> {
        self.components.view()
    }
}

/// `scale · dataᵀ·data`, symmetric. Half of it is computed and copied to the other half.
fn scaled_gram(data: MatRef<'_, f32>, scale: f32) -> Mat<f32> {
    let dim = data.ncols();
    let mut gram = Mat::<f32>::zeros(dim, dim);
    let (lower, whole) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
    triangular::matmul(&mut gram, lower, Accum::Replace, data.transpose(), whole, data, whole, scale, Par::Seq);
    for column in 0..dim {
        for row in column + 1..dim {
            gram[(column, row)] = gram[(row, column)];
        }
    }
    gram
}

/// Eigenvalues in falling order and their eigenvectors in columns.
type Eigen = (Vec<f32>, Mat<f32>);

/// Directions that the subspace has beyond those that are sought; more make it converge in fewer steps.
const OVERSAMPLING: usize = 12;
/// Steps after which the whole decomposition is the faster way.
const MOST_STEPS: usize = 40;
/// Residual `‖A·v − λ·v‖` relative to the largest eigenvalue, near what f32 can tell.
const RESIDUAL: f32 = 3e-6;

/// The `count` largest of a positive semi-definite matrix, or `None` if all are found faster.
fn largest_eigen(symmetric: &Mat<f32>, count: usize) -> Option<Eigen> {
    let dim = symmetric.nrows();
    let width = count + OVERSAMPLING;
    if width * 4 > dim {
        return None;
    }
    // Any start will do that is not orthogonal to what is sought; a fixed one gives the same colours each time.
    let mut state = 1u32;
    let mut subspace = Mat::<f32>::from_fn(dim, width, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    });
    for _ in 0..MOST_STEPS {
        let basis = subspace.qr().compute_thin_Q();
        matmul(&mut subspace, Accum::Replace, symmetric, &basis, 1.0, Par::Seq);
        let mut quotient = Mat::<f32>::zeros(width, width);
        matmul(&mut quotient, Accum::Replace, basis.transpose(), &subspace, 1.0, Par::Seq);
        let (values, rotation) = all_eigen(&quotient).ok()?;
        let rotation = rotation.subcols(0, count);
        let vectors = &basis * rotation;
        let images = &subspace * rotation;
        let settled = |i: usize| {
            let residual = images.col(i) - vectors.col(i) * faer::Scale(values[i]);
            residual.norm_l2() <= RESIDUAL * values[0]
        };
        if values[0] > 0.0 && (0..count).all(settled) {
            return Some((values, vectors));
        }
    }
    None
}

fn all_eigen(symmetric: &Mat<f32>) -> Result<Eigen> {
    let eigen = symmetric
        .self_adjoint_eigen(Side::Lower)
        .map_err(|error| Error::internal(format!("the eigenvectors did not converge: {error:?}")))?;
    // faer sorts by rising eigenvalue.
    let values = eigen.S().column_vector().iter().rev().copied().collect();
    Ok((values, eigen.U().reverse_cols().to_owned()))
}

/// PCA maps of one or more images in one joint basis.
///
/// `tokens` is `[patches, dim]` per image; `cls_attention` holds per image the mean attention of CLS on each patch,
/// and is read only for [`Foreground::Auto`].
///
/// # Errors
/// As [`Pca::fit`].
pub fn maps(
    tokens: &[ArrayView2<'_, f32>],
    cls_attention: &[Vec<f32>],
    count: usize,
    foreground: Foreground,
) -> Result<PcaMaps> {
    let all = match tokens {
        [one] => CowArray::from(*one),
        several => {
            CowArray::from(ndarray::concatenate(Axis(0), several).map_err(|error| Error::internal(error.to_string()))?)
        }
    };
    let (basis, shown) = match foreground {
        Foreground::None => (Pca::fit(all.view(), count)?, None),
        Foreground::Auto => {
            let first = Pca::fit(all.view(), 1)?.project(all.view()).remove_axis(Axis(1));
            let shown = foreground_side(first.as_slice().unwrap_or_default(), &cls_attention.concat());
            let rows: Vec<usize> = (0..shown.len()).filter(|&row| shown[row]).collect();
            let enough = rows.len() > count;
            let basis =
                if enough { Pca::fit(all.select(Axis(0), &rows).view(), count)? } else { Pca::fit(all.view(), count)? };
            (basis, enough.then_some(shown))
        }
    };
    let mut projected = basis.project(all.view());
    scale_to_unit(&mut projected, shown.as_deref());

    let mut maps = Vec::with_capacity(tokens.len());
    let mut masks = shown.as_ref().map(|_| Vec::with_capacity(tokens.len()));
    let mut start = 0;
    for image in tokens {
        let end = start + image.nrows();
        maps.push(projected.slice(ndarray::s![start..end, ..]).to_owned());
        if let (Some(masks), Some(shown)) = (&mut masks, &shown) {
            masks.push(shown[start..end].to_vec());
        }
        start = end;
    }
    Ok(PcaMaps { basis, maps, foreground: masks })
}

/// The side of 0 on which CLS looks more, per patch.
fn foreground_side(first: &[f32], attention: &[f32]) -> Vec<bool> {
    let mean_on = |positive: bool| {
        let on_side = || first.iter().zip(attention).filter(move |(c, _)| (**c > 0.0) == positive);
        on_side().map(|(_, &a)| f64::from(a)).sum::<f64>() / on_side().count().max(1) as f64
    };
    let positive = mean_on(true) >= mean_on(false);
    first.iter().map(|&c| (c > 0.0) == positive).collect()
}

/// Scales each column to 0..1 over the rows that are shown; the others become 0.
fn scale_to_unit(projected: &mut Array2<f32>, shown: Option<&[bool]>) {
    let is_shown = |row: usize| shown.is_none_or(|shown| shown[row]);
    for mut column in projected.columns_mut() {
        let visible = column.iter().enumerate().filter(|(row, _)| is_shown(*row)).map(|(_, &value)| value);
        let (low, high) = visible.fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let range = if high > low { high - low } else { 1.0 };
        column.iter_mut().enumerate().for_each(|(row, value)| {
            *value = if is_shown(row) { ((*value - low) / range).clamp(0.0, 1.0) } else { 0.0 };
        });
    }
}
