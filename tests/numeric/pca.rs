//! Principal components, in easy and in degenerate cases.

use dinoserve::{
    error::Kind,
    features::pca::{Basis, Moments, Pca, Range, document},
};
use ndarray::{Array2, Axis, s};
use serde::Deserialize;

use crate::support::{difference, read_golden};

/// Returns reproducible noise in −1..1.
fn noise(rows: usize, columns: usize, seed: u32) -> Array2<f32> {
    let mut state = seed;
    Array2::from_shape_simple_fn((rows, columns), || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// Checks that components are orthonormal and explain falling shares.
#[track_caller]
fn assert_is_basis(fitted: &Pca) {
    let product = fitted.components().dot(&fitted.components().t());
    let (largest, _) = difference(&product, &Array2::eye(product.nrows()));
    assert!(largest < 1e-4, "not orthonormal by {largest}");
    assert!(
        fitted
            .explained()
            .windows(2)
            .all(|pair| pair[0] >= pair[1] - 1e-6),
        "{:?}",
        fitted.explained()
    );
}

#[test]
fn the_first_components_are_those_of_the_whole_decomposition() {
    // A few strong directions over noise, like patch tokens, and pure noise, whose variances are
    // close together.
    let structured = noise(1369, 12, 1).dot(&(noise(12, 384, 2) * 3.0)) + noise(1369, 384, 3);
    for (tokens, tolerance) in [(structured, 2e-4), (noise(300, 384, 4), 2e-2)] {
        let few = Pca::fit(tokens.view(), 3).unwrap();
        // Enough components that all eigenvectors are computed.
        let many = Pca::fit(tokens.view(), 60).unwrap();
        assert_is_basis(&few);
        assert_is_basis(&many);
        let expected = many
            .components()
            .slice_move(ndarray::s![..3, ..])
            .to_owned();
        let (largest, _) = difference(few.components(), &expected);
        assert!(largest < tolerance, "{largest}");
        assert!(difference(few.explained(), &many.explained()[..3]).0 < 1e-4);
    }
}

#[test]
fn equal_and_zero_variances_give_a_basis() {
    let constant = Array2::from_elem((100, 64), 0.5);
    let line = noise(100, 1, 5).dot(&noise(1, 64, 6));
    let mut circle = Array2::zeros((128, 64));
    for (index, mut row) in circle.axis_iter_mut(Axis(0)).enumerate() {
        row[index % 64] = if index < 64 { 1.0 } else { -1.0 };
    }
    for tokens in [constant, line, circle] {
        let fitted = Pca::fit(tokens.view(), 3).unwrap();
        assert_is_basis(&fitted);
        assert!(
            fitted
                .project(tokens.view())
                .iter()
                .all(|value| value.is_finite())
        );
    }
}

/// Returns the made-up tokens of `golden/moments/make.py`.
fn waves() -> Array2<f32> {
    Array2::from_shape_fn((125, 64), |(i, d)| {
        let i = i as f64;
        let d = d as f64;
        let first = 5.0 * (0.37 * i).sin() * (0.9 * d).cos();
        let second = 3.0 * (0.61 * i + 1.0).cos() * (0.5 * d + 0.3).sin();
        let third = 2.0 * (0.11 * i + 2.0).sin() * (0.23 * d).cos();
        (4.0 + first + second + third + 0.2 * (1.7 * i + 2.3 * d + 0.01 * i * d).sin()) as f32
    })
}

/// Returns the moments of `tokens`, added in parts that end before these rows.
fn in_parts(tokens: &Array2<f32>, ends: &[usize]) -> Moments {
    let mut moments = Moments::new(tokens.ncols());
    let mut start = 0;
    for &end in ends {
        moments.merge(Moments::of(tokens.slice(s![start..end, ..])));
        start = end;
    }
    moments
}

fn values(ranges: &[Range]) -> Vec<f32> {
    ranges
        .iter()
        .flat_map(|range| [range.low, range.high])
        .collect()
}

#[track_caller]
fn assert_same(a: &Basis, b: &Basis, tolerance: f32) {
    for (what, largest) in [
        ("mean", difference(a.pca().mean(), b.pca().mean()).0),
        (
            "components",
            difference(a.pca().components(), b.pca().components()).0,
        ),
        (
            "explained",
            difference(a.pca().explained(), b.pca().explained()).0,
        ),
        (
            "ranges",
            difference(&values(a.ranges()), &values(b.ranges())).0,
        ),
    ] {
        assert!(largest <= tolerance, "{what}: {largest}");
    }
}

#[derive(Deserialize)]
struct Reference {
    mean: Vec<f32>,
    components: Vec<Vec<f32>>,
    explained: Vec<f32>,
    ranges: Vec<Vec<f32>>,
}

#[test]
fn a_basis_fitted_image_by_image_equals_that_of_all_tokens() {
    let tokens = waves();
    let reference: Reference = serde_json::from_slice(&read_golden("moments/basis.json")).unwrap();
    let moments = in_parts(&tokens, &[40, 41, 90, 125]);
    assert_eq!((moments.images(), moments.patches()), (4, 125));
    let basis = moments.fit(3).unwrap();
    let pca = basis.pca();
    assert!(difference(pca.mean(), &reference.mean).0 < 1e-5);
    assert!(difference(pca.components(), &reference.components.concat()).0 < 1e-5);
    assert!(difference(pca.explained(), &reference.explained).0 < 1e-5);
    assert!(difference(&values(basis.ranges()), &reference.ranges.concat()).0 < 2e-3);

    let at_once = Pca::fit(tokens.view(), 3).unwrap();
    assert!(difference(pca.components(), at_once.components()).0 < 1e-5);
    assert!(difference(pca.explained(), at_once.explained()).0 < 1e-5);
    assert!(moments.fit(0).is_err() && moments.fit(65).is_err());
    assert!(
        in_parts(&tokens, &[3])
            .fit(3)
            .unwrap_err()
            .to_string()
            .contains("use 1 to 2")
    );
}

#[test]
fn moments_do_not_lose_small_variances_behind_a_large_mean() {
    // In f32, or with sums of squares, a mean of 10⁴ would leave nothing of variances of 10⁻².
    let small = noise(3000, 16, 7) * 0.1;
    let far = small
        .mapv(|value| f64::from(value) + 1e4)
        .mapv(|value| value as f32);
    // Removes the shift from the rounded tokens.
    let near = far.mapv(|value| (f64::from(value) - 1e4) as f32);
    let far = in_parts(&far, &[1000, 2000, 3000]).fit(16).unwrap();
    let near = Moments::of(near.view()).fit(16).unwrap();
    assert!(difference(far.pca().explained(), near.pca().explained()).0 < 1e-6);
    assert!(difference(far.pca().components(), near.pca().components()).0 < 1e-3);
}

#[test]
fn ranges_come_from_an_even_sample_of_all_images() {
    // Rows of the first part are larger, which a sample biased toward some images would show.
    let mut tokens = noise(30_000, 8, 9);
    tokens
        .slice_mut(s![..10_000, ..])
        .mapv_inplace(|value| 3.0 * value);
    let all = in_parts(&tokens, &[10_000, 20_000, 30_000]).fit(2).unwrap();
    let mut backwards = Moments::of(tokens.slice(s![20_000.., ..]));
    backwards.merge(in_parts(&tokens, &[5_000, 20_000]));
    assert_same(&all, &backwards.fit(2).unwrap(), 1e-5);

    let projected = all.pca().project(tokens.view());
    for (column, range) in projected.columns().into_iter().zip(all.ranges()) {
        let share = |inside: &dyn Fn(f32) -> bool| {
            column.iter().filter(|value| inside(**value)).count() as f64 / 3e4
        };
        // 4096 of 30,000: the share below the first percentile is 1 % with a deviation of 0.16 %.
        let below = share(&|value| value < range.low);
        let above = share(&|value| value > range.high);
        assert!(
            (0.004..0.016).contains(&below) && (0.004..0.016).contains(&above),
            "{below} {above}"
        );
    }
}

#[test]
fn a_basis_comes_back_from_its_document_and_can_be_added_to() {
    let tokens = waves();
    let moments = in_parts(&tokens, &[40, 90]);
    let basis = moments.fit(5).unwrap();
    let bytes = document::encode(&basis, &moments, "{\"of\": \"waves\"}").unwrap();
    let read = document::Document::read(&bytes).unwrap();
    assert_eq!(read.about().unwrap(), "{\"of\": \"waves\"}");
    assert_same(&read.basis().unwrap(), &basis, 0.0);
    let mut more = read.moments().unwrap();
    assert_same(&more.fit(5).unwrap(), &basis, 0.0);
    more.merge(Moments::of(tokens.slice(s![90.., ..])));
    assert_eq!((more.images(), more.patches()), (3, 125));
    assert_same(
        &more.fit(3).unwrap(),
        &in_parts(&tokens, &[40, 90, 125]).fit(3).unwrap(),
        1e-6,
    );

    for damaged in [&bytes[..bytes.len() / 2], b"", &[0xff; 64]] {
        assert_eq!(
            document::Document::read(damaged).unwrap_err().kind(),
            Kind::Damaged
        );
    }
}
