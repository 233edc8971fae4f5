//! Of what kind the vectors of a request are: the gallery decides, and what a request says must
//! agree.

use super::{Decoding, EmbedOptions, ImageOptions, Service, images::Preparation};
use crate::{
    error::{Error, Kind, Result},
    features::pool::Pooling,
    gallery::{Binding, GalleryInfo, GalleryName},
    model::ModelId,
    vision::Size,
};

/// What is said of the vectors of a gallery beside [`ImageOptions`]. `None` stands for what the
/// gallery has, or for the defaults of embeddings if there is no gallery yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
        let GalleryInfo { binding, .. } = self.gallery()?.require_gallery(name).await?;
        self.check_request(name, &binding, image, vectors, by_model)?;
        Ok(binding)
    }

    /// Checks that the request's vectors are those of the gallery.
    fn check_request(
        &self,
        name: &GalleryName,
        binding: &Binding,
        image: &ImageOptions,
        vectors: &VectorOptions,
        by_model: bool,
    ) -> Result<()> {
        let model = match &vectors.fingerprint {
            Some(other) if binding.model.fingerprint != **other => ModelId {
                name: "another model".to_owned(),
                fingerprint: other.as_str().into(),
            },
            _ if by_model => self.extractor.engine().model_id().clone(),
            _ => binding.model.clone(),
        };
        let requested = overlay(binding, image, vectors);
        binding.check(name, &Binding { model, ..requested })
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
        match self.gallery()?.gallery(name).await? {
            Some(GalleryInfo { binding, .. }) => {
                self.check_request(name, &binding, image, vectors, by_model)?;
                Ok(binding)
            }
            None => self.binding_to_make(name, image, vectors),
        }
    }

    fn binding_to_make(
        &self,
        name: &GalleryName,
        image: &ImageOptions,
        vectors: &VectorOptions,
    ) -> Result<Binding> {
        let spec = self.extractor.engine().spec();
        let fingerprint = self.extractor.engine().fingerprint();
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
        let defaults = Binding {
            model: self.extractor.engine().model_id().clone(),
            dim: spec.architecture.dim,
            pooling: Pooling::default(),
            layers: 1,
            preprocessing: spec.embed_preprocessing(),
        };
        let mut binding = overlay(&defaults, image, vectors);
        let embed = embed_options(&binding);
        embed.check(spec)?;
        binding.dim = embed.dim(spec);
        // The gallery would keep a size that no image fits.
        let size = binding.preprocessing.size;
        let transform = binding
            .preprocessing
            .transform(spec.architecture.patch, self.extractor.limits().max_patches);
        transform.plan(Size::square(size))?;
        Ok(binding)
    }
}

/// Applies the request's explicit options on top of `binding`.
pub(super) fn overlay(binding: &Binding, image: &ImageOptions, vectors: &VectorOptions) -> Binding {
    Binding {
        pooling: vectors.pooling.unwrap_or(binding.pooling),
        layers: vectors.layers.unwrap_or(binding.layers),
        preprocessing: image.overrides.over(&binding.preprocessing),
        ..binding.clone()
    }
}

/// Returns the preparation of images for a gallery.
pub(super) fn binding_preparation(binding: &Binding, decoding: Decoding) -> Preparation {
    Preparation {
        preprocessing: binding.preprocessing,
        decoding,
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
