//! All parts of an audit, one after the other.

use std::num::NonZero;

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::{
    clusters::{Clusters, cluster},
    duplicates::{DuplicateGroup, duplicates},
    mislabels::{Labels, Mislabel, mislabels},
    outliers::{Outlier, outliers},
};
use crate::{
    error::{Error, Result},
    features::{
        neighbors::nearest_others,
        progress::{Progress, Stage, Watch},
    },
};

/// Maximum number of nearest others; each takes 8 bytes of memory for each image.
const MAX_NEIGHBORS: usize = 100;
/// Maximum number of clusters.
const MAX_CLUSTERS: usize = 1000;

/// How images are audited.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AuditOptions {
    /// Number of nearest others of each image that are looked at.
    pub neighbors: usize,
    /// Cosine from which on two images are near-duplicates.
    pub duplicates_above: f32,
    /// Number of clusters. The default is the one with the best silhouette.
    pub clusters: Option<NonZero<usize>>,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            neighbors: 20,
            duplicates_above: 0.97,
            clusters: None,
        }
    }
}

impl AuditOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`](crate::error::Kind::InvalidOption) for a value out of range.
    pub fn check(&self) -> Result<()> {
        let (neighbors, clusters) = (self.neighbors, self.clusters);
        if !(1..=MAX_NEIGHBORS).contains(&neighbors) {
            let range = format_args!("1 to {MAX_NEIGHBORS}");
            return Err(Error::out_of_range("neighbors", neighbors, range));
        }
        if let Some(clusters) = clusters.filter(|clusters| clusters.get() > MAX_CLUSTERS) {
            let range = format_args!("1 to {MAX_CLUSTERS}");
            return Err(Error::out_of_range("clusters", clusters, range));
        }
        if !(0.0..=1.0).contains(&self.duplicates_above) {
            let value = self.duplicates_above;
            return Err(Error::out_of_range("duplicates_above", value, "0 to 1"));
        }
        Ok(())
    }
}

/// What is unusual in a set of images.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// Images that show the same.
    pub duplicates: Vec<DuplicateGroup>,
    /// Images without similar ones.
    pub outliers: Vec<Outlier>,
    /// Labels that are likely wrong.
    pub mislabels: Vec<Mislabel>,
    /// Groups of similar images.
    pub clusters: Clusters,
}

/// Audits images by their `vectors` `[images, dim]` of length 1, on `threads` threads. `None` if
/// `watch` ends it.
///
/// # Errors
/// [`Kind::InvalidOption`](crate::error::Kind::InvalidOption) for invalid options or fewer than two
/// images.
pub fn audit(
    vectors: ArrayView2<'_, f32>,
    labels: &Labels,
    options: &AuditOptions,
    threads: NonZero<usize>,
    watch: Watch<'_>,
) -> Result<Option<Audit>> {
    options.check()?;
    let Some(neighbors) = nearest_others(vectors, options.neighbors, threads, watch)? else {
        return Ok(None);
    };
    let duplicates = duplicates(&neighbors, options.duplicates_above);
    let outliers = outliers(&neighbors);
    if !watch(Progress::new(Stage::Checking, 0, Some(1))) {
        return Ok(None);
    }
    let Some(mislabels) = mislabels(vectors, &neighbors, labels, watch)? else {
        return Ok(None);
    };
    let Some(clusters) = cluster(vectors, &outliers, options.clusters, watch)? else {
        return Ok(None);
    };
    Ok(Some(Audit {
        duplicates,
        outliers,
        mislabels,
        clusters,
    }))
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Groups of vectors around a few directions; `spread` is the size of the noise.
    fn groups(rows: usize, dim: usize, count: usize, spread: f32) -> (Array2<f32>, Vec<usize>) {
        let mut random = fastrand::Rng::with_seed(11);
        let mut normal = move || (0..12).map(|_| random.f32()).sum::<f32>() - 6.0;
        let centers = Array2::from_shape_fn((count, dim), |_| normal());
        let of_rows: Vec<usize> = (0..rows).map(|row| row % count).collect();
        let mut vectors = Array2::from_shape_fn((rows, dim), |(row, column)| {
            centers[[of_rows[row], column]] + spread * normal()
        });
        for mut row in vectors.rows_mut() {
            let length = row.dot(&row).sqrt();
            row /= length;
        }
        (vectors, of_rows)
    }

    #[test]
    fn what_is_planted_is_found() {
        let (mut vectors, groups) = groups(1200, 24, 5, 0.7);
        let names = ["ant", "bee", "cat", "dog", "eel"];
        let mut labels: Vec<Option<&str>> =
            groups.iter().map(|&group| Some(names[group])).collect();
        // Wrong labels, copies with a little noise, one image of its own, and one without a label.
        let wrong: Vec<usize> = (0..1200).step_by(20).collect();
        for &row in &wrong {
            labels[row] = Some(names[(groups[row] + 1) % 5]);
        }
        let copies = [(3, 701), (3, 904), (50, 51)];
        for (from, to) in copies {
            let mut copy = vectors.row(from).to_owned();
            copy[0] += 0.02;
            let length = copy.dot(&copy).sqrt();
            vectors.row_mut(to).assign(&(copy / length));
            labels[to] = labels[from];
        }
        let opposite = vectors.mean_axis(ndarray::Axis(0)).expect("rows");
        let length = opposite.dot(&opposite).sqrt();
        vectors.row_mut(333).assign(&(opposite / -length));
        labels[334] = None;

        let labels = Labels::new(&labels);
        let options = AuditOptions {
            duplicates_above: 0.99,
            ..AuditOptions::default()
        };
        let two = NonZero::new(2).expect("not 0");
        let mut stages = Vec::new();
        let found = audit(vectors.view(), &labels, &options, two, &mut |progress| {
            assert!(Some(progress.done) <= progress.total);
            stages.push(progress.stage);
            true
        });
        let found = found.expect("valid").expect("not stopped");
        let rows: Vec<Vec<u32>> = found
            .duplicates
            .iter()
            .map(|group| group.rows.clone())
            .collect();
        assert_eq!(rows.len(), 2);
        assert!(rows.contains(&vec![3, 701, 904]) && rows.contains(&vec![50, 51]));
        assert_eq!(found.outliers[0].row, 333);
        let suspected: Vec<usize> = found
            .mislabels
            .iter()
            .map(|found| found.row as usize)
            .collect();
        let right = suspected.iter().filter(|row| wrong.contains(row)).count();
        assert!(
            right * 100 >= 95 * wrong.len(),
            "{right} of {}",
            wrong.len()
        );
        assert!(
            right * 100 >= 95 * suspected.len(),
            "{right} of {}",
            suspected.len()
        );
        for mislabel in &found.mislabels {
            let row = mislabel.row as usize;
            if wrong.contains(&row) {
                assert_eq!(
                    labels.classes[mislabel.suggested as usize],
                    names[groups[row]]
                );
            }
        }
        assert_eq!(
            found.clusters.clusters.len(),
            5,
            "{}",
            found.clusters.silhouette
        );
        let all: usize = found
            .clusters
            .clusters
            .iter()
            .map(|cluster| cluster.rows.len())
            .sum();
        assert_eq!(all, 1200);
        stages.dedup();
        assert_eq!(stages, [Stage::Comparing, Stage::Checking, Stage::Grouping]);
    }

    #[test]
    fn an_audit_can_be_ended() {
        let (vectors, _) = groups(300, 8, 3, 0.5);
        let labels = Labels::new(&vec![None; 300]);
        for last in [Stage::Comparing, Stage::Checking, Stage::Grouping] {
            let found = audit(
                vectors.view(),
                &labels,
                &AuditOptions::default(),
                NonZero::<usize>::MIN,
                &mut |progress| progress.stage != last,
            );
            assert!(found.expect("valid").is_none());
        }
    }

    #[test]
    fn equal_images_are_one_group_and_no_outliers() {
        let vectors = Array2::from_elem((40, 4), 0.5);
        let labels = Labels::new(&vec![Some("a"); 40]);
        let options = AuditOptions::default();
        let one = NonZero::<usize>::MIN;
        let found = audit(vectors.view(), &labels, &options, one, &mut |_| true);
        let found = found.expect("valid").expect("not stopped");
        // Ties are cut off at the number of neighbors, and the group is whole all the same.
        assert_eq!(found.duplicates.len(), 1);
        assert_eq!(found.duplicates[0].rows.len(), 40);
        assert!(found.outliers.is_empty() && found.mislabels.is_empty());
    }
}
