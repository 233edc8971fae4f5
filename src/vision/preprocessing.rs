//! How an image file becomes the model's input, as a value that can be stored and compared.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Background, DecodeOptions, Levels, PatchSize, ResampleFilter, ResizeMode, Transform};

/// All settings that decide which pixels of a file the model sees. Features are comparable only if
/// their preprocessing is equal.
///
/// `decode=fast` is left out on purpose: it changes pixels a little, and a client may choose it per
/// request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Size that `resize` refers to, in pixels.
    pub size: usize,
    /// Way from the image to the model's grid.
    pub resize: ResizeMode,
    /// Resampling filter.
    pub filter: ResampleFilter,
    /// Whether the image is turned upright as its EXIF data say.
    pub exif: bool,
    /// Color behind transparent pixels.
    pub background: Background,
    /// Range of samples with 16 bits.
    #[serde(default, skip_serializing_if = "Levels::is_default")]
    pub levels: Levels,
}

impl Preprocessing {
    /// Returns the settings of a model at `size`, with the defaults of decoding and resampling.
    pub fn new(resize: ResizeMode, size: usize) -> Self {
        let DecodeOptions {
            exif,
            background,
            levels,
        } = DecodeOptions::default();
        Self {
            size,
            resize,
            filter: ResampleFilter::default(),
            exif,
            background,
            levels,
        }
    }

    /// Returns the part that concerns decoding.
    pub fn decode_options(&self) -> DecodeOptions {
        DecodeOptions {
            exif: self.exif,
            background: self.background,
            levels: self.levels,
        }
    }

    /// Returns the part that concerns resizing, for a model with patches of size `patch` and images
    /// of at most `max_patches` patches.
    pub fn transform(&self, patch: PatchSize, max_patches: usize) -> Transform {
        Transform {
            mode: self.resize,
            size: self.size,
            filter: self.filter,
            patch,
            max_patches,
            shrinks: false,
        }
    }

    /// Lists the settings in which `other` differs.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let settings = [
            Difference::between("size", &self.size, &other.size),
            Difference::between("resize", &self.resize, &other.resize),
            Difference::between("filter", &self.filter, &other.filter),
            Difference::between("exif", &self.exif, &other.exif),
            Difference::between("background", &self.background, &other.background),
            Difference::between("levels", &self.levels, &other.levels),
        ];
        settings.into_iter().flatten().collect()
    }
}

/// Settings that a request changes; `None` keeps that of the model, gallery or basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PreprocessingOverrides {
    /// Replaces [`Preprocessing::size`].
    pub size: Option<usize>,
    /// Replaces [`Preprocessing::resize`].
    pub resize: Option<ResizeMode>,
    /// Replaces [`Preprocessing::filter`].
    pub filter: Option<ResampleFilter>,
    /// Replaces [`Preprocessing::exif`].
    pub exif: Option<bool>,
    /// Replaces [`Preprocessing::background`].
    pub background: Option<Background>,
    /// Replaces [`Preprocessing::levels`].
    pub levels: Option<Levels>,
}

impl PreprocessingOverrides {
    /// Applies the overrides on top of `base`.
    pub fn over(&self, base: &Preprocessing) -> Preprocessing {
        Preprocessing {
            size: self.size.unwrap_or(base.size),
            resize: self.resize.unwrap_or(base.resize),
            filter: self.filter.unwrap_or(base.filter),
            exif: self.exif.unwrap_or(base.exif),
            background: self.background.unwrap_or(base.background),
            levels: self.levels.unwrap_or(base.levels),
        }
    }
}

/// A setting that two things do not share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    name: &'static str,
    ours: String,
    theirs: String,
}

impl Difference {
    /// Compares one setting; `None` if it is the same on both sides.
    pub fn between<T: PartialEq + fmt::Display>(
        name: &'static str,
        ours: &T,
        theirs: &T,
    ) -> Option<Self> {
        (ours != theirs).then(|| Self {
            name,
            ours: ours.to_string(),
            theirs: theirs.to_string(),
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, ours, theirs } = self;
        write!(f, "{name}={ours} and not {name}={theirs}")
    }
}
