//! Agreement of a request with the binding of its gallery.

use super::{
    embed::EmbedOptions,
    extractor::Extractor,
    galleries::Galleries,
    images::{ImageOptions, Preparation},
    models::ModelChoice,
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

    /// Checks that the options agree with the binding of the gallery `name`.
    pub(super) fn check(&self, name: &GalleryName, binding: &Binding) -> Result<()> {
        let model = match &self.vectors.fingerprint {
            Some(other) if binding.model.fingerprint != **other => ModelId {
                name: "another model".to_owned(),
                fingerprint: other.as_str().into(),
            },
            _ => binding.model.clone(),
        };
        let mut requested = self.over(binding);
        requested.model = model;
        binding.check(name, &requested)
    }
}

impl Galleries {
    /// Returns the binding of a gallery, after a check that the request agrees with it, and the
    /// model for its images. If the gallery does not exist, returns the binding that it will get.
    pub async fn binding_to_write(
        &self,
        model: &ModelChoice,
        name: &GalleryName,
        options: &InputOptions,
        has_images: bool,
    ) -> Result<(Extractor, Binding)> {
        match self.store().gallery(name).await? {
            Some(gallery) => {
                let extractor = check_input(model, name, &gallery.binding, options, has_images)?;
                Ok((extractor, gallery.binding))
            }
            None => new_binding(model, name, options),
        }
    }
}

/// Checks that a request agrees with the binding of the gallery `name`, and returns the model that
/// its images go through. Vectors need no model: the gallery's need not be served then.
pub(super) fn check_input(
    model: &ModelChoice,
    name: &GalleryName,
    binding: &Binding,
    options: &InputOptions,
    has_images: bool,
) -> Result<Extractor> {
    let holder = format_args!("the gallery `{name}` holds");
    model.allow(&binding.model, holder)?;
    options.check(name, binding)?;
    if !has_images {
        return Ok(model.of_new());
    }
    let extractor = model.of_stored(&binding.model, holder)?;
    check_makes(&extractor, name, binding)?;
    Ok(extractor)
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
    model: &ModelChoice,
    name: &GalleryName,
    options: &InputOptions,
) -> Result<(Extractor, Binding)> {
    let extractor = match &options.vectors.fingerprint {
        None => model.of_new(),
        Some(fingerprint) => model.of_fingerprint(fingerprint).ok_or_else(|| {
            let detail = format!(
                "there is no gallery `{name}` yet, and this request can make one for features of \
                 {}, not of fingerprint {fingerprint}; serve that model, or leave the fingerprint \
                 out",
                model.names()
            );
            Error::new(Kind::Conflict, detail)
        })?,
    };
    let spec = extractor.engine().spec();
    let defaults = Binding {
        model: extractor.id().clone(),
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
    Ok((extractor, binding))
}

/// Returns the preparation of images for a gallery.
pub(super) fn preparation(binding: &Binding, image: &ImageOptions) -> Preparation {
    Preparation {
        preprocessing: binding.preprocessing,
        decoding: image.decode,
        shrinks: false,
        quarter_turns: 0,
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
