//! The nearest of many entries, for the patches of an image.
//!
//! Of a large bank, an exact distance is computed for the patches that decide the score of the
//! image. Others get the distance to a near entry, which is found by its sketch in the nearest
//! clusters: the nearest in most cases, and never less than the distance to the nearest.

use std::{cmp::Ordering, ops::Range};

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use ndarray::{Array2, ArrayView2, Axis};
use pulp::Arch;

use super::sketch::Sketcher;
use crate::features::cosines::{dot, for_each_row, largest};

/// Number of entries up to which all distances are computed.
const FEW: usize = 4096;
/// Number of clusters of many entries.
const CLUSTERS: usize = 256;
/// Number of moves of the centers of clusters.
const MOVES: usize = 3;
/// Number of the nearest clusters in which a near entry is looked for.
const VISITED: usize = 3;
/// Numbers of a coarse sketch, which is compared with all entries, and of a fine one.
const COARSE: usize = 64;
const FINE: usize = 128;
/// Number of patches whose exact distances are computed together.
const BATCH: usize = 32;
/// Number of entries that are compared with them at a time. Their products take 256 kB.
const STRIP: usize = 2048;

/// Entries of a bank, which are unit vectors, prepared for search.
#[derive(Debug)]
pub(super) struct Index {
    /// `[entries, dim]`, cluster by cluster.
    entries: Array2<f32>,
    /// What helps to search many.
    clusters: Option<Clusters>,
}

#[derive(Debug)]
struct Clusters {
    coarse: Sketcher,
    fine: Sketcher,
    /// Sketches of the entries.
    coarse_entries: Array2<f32>,
    fine_entries: Array2<f32>,
    /// Centers in coarse sketches, `[clusters, COARSE]`.
    centers: Array2<f32>,
    /// The entries of each cluster.
    members: Vec<Range<usize>>,
}

impl Index {
    pub(super) fn new(entries: Array2<f32>) -> Self {
        if entries.nrows() <= FEW {
            return Self {
                entries,
                clusters: None,
            };
        }
        let fine = Sketcher::fit(entries.view(), FINE);
        let coarse = fine.narrower(COARSE);
        let sketches = coarse.sketch(entries.view());
        let (centers, cluster_of) = clusters_of(&sketches);
        let mut order: Vec<usize> = (0..entries.nrows()).collect();
        order.sort_by_key(|&entry| cluster_of[entry]);
        let mut members = vec![0..0; centers.nrows()];
        let mut start = 0;
        for group in order.chunk_by(|&one, &other| cluster_of[one] == cluster_of[other]) {
            members[cluster_of[group[0]]] = start..start + group.len();
            start += group.len();
        }
        let entries = entries.select(Axis(0), &order);
        let clusters = Clusters {
            coarse_entries: sketches.select(Axis(0), &order),
            fine_entries: fine.sketch(entries.view()),
            coarse,
            fine,
            centers,
            members,
        };
        Self {
            entries,
            clusters: Some(clusters),
        }
    }

    /// Returns the memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let sketches = self.clusters.as_ref().map_or(0, |clusters| {
            clusters.coarse_entries.len() + clusters.fine_entries.len()
        });
        (self.entries.len() + sketches) * size_of::<f32>()
    }

    /// Returns for each unit vector `[n, dim]` a cosine to an entry. The `exact` vectors whose
    /// cosines to their nearest entries are least have these.
    pub(super) fn cosines(&self, vectors: &Array2<f32>, exact: usize) -> Vec<f32> {
        let Some(clusters) = &self.clusters else {
            let mut cosines = Vec::with_capacity(vectors.nrows());
            for_each_row(vectors, &self.entries, |_, products| {
                cosines.push(largest(products));
            });
            return cosines;
        };
        let mut cosines = clusters.near(vectors, &self.entries);
        let mut order: Vec<usize> = (0..cosines.len()).collect();
        let by_cosine = |cosines: &[f32], one: usize, other: usize| -> Ordering {
            cosines[one].total_cmp(&cosines[other])
        };
        order.sort_by(|&one, &other| by_cosine(&cosines, one, other));
        // A cosine can only become larger, so the first of those to come bounds all of them.
        let mut found: Vec<usize> = Vec::new();
        for batch in order.chunks(BATCH) {
            found.sort_by(|&one, &other| by_cosine(&cosines, one, other));
            found.truncate(exact);
            if let Some(&last) = found.get(exact.max(1) - 1)
                && cosines[last] <= cosines[batch[0]]
            {
                break;
            }
            clusters.refine(vectors, &self.entries, batch, &mut cosines);
            found.extend(batch);
        }
        cosines
    }
}

