//! Made-up items of galleries: points near a curved surface of few dimensions in a space of many,
//! like image features.

use dinoserve::gallery::{Binding, ItemId, Metadata, NewItem};
use ndarray::{Array2, Axis};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Width of the vectors.
pub(crate) const DIM: usize = 384;
/// Number of dimensions of the surface.
const INNER: usize = 24;
/// Number of points that are made together.
pub(crate) const BLOCK: usize = 10_000;

/// The surface.
pub(crate) struct Surface {
    first: Array2<f32>,
    second: Array2<f32>,
}

impl Surface {
    pub(crate) fn new() -> Self {
        let mut random = StdRng::seed_from_u64(1);
        Self {
            first: Array2::from_shape_fn((INNER, 2 * INNER), |_| normal(&mut random)),
            second: Array2::from_shape_fn((2 * INNER, DIM), |_| normal(&mut random)),
        }
    }

    /// Makes `count` points, scaled to length 1: `[count, DIM]`.
    pub(crate) fn points(&self, count: usize) -> Array2<f32> {
        let mut all = Array2::zeros((count, DIM));
        for (index, mut block) in (0..).zip(all.axis_chunks_iter_mut(Axis(0), BLOCK)) {
            let rows = block.nrows();
            block.assign(&self.block(index, rows));
        }
        all
    }

    /// Makes the first points of a block.
    pub(crate) fn block(&self, index: u64, count: usize) -> Array2<f32> {
        let random = &mut StdRng::seed_from_u64(2 + index);
        let inner = Array2::from_shape_fn((count, INNER), |_| normal(random));
        let mut block = (inner.dot(&self.first) * 0.5)
            .mapv(f32::tanh)
            .dot(&self.second);
        for mut row in block.rows_mut() {
            row.mapv_inplace(|value| value + 0.3 * normal(random));
            let length = row.dot(&row).sqrt();
            row /= length;
        }
        block
    }
}

/// Draws from the standard normal distribution by the Box–Muller transform.
fn normal(random: &mut StdRng) -> f32 {
    let radius: f32 = random.random_range(1e-7..1.0);
    let angle: f32 = random.random();
    (-2.0 * radius.ln()).sqrt() * (std::f32::consts::TAU * angle).cos()
}

/// Returns how the vectors were made.
pub(crate) fn binding() -> anyhow::Result<Binding> {
    Ok(serde_json::from_value(serde_json::json!({
        "model": "made up", "fingerprint": "none", "dim": DIM, "pooling": "cls", "layers": 1,
        "size": 224, "resize": "crop", "filter": "bicubic", "exif": true, "background": "white",
    }))?)
}

/// Returns an item whose id is its number.
pub(crate) fn item(number: usize, vector: Vec<f32>) -> anyhow::Result<NewItem> {
    Ok(NewItem {
        id: ItemId::new(number.to_string())?,
        label: None,
        metadata: Metadata::default(),
        vector,
        features: None,
        thumbnail: None,
    })
}
