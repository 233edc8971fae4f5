//! The options and bodies of the image endpoints as the API description shows them.
//!
//! The values are read by the structs of [`crate::service`]; a test compares the names.

#![allow(dead_code, reason = "these types describe; nothing makes them")]

use std::{collections::BTreeMap, fmt::Display};

use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        Object, ObjectBuilder,
        schema::{SchemaType, Type},
    },
};

use crate::{
    features::{
        pca::Foreground,
        pool::Pooling,
        render::{Colormap, Output, Upscale},
    },
    http::request::options::EncodingFormat,
    service::Decoding,
    vision::{Background, ResampleFilter, ResizeMode},
};

/// A PNG of four squares, so that examples can be sent as they stand.
pub(crate) const EXAMPLE_IMAGE: &str = "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAHElEQVR42mPQQAH/UQDDqOQASaJyUZWOSg6QJACS8MPIBcx3IQAAAABJRU5ErkJggg==";

/// One of the names of `T`.
fn names<T: strum::VariantNames>() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .enum_values(Some(T::VARIANTS.iter().copied()))
}

/// One of the names of `T`, whose default is the endpoint's own.
pub(crate) fn one_of<T: strum::VariantNames>() -> Object {
    names::<T>().build()
}

/// One of the names of `T`, with its default.
pub(crate) fn choice<T: strum::VariantNames + Default + Display>() -> Object {
    names::<T>()
        .default(Some(T::default().to_string().into()))
        .build()
}

/// Options of every image endpoint.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ImageParams {
    /// The size that `resize` speaks of, in pixels. Embeddings: 224, maps: 518, unless the model
    /// says otherwise. For `crop` and `squash` a multiple of 14.
    #[param(minimum = 14, example = 224)]
    size: Option<usize>,
    /// `crop`: shorter side to `size`·256/224, then the middle square (default of embeddings).
    /// `fit`: the aspect is kept, shorter side to `size`, each side cropped down to a multiple of
    /// 14 (default of maps). `squash`: both sides to `size`.
    #[param(schema_with = one_of::<ResizeMode>)]
    resize: Option<String>,
    /// Resampling filter, bit-equal to Pillow's.
    #[param(schema_with = choice::<ResampleFilter>)]
    filter: Option<String>,
    /// Turn the image upright as its EXIF data say.
    #[param(default = true)]
    exif: Option<bool>,
    /// What stands behind transparent pixels; `ignore` uses the stored colors, as Pillow's
    /// `convert("RGB")` does.
    #[param(schema_with = choice::<Background>)]
    background: Option<String>,
    /// `fast` decodes large JPEG files at a half, a quarter or an eighth of their size where that
    /// is enough for `size`: several times as fast, with slightly different pixels.
    #[param(schema_with = choice::<Decoding>)]
    decode: Option<String>,
}

/// Options of embeddings.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EmbedParams {
    /// How the tokens become one vector. `cls_mean` is twice as wide as the model.
    #[param(schema_with = choice::<Pooling>)]
    pooling: Option<String>,
    /// Scale the vector to length 1.
    #[param(default = true)]
    normalize: Option<bool>,
    /// Join the pooled vectors of this many last blocks, the last block last.
    #[param(minimum = 1, maximum = 4, default = 1)]
    layers: Option<usize>,
    /// Give the patch tokens of the last block, too: in JSON beside the embedding, in binary forms
    /// instead of it.
    #[param(default = false)]
    tokens: Option<bool>,
    /// Vectors in JSON as numbers, or as base64 of little-endian f32.
    #[param(schema_with = choice::<EncodingFormat>)]
    encoding_format: Option<String>,
}

/// Options of pictures of maps.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RenderingParams {
    /// Size of the PNG: as the image that the model saw, or one pixel per patch.
    #[param(schema_with = choice::<Output>)]
    output: Option<String>,
    /// The way from patches to pixels.
    #[param(schema_with = choice::<Upscale>)]
    upscale: Option<String>,
    /// Opacity of the map over the photograph: 1 hides the photograph.
    #[param(minimum = 0.0, maximum = 1.0, default = 1.0)]
    overlay: Option<f32>,
}

