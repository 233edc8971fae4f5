//! The use cases on the served models.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    anomaly::Banks,
    audit::Audits,
    bases::Bases,
    binding::check_makes,
    extractor::Extractor,
    galleries::{Galleries, GalleryLimits},
    gallery_documents::GalleryDocuments,
    gallery_map::GalleryMaps,
    images::ImageOptions,
    jobs::Jobs,
    maps::{MapFormat, Rendered},
    models::{ModelChoice, Models},
    pca::{PcaAnswer, PcaOptions},
    probes::Probes,
    segmenters::Segmenters,
    stages::Timed,
};
use crate::{
    error::{Error, Kind, Result},
    gallery::{Binding, Gallery, GalleryName},
};

/// The use cases on the served models. Clones are cheap and share everything.
#[derive(Debug, Clone)]
pub struct Service {
    models: Arc<Models>,
    stored: Option<Arc<Stored>>,
}

/// The use cases that need a gallery store.
#[derive(Debug)]
struct Stored {
    galleries: Galleries,
    documents: GalleryDocuments,
    audits: Audits,
    maps: GalleryMaps,
    bases: Bases,
    probes: Probes,
    banks: Banks,
    segmenters: Segmenters,
    jobs: Jobs,
}

impl Service {
    /// Combines models with the use cases of a gallery store, if there is one.
    pub fn new(models: Arc<Models>, store: Option<Gallery>, limits: GalleryLimits) -> Self {
        let stored = store.map(|store| {
            let jobs = Jobs::default();
            let documents = GalleryDocuments::new(Arc::clone(&store), limits, jobs.clone());
            Arc::new(Stored {
                galleries: Galleries::new(Arc::clone(&store), limits),
                audits: Audits(documents.clone()),
                maps: GalleryMaps(documents.clone()),
                documents,
                bases: Bases::new(Arc::clone(&store)),
                probes: Probes::new(Arc::clone(&store), limits, jobs.clone()),
                banks: Banks::new(Arc::clone(&store), limits, jobs.clone()),
                segmenters: Segmenters::new(store, limits, jobs.clone()),
                jobs,
            })
        });
        Self { models, stored }
    }

    /// Returns the models.
    pub fn models(&self) -> &Arc<Models> {
        &self.models
    }

    /// Returns the model of a request that names one, or none.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if no served model has the name.
    pub fn choose(&self, name: Option<&str>) -> Result<ModelChoice> {
        ModelChoice::new(&self.models, name)
    }

    /// Returns the galleries.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the server was started without a gallery store.
    pub fn galleries(&self) -> Result<&Galleries> {
        Ok(&self.stored()?.galleries)
    }

    /// Returns the audits of galleries.
    pub fn audits(&self) -> Result<&Audits> {
        Ok(&self.stored()?.audits)
    }

    /// Returns the maps of galleries.
    pub fn maps(&self) -> Result<&GalleryMaps> {
        Ok(&self.stored()?.maps)
    }

    /// Deletes a gallery with all its items, its audit and its map, which are cancelled if they are
    /// in progress. Returns whether there was such a gallery.
    pub async fn remove_gallery(&self, name: &GalleryName) -> Result<bool> {
        let stored = self.stored()?;
        stored.documents.cancel(name).await;
        stored.galleries.store().remove(name).await
    }

    /// Gives a gallery another name, which no other one may have. Its audit and its map are
    /// cancelled if they are in progress.
    pub async fn rename_gallery(&self, from: &GalleryName, to: &GalleryName) -> Result<()> {
        let stored = self.stored()?;
        let store = stored.galleries.store();
        // A name that is taken cancels nothing.
        if store.gallery(to).await?.is_none() {
            stored.documents.cancel(from).await;
        }
        store.rename(from, to).await
    }

    /// Checks a binding that a file states for the gallery `name`, as far as this server runs its
    /// model.
    pub fn check_stored_binding(&self, name: &GalleryName, binding: &Binding) -> Result<()> {
        match self.models.with_features_of(&binding.model) {
            Some(model) => check_makes(&model, name, binding),
            None => Ok(()),
        }
    }

    /// Returns the PCA bases.
    pub fn bases(&self) -> Result<&Bases> {
        Ok(&self.stored()?.bases)
    }

    /// Returns the linear probes.
    pub fn probes(&self) -> Result<&Probes> {
        Ok(&self.stored()?.probes)
    }

    /// Returns the anomaly banks.
    pub fn banks(&self) -> Result<&Banks> {
        Ok(&self.stored()?.banks)
    }

    /// Returns the segmenters.
    pub fn segmenters(&self) -> Result<&Segmenters> {
        Ok(&self.stored()?.segmenters)
    }

    /// Computes PCA maps of the images in one joint basis, or in the stored basis that the options
    /// name. Also returns the model that made them.
    pub async fn pca(
        &self,
        model: &ModelChoice,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: PcaOptions,
        format: MapFormat,
    ) -> Result<(Extractor, Timed<Rendered<PcaAnswer>>)> {
        format.check()?;
        let (extractor, basis) = match &options.basis {
            Some(name) => {
                let stored = self.bases()?.get(name).await?;
                (stored.model(model)?, Some(stored.basis))
            }
            None => (model.of_new(), None),
        };
        let maps = extractor.pca(files, image, &options, basis, format);
        let maps = maps.await?;
        Ok((extractor, maps))
    }

    /// Cancels background work, and waits up to 5 seconds for the engines. The caller must hold the
    /// last clone. The gallery store stays open, because the caller may have opened it.
    pub async fn close(self) {
        if let Ok(stored) = self.stored() {
            stored.jobs.stop().await;
        }
        let Self { models, stored } = self;
        drop(stored);
        models.close().await;
    }

    fn stored(&self) -> Result<&Stored> {
        self.stored.as_deref().ok_or_else(|| {
            let detail = "this server keeps no gallery; start it with --gallery DIR or \
                          --gallery postgres://…";
            Error::new(Kind::NotFound, detail)
        })
    }
}
