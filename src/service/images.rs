//! The way that every image takes: decoded and resized on a blocking thread, then through the
//! engine.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tracing::Instrument;

use super::{Service, Stages, cache::Key};
use crate::{
    engine::{Features, Input, RequestedOutputs},
    error::{Error, Kind, Result},
    names::option_enum,
    telemetry,
    vision::{DecodeLimits, Preprocessing, PreprocessingOverrides, RgbImage, decode, decode_fast},
};

/// Sizes that a request may not exceed.
#[derive(Debug, Clone, Copy)]
pub struct ImageLimits {
    /// Most pixels of an image file.
    pub decode: DecodeLimits,
    /// Most patches of an image for the model.
    pub max_patches: usize,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            decode: DecodeLimits::default(),
            max_patches: 4096,
        }
    }
}

/// What a request says of its images; the rest comes from the model, gallery or basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageOptions {
    /// Settings that decide which pixels the model sees.
    pub overrides: PreprocessingOverrides,
    /// Exactness of decoding.
    pub decode: Decoding,
}

impl ImageOptions {
    /// Fills the gaps from `base`.
    pub(super) fn over(&self, base: &Preprocessing) -> Preparation {
        Preparation {
            preprocessing: self.overrides.over(base),
            decoding: self.decode,
        }
    }
}

option_enum! {
    /// How exactly a file is decoded.
    #[derive(Default)]
    pub enum Decoding {
        /// Every pixel, as Pillow does.
        #[default]
        Exact,
        /// Large JPEG files at a half, a quarter or an eighth of their size, if that is enough: several
        /// times as fast, with slightly different pixels.
        Fast,
    }
}

/// The complete way from a file to the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Preparation {
    pub(super) preprocessing: Preprocessing,
    pub(super) decoding: Decoding,
}

/// What the model made of an image, and the image as the model saw it if that is to be drawn on.
#[derive(Debug, Clone)]
pub(super) struct CachedFeatures {
    pub(super) photo: Option<RgbImage>,
    pub(super) features: Features,
}

impl CachedFeatures {
    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let Features {
            cls,
            patch_tokens,
            registers,
            attention,
            layers_cls,
            layers_patch,
            ..
        } = &self.features;
        let matrices = [patch_tokens, registers, attention, layers_cls];
        let values = cls.len()
            + matrices
                .iter()
                .map(|matrix| matrix.as_ref().map_or(0, ndarray::Array2::len))
                .sum::<usize>()
            + layers_patch.as_ref().map_or(0, ndarray::Array3::len);
        let photo = self.photo.as_ref().map_or(0, |photo| photo.as_raw().len());
        // The key and the cache's own book-keeping take about as much as a small vector.
        size_of::<Self>() + 512 + values * size_of::<f32>() + photo
    }
}

/// An image that went through the model, now or before.
pub(super) struct Inference {
    pub(super) view: Arc<CachedFeatures>,
    pub(super) stages: Stages,
}

/// What the files of a request are wanted for.
#[derive(Debug, Clone, Copy)]
struct ExtractRequest {
    preparation: Preparation,
    wanted: RequestedOutputs,
    with_photo: bool,
}

/// An image on its way: known from before, or ready for the model.
enum Prepared {
    Cached(Arc<CachedFeatures>),
    New {
        input: Input,
        stages: Stages,
        key: Option<Box<Key>>,
    },
}

