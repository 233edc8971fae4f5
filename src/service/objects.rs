//! Objects of images, without labels.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    cached_features::CachedFeatures, extractor::Extractor, images::ImageOptions, maps::check_share,
    photograph, stages::Timed,
};
use crate::{
    error::{Error, Result},
    features::{
        attention,
        mask::Mask,
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
    /// Maximum number of objects of an image, 1 to [`MAX_OBJECTS`].
    pub max_objects: usize,
    /// The cosine above which patches are joined, -1 to 1, or the share of the attention to keep,
    /// 0 to 1. The default depends on the method.
    pub threshold: Option<f32>,
    /// Edges.
    pub refine: Refine,
}

/// Maximum number of objects of an image.
pub const MAX_OBJECTS: usize = 10;
/// Default threshold of [`Method::Tokencut`].
const DEFAULT_COSINE: f32 = 0.0;
/// Default threshold of [`Method::Attention`].
const DEFAULT_MASS: f32 = 0.6;
/// Distance of a polygon from the edges of the mask, in pixels of the model's input.
const POLYGON_TOLERANCE: f64 = 1.0;

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
    /// None.
    None,
    /// The image as the model sees it, with colored objects of this opacity.
    Overlay(f32),
    /// Indices of objects, as large as the photograph.
    Mask,
}

impl ObjectPicture {
    /// Default opacity.
    pub const OPACITY: f32 = 0.8;
}

/// Objects of an image.
#[derive(Debug)]
pub struct ImageObjects {
    /// The object with the largest score first.
    pub objects: Vec<FoundObject>,
    /// How the photograph became the model's input.
    pub placement: Placement,
    /// Patches of that input.
    pub grid: Grid,
    /// The picture, as PNG, if one was requested.
    pub png: Option<Vec<u8>>,
}

/// An object in the photograph.
#[derive(Debug)]
pub struct FoundObject {
    /// Pixels of the upright photograph.
    pub mask: Mask,
    /// Share of the attention of CLS, 0 to 1.
    pub score: f32,
    /// Useful tolerance of polygons, in pixels of the photograph.
    pub tolerance: f64,
}

impl Extractor {
    /// Finds the objects of an image.
    pub async fn objects(
        &self,
        file: Bytes,
        image: &ImageOptions,
        options: ObjectOptions,
        picture: ObjectPicture,
    ) -> Result<Timed<ImageObjects>> {
        let threshold = options.threshold()?;
        if let ObjectPicture::Overlay(opacity) = picture {
            check_share("overlay", opacity)?;
        }
        self.compute_maps(vec![file], image, move |images| match images {
            [image] => find(image, &options, threshold, picture),
            _ => Err(Error::internal("objects are those of one image")),
        })
        .await
    }
}

fn find(
    image: &Arc<CachedFeatures>,
    options: &ObjectOptions,
    threshold: f32,
    picture: ObjectPicture,
) -> Result<ImageObjects> {
    let grid = image.grid();
    let cls_attention = attention::mean(image.cls_attention()).to_vec();
    let mut objects = match options.method {
        Method::Tokencut => by_cuts(image.patch_tokens(), &cls_attention, grid, threshold),
        Method::Attention => by_attention(&cls_attention, grid, threshold),
    };
    objects.truncate(options.max_objects);
    let input = Size::of(image.image());
    let is_sharp = options.refine == Refine::None;
    let field = |object: &Object| match options.refine {
        Refine::None => in_patches(&object.patches, grid, image.patch_side() as usize),
        Refine::Guided => refined(&object.patches, grid, image.image()),
    };
    let fields: Vec<Vec<f32>> = objects.iter().map(field).collect();
    let mut labels = photograph::labels(&fields, input, &image.placement, is_sharp);
    let numbers = numbers_of_visible(&labels);
    renumber(&mut labels, &numbers);
    let png = match picture {
        ObjectPicture::None => None,
        ObjectPicture::Overlay(opacity) => {
            let resized = Placement {
                image: image.placement.resized,
                ..image.placement
            };
            let seen = photograph::labels(&fields, input, &resized, is_sharp);
            let mut seen = within(&seen, &resized);
            renumber(&mut seen, &numbers);
            let drawn = render::over_regions(image.image(), &seen, opacity);
            Some(render::png(&drawn)?)
        }
        ObjectPicture::Mask => Some(render::indexed_png(&labels, image.placement.image)?),
    };
    let [across, down] = image.placement.scale();
    let visible = objects.iter().zip(&numbers[1..]);
    let visible = visible.filter(|(_, number)| **number > 0);
    let found = visible.map(|(object, number)| FoundObject {
        mask: Mask::new(
            image.placement.image,
            labels.iter().map(|label| label == number).collect(),
        ),
        score: object.score,
        tolerance: POLYGON_TOLERANCE * across.max(down).max(1.0),
    });
    Ok(ImageObjects {
        objects: found.collect(),
        placement: image.placement,
        grid,
        png,
    })
}

/// Returns a new number for each label that occurs, in their order; 0 for the others, as an object
/// that is thinner than its edges are fine vanishes.
fn numbers_of_visible(labels: &[u8]) -> [u8; MAX_OBJECTS + 1] {
    let mut numbers = [0; MAX_OBJECTS + 1];
    for &label in labels {
        numbers[usize::from(label)] = 1;
    }
    numbers[0] = 0;
    let mut last = 0;
    for number in numbers.iter_mut().filter(|number| **number > 0) {
        last += 1;
        *number = last;
    }
    numbers
}

fn renumber(labels: &mut [u8], numbers: &[u8; MAX_OBJECTS + 1]) {
    for label in labels {
        *label = numbers[usize::from(*label)];
    }
}

/// Cuts the model's window out of labels of the resized image.
fn within(labels: &[u8], placement: &Placement) -> Vec<u8> {
    let window = placement.window;
    let rows = labels.chunks(placement.resized.width);
    let rows = rows.skip(window.y).take(window.height);
    let columns = window.x..window.x + window.width;
    rows.flat_map(|row| &row[columns.clone()])
        .copied()
        .collect()
}
