//! Options and bodies that several operations share, and the schemas of option enums.

use std::{collections::BTreeMap, fmt::Display, marker::PhantomData};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::VariantNames;
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr,
        schema::{Schema, SchemaType, Type},
    },
};

use crate::{
    features::{
        anomaly::BankTokens,
        matching::{Geometry, Level},
        objects::{Method, Refine},
        pca::Foreground,
        pool::Pooling,
        render::{Colormap, Output, Upscale},
        vote::Vote,
    },
    names::option_enum,
    service::{Augment, Decoding, ImageOptions, OnConflict, ProbeFeatures},
    vision::{
        Background, Levels, Preprocessing, PreprocessingOverrides, ResampleFilter, ResizeMode,
    },
};

/// A small PNG, so that the examples can be sent unchanged.
pub(crate) const EXAMPLE_IMAGE: &str = "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAHElEQVR42\
    mPQQAH/UQDDqOQASaJyUZWOSg6QJACS8MPIBcx3IQAAAABJRU5ErkJggg==";

/// Schema of an option whose values are the names of `T`, without a default.
pub(crate) struct OneOf<T>(PhantomData<T>);

impl<T: VariantNames> PartialSchema for OneOf<T> {
    fn schema() -> RefOr<Schema> {
        names::<T>().into()
    }
}

impl<T: VariantNames> ToSchema for OneOf<T> {}

/// Returns the schema of an option whose values are the names of `T`, with its default.
pub(crate) fn choice<T: VariantNames + Default + Display>() -> ObjectBuilder {
    names::<T>().default(Some(T::default().to_string().into()))
}

/// As [`choice`], for a member of JSON, whose default can also be written as null.
pub(crate) fn nullable_choice<T: VariantNames + Default + Display>() -> ObjectBuilder {
    let names = T::VARIANTS.iter().map(|name| Value::from(*name));
    choice::<T>()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some(names.chain([Value::Null])))
}

fn names<T: VariantNames>() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .enum_values(Some(T::VARIANTS.iter().copied()))
}

macro_rules! choices {
    ($($name:ident)*) => {
        $(
            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    choice::<Self>().into()
                }
            }

            impl ToSchema for $name {}
        )*
    };
}

choices! {
    Augment Background BankTokens Colormap Decoding EncodingFormat Foreground Geometry IdSource
    Level Levels Method ObjectOutput OnConflict Output Pooling ProbeFeatures Refine ResampleFilter
    SegmentOutput Upscale Vote
}

option_enum! {
    /// Form of vectors in JSON.
    #[derive(Default)]
    pub(crate) enum EncodingFormat {
        /// A list of numbers.
        #[default]
        Float,
        /// Base64 of little-endian f32.
        Base64,
    }
}

option_enum! {
    /// Picture of objects.
    #[derive(Default)]
    pub(crate) enum ObjectOutput {
        /// The image as the model sees it, with objects in colors.
        #[default]
        Overlay,
        /// Numbers of objects, as large as the photograph.
        Mask,
    }
}

option_enum! {
    /// Picture of segments.
    #[derive(Default)]
    pub(crate) enum SegmentOutput {
        /// Classes of pixels, as large as the photograph.
        #[default]
        Mask,
        /// The image as the model sees it, with classes in colors.
        Overlay,
    }
}

option_enum! {
    /// Source of the id of an item that states none.
    #[derive(Default)]
    pub(crate) enum IdSource {
        /// Name of the file.
        #[default]
        Name,
        /// SHA-256 of the file, in hexadecimal digits.
        Sha256,
    }
}

/// Schema of `resize`, whose default depends on the operation.
type AnyResizeMode = OneOf<ResizeMode>;

