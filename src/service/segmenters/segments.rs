//! The classes of the pixels of an image.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use ndarray::Array3;

use super::{
    super::{
        cached_features::CachedFeatures,
        extractor::Extractor,
        images::{Decoding, ImageLimits, Preparation},
        maps::check_share,
        photograph::{Fields, Seen},
        stages::Timed,
    },
    learning::{request, tokens_of},
    stored::Segmenter,
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    features::{
        mask::{Extent, IGNORED, LabelImage, Ring, Rle, outlines},
        npy, render,
    },
    vision::{Grid, Placement, Size},
};

/// Distance of a polygon from the edges of the mask, in pixels of the model's input; at least a
/// pixel of the photograph.
const POLYGON_TOLERANCE: f64 = 0.5;

/// Values of all classes at the pixels of a photograph that are computed, relative to the limit on
/// pixels.
const MAX_VALUES: u64 = 16;
/// Memory of a logit: its value, and that in the file.
const LOGIT_BYTES: u64 = 8;

/// Picture of segments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SegmentPicture {
    /// The image as the model sees it, with the classes in colors of this opacity.
    Overlay(f32),
    /// An indexed PNG as large as the photograph, whose pixels are classes; 255 where the model saw
    /// nothing.
    Mask,
}

impl SegmentPicture {
    /// Default opacity.
    pub const OPACITY: f32 = 0.8;
}

/// Forms in which segments are requested.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SegmentForms {
    /// Whether to describe the classes.
    pub descriptions: bool,
    /// Whether to return the classes of the pixels.
    pub labels: bool,
    /// Whether to write logits as `.npy`.
    pub npy: bool,
    /// Picture.
    pub picture: Option<SegmentPicture>,
}

impl SegmentForms {
    /// Rejects forms of a photograph that take too much memory or time.
    fn check(&self, classes: u64, photograph: Size, limits: &ImageLimits) -> Result<()> {
        let is_large = self.descriptions || self.labels || self.npy;
        let values = classes * photograph.pixels();
        let Size { width, height } = photograph;
        let what = format!("{classes} classes for {width}×{height} pixels");
        let bytes = limits.max_decoding_bytes;
        if self.npy && values.saturating_mul(LOGIT_BYTES) > bytes {
            let detail = format!(
                "logits of {what} take more than {bytes} bytes; ask for JSON or PNG, or send the \
                 photograph smaller"
            );
            let error = Error::new(Kind::LimitExceeded, detail);
            return Err(error.with_limit("max_decoding_bytes", bytes, "--max-decoding-bytes"));
        }
        let max = limits.decode.max_pixels;
        let is_mask = self.picture == Some(SegmentPicture::Mask);
        if (is_large || is_mask) && values > MAX_VALUES.saturating_mul(max) {
            let detail = format!(
                "{what} are more than {MAX_VALUES} times {max} values; send the photograph \
                 smaller, or ask for output=overlay"
            );
            let error = Error::new(Kind::LimitExceeded, detail);
            return Err(error.with_limit("max_image_pixels", max, "--max-image-pixels"));
        }
        Ok(())
    }
}

/// Classes of an image.
#[derive(Debug)]
pub struct ImageSegments {
    /// How the photograph became the model's input.
    pub placement: Placement,
    /// Patches of that input.
    pub grid: Grid,
    /// `size` to which the image was resized, in pixels.
    pub size: usize,
    /// A segment for each class, if descriptions were requested.
    pub segments: Vec<Segment>,
    /// The classes of the pixels of the upright photograph, 255 where the model saw nothing, if
    /// they were requested.
    pub labels: Option<LabelImage>,
    /// Logits, f32 `[classes, height, width]`, as `.npy`; 0 where the model saw nothing.
    pub npy: Option<Vec<u8>>,
    /// The picture, as PNG.
    pub png: Option<Vec<u8>>,
}

/// The pixels of a class.
#[derive(Debug)]
pub struct Segment {
    /// The class.
    pub class: u8,
    /// Share of the pixels that the model saw.
    pub share: f64,
    /// Its mask; `None` for a class without pixels.
    pub mask: Option<SegmentMask>,
}

/// The mask of a class in the upright photograph.
#[derive(Debug)]
pub struct SegmentMask {
    /// Its box and area.
    pub extent: Extent,
    /// Its run lengths.
    pub rle: Rle,
    /// Its outlines, simplified by half a pixel of the model's input, or a pixel.
    pub polygons: Vec<Ring>,
}

