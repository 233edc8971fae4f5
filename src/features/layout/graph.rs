//! The graph of similar vectors.

use crate::features::neighbors::Neighbors;

/// Edges of a graph, by the rows they begin at.
pub(super) struct Graph {
    /// Where the edges of a row begin, and after the last row where they end.
    starts: Vec<usize>,
    /// The other end of each edge, and its weight: up to 1.
    edges: Vec<(u32, f32)>,
}

impl Graph {
    /// Joins the rows with their neighbors.
    pub(super) fn new(neighbors: &Neighbors) -> Self {
        let rows = neighbors.rows();
        let mut edges: Vec<(u32, u32, f32)> = Vec::with_capacity(2 * rows * neighbors.count());
        for row in 0..rows {
            let near = neighbors.of(row);
            for (weight, &(_, other)) in memberships(near).into_iter().zip(near) {
                edges.push((row as u32, other, weight));
                edges.push((other, row as u32, weight));
            }
        }
        // An edge in both directions is there twice, side by side.
        edges.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
        let mut joined: Vec<(u32, u32, f32)> = Vec::with_capacity(edges.len());
        for (from, to, weight) in edges {
            match joined.last_mut() {
                // The probability that one of two independent edges exists.
                Some(last) if (last.0, last.1) == (from, to) => {
                    last.2 += weight - last.2 * weight;
                }
                _ => joined.push((from, to, weight)),
            }
        }
        let largest = joined
            .iter()
            .map(|edge| edge.2)
            .fold(f32::MIN_POSITIVE, f32::max);
        let starts = (0..=rows as u32).map(|row| joined.partition_point(|edge| edge.0 < row));
        Self {
            starts: starts.collect(),
            edges: joined
                .iter()
                .map(|&(_, to, weight)| (to, weight / largest))
                .collect(),
        }
    }

    /// Returns the edges of a row.
    pub(super) fn of(&self, row: usize) -> &[(u32, f32)] {
        &self.edges[self.starts[row]..self.starts[row + 1]]
    }
}

/// Returns how much each of the nearest, with their cosines, belongs to a row: 1 for the nearest,
/// and falling so that all sum up to the binary logarithm of their number.
pub(super) fn memberships(near: &[(f32, u32)]) -> Vec<f32> {
    let distances: Vec<f32> = near
        .iter()
        .map(|(cosine, _)| (1.0 - cosine).max(0.0))
        .collect();
    let nearest = distances.iter().copied().find(|&distance| distance > 0.0);
    let nearest = nearest.unwrap_or(0.0);
    let belongs = |distance: f32, scale: f32| (-(distance - nearest).max(0.0) / scale).exp();
    let sum = |scale: f32| {
        distances
            .iter()
            .map(|&distance| belongs(distance, scale))
            .sum::<f32>()
    };
    let wanted = (near.len() as f32).log2();
    let mean = distances.iter().sum::<f32>() / near.len() as f32;
    let (mut low, mut high) = (0.0, f32::INFINITY);
    let mut scale = mean.max(f32::MIN_POSITIVE);
    for _ in 0..64 {
        let found = sum(scale);
        if (found - wanted).abs() < 1e-5 {
            break;
        }
        if found > wanted {
            high = scale;
            scale = (low + high) / 2.0;
        } else {
            low = scale;
            scale = if high.is_finite() {
                (low + high) / 2.0
            } else {
                2.0 * scale
            };
        }
    }
    let scale = scale.max(1e-3 * mean).max(f32::MIN_POSITIVE);
    distances
        .into_iter()
        .map(|distance| belongs(distance, scale))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_sum_up_to_the_logarithm() {
        let near: Vec<(f32, u32)> = (0..15).map(|row| (0.9 - 0.02 * row as f32, row)).collect();
        let found = memberships(&near);
        assert!((found.iter().sum::<f32>() - 15f32.log2()).abs() < 1e-3);
        assert!(
            found[0] == 1.0 && found.is_sorted_by(|a, b| a >= b),
            "{found:?}"
        );
        // Copies of the row are at no distance, and the next one is the nearest.
        let copies = [(1.0, 0), (1.0, 1), (0.8, 2), (0.5, 3)];
        let found = memberships(&copies);
        assert!(found[..3] == [1.0; 3] && found[3] < 1e-3, "{found:?}");
        assert_eq!(memberships(&[(1.0, 0); 5]), [1.0; 5]);
        assert_eq!(memberships(&[(0.3, 0)]), [1.0]);
    }
}
