//! The use cases: from image files and options to embeddings, maps, and what a gallery knows. Knows
//! no HTTP.

mod attention;
mod bases;
mod binding;
mod cache;
mod classify;
mod embed;
mod extractor;
mod gallery;
mod head_stats;
mod images;
mod insert;
mod live;
mod maps;
mod pca;
mod probes;
mod query;
mod search;
mod similarity;
mod stages;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use self::probes::Trainings;
pub use self::{
    attention::{AttentionMaps, AttentionOptions},
    bases::{BasisImages, BasisInfo, StoredBasis},
    binding::VectorOptions,
    classify::{Classification, VoteOptions},
    embed::{EmbedOptions, Embedding},
    extractor::Extractor,
    gallery::{GalleryLimits, Page},
    head_stats::ImageHeadStats,
    images::{Decoding, ImageLimits, ImageOptions},
    insert::{Inserted, NewEntry},
    live::{LiveService, LoadPlan, ModelSource, Replaced},
    maps::{MapFormat, Rendered},
    pca::{PCA_COMPONENTS, PcaAnswer, PcaOptions},
    probes::{Origin, ProbeFeatures, ProbePlan, ProbeState, StoredProbe, Training},
    query::QueryInput,
    search::{Answers, SearchOptions},
    similarity::{SimilarityMaps, SimilarityOptions},
    stages::{Stages, Timed},
};
use crate::{
    engine::Engine,
    error::{Error, Kind, Result},
    gallery::Gallery,
};

/// What the edges call. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Service {
    /// Feature extraction by the current model.
    pub extractor: Extractor,
    gallery: Option<Gallery>,
    gallery_limits: GalleryLimits,
    /// Held while a basis is replaced by what it was and more.
    basis_turn: Arc<Mutex<()>>,
    trainings: Trainings,
}

impl Service {
    /// A service without a gallery.
    pub fn new(extractor: Extractor) -> Self {
        Self {
            extractor,
            gallery: None,
            gallery_limits: GalleryLimits::default(),
            basis_turn: Arc::default(),
            trainings: Trainings::default(),
        }
    }

    /// The same, with another model.
    fn with_engine(&self, engine: Engine) -> Self {
        let extractor = self.extractor.with_engine(engine);
        Self {
            extractor,
            ..self.clone()
        }
    }

    /// The same, with a gallery to search.
    #[must_use]
    pub fn with_gallery(self, gallery: Option<Gallery>) -> Self {
        Self { gallery, ..self }
    }

    /// The same, with other limits of galleries.
    #[must_use]
    pub fn with_gallery_limits(self, gallery_limits: GalleryLimits) -> Self {
        Self {
            gallery_limits,
            ..self
        }
    }

    /// The store of galleries.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the server was started without one.
    pub fn gallery(&self) -> Result<&Gallery> {
        self.gallery.as_ref().ok_or_else(|| {
            let detail = "this server keeps no gallery; start it with --gallery DIR or --gallery postgres://…";
            Error::new(Kind::NotFound, detail)
        })
    }

    /// Returns the engine of the current model.
    pub fn engine(&self) -> &Engine {
        self.extractor.engine()
    }

    /// Computes PCA maps of the images in one joint basis, or in the stored basis that the options
    /// name.
    ///
    /// # Errors
    /// The first image that cannot be used, by its index; [`Kind::InvalidOption`] for an invalid
    /// option; as [`Service::basis`], and [`Kind::Conflict`] for a basis of another model.
    pub async fn pca(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: PcaOptions,
        format: MapFormat,
    ) -> Result<Timed<Rendered<PcaAnswer>>> {
        format.check()?;
        let basis = match &options.basis {
            Some(name) => Some(self.basis_of_model(name).await?),
            None => None,
        };
        self.extractor
            .pca(files, image, &options, basis, format)
            .await
    }
}