/// Options of PCA maps.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PcaParams {
    /// How many components. A picture shows the first three.
    #[param(minimum = 1, default = 3)]
    components: Option<usize>,
    /// `auto`: only the patches on the side of the first component that CLS attends to; the rest is
    /// black.
    #[param(schema_with = choice::<Foreground>)]
    foreground: Option<String>,
    /// Name of a basis that is kept (`/v1/bases`), in place of one that is fitted on the images:
    /// the same part has the same color in every picture.
    #[param(example = "flowers")]
    basis: Option<String>,
}

/// Options of bases.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct BasisFitParams {
    /// How many components are kept. `/v1/pca` can show as many.
    #[param(minimum = 1, default = 3)]
    components: Option<usize>,
}

/// Where the images of a basis are, if not in the body.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct BasisImagesParams {
    /// A gallery whose thumbnails are used, in a request without a body. They are small (`size` is
    /// 224 by default), so the basis is not as good as one that is fitted on the images themselves.
    gallery: Option<String>,
    /// Of how many items; always of the same ones, while they are there.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    sample: Option<usize>,
}

/// Options of attention maps.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttentionParams {
    /// `mean` or `max` over the heads, the number of one head, or `all` (a labeled grid). By
    /// default `mean` as a picture, `all` as numbers.
    #[param(example = "all")]
    head: Option<String>,
    /// Keep only the patches that carry this share of the attention (DINO's videos use 0.6).
    #[param(minimum = 0.0, maximum = 1.0)]
    threshold: Option<f32>,
    /// Colors of the picture.
    #[param(schema_with = choice::<Colormap>)]
    colormap: Option<String>,
}

/// The place that all patches are compared with: a patch or a box.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SimilarityParams {
    /// `row,column` of a patch of the first image, counted from 0 at the top left. The `grid` of
    /// JSON answers tells how many there are.
    #[param(example = "12,20", pattern = "^[0-9]{1,5},[0-9]{1,5}$")]
    patch: Option<String>,
    /// `left,top,right,bottom` of a box on the first image, in place of a patch: shares of its
    /// width and height, 0 to 1. The patches whose centers lie in it take part.
    #[param(rename = "box", example = "0.4,0.3,0.6,0.5")]
    region: Option<String>,
    /// Colors of the picture.
    #[param(schema_with = choice::<Colormap>)]
    colormap: Option<String>,
}

/// Images as OpenAI's clients send them, with any option of `/v1/embed` beside them.
#[derive(serde::Serialize, ToSchema)]
#[schema(example = json!({"model": "dinov2-small", "input": EXAMPLE_IMAGE}))]
pub(crate) struct InputJson {
    /// One image file in base64 or as a `data:` URI, or a list of them.
    input: OneOrSeveral,
    /// The model; it must be the one that this server runs.
    model: Option<String>,
    /// Vectors as numbers, or as base64 of little-endian f32.
    #[schema(schema_with = choice::<EncodingFormat>)]
    encoding_format: Option<String>,
    /// Nothing but the width that the embeddings have.
    dimensions: Option<usize>,
    /// Not used.
    user: Option<String>,
    /// Any of the options of `/v1/embed` but `tokens`.
    #[serde(flatten)]
    options: BTreeMap<String, serde_json::Value>,
}

/// A string, or a list of strings.
#[derive(serde::Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OneOrSeveral {
    One(String),
    Several(Vec<String>),
}

/// Images in JSON, with any of the endpoint's options beside them.
#[derive(serde::Serialize, ToSchema)]
#[schema(example = json!({"image": EXAMPLE_IMAGE, "size": 224}))]
pub(crate) struct ImagesJson {
    /// One image file in base64, or as a `data:` URI.
    image: Option<String>,
    /// Several.
    images: Option<Vec<String>>,
    /// Any of the endpoint's options.
    #[serde(flatten)]
    options: BTreeMap<String, serde_json::Value>,
}

/// Images as form parts, with any of the endpoint's options as text parts.
#[derive(ToSchema)]
pub(crate) struct ImagesForm {
    /// One or more image files.
    #[schema(value_type = Vec<String>, format = Binary)]
    image: Vec<String>,
}

/// The bytes of a file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(crate) struct File(String);
