//! Maps of the attention of CLS in the last block, per head (DINO's `visualize_attention.py`).

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, Axis};

/// Heads that a map shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum HeadChoice {
    /// The mean over the heads.
    #[default]
    Mean,
    /// The maximum over the heads.
    Max,
    /// One head, counted from 0.
    One(usize),
    /// Every head separately.
    All,
}

impl TryFrom<String> for HeadChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "mean" => Ok(Self::Mean),
            "max" => Ok(Self::Max),
            "all" => Ok(Self::All),
            number => number.parse().map(Self::One).map_err(|_| {
                format!("{text:?} is neither `mean`, `max`, `all` nor the number of a head")
            }),
        }
    }
}

/// Returns the patch columns of the CLS rows: `[heads, patches]` from `[heads, 1 + registers +
/// patches]`.
pub fn patch_columns(rows: ArrayView2<'_, f32>, registers: usize) -> ArrayView2<'_, f32> {
    rows.slice_move(ndarray::s![.., 1 + registers..])
}

/// Returns the maps of `choice`: `[maps, patches]` from `[heads, patches]`.
///
/// # Panics
/// If the model does not have the head.
pub fn choose(heads: ArrayView2<'_, f32>, choice: HeadChoice) -> Array2<f32> {
    let as_one = |row: Array1<f32>| row.insert_axis(Axis(0));
    match choice {
        HeadChoice::All => heads.to_owned(),
        HeadChoice::Mean => as_one(mean(heads)),
        HeadChoice::Max => as_one(heads.fold_axis(Axis(0), f32::NEG_INFINITY, |&a, &b| a.max(b))),
        HeadChoice::One(head) => as_one(heads.row(head).to_owned()),
    }
}

/// Returns the mean over the heads.
pub fn mean(heads: ArrayView2<'_, f32>) -> Array1<f32> {
    heads
        .mean_axis(Axis(0))
        .unwrap_or_else(|| Array1::zeros(heads.ncols()))
}

/// Keeps the patches with the share `mass` of a map's attention and sets the others to 0. The
/// values are sorted in ascending order, normalized and cumulated; those where the sum exceeds 1 −
/// `mass` are kept.
pub fn keep_mass(mut map: ArrayViewMut1<'_, f32>, mass: f32) {
    let total: f64 = map.iter().map(|&v| f64::from(v)).sum();
    let mut order: Vec<usize> = (0..map.len()).collect();
    order.sort_by(|&a, &b| map[a].total_cmp(&map[b]));
    let mut sum = 0.0;
    for index in order {
        sum += f64::from(map[index]) / total;
        if sum <= 1.0 - f64::from(mass) {
            map[index] = 0.0;
        }
    }
}

/// Scales a map to 0..1. A flat map becomes 0.
pub fn min_max(map: ArrayView1<'_, f32>) -> Vec<f32> {
    let low = map.iter().copied().fold(f32::INFINITY, f32::min);
    let high = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = if high > low { high - low } else { 1.0 };
    map.iter().map(|&v| (v - low) / range).collect()
}
