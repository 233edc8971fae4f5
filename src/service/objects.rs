//! Objects of images, without labels.

use std::time::Instant;

use bytes::Bytes;
use ndarray::Array3;

use super::{
    cached_features::CachedFeatures,
    extractor::{ExtractRequest, Extractor},
    images::ImageOptions,
    maps::check_share,
    photograph::{Fields, Seen},
    stages::Timed,
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    features::{
        attention,
        mask::{Extent, LabelImage, Ring, Rle, outlines},
        npy,
        objects::{Method, Object, Refine, by_attention, by_cuts, in_patches, refined},
        render,
    },
    vision::{Grid, Placement, Size},
};

/// Options of objects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObjectOptions {
    /// Way to find objects.
    pub method: Method,
    /// Maximum number of objects of an image, 1 to 10.
    pub max_objects: usize,
    /// The cosine above which patches are joined, -1 to 1, or the share of the attention to keep,
    /// 0 to 1. The default depends on the method.
    pub threshold: Option<f32>,
    /// Edges.
    pub refine: Refine,
}

/// Maximum number of objects of an image.
pub(super) const MAX_OBJECTS: usize = 10;
/// Default threshold of [`Method::Tokencut`].
const DEFAULT_COSINE: f32 = 0.0;
/// Default threshold of [`Method::Attention`].
const DEFAULT_MASS: f32 = 0.6;
/// Distance of a polygon from the edges of the mask, in pixels of the model's input; at least a
/// pixel of the photograph.
const POLYGON_TOLERANCE: f64 = 0.5;

impl Default for ObjectOptions {
    fn default() -> Self {
        Self {
            method: Method::default(),
            max_objects: MAX_OBJECTS,
            threshold: None,
            refine: Refine::default(),
        }
    }
}

impl ObjectOptions {
    /// Rejects values out of range, and returns the threshold.
    fn threshold(&self) -> Result<f32> {
        if self.max_objects == 0 || self.max_objects > MAX_OBJECTS {
            let range = format_args!("1 to {MAX_OBJECTS}");
            return Err(Error::out_of_range("max_objects", self.max_objects, range));
        }
        match (self.method, self.threshold) {
            (Method::Tokencut, None) => Ok(DEFAULT_COSINE),
            (Method::Attention, None) => Ok(DEFAULT_MASS),
            (Method::Tokencut, Some(cosine)) => match (-1.0..=1.0).contains(&cosine) {
                true => Ok(cosine),
                false => Err(Error::out_of_range("threshold", cosine, "-1 to 1")),
            },
            (Method::Attention, Some(mass)) => {
                check_share("threshold", mass)?;
                Ok(mass)
            }
        }
    }
}

/// Picture of objects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ObjectPicture {
    /// The image as the model sees it, with colored objects of this opacity.
    Overlay(f32),
    /// Numbers of objects, as large as the photograph.
    Mask,
}

impl ObjectPicture {
    /// Default opacity.
    pub const OPACITY: f32 = 0.8;
}

/// Forms in which objects are requested.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ObjectForms {
    /// Whether to describe the objects.
    pub descriptions: bool,
    /// Whether to write their masks as `.npy`.
    pub npy: bool,
    /// Picture.
    pub picture: Option<ObjectPicture>,
}

impl ObjectForms {
    /// Returns the memory that the forms of a photograph take, in bytes.
    fn bytes(&self, photograph: Size) -> u64 {
        let is_overlay = matches!(self.picture, None | Some(ObjectPicture::Overlay(_)));
        match self.descriptions || self.npy || !is_overlay {
            // The labels, and what is made of them.
            true => 2 * photograph.pixels(),
            false => 0,
        }
    }
}

/// Objects of an image.
#[derive(Debug)]
pub struct ImageObjects {
    /// How the photograph became the model's input.
    pub placement: Placement,
    /// Patches of that input.
    pub grid: Grid,
    /// The objects, that with the largest score first, if descriptions were requested.
    pub objects: Vec<FoundObject>,
    /// Masks, u8 `[objects, height, width]`, as `.npy`.
    pub npy: Option<Vec<u8>>,
    /// The picture, as PNG.
    pub png: Option<Vec<u8>>,
}

/// An object in the upright photograph.
#[derive(Debug)]
pub struct FoundObject {
    /// Share of the attention of CLS, 0 to 1.
    pub score: f32,
    /// Its box and area.
    pub extent: Extent,
    /// Its run lengths.
    pub rle: Rle,
    /// Its outlines, simplified by half a pixel of the model's input, or a pixel.
    pub polygons: Vec<Ring>,
}

