//! Near-duplicates: vectors that are nearly the same, in groups.

use std::collections::BTreeMap;

use crate::features::neighbors::Neighbors;

/// Images that show the same, such as copies of other sizes or formats.
#[derive(Debug, Clone, PartialEq)]
pub struct DuplicateGroup {
    /// The rows, in their order; at least two.
    pub rows: Vec<u32>,
    /// The lowest cosine that holds the group together.
    pub score: f32,
}

/// Groups the rows whose cosine is at least `threshold`, also over rows between them. Groups of
/// high scores come first.
pub(super) fn duplicates(neighbors: &Neighbors, threshold: f32) -> Vec<DuplicateGroup> {
    let mut pairs: Vec<(f32, u32, u32)> = Vec::new();
    for row in 0..neighbors.rows() {
        let near = neighbors.of(row).iter();
        for &(score, other) in near.take_while(|(score, _)| *score >= threshold) {
            pairs.push((score, row as u32, other));
        }
    }
    // The nearest first, so that the last link of a group is its weakest.
    pairs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut sets = Sets::new(neighbors.rows());
    for (score, a, b) in pairs {
        sets.join(a, b, score);
    }
    let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for row in 0..neighbors.rows() as u32 {
        let root = sets.root(row);
        if sets.score[root as usize].is_finite() {
            groups.entry(root).or_default().push(row);
        }
    }
    let mut groups: Vec<DuplicateGroup> = groups
        .into_iter()
        .map(|(root, rows)| DuplicateGroup {
            rows,
            score: sets.score[root as usize],
        })
        .collect();
    groups.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.rows[0].cmp(&b.rows[0])));
    groups
}

/// Disjoint sets of rows.
struct Sets {
    parent: Vec<u32>,
    /// Of each root: the lowest score that joined its set, infinite for a single row.
    score: Vec<f32>,
}

impl Sets {
    fn new(rows: usize) -> Self {
        Self {
            parent: (0..rows as u32).collect(),
            score: vec![f32::INFINITY; rows],
        }
    }

    fn root(&mut self, mut row: u32) -> u32 {
        while self.parent[row as usize] != row {
            let grandparent = self.parent[self.parent[row as usize] as usize];
            self.parent[row as usize] = grandparent;
            row = grandparent;
        }
        row
    }

    fn join(&mut self, a: u32, b: u32, score: f32) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        // The root is the first row of the set.
        let (root, other) = (a.min(b), a.max(b));
        self.parent[other as usize] = root;
        let lowest = self.score[a as usize]
            .min(self.score[b as usize])
            .min(score);
        self.score[root as usize] = lowest;
    }
}
