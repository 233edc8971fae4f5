//! Masks in JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::features::mask::{Extent, Ring, Rle};

/// A mask of pixels of the upright image.
#[derive(Serialize, ToSchema)]
pub(crate) struct MaskJson {
    /// Left, top, right and bottom, in pixels from the top left corner.
    #[serde(rename = "box")]
    #[schema(example = json!([40, 52, 301, 287]))]
    bounds: [usize; 4],
    /// Number of pixels.
    #[schema(example = 48_211)]
    area: usize,
    rle: RleJson,
    /// Outlines: each a list of points [x, y]. A point is inside if an odd number of outlines
    /// surround it. They are simplified, by half a pixel of the image that the model sees or by
    /// a pixel of the photograph; `rle` is exact.
    polygons: Vec<Vec<[f64; 2]>>,
}

/// Run lengths in COCO's compressed form, as pycocotools reads it.
#[derive(Serialize, ToSchema)]
pub(crate) struct RleJson {
    /// Height and width.
    #[schema(example = json!([480, 640]))]
    size: [usize; 2],
    /// Runs, column by column.
    counts: String,
}

impl MaskJson {
    pub(crate) fn new(extent: Extent, rle: &Rle, polygons: &[Ring]) -> Self {
        Self {
            bounds: extent.bounds,
            area: extent.area,
            rle: RleJson {
                size: [rle.size.height, rle.size.width],
                counts: rle.counts.clone(),
            },
            polygons: polygons.to_vec(),
        }
    }
}
