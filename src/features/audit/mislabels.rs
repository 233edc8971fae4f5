//! Labels that are likely wrong: two classifiers that do not see the image's own label disagree
//! with it.

use ndarray::{ArrayView2, Axis};

use super::ridge::left_out_classes;
use crate::{
    error::{Error, Result},
    features::{
        neighbors::Neighbors,
        progress::Watch,
        vote::{self, TEMPERATURE, Vote},
    },
};

/// Labels of rows.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// Names of the classes, sorted.
    pub classes: Vec<String>,
    /// Index of the class of each row; `None` without a label.
    pub of_rows: Vec<Option<u32>>,
}

/// A label that is likely wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mislabel {
    /// The row.
    pub row: u32,
    /// Index of the class that both classifiers predict.
    pub suggested: u32,
    /// Share of the vote of the nearest others for that class, less the share for the label: up to
    /// 1.
    pub score: f32,
}

impl Labels {
    /// Numbers the labels in the order of their names.
    pub fn new(labels: &[Option<&str>]) -> Self {
        let mut classes: Vec<&str> = labels.iter().flatten().copied().collect();
        classes.sort_unstable();
        classes.dedup();
        let index = |label: &str| classes.partition_point(|class| *class < label) as u32;
        Self {
            of_rows: labels.iter().map(|label| label.map(index)).collect(),
            classes: classes.iter().map(|&class| class.to_owned()).collect(),
        }
    }
}

/// Most classes for which labels are checked.
const MAX_CLASSES: usize = 10_000;

/// Returns the rows for which the vote of their nearest labeled others and least squares on all
/// `vectors` `[rows, dim]` without the row agree on another class than their label; the surest
/// first. Empty for fewer than two classes, for more than [`MAX_CLASSES`], and for more than half
/// as many as rows: names of single objects, of which nothing can be learned. `None` if `watch`
/// ends it.
///
/// # Errors
/// If the number of labels is not that of the vectors.
pub(super) fn mislabels(
    vectors: ArrayView2<'_, f32>,
    neighbors: &Neighbors,
    labels: &Labels,
    watch: Watch<'_>,
) -> Result<Option<Vec<Mislabel>>> {
    if labels.of_rows.len() != vectors.nrows() || neighbors.rows() != vectors.nrows() {
        return Err(Error::internal("a label for each vector is needed"));
    }
    let labeled: Vec<usize> = (0..vectors.nrows())
        .filter(|&row| labels.of_rows[row].is_some())
        .collect();
    let classes = labels.classes.len();
    if !(2..=MAX_CLASSES.min(labeled.len() / 2)).contains(&classes) {
        return Ok(Some(Vec::new()));
    }
    let own: Vec<u32> = labels.of_rows.iter().copied().flatten().collect();
    let predicted = match labeled.len() == vectors.nrows() {
        true => left_out_classes(vectors, &own, classes, watch)?,
        false => {
            let vectors = vectors.select(Axis(0), &labeled);
            left_out_classes(vectors.view(), &own, classes, watch)?
        }
    };
    let Some(predicted) = predicted else {
        return Ok(None);
    };
    let mut found = Vec::new();
    for ((&row, &label), predicted) in labeled.iter().zip(&own).zip(predicted) {
        let near = neighbors.of(row).iter();
        let voters: Vec<(f32, usize)> = near
            .filter_map(|&(score, other)| {
                let class = labels.of_rows[other as usize]?;
                Some((score, class as usize))
            })
            .collect();
        let shares = vote::shares(&voters, classes, Vote::Weighted, TEMPERATURE);
        let Some(suggested) = vote::winner(&shares).filter(|_| !voters.is_empty()) else {
            continue;
        };
        let score = shares[suggested] - shares[label as usize];
        if suggested != label as usize && suggested == predicted as usize && score > 0.0 {
            found.push(Mislabel {
                row: row as u32,
                suggested: suggested as u32,
                score,
            });
        }
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    Ok(Some(found))
}