impl Service {
    /// Decodes and resizes on a blocking thread, then runs the model, unless the result is in the
    /// cache.
    async fn see(&self, file: Bytes, purpose: ExtractRequest) -> Result<Inference> {
        let limits = self.limits;
        let cache = self.cache.clone();
        let span = tracing::info_span!("prepare");
        let prepared = self.on_blocking_thread("preparing an image", move || {
            let _span = span.entered();
            let ExtractRequest {
                preparation,
                wanted,
                with_photo,
            } = purpose;
            let key = cache
                .as_ref()
                .map(|cache| Box::new(cache.key(&file, preparation, wanted, with_photo)));
            if let (Some(cache), Some(key)) = (&cache, &key)
                && let Some(view) = cache.get(key)
            {
                return Ok(Prepared::Cached(view));
            }
            let work = || prepare(&file, preparation, limits);
            // Decoders may panic on hostile files; that is the file's fault, and no other
            // request's.
            let (input, stages) = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
                telemetry::metrics()
                    .panics
                    .with_label_values(&["decoder"])
                    .inc();
                Err(Error::new(
                    Kind::UndecodableImage,
                    "the decoder failed on this file; it is damaged",
                ))
            })?;
            Ok(Prepared::New { input, stages, key })
        });
        let result = match prepared.await {
            Ok(Prepared::Cached(view)) => Ok(Inference {
                view,
                stages: Stages::default(),
            }),
            Ok(Prepared::New { input, stages, key }) => self.run(input, purpose, stages, key).await,
            Err(error) => Err(error),
        };
        let outcome = if result.is_ok() { "ok" } else { "error" };
        telemetry::metrics()
            .images
            .with_label_values(&[outcome])
            .inc();
        result
    }

    async fn run(
        &self,
        input: Input,
        purpose: ExtractRequest,
        stages: Stages,
        key: Option<Box<Key>>,
    ) -> Result<Inference> {
        let inference = self
            .engine
            .infer(input, purpose.wanted)
            .instrument(tracing::info_span!("infer"));
        let (input, features) = inference.await?;
        let stages = Stages {
            queue: features.queue_time,
            inference: features.inference_time,
            ..stages
        };
        let photo = purpose.with_photo.then_some(input.pixels);
        let view = Arc::new(CachedFeatures { photo, features });
        if let (Some(cache), Some(key)) = (&self.cache, key) {
            cache.put(*key, &view);
        }
        Ok(Inference { view, stages })
    }

    /// Several files, in their order, some at a time: more would only fill memory with pixels.
    fn see_all(
        &self,
        files: Vec<Bytes>,
        purpose: ExtractRequest,
    ) -> impl Stream<Item = Result<Inference>> + Send {
        let work = stream::iter(files).map(move |file| self.see(file, purpose));
        work.buffered(self.engine.images_at_once())
    }

    /// The files of a request for maps, with their photographs; one bad image spoils the whole.
    pub(super) async fn see_for_maps(
        &self,
        files: Vec<Bytes>,
        preparation: Preparation,
        wanted: RequestedOutputs,
    ) -> Result<Vec<Inference>> {
        let several = files.len() > 1;
        let purpose = ExtractRequest {
            preparation,
            wanted,
            with_photo: true,
        };
        let seen: Vec<_> = self.see_all(files, purpose).collect().await;
        let name = |(index, result): (usize, Result<Inference>)| {
            result.map_err(|error| {
                if several {
                    error.context(format_args!("image {index}"))
                } else {
                    error
                }
            })
        };
        seen.into_iter().enumerate().map(name).collect()
    }

    /// The patch tokens of a file, as maps are made of them.
    pub(super) async fn see_for_basis(
        &self,
        file: Bytes,
        preparation: Preparation,
    ) -> Result<Inference> {
        let wanted = RequestedOutputs {
            patch_tokens: true,
            ..RequestedOutputs::default()
        };
        self.see(
            file,
            ExtractRequest {
                preparation,
                wanted,
                with_photo: false,
            },
        )
        .await
    }

    /// An image for a gallery, with its photograph.
    pub(super) async fn see_for_gallery(
        &self,
        file: Bytes,
        preparation: Preparation,
        wanted: RequestedOutputs,
    ) -> Result<Inference> {
        self.see(
            file,
            ExtractRequest {
                preparation,
                wanted,
                with_photo: true,
            },
        )
        .await
    }

    /// The files of a request for embeddings, each with its own outcome, one after the other: what
    /// the model made of them takes far more memory than embeddings do.
    pub(super) fn see_for_embedding(
        &self,
        files: Vec<Bytes>,
        preparation: Preparation,
        wanted: RequestedOutputs,
    ) -> impl Stream<Item = Result<Inference>> + Send {
        self.see_all(
            files,
            ExtractRequest {
                preparation,
                wanted,
                with_photo: false,
            },
        )
    }
}

fn prepare(file: &[u8], preparation: Preparation, limits: ImageLimits) -> Result<(Input, Stages)> {
    let started = Instant::now();
    let Preparation {
        preprocessing,
        decoding,
    } = preparation;
    let options = preprocessing.decode_options();
    let transform = preprocessing.transform(limits.max_patches);
    let (image, whole) = match decoding {
        Decoding::Exact => {
            let image = decode(file, options, limits.decode)?;
            let whole = (image.width() as usize, image.height() as usize);
            (image, whole)
        }
        Decoding::Fast => decode_fast(file, options, limits.decode, &transform)?,
    };
    let decoded = Instant::now();
    let (pixels, grid) = transform.apply_to_reduced(&image, whole)?;
    let stages = Stages {
        decode: decoded - started,
        resize: decoded.elapsed(),
        ..Stages::default()
    };
    Ok((Input { pixels, grid }, stages))
}
