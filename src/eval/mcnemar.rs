//! Whether two classifiers differ by more than chance on the same images: McNemar's exact test
//! (McNemar 1947; Dietterich 1998, section 3.1).

use serde::Serialize;

/// How two classifiers agree on the images of a test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Number of images that both get right.
    pub both: usize,
    /// Number of images that only the first gets right.
    pub only_first: usize,
    /// Number of images that only the second gets right.
    pub only_second: usize,
    /// Number of images that neither gets right.
    pub neither: usize,
    /// Probability of a difference at least this large between equally good classifiers: two-sided
    /// exact McNemar test.
    pub p_value: f64,
}

impl Agreement {
    /// Compares two classifiers by whether they get each image right.
    pub fn new(first: &[bool], second: &[bool]) -> Self {
        let count = |a: bool, b: bool| {
            let pairs = first.iter().zip(second);
            pairs.filter(|&(&x, &y)| (x, y) == (a, b)).count()
        };
        let (only_first, only_second) = (count(true, false), count(false, true));
        Self {
            both: count(true, true),
            only_first,
            only_second,
            neither: count(false, false),
            p_value: exact_p(only_first, only_second),
        }
    }
}

/// Returns twice the probability that `min(b, c)` or fewer of `b + c` fair coins show heads, or 1.
fn exact_p(b: usize, c: usize) -> f64 {
    let coins = b + c;
    // Logarithms, since the probabilities of thousands of coins underflow.
    let mut log_term = coins as f64 * 0.5f64.ln();
    let mut log_sum = log_term;
    for heads in 1..=b.min(c) {
        log_term += ((coins - heads + 1) as f64 / heads as f64).ln();
        // The terms grow up to the middle, so each is the largest so far.
        log_sum = log_term + (log_sum - log_term).exp().ln_1p();
    }
    (2.0 * log_sum.exp()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCIPY: [(usize, usize, f64); 10] = [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (1, 3, 0.625),
        (0, 10, 0.001953125),
        (5, 15, 0.04138946533203125),
        (40, 60, 0.05688793364098089),
        (100, 103, 0.8884106489509462),
        (300, 500, 1.5263155581540037e-12),
        (2000, 2200, 0.0021323556719912455),
        (0, 1000, 1.8665272370064378e-301),
    ];

    /// By `scipy.stats.binomtest(b, b + c, 0.5).pvalue` of SciPy 1.17.
    #[test]
    fn the_p_values_are_those_of_scipy() {
        for (b, c, expected) in SCIPY {
            let found = exact_p(b, c);
            let error = (found / expected - 1.0).abs();
            assert!(error < 1e-9, "{b} and {c}: {found}, not {expected}");
            assert_eq!(found, exact_p(c, b));
        }
    }

    #[test]
    fn agreements_count_every_image_once() {
        let first = [true, true, true, false, false];
        let second = [true, false, false, true, false];
        let agreement = Agreement::new(&first, &second);
        let Agreement {
            both,
            only_first,
            only_second,
            neither,
            p_value,
        } = agreement;
        assert_eq!((both, only_first, only_second, neither), (1, 2, 1, 1));
        assert_eq!(p_value, 1.0);
    }
}