impl Extractor {
    /// Finds the class of each pixel of an image.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if the segmenter takes other tokens than the model makes;
    /// [`Kind::LimitExceeded`] for more logits than pixels are allowed.
    pub async fn segment(
        &self,
        segmenter: Arc<Segmenter>,
        file: Bytes,
        decoding: Decoding,
        forms: SegmentForms,
    ) -> Result<Timed<ImageSegments>> {
        if let Some(SegmentPicture::Overlay(opacity)) = forms.picture {
            check_share("overlay", opacity)?;
        }
        let info = &segmenter.info;
        let architecture = &self.engine().spec().architecture;
        let layers = info.layers.min(architecture.layers());
        let takes = segmenter.probe.width();
        let makes = layers * architecture.dim;
        if takes != makes {
            let detail = format!(
                "the segmenter is damaged: it takes {takes} values, and its model makes {makes}"
            );
            return Err(Error::damaged(detail));
        }
        let preparation = Preparation {
            preprocessing: info.preprocessing,
            decoding,
            shrinks: true,
            quarter_turns: 0,
        };
        let with_image = matches!(forms.picture, Some(SegmentPicture::Overlay(_)));
        let request = request(layers, preparation, with_image);
        let extracted = self.extract(file, request).await?;
        let image = extracted.value;
        let started = Instant::now();
        let pixels = image.placement.image.pixels();
        let classes = segmenter.classes.len() as u64;
        forms.check(classes, image.placement.image, self.limits())?;
        let logits = if forms.npy { LOGIT_BYTES * classes } else { 0 };
        let size = self.sizes(info.preprocessing.size).of(image.grid());
        let share = self.take_memory(pixels * (3 + logits)).await?;
        let work = move || {
            let _share = share;
            find(&segmenter, &image, size, &forms)
        };
        let found = self.on_blocking_thread("segmenting an image", work).await?;
        Ok(extracted.stages.finish(started, found))
    }
}

fn find(
    segmenter: &Segmenter,
    image: &CachedFeatures,
    size: usize,
    forms: &SegmentForms,
) -> Result<ImageSegments> {
    let grid = image.grid();
    let placement = image.placement;
    let tokens = tokens_of(image, segmenter.info.layers)?;
    let logits = segmenter.probe.logits(tokens.view());
    let values: Vec<Vec<f32>> = logits.columns().into_iter().map(|c| c.to_vec()).collect();
    let fields = Fields {
        values: &values,
        size: Size::new(grid.width, grid.height),
        cell: image.patch_side(),
        floor: f32::NEG_INFINITY,
        is_sharp: false,
    };
    let classes = &segmenter.classes;
    // Label 0 is what the model did not see.
    let numbers: Vec<u8> = std::iter::once(IGNORED)
        .chain(classes.iter().copied())
        .collect();
    let mut found = ImageSegments {
        placement,
        grid,
        size,
        segments: Vec::new(),
        labels: None,
        npy: None,
        png: None,
    };
    let seen = Seen::new(&placement, image.patch_side() as usize);
    if forms.npy {
        let Size { width, height } = placement.image;
        let values = fields.values_of_photograph(&placement, seen);
        let map = Array3::from_shape_vec((classes.len(), height, width), values);
        found.npy = Some(npy::encode(&map.internal("shaping logits")?)?);
    }
    if let Some(SegmentPicture::Overlay(opacity)) = forms.picture {
        let mut labels = fields.of_input();
        labels.renumber(&numbers);
        let drawn = render::over_regions(image.image(), labels.labels(), opacity);
        found.png = Some(render::png(&drawn)?);
    }
    let is_mask = forms.picture == Some(SegmentPicture::Mask);
    if !(is_mask || forms.labels || forms.descriptions) {
        return Ok(found);
    }
    let mut labels = fields.of_photograph(&placement, seen);
    if forms.descriptions {
        found.segments = describe(&labels, classes, &placement);
    }
    labels.renumber(&numbers);
    if is_mask {
        found.png = Some(render::indexed_png(labels.labels(), labels.size())?);
    }
    found.labels = forms.labels.then_some(labels);
    Ok(found)
}

/// Describes the labels 1 and up, which are those of the classes in their order.
fn describe(labels: &LabelImage, classes: &[u8], placement: &Placement) -> Vec<Segment> {
    let extents = labels.extents(classes.len());
    let seen: usize = extents.iter().flatten().map(|extent| extent.area).sum();
    let [across, down] = placement.scale();
    let tolerance = (POLYGON_TOLERANCE * across.min(down)).max(1.0);
    let runs = Rle::of_labels(labels, classes.len());
    let segments = classes.iter().zip(extents).zip(runs).zip(1..);
    segments
        .map(|(((&class, extent), rle), label)| Segment {
            class,
            share: extent.map_or(0.0, |extent| extent.area as f64 / seen as f64),
            mask: extent.map(|extent| SegmentMask {
                extent,
                rle,
                polygons: outlines(labels, label, extent.bounds, tolerance),
            }),
        })
        .collect()
}
