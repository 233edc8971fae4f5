//! Agreement of a request with the binding of its gallery.

use super::{
    embed::EmbedOptions,
    extractor::Extractor,
    galleries::Galleries,
    images::{ImageOptions, Preparation},
};
use crate::{
    error::{Error, Kind, Result},
    features::pool::Pooling,
    gallery::{Binding, GalleryName},
    model::ModelId,
    vision::Size,
};

/// Options of a gallery's vectors. `None` stands for the gallery's value, or for the default of
/// embeddings if the gallery does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VectorOptions {
    /// Way from the tokens to a vector.
    pub pooling: Option<Pooling>,
    /// Number of last blocks that are joined.
    pub layers: Option<usize>,
    /// Fingerprint of the vectors in the request.
    pub fingerprint: Option<String>,
}

/// Options of the images and vectors of a gallery request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputOptions {
    /// Options of images.
    pub image: ImageOptions,
    /// Options of vectors.
    pub vectors: VectorOptions,
}

impl InputOptions {
    /// Applies the options on top of `binding`.
    pub(super) fn over(&self, binding: &Binding) -> Binding {
        Binding {
            pooling: self.vectors.pooling.unwrap_or(binding.pooling),
            layers: self.vectors.layers.unwrap_or(binding.layers),
            preprocessing: self.image.overrides.over(&binding.preprocessing),
            ..binding.clone()
        }
    }

    /// Checks that the options agree with the binding of the gallery `name`. If the request
    /// `has_images`, they go through the model `served`.
    pub(super) fn check(
        &self,
        name: &GalleryName,
        binding: &Binding,
        served: &ModelId,
        has_images: bool,
    ) -> Result<()> {
        let model = match &self.vectors.fingerprint {
            Some(other) if binding.model.fingerprint != **other => ModelId {
                name: "another model".to_owned(),
                fingerprint: other.as_str().into(),
            },
            _ if has_images => served.clone(),
            _ => binding.model.clone(),
        };
        let mut requested = self.over(binding);
        requested.model = model;
        binding.check(name, &requested)
    }
}

impl Galleries {
    /// Returns the binding of a gallery, after a check that the request agrees with it. If the
    /// gallery does not exist, returns the binding that it will get.
    pub async fn binding_to_write(
        &self,
        extractor: &Extractor,
        name: &GalleryName,
        options: &InputOptions,
        has_images: bool,
    ) -> Result<Binding> {
        let served = extractor.engine().model_id();
        match self.store().gallery(name).await? {
            Some(gallery) => {
                options.check(name, &gallery.binding, served, has_images)?;
                if has_images {
                    check_makes(extractor, name, &gallery.binding)?;
                }
                Ok(gallery.binding)
            }
            None => new_binding(extractor, name, options),
        }
    }
}

/// Checks that the served model makes vectors of this binding. A snapshot or a database may state
/// other things.
pub(super) fn check_makes(
    extractor: &Extractor,
    name: &GalleryName,
    binding: &Binding,
) -> Result<()> {
    let spec = extractor.engine().spec();
    let embed = embed_options(binding);
    let transform = binding
        .preprocessing
        .transform(spec.architecture.patch, usize::MAX);
    let size = Size::square(binding.preprocessing.size);
    let made = embed.dim(spec);
    let wrong = match (embed.check(spec), transform.plan(size)) {
        (Err(error), _) | (_, Err(error)) => error.detail().to_owned(),
        _ if made != binding.dim => {
            format!(
                "its vectors have {} values, and the model makes {made}",
                binding.dim
            )
        }
        _ => return Ok(()),
    };
    let detail = format!(
        "the description of the gallery `{name}` does not fit its model {}: {wrong}",
        spec.name
    );
    Err(Error::damaged(detail))
}

fn new_binding(
    extractor: &Extractor,
    name: &GalleryName,
    options: &InputOptions,
) -> Result<Binding> {
    let spec = extractor.engine().spec();
    let served = extractor.engine().model_id();
    if let Some(other) = &options.vectors.fingerprint
        && served.fingerprint != **other
    {
        let detail = format!(
            "there is no gallery `{name}` yet, and this server makes galleries for features of {} \
             (fingerprint {}), not {other}; serve that model, or leave the fingerprint out",
            served.name, served.fingerprint
        );
        return Err(Error::new(Kind::Conflict, detail));
    }
    let defaults = Binding {
        model: served.clone(),
        dim: spec.architecture.dim,
        pooling: Pooling::default(),
        layers: 1,
        preprocessing: spec.embed_preprocessing(),
    };
    let mut binding = options.over(&defaults);
    let embed = embed_options(&binding);
    embed.check(spec)?;
    binding.dim = embed.dim(spec);
    // Otherwise the gallery would keep a size that no image fits.
    binding
        .preprocessing
        .transform(spec.architecture.patch, extractor.limits().max_patches)
        .plan(Size::square(binding.preprocessing.size))?;
    Ok(binding)
}

/// Returns the preparation of images for a gallery.
pub(super) fn preparation(binding: &Binding, image: &ImageOptions) -> Preparation {
    Preparation {
        preprocessing: binding.preprocessing,
        decoding: image.decode,
        shrinks: false,
    }
}

/// Returns the embedding options of a gallery.
pub(super) fn embed_options(binding: &Binding) -> EmbedOptions {
    EmbedOptions {
        pooling: binding.pooling,
        layers: binding.layers,
        ..EmbedOptions::default()
    }
}
