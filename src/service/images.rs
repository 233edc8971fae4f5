//! From an image file to the model's input.

use std::time::Instant;

use bytes::Bytes;

use super::stages::{Stages, Timed};
use crate::{
    engine::Input,
    error::{Error, Kind, Result},
    names::option_enum,
    telemetry,
    vision::{
        DecodeLimits, PatchSize, Placement, Preprocessing, PreprocessingOverrides, ResizeMode,
        Transform, decode_fast, decode_whole, decoding_bytes, thumbnail, upright_bytes,
        upright_size,
    },
};

/// Limits on the images of a request.
#[derive(Debug, Clone, Copy)]
pub struct ImageLimits {
    /// Limits on an image file.
    pub decode: DecodeLimits,
    /// Maximum number of patches of an image for the model.
    pub max_patches: usize,
    /// Maximum memory of all images that are decoded at the same time, in bytes. An image that
    /// takes more is decoded alone.
    pub max_decoding_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            decode: DecodeLimits::default(),
            max_patches: 4096,
            max_decoding_bytes: 1 << 30,
        }
    }
}

/// Image options of a request. The rest comes from the model, gallery or basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageOptions {
    /// Settings that decide which pixels the model gets.
    pub overrides: PreprocessingOverrides,
    /// Exactness of decoding.
    pub decode: Decoding,
}

impl ImageOptions {
    /// Applies the options on top of `base`.
    pub(super) fn over(&self, base: &Preprocessing) -> Preparation {
        Preparation {
            preprocessing: self.overrides.over(base),
            decoding: self.decode,
            shrinks: false,
            quarter_turns: 0,
        }
    }
}

option_enum! {
    /// Exactness of decoding.
    #[derive(Default)]
    pub enum Decoding {
        /// Decodes every pixel, as Pillow does.
        #[default]
        Exact,
        /// Decodes large JPEG files at a half, a quarter or an eighth of their size if that is
        /// enough. Several times as fast, with slightly different pixels.
        Fast,
    }
}

/// The complete way from a file to the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Preparation {
    pub(super) preprocessing: Preprocessing,
    pub(super) decoding: Decoding,
    /// Whether `size` shrinks for an image that has too many patches otherwise.
    pub(super) shrinks: bool,
    /// Quarters by which the model's input is turned to the right, 0 to 3.
    pub(super) quarter_turns: u8,
}

/// The model's input, and where it lies in the image.
pub(super) struct Prepared {
    pub(super) input: Input,
    pub(super) placement: Placement,
}

impl Preparation {
    /// Decodes and resizes a file. Blocks its thread.
    pub(super) fn prepare(
        &self,
        file: &[u8],
        patch: PatchSize,
        limits: &ImageLimits,
    ) -> Result<Timed<Prepared>> {
        catch_panics(|| self.decode_and_resize(file, patch, limits))
    }

    /// Returns the memory that [`Self::prepare`] takes for a file, in bytes. Reads its header only.
    pub(super) fn memory(
        &self,
        file: &[u8],
        patch: PatchSize,
        limits: &ImageLimits,
    ) -> Result<u64> {
        let options = self.preprocessing.decode_options();
        let transform = self.transform(patch, limits);
        let fast = self.decoding == Decoding::Fast;
        catch_panics(|| decoding_bytes(file, options, limits.decode, &transform, fast))
    }

    /// Rejects a file that [`Self::prepare`] would reject by its header.
    pub(super) fn check(&self, file: &[u8], patch: PatchSize, limits: &ImageLimits) -> Result<()> {
        self.memory(file, patch, limits)?;
        let options = self.preprocessing.decode_options();
        let size = catch_panics(|| upright_size(file, options, limits.decode))?;
        self.transform(patch, limits).plan(size)?;
        Ok(())
    }

    /// Returns the memory that [`Self::thumbnail`] takes for a file, in bytes: that of decoding,
    /// and of a copy for an image that has to be turned. Reads its header only.
    pub(super) fn thumbnail_memory(&self, file: &[u8], limits: &ImageLimits) -> Result<u64> {
        let options = self.preprocessing.decode_options();
        let transform = self.transform(PatchSize::new(1), limits);
        catch_panics(|| upright_bytes(file, options, limits.decode, &transform))
    }

    /// Returns the way to a thumbnail of `side` pixels, with the colors and the orientation of
    /// `preprocessing`.
    pub(super) fn of_thumbnail(preprocessing: Preprocessing, side: usize) -> Self {
        Self {
            preprocessing: Preprocessing {
                size: side,
                resize: ResizeMode::Squash,
                ..preprocessing
            },
            decoding: Decoding::Fast,
            shrinks: false,
            quarter_turns: 0,
        }
    }

    /// Makes a thumbnail of the whole image of a file, in its own aspect ratio. Blocks its thread.
    pub(super) fn thumbnail(&self, file: &[u8], limits: &ImageLimits) -> Result<Bytes> {
        catch_panics(|| {
            let options = self.preprocessing.decode_options();
            // Only the size that a JPEG is decoded to depends on it.
            let transform = self.transform(PatchSize::new(1), limits);
            let image = decode_fast(file, options, limits.decode, &transform)?.into_upright();
            thumbnail(&image, self.preprocessing.size).map(Bytes::from)
        })
    }

    fn transform(&self, patch: PatchSize, limits: &ImageLimits) -> Transform {
        Transform {
            shrinks: self.shrinks,
            ..self.preprocessing.transform(patch, limits.max_patches)
        }
    }

    fn decode_and_resize(
        &self,
        file: &[u8],
        patch: PatchSize,
        limits: &ImageLimits,
    ) -> Result<Timed<Prepared>> {
        let started = Instant::now();
        let options = self.preprocessing.decode_options();
        let transform = self.transform(patch, limits);
        let image = match self.decoding {
            Decoding::Exact => decode_whole(file, options, limits.decode)?,
            Decoding::Fast => decode_fast(file, options, limits.decode, &transform)?,
        };
        let decoded = Instant::now();
        let (pixels, grid) = transform.apply_to_decoded(&image)?;
        let placement = Placement::new(image.full_size, &transform.plan(image.full_size)?);
        let stages = Stages {
            decode: decoded - started,
            resize: decoded.elapsed(),
            has_dim_image: image.is_dim,
            ..Stages::default()
        };
        let input = Input { pixels, grid }.turned(self.quarter_turns);
        let value = Prepared { input, placement };
        Ok(Timed { value, stages })
    }
}

/// Runs work of a decoder. Decoders can panic on hostile files; other requests must not suffer from
/// it.
fn catch_panics<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    telemetry::catch_logged(work).unwrap_or_else(|_| {
        telemetry::metrics().count_panic("decoder");
        let detail = "the decoder failed on this file; it is damaged";
        Err(Error::new(Kind::UndecodableImage, detail))
    })
}

/// Adds the index of an image to its error if the request has several images.
pub(super) fn at_image(error: Error, index: usize, images: usize) -> Error {
    if images > 1 {
        error.context(format_args!("image {index}"))
    } else {
        error
    }
}