impl Extractor {
    /// Finds the objects of an image.
    ///
    /// # Errors
    /// [`crate::error::Kind::TooLarge`] also for a photograph whose masks take more memory than
    /// decoding may.
    pub async fn objects(
        &self,
        file: Bytes,
        image: &ImageOptions,
        options: ObjectOptions,
        forms: ObjectForms,
    ) -> Result<Timed<ImageObjects>> {
        let threshold = options.threshold()?;
        if let Some(ObjectPicture::Overlay(opacity)) = forms.picture {
            check_share("overlay", opacity)?;
        }
        let request = ExtractRequest::for_maps(self.map_preparation(image));
        let extracted = self.features_of(vec![file], request).await?;
        let seen = extracted.value.into_iter().next();
        let seen = seen.ok_or_else(|| Error::internal("the request has no image"))?;
        let started = Instant::now();
        let bytes = forms.bytes(seen.placement.image);
        let share = match bytes {
            0 => None,
            _ => Some(self.take_memory(bytes).await?),
        };
        let max_pixels = self.limits().decode.max_pixels;
        let find = move || {
            let _share = share;
            find(&seen, &options, threshold, &forms, max_pixels)
        };
        let found = self.on_blocking_thread("finding objects", find).await?;
        Ok(extracted.stages.finish(started, found))
    }
}

fn find(
    image: &CachedFeatures,
    options: &ObjectOptions,
    threshold: f32,
    forms: &ObjectForms,
    max_pixels: u64,
) -> Result<ImageObjects> {
    let grid = image.grid();
    let cls_attention = attention::mean(image.cls_attention()).to_vec();
    let mut objects = match options.method {
        Method::Tokencut => by_cuts(image.patch_tokens(), &cls_attention, grid, threshold),
        Method::Attention => by_attention(&cls_attention, grid, threshold),
    };
    objects.truncate(options.max_objects);
    let field = |object: &Object| match options.refine {
        Refine::None => in_patches(&object.patches, grid, image.patch_side() as usize),
        Refine::Guided => refined(&object.patches, grid, image.image()),
    };
    let values: Vec<Vec<f32>> = objects.iter().map(field).collect();
    let fields = Fields {
        values: &values,
        size: Size::of(image.image()),
        cell: 1.0,
        floor: 0.5,
        is_sharp: options.refine == Refine::None,
    };
    let mut found = ImageObjects {
        placement: image.placement,
        grid,
        objects: Vec::new(),
        npy: None,
        png: None,
    };
    if let Some(ObjectPicture::Overlay(opacity)) = forms.picture {
        let drawn = render::over_regions(image.image(), fields.of_input().labels(), opacity);
        found.png = Some(render::png(&drawn)?);
    }
    if forms.bytes(image.placement.image) == 0 {
        return Ok(found);
    }
    let seen = Seen::new(&image.placement, image.patch_side() as usize);
    let mut labels = fields.of_photograph(&image.placement, seen);
    // An object that is thinner than its edges are fine vanishes.
    let extents = labels.extents(objects.len());
    let visible: Vec<usize> = (0..objects.len())
        .filter(|&i| extents[i].is_some())
        .collect();
    let mut numbers = vec![0; objects.len() + 1];
    for (number, &index) in visible.iter().enumerate() {
        numbers[index + 1] = number as u8 + 1;
    }
    labels.renumber(&numbers);
    if forms.picture == Some(ObjectPicture::Mask) {
        found.png = Some(render::indexed_png(labels.labels(), labels.size())?);
    }
    if forms.npy {
        found.npy = Some(masks(&labels, visible.len(), max_pixels)?);
    }
    if forms.descriptions {
        let [across, down] = image.placement.scale();
        let tolerance = (POLYGON_TOLERANCE * across.min(down)).max(1.0);
        let runs = Rle::of_labels(&labels, visible.len());
        let visible = visible.into_iter().zip(runs).zip(1..);
        let described = visible.filter_map(|((index, rle), label)| {
            let extent = extents[index]?;
            Some(FoundObject {
                score: objects[index].score,
                extent,
                rle,
                polygons: outlines(&labels, label, extent.bounds, tolerance),
            })
        });
        found.objects = described.collect();
    }
    Ok(found)
}

/// Writes the masks of the labels 1 to `count` as `.npy`, `[count, height, width]`.
fn masks(labels: &LabelImage, count: usize, max_pixels: u64) -> Result<Vec<u8>> {
    let Size { width, height } = labels.size();
    if count as u64 * labels.size().pixels() > max_pixels {
        let detail = format!(
            "{count} masks of {width}×{height} have more than {max_pixels} values; ask for JSON or \
             output=mask, or send the photograph smaller"
        );
        let error = Error::new(Kind::LimitExceeded, detail);
        return Err(error.with_limit("max_image_pixels", max_pixels, "--max-image-pixels"));
    }
    let masks = (1..=count).flat_map(|number| {
        let labels = labels.labels().iter();
        labels.map(move |&label| u8::from(usize::from(label) == number))
    });
    let masks = Array3::from_shape_vec((count, height, width), masks.collect());
    npy::encode(&masks.internal("shaping masks")?)
}
