//! Masks in JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::features::mask::{Mask, Rle, polygons};

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
    /// surround it.
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
    /// Encodes a mask. The outlines lie within `tolerance` pixels of its edges.
    pub(crate) fn new(mask: &Mask, tolerance: f64) -> Self {
        let Rle { size, counts } = Rle::from(mask);
        Self {
            bounds: mask.bounds().unwrap_or_default(),
            area: mask.area(),
            rle: RleJson {
                size: [size.height, size.width],
                counts,
            },
            polygons: polygons(mask, tolerance),
        }
    }
}