impl Clusters {
    /// Returns for each vector the cosine to the entry that seems nearest in the nearest clusters.
    fn near(&self, vectors: &Array2<f32>, entries: &Array2<f32>) -> Vec<f32> {
        let sketches = self.coarse.sketch(vectors.view());
        let halves = half_squares(&self.centers);
        let mut visits: Vec<Vec<usize>> = vec![Vec::new(); self.centers.nrows()];
        for_each_row(&sketches, &self.centers, |vector, products| {
            for (product, half) in products.iter_mut().zip(&halves) {
                *product -= half;
            }
            for _ in 0..VISITED {
                let best = largest(products);
                if let Some(cluster) = products.iter().position(|&product| product == best) {
                    visits[cluster].push(vector);
                    products[cluster] = f32::NEG_INFINITY;
                }
            }
        });
        let mut cosines = vec![-1.0_f32; vectors.nrows()];
        for (visitors, members) in visits.iter().zip(&self.members) {
            if visitors.is_empty() || members.is_empty() {
                continue;
            }
            let asked = sketches.select(Axis(0), visitors);
            let members_of = rows(&self.coarse_entries, members.clone()).to_owned();
            for_each_row(&asked, &members_of, |row, bounds| {
                let best = largest(bounds);
                if let Some(member) = bounds.iter().position(|&bound| bound == best) {
                    let vector = visitors[row];
                    let entry = entries.row(members.start + member);
                    cosines[vector] = cosines[vector].max(vectors.row(vector).dot(&entry));
                }
            });
        }
        cosines
    }

    /// Replaces the cosines of some vectors by those to their nearest entries.
    fn refine(
        &self,
        vectors: &Array2<f32>,
        entries: &Array2<f32>,
        batch: &[usize],
        cosines: &mut [f32],
    ) {
        let asked = vectors.select(Axis(0), batch);
        let coarse = self.coarse.sketch(asked.view());
        let fine = self.fine.sketch(asked.view());
        let arch = Arch::new();
        let mut products = vec![0.0_f32; STRIP * batch.len()];
        for start in (0..entries.nrows()).step_by(STRIP) {
            let strip = start..(start + STRIP).min(entries.nrows());
            let products = &mut products[..strip.len() * batch.len()];
            let strips = rows(&self.coarse_entries, strip.clone());
            multiply(products, coarse.view(), strips);
            for (place, bounds) in products.chunks_exact(strip.len()).enumerate() {
                let best = &mut cosines[batch[place]];
                let vector = asked.row(place);
                let (Some(vector), Some(fine)) = (vector.to_slice(), fine.row(place).to_slice())
                else {
                    continue;
                };
                arch.dispatch(|| {
                    for (index, &bound) in strip.clone().zip(bounds) {
                        if bound > *best && self.fine_bound(index, fine) > *best {
                            *best = best.max(dot(row(entries, index), vector));
                        }
                    }
                });
            }
        }
    }

    #[inline(always)]
    fn fine_bound(&self, index: usize, fine: &[f32]) -> f32 {
        dot(row(&self.fine_entries, index), fine)
    }
}

