//! Of what kind the vectors of a request are: the gallery decides, and what a request says must
//! agree.

use serde::Deserialize;

use super::{Decoding, EmbedOptions, ImageOptions, Service};
use crate::{
    error::{Error, Kind, Result},
    features::pool::Pooling,
    gallery::{Binding, GalleryInfo, GalleryName},
    vision::{DecodeOptions, ResampleFilter, ResizeMode},
};

/// What is said of the vectors of a gallery beside [`ImageOptions`]. `None` stands for what the
/// gallery has, or for the defaults of embeddings if there is no gallery yet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct VectorOptions {
    /// How tokens become a vector.
    pub pooling: Option<Pooling>,
    /// How many last blocks are joined.
    pub layers: Option<usize>,
    /// The fingerprint of the features that were sent.
    pub fingerprint: Option<String>,
}

impl Service {
    /// What the vectors of a gallery are, after a check that those of the request are the same.
    /// `by_model`: the request holds images.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such gallery, [`Kind::Conflict`] that names what differs.
    pub(super) async fn binding_to_read(
        &self,
        name: &GalleryName,
        image: &ImageOptions,
        vectors: &VectorOptions,
        by_model: bool,
    ) -> Result<Binding> {
        let GalleryInfo { binding, .. } = self.gallery()?.gallery(name).await?;
        let model = match &vectors.fingerprint {
            Some(other) if *other != binding.fingerprint => ("another model", other.as_str()),
            _ if by_model => (self.engine.spec().name.as_str(), self.engine.fingerprint()),
            _ => (binding.model.as_str(), binding.fingerprint.as_str()),
        };
        let asked = overlay(&binding, image, vectors);
        binding.check(
            name,
            &Binding {
                model: model.0.to_owned(),
                fingerprint: model.1.to_owned(),
                ..asked
            },
        )?;
        Ok(binding)
    }

    /// As [`Service::binding_to_read`], or what the vectors of a gallery that is to be made will
    /// be.
    ///
    /// # Errors
    /// [`Kind::Conflict`] that names what differs, [`Kind::InvalidOption`] for options that no
    /// gallery could have.
    pub async fn binding_to_write(
        &self,
        name: &GalleryName,
        image: &ImageOptions,
        vectors: &VectorOptions,
        by_model: bool,
    ) -> Result<Binding> {
        match self.binding_to_read(name, image, vectors, by_model).await {
            Err(error) if error.kind() == Kind::NotFound && self.gallery().is_ok() => {
                self.binding_to_make(name, image, vectors)
            }
            outcome => outcome,
        }
    }

    fn binding_to_make(
        &self,
        name: &GalleryName,
        image: &ImageOptions,
        vectors: &VectorOptions,
    ) -> Result<Binding> {
        let spec = self.engine.spec();
        let fingerprint = self.engine.fingerprint();
        if let Some(other) = vectors
            .fingerprint
            .as_deref()
            .filter(|other| *other != fingerprint)
        {
            let detail = format!(
                "there is no gallery `{name}` yet, and this server makes galleries for features of {} (fingerprint {fingerprint}), \
                 not {other}; serve that model, or leave the fingerprint out",
                spec.name
            );
            return Err(Error::new(Kind::Conflict, detail));
        }
        let decoding = DecodeOptions::default();
        let defaults = Binding {
            model: spec.name.clone(),
            fingerprint: fingerprint.to_owned(),
            dim: spec.dim,
            pooling: Pooling::default(),
            layers: 1,
            size: spec.embed_size,
            resize: ResizeMode::Crop,
            filter: ResampleFilter::default(),
            exif: decoding.exif,
            background: decoding.background,
        };
        let mut binding = overlay(&defaults, image, vectors);
        let embed = embed_options(&binding);
        embed.check(spec)?;
        binding.dim = embed.dim(spec);
        // A size that no image fits would be the gallery's for ever.
        let transform = image_options(&binding, Decoding::Exact).for_embedding(spec, &self.limits);
        transform.plan(binding.size, binding.size)?;
        Ok(binding)
    }
}

/// The binding with what a request says in place of what it had.
pub(super) fn overlay(binding: &Binding, image: &ImageOptions, vectors: &VectorOptions) -> Binding {
    Binding {
        pooling: vectors.pooling.unwrap_or(binding.pooling),
        layers: vectors.layers.unwrap_or(binding.layers),
        size: image.size.unwrap_or(binding.size),
        resize: image.resize.unwrap_or(binding.resize),
        filter: image.filter.unwrap_or(binding.filter),
        exif: image.exif.unwrap_or(binding.exif),
        background: image.background.unwrap_or(binding.background),
        ..binding.clone()
    }
}

/// The way of an image to the model that a binding describes.
pub(super) fn image_options(binding: &Binding, decode: Decoding) -> ImageOptions {
    ImageOptions {
        size: Some(binding.size),
        resize: Some(binding.resize),
        filter: Some(binding.filter),
        exif: Some(binding.exif),
        background: Some(binding.background),
        decode,
    }
}

/// The way of the model's output to a vector.
pub(super) fn embed_options(binding: &Binding) -> EmbedOptions {
    EmbedOptions {
        pooling: binding.pooling,
        normalize: true,
        layers: binding.layers,
        tokens: false,
    }
}
