//! The way that every image takes: decoded and resized on a blocking thread, then through the engine.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;

use super::{Service, Stages};
use crate::{
    engine::{Features, Input, Wanted},
    error::{Error, Kind, Result},
    model::ModelSpec,
    telemetry,
    vision::{Background, DecodeLimits, DecodeOptions, Filter, ResizeMode, Transform, decode},
};

/// Images of one request that are under way together. More would only fill memory with pixels.
const PARALLEL_IMAGES: usize = 4;

/// Sizes that a request may not exceed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most pixels of an image file.
    pub decode: DecodeLimits,
    /// Most patches of an image for the model.
    pub max_patches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { decode: DecodeLimits::default(), max_patches: 4096 }
    }
}

/// How an image file becomes the model's input. `None` stands for the endpoint's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ImageOptions {
    /// The size that `resize` speaks of, in pixels.
    pub size: Option<usize>,
    /// The way to the grid.
    pub resize: Option<ResizeMode>,
    /// The resampling filter.
    pub filter: Filter,
    /// Turn the image upright as its EXIF data say.
    pub exif: bool,
    /// What stands behind transparent pixels.
    pub background: Background,
}

impl Default for ImageOptions {
    fn default() -> Self {
        let DecodeOptions { exif, background } = DecodeOptions::default();
        Self { size: None, resize: None, filter: Filter::default(), exif, background }
    }
}

impl ImageOptions {
    fn decoding(&self) -> DecodeOptions {
        DecodeOptions { exif: self.exif, background: self.background }
    }

    /// With the defaults of embeddings: the middle of the image, at the model's size.
    pub(super) fn for_embedding(&self, spec: &ModelSpec, limits: &Limits) -> Transform {
        self.transform(ResizeMode::Crop, spec.embed_size, limits)
    }

    /// With the defaults of maps: the whole image, larger.
    pub(super) fn for_maps(&self, spec: &ModelSpec, limits: &Limits) -> Transform {
        self.transform(ResizeMode::Fit, spec.map_size, limits)
    }

    fn transform(&self, mode: ResizeMode, size: usize, limits: &Limits) -> Transform {
        Transform {
            mode: self.resize.unwrap_or(mode),
            size: self.size.unwrap_or(size),
            filter: self.filter,
            max_patches: limits.max_patches,
        }
    }
}

/// An image that went through the model.
pub(super) struct Seen {
    pub(super) input: Input,
    pub(super) features: Features,
    pub(super) stages: Stages,
}

impl Service {
    /// Decodes and resizes on a blocking thread, then runs the model.
    pub(super) async fn see(
        &self,
        file: Bytes,
        options: DecodeOptions,
        transform: Transform,
        wanted: Wanted,
    ) -> Result<Seen> {
        let limits = self.limits.decode;
        let prepared = self.on_blocking_thread("preparing an image", move || {
            let work = || prepare(&file, options, limits, transform);
            // Decoders may panic on hostile files; that is the file's fault, and no other request's.
            catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
                Err(Error::new(Kind::UndecodableImage, "the decoder failed on this file; it is damaged"))
            })
        });
        let result = match prepared.await {
            Ok((input, stages)) => self.engine.infer(input, wanted).await.map(|(input, features)| {
                let stages = Stages { queue: features.queue_time, inference: features.inference_time, ..stages };
                Seen { input, features, stages }
            }),
            Err(error) => Err(error),
        };
        let outcome = if result.is_ok() { "ok" } else { "error" };
        telemetry::metrics().images.with_label_values(&[outcome]).inc();
        result
    }

    /// As [`Service::see`] for several files, in their order, some at a time.
    pub(super) async fn see_all(
        &self,
        files: Vec<Bytes>,
        options: DecodeOptions,
        transform: Transform,
        wanted: Wanted,
    ) -> Vec<Result<Seen>> {
        let work = stream::iter(files).map(|file| self.see(file, options, transform, wanted));
        work.buffered(PARALLEL_IMAGES).collect().await
    }

    /// As [`Service::see_all`], where one bad image spoils the whole.
    pub(super) async fn see_all_or_fail(
        &self,
        files: Vec<Bytes>,
        options: &ImageOptions,
        wanted: Wanted,
    ) -> Result<Vec<Seen>> {
        let several = files.len() > 1;
        let transform = options.for_maps(self.engine.spec(), &self.limits);
        let seen = self.see_all(files, options.decoding(), transform, wanted).await;
        let name = |(index, result): (usize, Result<Seen>)| {
            result.map_err(|error| if several { error.context(format_args!("image {index}")) } else { error })
        };
        seen.into_iter().enumerate().map(name).collect()
    }

    /// As [`Service::see_all`] with the defaults of embeddings.
    pub(super) async fn see_for_embedding(
        &self,
        files: Vec<Bytes>,
        options: &ImageOptions,
        wanted: Wanted,
    ) -> Vec<Result<Seen>> {
        let transform = options.for_embedding(self.engine.spec(), &self.limits);
        self.see_all(files, options.decoding(), transform, wanted).await
    }
}

fn prepare(file: &[u8], options: DecodeOptions, limits: DecodeLimits, transform: Transform) -> Result<(Input, Stages)> {
    let started = Instant::now();
    let image = decode(file, options, limits)?;
    let decoded = Instant::now();
    let (pixels, grid) = transform.apply(&image)?;
    let stages = Stages { decode: decoded - started, resize: decoded.elapsed(), ..Stages::default() };
    Ok((Input { pixels, grid }, stages))
}
