//! Classification by the nearest labeled images, as in `dinov2/eval/knn.py`: exact, by dot
//! product.

use ndarray::{ArrayView2, Axis};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    features::vote::{self, Vote},
};

/// Number of test images whose scores are held at a time.
const BLOCK_ROWS: usize = 64;

/// A near labeled image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Neighbor {
    /// Index of the labeled image.
    pub index: usize,
    /// Dot product of both vectors; for vectors of length 1 their cosine similarity.
    pub score: f32,
}

/// Returns the `k` nearest rows of `train` `[images, dim]` for each row of `test` `[images, dim]`,
/// by falling score; rows of equal score keep their order.
///
/// # Errors
/// [`Kind::InvalidOption`](crate::error::Kind::InvalidOption) if `k` is 0 or above the number of
/// rows.
pub fn nearest(
    train: ArrayView2<'_, f32>,
    test: ArrayView2<'_, f32>,
    k: usize,
) -> Result<Vec<Vec<Neighbor>>> {
    let rows = train.nrows();
    if k == 0 || k > rows {
        let detail = format!("{k} neighbors cannot be found among {rows} images; use 1 to {rows}");
        return Err(Error::option("k", detail));
    }
    let by_score =
        |a: &Neighbor, b: &Neighbor| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index));
    let mut found = Vec::with_capacity(test.nrows());
    for block in test.axis_chunks_iter(Axis(0), BLOCK_ROWS) {
        for scores in block.dot(&train.t()).rows() {
            let mut all: Vec<Neighbor> = scores
                .iter()
                .enumerate()
                .map(|(index, &score)| Neighbor { index, score })
                .collect();
            if k < rows {
                all.select_nth_unstable_by(k, by_score);
                all.truncate(k);
            }
            all.sort_unstable_by(by_score);
            found.push(all);
        }
    }
    Ok(found)
}

/// Returns the class that the first `k` of `neighbors` vote for; the lowest class wins a tie.
/// `labels` are the classes of the labeled images, below `classes`.
pub fn predict(
    neighbors: &[Neighbor],
    k: usize,
    labels: &[usize],
    classes: usize,
    vote: Vote,
    temperature: f32,
) -> Option<usize> {
    let voters = neighbors.iter().take(k);
    let voters = Vec::from_iter(voters.map(|near| (near.score, labels[near.index])));
    vote::winner(&vote::shares(&voters, classes, vote, temperature))
}
