//! Normalized cuts of the graph of patches.

use faer::{Mat, Side};

use super::graph::Graph;

/// Similarity of patches that are not joined. It keeps the graph connected.
const FLOOR: f64 = 1e-5;
/// Value above which a cut goes through one thing and not between two; the largest is 2.
const MAX_CUT: f64 = 0.5;
/// Maximum number of cuts of an image. Only a graph with hardly any edges has more.
const MAX_CUTS: usize = 64;
/// Maximum number of steps of the eigensolver. A clear cut takes about twenty.
const MAX_STEPS: usize = 160;
/// Steps between two checks of the result.
const CHECK_INTERVAL: usize = 8;
/// Residual at which the eigenvector is accepted.
const RESIDUAL: f64 = 1e-7;

/// A cut of a part of the graph.
#[derive(Debug, Clone)]
pub struct Cut {
    /// Second smallest eigenvalue of (D − A)·x = λ·D·x.
    pub eigenvalue: f64,
    /// Its eigenvector with xᵀ·D·x = 1, an entry for each patch of the part. It is larger on the
    /// side with more attention.
    pub eigenvector: Vec<f64>,
    /// Whether a patch lies on that side: above the mean of the eigenvector.
    pub side: Vec<bool>,
    /// Weight between the sides, relative to that of each side's edges, 0 to 2.
    pub value: f64,
}

/// Cuts all patches in two. `attention` is the mean attention of CLS to each patch.
pub(super) fn first_cut(graph: &Graph, attention: &[f32]) -> Cut {
    let all: Vec<usize> = (0..graph.patches()).collect();
    cut(graph, &all, attention)
}

/// Cuts the graph and its parts in two as long as that is cheap. Returns the final parts, as lists
/// of patches.
///
/// Parts of fewer than `min_size` patches are not cut.
pub(super) fn parts(graph: &Graph, attention: &[f32], min_size: usize) -> Vec<Vec<usize>> {
    let mut parts = Vec::new();
    let mut cuts = 0;
    let mut todo = vec![(0..graph.patches()).collect::<Vec<_>>()];
    while let Some(part) = todo.pop() {
        if part.len() < min_size.max(2) || cuts == MAX_CUTS {
            parts.push(part);
            continue;
        }
        cuts += 1;
        let cut = cut(graph, &part, attention);
        if cut.value >= MAX_CUT {
            parts.push(part);
            continue;
        }
        let on_side = |wanted: bool| {
            let sides = part.iter().zip(&cut.side);
            let chosen = sides.filter(|(_, side)| **side == wanted);
            chosen.map(|(&patch, _)| patch).collect::<Vec<_>>()
        };
        todo.extend([on_side(false), on_side(true)]);
    }
    parts
}

/// Cuts a part of at least two patches.
fn cut(graph: &Graph, part: &[usize], attention: &[f32]) -> Cut {
    let weights = Weights { graph, part };
    let degrees = weights.sums(&vec![1.0; part.len()]);
    let roots: Vec<f64> = degrees.iter().map(|degree| degree.sqrt()).collect();
    let (largest, vector) = second_eigenvector(&weights, &roots);
    let mut eigenvector: Vec<f64> = vector
        .iter()
        .zip(&roots)
        .map(|(v, root)| v / root)
        .collect();
    let mean = eigenvector.iter().sum::<f64>() / part.len() as f64;
    let mut side: Vec<bool> = eigenvector.iter().map(|&value| value > mean).collect();
    let attended = |wanted: bool| {
        let on_side = part.iter().zip(&side).filter(|(_, side)| **side == wanted);
        let values: Vec<f64> = on_side
            .map(|(&patch, _)| f64::from(attention[patch]))
            .collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    // NaN, and so false, if all are on one side.
    if attended(true) < attended(false) {
        side = eigenvector.iter().map(|&value| value < mean).collect();
        eigenvector.iter_mut().for_each(|value| *value = -*value);
    }
    Cut {
        eigenvalue: 1.0 - largest,
        value: cut_value(&weights, &degrees, &side),
        eigenvector,
        side,
    }
}

/// Weight of the edges between the sides, relative to all edges of either side.
fn cut_value(weights: &Weights<'_>, degrees: &[f64], side: &[bool]) -> f64 {
    let inside: Vec<f64> = side.iter().map(|&side| f64::from(u8::from(side))).collect();
    let sums = weights.sums(&inside);
    let total: f64 = degrees.iter().sum();
    let of_side: f64 = degrees
        .iter()
        .zip(&inside)
        .map(|(degree, inside)| degree * inside)
        .sum();
    let within: f64 = sums
        .iter()
        .zip(&inside)
        .map(|(sum, inside)| sum * inside)
        .sum();
    let between = of_side - within;
    let of_rest = total - of_side;
    if of_side <= 0.0 || of_rest <= 0.0 {
        return 2.0;
    }
    between / of_side + between / of_rest
}

/// The weights between the patches of a part: 1 for joined ones, else [`FLOOR`].
struct Weights<'a> {
    graph: &'a Graph,
    part: &'a [usize],
}

impl Weights<'_> {
    /// Multiplies the matrix of weights by a vector.
    fn sums(&self, vector: &[f64]) -> Vec<f64> {
        let mut values = vec![0.0; self.graph.patches()];
        for (&patch, &value) in self.part.iter().zip(vector) {
            values[patch] = value;
        }
        let all: f64 = vector.iter().sum();
        let mut sums = self.graph.sums(self.part, &values);
        for sum in &mut sums {
            *sum = (1.0 - FLOOR) * *sum + FLOOR * all;
        }
        sums
    }
}

