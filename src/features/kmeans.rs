//! Steps of spherical k-means (Dhillon and Modha, 2001): groups of vectors of length 1 around
//! directions.

use ndarray::{Array2, ArrayView2, s};

/// Rows whose products with the centers are made together.
const BLOCK: usize = 256;

/// The center that is nearest to a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Index of the center.
    pub(crate) center: usize,
    /// Cosine of the row with the center.
    pub(crate) cosine: f32,
}

/// Returns the place of each row, and the sum of the cosines with the nearest centers.
pub(crate) fn assign(vectors: ArrayView2<'_, f32>, centers: &Array2<f32>) -> (Vec<Place>, f64) {
    let mut places = Vec::with_capacity(vectors.nrows());
    let mut total = 0.0;
    for start in (0..vectors.nrows()).step_by(BLOCK) {
        let end = vectors.nrows().min(start + BLOCK);
        let cosines = vectors.slice(s![start..end, ..]).dot(&centers.t());
        for row in cosines.rows() {
            let mut place = Place {
                center: 0,
                cosine: f32::NEG_INFINITY,
            };
            for (center, &cosine) in row.iter().enumerate() {
                if cosine > place.cosine {
                    place = Place { center, cosine };
                }
            }
            total += f64::from(place.cosine);
            places.push(place);
        }
    }
    (places, total)
}

/// Moves each center to the direction of the mean of its rows. One without rows stays.
pub(crate) fn move_centers(
    vectors: ArrayView2<'_, f32>,
    places: &[Place],
    centers: &mut Array2<f32>,
) {
    let mut sums = Array2::<f32>::zeros(centers.raw_dim());
    for (row, place) in vectors.rows().into_iter().zip(places) {
        let mut sum = sums.row_mut(place.center);
        sum += &row;
    }
    for (mut center, sum) in centers.rows_mut().into_iter().zip(sums.rows()) {
        let length = sum.dot(&sum).sqrt();
        if length > 0.0 {
            center.assign(&(&sum / length));
        }
    }
}