/// Returns the centers of clusters of sketches, and the cluster of each sketch. They begin as an
/// even sample, and move to the means of their clusters.
fn clusters_of(sketches: &Array2<f32>) -> (Array2<f32>, Vec<usize>) {
    let count = sketches.nrows();
    let first: Vec<usize> = (0..CLUSTERS).map(|i| i * count / CLUSTERS).collect();
    let mut centers = sketches.select(Axis(0), &first);
    let mut cluster_of = vec![0; count];
    for round in 0..=MOVES {
        let halves = half_squares(&centers);
        for_each_row(sketches, &centers, |index, products| {
            for (product, half) in products.iter_mut().zip(&halves) {
                *product -= half;
            }
            let best = largest(products);
            let nearest = products.iter().position(|&product| product == best);
            cluster_of[index] = nearest.unwrap_or(0);
        });
        if round == MOVES {
            break;
        }
        let mut sums = Array2::<f32>::zeros(centers.dim());
        let mut counts = vec![0_usize; CLUSTERS];
        for (sketch, &cluster) in sketches.rows().into_iter().zip(&cluster_of) {
            let mut sum = sums.row_mut(cluster);
            sum += &sketch;
            counts[cluster] += 1;
        }
        for (cluster, &count) in counts.iter().enumerate() {
            if count > 0 {
                centers
                    .row_mut(cluster)
                    .assign(&(&sums.row(cluster) / count as f32));
            }
        }
    }
    (centers, cluster_of)
}

/// Half the squared length of each row: `x·c` less that of `c` is largest for the nearest `c`.
fn half_squares(rows: &Array2<f32>) -> Vec<f32> {
    let rows = rows.rows().into_iter();
    rows.map(|row| row.dot(&row) / 2.0).collect()
}

/// Writes the products of each row of `left` with each row of `right`, row by row.
fn multiply(products: &mut [f32], left: ArrayView2<'_, f32>, right: ArrayView2<'_, f32>) {
    let (height, width) = left.dim();
    let columns = right.nrows();
    let left = left.to_slice().expect("in standard layout");
    let right = right.to_slice().expect("in standard layout");
    matmul(
        MatMut::from_row_major_slice_mut(products, height, columns),
        Accum::Replace,
        MatRef::from_row_major_slice(left, height, width),
        MatRef::from_row_major_slice(right, columns, width).transpose(),
        1.0,
        Par::Seq,
    );
}

fn rows(matrix: &Array2<f32>, range: Range<usize>) -> ArrayView2<'_, f32> {
    matrix.slice(ndarray::s![range, ..])
}

/// Returns a row of a matrix in standard layout.
#[inline(always)]
fn row(matrix: &Array2<f32>, index: usize) -> &[f32] {
    let width = matrix.ncols();
    let values = matrix.as_slice().expect("in standard layout");
    &values[index * width..(index + 1) * width]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit vectors around a few directions.
    fn vectors(count: usize, random: &mut fastrand::Rng) -> Array2<f32> {
        let centers = Array2::from_shape_simple_fn((40, 96), || random.f32() - 0.5);
        let mut vectors = Array2::zeros((count, 96));
        for mut vector in vectors.rows_mut() {
            vector.assign(&centers.row(random.usize(..40)));
            vector.mapv_inplace(|value| value + 0.6 * (random.f32() - 0.5));
            vector /= vector.dot(&vector).sqrt();
        }
        vectors
    }

    #[test]
    fn the_least_cosines_of_many_entries_are_exact() {
        let mut random = fastrand::Rng::with_seed(3);
        let all = vectors(FEW + 1300, &mut random);
        let entries = rows(&all, 0..FEW + 1000).to_owned();
        let asked = rows(&all, FEW + 1000..FEW + 1300).to_owned();
        let mut expected: Vec<f32> = Vec::new();
        for_each_row(&asked, &entries, |_, products| {
            expected.push(largest(products));
        });
        let index = Index::new(entries);
        assert!(index.clusters.is_some());
        let mut found = index.cosines(&asked, 3);
        let near = found.iter().zip(&expected);
        assert!(near.clone().all(|(found, exact)| *found < exact + 1e-5));
        let same = near.filter(|(found, exact)| (*found - *exact).abs() < 1e-5);
        assert!(same.count() > 100, "most of the others are near");
        found.sort_by(f32::total_cmp);
        expected.sort_by(f32::total_cmp);
        for (found, expected) in found.iter().zip(&expected).take(3) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}