/// Options that decide what the model sees of an image.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ImageParams {
    /// Size that `resize` refers to, in pixels. `crop` and `squash` need a multiple of the model's
    /// patch size, 14 for DINOv2. The default depends on the model: usually 224 for embeddings and
    /// 518 for maps. Maps of an image that would have more patches than `--max-patches` get the
    /// largest size that fits, unless `size` is given; the header `Image-Size` and JSON answers
    /// name it.
    #[param(minimum = 1, example = 224)]
    size: Option<usize>,
    /// How the image is resized. `crop` scales the shorter side to `size`·256/224 and takes the
    /// central square (default for embeddings). `fit` keeps the aspect ratio: it scales the shorter
    /// side to `size` and crops each side to whole patches (default for maps). `squash` scales
    /// both sides to `size`.
    #[param(value_type = AnyResizeMode, inline)]
    resize: Option<ResizeMode>,
    /// Resampling filter. Its results are bit-identical to Pillow's.
    #[param(inline)]
    filter: Option<ResampleFilter>,
    /// Whether to apply the EXIF orientation.
    #[param(default = true)]
    exif: Option<bool>,
    /// Color behind transparent pixels. `ignore` drops the alpha channel, as Pillow's
    /// `convert("RGB")` does.
    #[param(inline)]
    background: Option<Background>,
    /// Range of samples with 16 bits that becomes black to white. `type` takes all 16 bits, as
    /// Pillow does. `data` takes the bits that the largest sample of the file needs, at least 8: of
    /// 12-bit data in a 16-bit file the high 8 of 12 bits. A response has the header `X-Image-Hint`
    /// if an image would look nearly black without it. Other files have no such range.
    #[param(inline)]
    levels: Option<Levels>,
    /// How JPEG files are decoded. `fast` decodes large files at 1/2, 1/4 or 1/8 of their size
    /// where that is enough for `size`. It is several times as fast and changes pixels slightly.
    #[param(inline)]
    decode: Decoding,
}

impl From<ImageParams> for ImageOptions {
    fn from(params: ImageParams) -> Self {
        Self {
            overrides: PreprocessingOverrides {
                size: params.size,
                resize: params.resize,
                filter: params.filter,
                exif: params.exif,
                background: params.background,
                levels: params.levels,
            },
            decode: params.decode,
        }
    }
}

/// The option of images whose other options are stored.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct DecodeParams {
    /// How JPEG files are decoded. `fast` decodes large files at 1/2, 1/4 or 1/8 of their size
    /// where that is enough for `size`. It is several times as fast and changes pixels slightly.
    #[param(inline)]
    decode: Decoding,
}

impl From<DecodeParams> for ImageOptions {
    fn from(DecodeParams { decode }: DecodeParams) -> Self {
        Self {
            decode,
            ..Self::default()
        }
    }
}

/// How images were prepared for the model.
#[derive(Serialize, ToSchema)]
pub(crate) struct Prepared {
    /// Size that `resize` refers to, in pixels.
    #[schema(example = 518)]
    size: usize,
    /// How the images were resized.
    #[schema(value_type = String, example = "fit")]
    resize: ResizeMode,
    /// Resampling filter.
    #[schema(value_type = String, example = "bicubic")]
    filter: ResampleFilter,
    /// Whether the EXIF orientation was applied.
    exif: bool,
    /// Color behind transparent pixels.
    #[schema(value_type = String, example = "white")]
    background: Background,
    /// Range of samples with 16 bits that became black to white.
    #[schema(value_type = String, example = "type")]
    levels: Levels,
}

impl From<&Preprocessing> for Prepared {
    fn from(preprocessing: &Preprocessing) -> Self {
        Self {
            size: preprocessing.size,
            resize: preprocessing.resize,
            filter: preprocessing.filter,
            exif: preprocessing.exif,
            background: preprocessing.background,
            levels: preprocessing.levels,
        }
    }
}

/// Images in JSON, along with any of the operation's options.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"image": EXAMPLE_IMAGE, "size": 224}))]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct ImagesJson {
    /// An image file, in base64 or as a `data:` URI.
    image: Option<String>,
    /// Several image files.
    images: Option<Vec<String>>,
    /// Any of the operation's options.
    #[serde(flatten)]
    options: BTreeMap<String, Value>,
}

/// Images with their masks in JSON, along with any of the operation's options.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"images": [EXAMPLE_IMAGE], "masks": [EXAMPLE_IMAGE], "layers": 1}))]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct MaskedImagesJson {
    /// Image files, in base64 or as `data:` URIs.
    images: Vec<String>,
    /// Their masks in the same order: PNG files.
    masks: Vec<String>,
    /// Any of the operation's options.
    #[serde(flatten)]
    options: BTreeMap<String, Value>,
}

/// Images as the files of a form. Text parts are options of the operation.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct ImagesForm {
    /// One or more image files.
    #[schema(value_type = Vec<String>, format = Binary)]
    image: Vec<String>,
}

/// Images and their masks as the files of a form, in the same order. Text parts are options of the
/// operation.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct MaskedImagesForm {
    /// Image files.
    #[schema(value_type = Vec<String>, format = Binary)]
    image: Vec<String>,
    /// PNG files with the class of each pixel.
    #[schema(value_type = Vec<String>, format = Binary)]
    mask: Vec<String>,
}

/// Bytes of a file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct File(String);