/// Computes the largest eigenvalue but one of D^-½·A·D^-½, and its eigenvector of length 1, by the
/// method of Lanczos with full reorthogonalization (Golub & Van Loan, Matrix Computations, §10.1).
/// The largest is 1, with the eigenvector `roots` = D^½·1, which is left out.
fn second_eigenvector(weights: &Weights<'_>, roots: &[f64]) -> (f64, Vec<f64>) {
    let size = roots.len();
    let mut first = roots.to_vec();
    normalize(&mut first);
    // A fixed start gives the same answer each time.
    let mut random = fastrand::Rng::with_seed(0);
    let mut next: Vec<f64> = (0..size).map(|_| random.f64() - 0.5).collect();
    let mut basis = vec![first];
    let mut diagonal = Vec::new();
    let mut off_diagonal: Vec<f64> = Vec::new();
    let steps = MAX_STEPS.min(size - 1);
    for step in 1..=steps {
        orthogonalize(&mut next, &basis);
        normalize(&mut next);
        let scaled: Vec<f64> = next.iter().zip(roots).map(|(v, root)| v / root).collect();
        let mut image = weights.sums(&scaled);
        image
            .iter_mut()
            .zip(roots)
            .for_each(|(value, root)| *value /= root);
        diagonal.push(dot(&image, &next));
        basis.push(std::mem::replace(&mut next, image));
        orthogonalize(&mut next, &basis);
        let length = dot(&next, &next).sqrt();
        let is_last = step == steps || length < 1e-12;
        if is_last || step % CHECK_INTERVAL == 0 {
            let (value, combination) = largest_of_tridiagonal(&diagonal, &off_diagonal);
            let residual = length * combination[step - 1].abs();
            if is_last || residual < RESIDUAL {
                let mut vector = vec![0.0; size];
                for (direction, factor) in basis[1..].iter().zip(combination) {
                    let pairs = vector.iter_mut().zip(direction);
                    pairs.for_each(|(sum, value)| *sum += factor * value);
                }
                return (value, vector);
            }
        }
        off_diagonal.push(length);
    }
    (0.0, vec![0.0; size])
}

/// Returns the largest eigenvalue of a symmetric tridiagonal matrix, and its eigenvector.
fn largest_of_tridiagonal(diagonal: &[f64], off_diagonal: &[f64]) -> (f64, Vec<f64>) {
    let size = diagonal.len();
    let matrix = Mat::<f64>::from_fn(size, size, |row, column| match row.abs_diff(column) {
        0 => diagonal[row],
        1 => off_diagonal[row.min(column)],
        _ => 0.0,
    });
    // In ascending order. It does not converge only for values that are not finite.
    let Ok(eigen) = matrix.self_adjoint_eigen(Side::Lower) else {
        return (0.0, vec![0.0; size]);
    };
    let last = size - 1;
    let vector = (0..size).map(|row| eigen.U()[(row, last)]).collect();
    (eigen.S().column_vector()[last], vector)
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

fn normalize(vector: &mut [f64]) {
    let length = dot(vector, vector).sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
}

/// Subtracts the parts of a vector along others of length 1, twice, since once leaves rounding.
fn orthogonalize(vector: &mut [f64], basis: &[Vec<f64>]) {
    for direction in basis.iter().chain(basis) {
        let part = dot(vector, direction);
        let pairs = vector.iter_mut().zip(direction);
        pairs.for_each(|(value, direction)| *value -= part * direction);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Two groups of patches with tokens in two directions, and the same attention to all.
    fn groups(sizes: [usize; 2]) -> (Graph, Vec<f32>) {
        let count = sizes[0] + sizes[1];
        let mut random = fastrand::Rng::with_seed(1);
        let tokens = Array2::from_shape_fn((count, 8), |(patch, value)| {
            let group = usize::from(patch >= sizes[0]);
            f32::from(u8::from(value == group)) + 0.2 * (random.f32() - 0.5)
        });
        let attention = (0..count).map(|patch| if patch < sizes[0] { 1.0 } else { 2.0 });
        (Graph::new(tokens.view(), 0.0), attention.collect())
    }

    #[test]
    fn a_cut_separates_groups_and_its_vector_is_an_eigenvector() {
        let (graph, attention) = groups([30, 20]);
        let found = first_cut(&graph, &attention);
        let expected: Vec<bool> = (0..50).map(|patch| patch >= 30).collect();
        assert_eq!(found.side, expected);
        assert!(found.value < 0.2, "{}", found.value);
        let all: Vec<usize> = (0..50).collect();
        let weights = Weights {
            graph: &graph,
            part: &all,
        };
        let degrees = weights.sums(&[1.0; 50]);
        let images = weights.sums(&found.eigenvector);
        for patch in 0..50 {
            let x = found.eigenvector[patch];
            let left = degrees[patch] * x - images[patch];
            let right = found.eigenvalue * degrees[patch] * x;
            assert!((left - right).abs() < 1e-5, "{left} {right}");
        }
    }

    #[test]
    fn groups_are_parts_and_two_patches_can_be_cut() {
        let (graph, attention) = groups([30, 20]);
        let mut sizes: Vec<usize> = parts(&graph, &attention, 2).iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [20, 30]);
        let (graph, attention) = groups([1, 1]);
        assert_eq!(parts(&graph, &attention, 2).len(), 2);
        assert_eq!(parts(&graph, &attention, 3).len(), 1);
        let (graph, attention) = groups([1, 0]);
        assert_eq!(parts(&graph, &attention, 2), [[0]]);
    }
}
