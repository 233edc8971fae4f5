//! Stored PCA bases. They are fitted on many images, so a part has the same color in all of them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    basis_images::BasisImages,
    extractor::Extractor,
    fitting::{Fitting, of_files},
    images::{Decoding, ImageOptions, Preparation, at_image},
    models::ModelChoice,
    stages::{Stages, Timed},
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    features::pca::{
        Basis, Moments,
        document::{self, Document},
    },
    gallery::{BasisName, DocumentKey, DocumentKind, Gallery},
    model::{Architecture, ModelId},
    vision::{Preprocessing, ResizeMode},
};

/// Origin of a basis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BasisInfo {
    /// Model of the features.
    #[serde(flatten)]
    pub model: ModelId,
    /// Preprocessing of its images, also of those that are added later.
    #[serde(flatten)]
    pub preprocessing: Preprocessing,
    /// Number of images.
    pub images: u64,
    /// Number of patches of these images.
    pub patches: u64,
}

/// A basis in the store.
#[derive(Debug, Clone)]
pub struct StoredBasis {
    /// Name of the basis.
    pub name: BasisName,
    /// Origin of the basis.
    pub about: BasisInfo,
    /// Mean, components and ranges.
    pub basis: Basis,
}

impl StoredBasis {
    fn read(name: &BasisName, document: &Document<'_>) -> Result<Self> {
        let damaged = |damage: &dyn std::fmt::Display| {
            let detail = format!("the description of the basis `{name}` is damaged: {damage}");
            Error::damaged(detail)
        };
        let about: BasisInfo =
            serde_json::from_str(document.about()?).map_err(|error| damaged(&error))?;
        let size = about.preprocessing.size;
        if !(1..=Architecture::MAX_SIZE).contains(&size) {
            return Err(damaged(&format_args!("`size` is {size}")));
        }
        Ok(Self {
            name: name.clone(),
            about,
            basis: document.basis()?,
        })
    }

    /// Returns the model that the basis is one of the features of.
    pub(super) fn model(&self, model: &ModelChoice) -> Result<Extractor> {
        let extractor = model.of_stored(&self.about.model, self.holder())?;
        let dim = self.basis.dim();
        let made = extractor.engine().spec().architecture.dim;
        if dim == made {
            return Ok(extractor);
        }
        let name = &self.name;
        Err(Error::damaged(format!(
            "the basis `{name}` is damaged: it takes {dim} values, and its model makes {made}"
        )))
    }

    /// Begins a message on the features of the basis.
    pub fn holder(&self) -> String {
        format!("the basis `{}` is fitted on", self.name)
    }
}

/// The bases of a store. Clones share them.
#[derive(Debug, Clone)]
pub struct Bases {
    store: Gallery,
    /// Held while a basis is read, changed and written back, so that the requests of one server do
    /// not repeat their work. If another server was first, the work is repeated.
    update: Arc<AsyncMutex<()>>,
}

impl Bases {
    /// Returns the bases of a store.
    pub fn new(store: Gallery) -> Self {
        Self {
            store,
            update: Arc::default(),
        }
    }

    /// Fits `components` components on images and stores them. Replaces a basis of that name, but
    /// leaves it unchanged on an error. Also returns whether the name is new.
    pub async fn fit(
        &self,
        extractor: &Extractor,
        name: &BasisName,
        images: BasisImages,
        image: &ImageOptions,
        components: usize,
    ) -> Result<Timed<(StoredBasis, bool)>> {
        let spec = extractor.engine().spec();
        let preparation = match images {
            BasisImages::Files(_) => of_files(extractor, image),
            BasisImages::Gallery { .. } => Preparation {
                // A strip of a gallery would otherwise have too many patches.
                shrinks: true,
                // A thumbnail has no more pixels than that.
                ..image.over(&Preprocessing::new(ResizeMode::Fit, spec.embed_size))
            },
        };
        let fitting = Fitting::new(extractor, preparation, components)?;
        let stages = self.add_all(&fitting, images).await?;
        let value = self.finish(fitting, name).await?;
        Ok(Timed { value, stages })
    }

    /// Begins to fit a basis on image files, which are added one by one.
    pub fn begin<'a>(
        extractor: &'a Extractor,
        image: &ImageOptions,
        components: usize,
    ) -> Result<Fitting<'a>> {
        Fitting::new(extractor, of_files(extractor, image), components)
    }

    /// Stores the basis of the images that were added. Also returns whether the name is new.
    pub async fn finish(
        &self,
        fitting: Fitting<'_>,
        name: &BasisName,
    ) -> Result<(StoredBasis, bool)> {
        let (extractor, components) = (fitting.extractor, fitting.components);
        let about = BasisInfo {
            model: extractor.engine().model_id().clone(),
            preprocessing: fitting.preprocessing(),
            images: 0,
            patches: 0,
        };
        let moments = fitting.moments()?;
        let _update = self.update.lock().await;
        let names = self.store.documents(DocumentKind::Basis).await?;
        let created = !names.iter().any(|known| known == name.as_str());
        let (basis, document) = Self::encode(extractor, name, about, moments, components).await?;
        self.store.put_document(name.into(), document).await?;
        Ok((basis, created))
    }

    /// Fits a basis again on its images and on new ones, which are prepared in the same way.
    /// No image is lost if several requests or servers add images at the same time.
    ///
    /// # Errors
    /// [`Kind::Conflict`] also if the basis is replaced concurrently.
    pub async fn add(
        &self,
        model: &ModelChoice,
        name: &BasisName,
        images: BasisImages,
    ) -> Result<Timed<StoredBasis>> {
        let before = self.get(name).await?;
        let extractor = &before.model(model)?;
        let preparation = Preparation {
            preprocessing: before.about.preprocessing,
            decoding: Decoding::default(),
            shrinks: false,
            quarter_turns: 0,
        };
        let components = before.basis.ranges().len();
        let fitting = Fitting::new(extractor, preparation, components)?;
        let stages = self.add_all(&fitting, images).await?;
        let added = fitting.moments()?;
        // Taken after the inference, so that others wait only for the store.
        let _update = self.update.lock().await;
        loop {
            let bytes = self.store.require_document(name.into()).await?;
            let (current, moments) = merged(name, &before, &bytes, added.clone())?;
            let components = current.basis.ranges().len();
            let (basis, document) =
                Self::encode(extractor, name, current.about, moments, components).await?;
            let key = DocumentKey::from(name);
            if self.store.replace_document(key, &bytes, document).await? {
                let value = basis;
                return Ok(Timed { value, stages });
            }
        }
    }

    /// Returns a basis.
    pub async fn get(&self, name: &BasisName) -> Result<StoredBasis> {
        let bytes = self.store.require_document(name.into()).await?;
        StoredBasis::read(name, &Document::read(&bytes)?)
    }

    /// Returns all bases, by name, without damaged ones.
    pub async fn list(&self) -> Result<Vec<StoredBasis>> {
        let mut bases = Vec::new();
        for name in self.store.documents(DocumentKind::Basis).await? {
            let name = BasisName::new(name)?;
            // A basis can be deleted after the names were read.
            if let Some(bytes) = self.store.document((&name).into()).await? {
                let basis = Document::read(&bytes);
                match basis.and_then(|document| StoredBasis::read(&name, &document)) {
                    Ok(basis) => bases.push(basis),
                    Err(error) => tracing::error!(%error, basis = %name, "cannot be used"),
                }
            }
        }
        Ok(bases)
    }

    /// Deletes a basis.
    pub async fn remove(&self, name: &BasisName) -> Result<()> {
        let key = DocumentKey::from(name);
        let _update = self.update.lock().await;
        if self.store.remove_document(key).await? {
            return Ok(());
        }
        Err(key.missing())
    }

    /// Adds images, of which one that cannot be read is an error.
    async fn add_all(&self, fitting: &Fitting<'_>, images: BasisImages) -> Result<Stages> {
        let files = images.into_files(&self.store).await?;
        let count = files.len();
        stream::iter(files.into_iter().enumerate())
            .map(async |(index, file)| {
                let added = fitting.add(file).await;
                added.map_err(|error| at_image(error, index, count))
            })
            .buffered(fitting.max_concurrent_images())
            .try_fold(Stages::default(), async |all, of_image| {
                Ok(all.longest(of_image))
            })
            .await
    }

    /// Fits a basis, and encodes it with its moments.
    async fn encode(
        extractor: &Extractor,
        name: &BasisName,
        about: BasisInfo,
        moments: Moments,
        components: usize,
    ) -> Result<(StoredBasis, Bytes)> {
        let about = BasisInfo {
            images: moments.images(),
            patches: moments.patches(),
            ..about
        };
        let text = serde_json::to_string(&about).internal("describing a basis")?;
        let fit = move || {
            let basis = moments.fit(components)?;
            let document = document::encode(&basis, &moments, &text)?;
            Ok((basis, document))
        };
        let (basis, document) = extractor.on_blocking_thread("fitting a basis", fit).await?;
        let name = name.clone();
        Ok((StoredBasis { name, about, basis }, document.into()))
    }
}

/// Reads a stored basis, and merges the moments of new images into its own. Fails if it is no
/// longer one of the same features as `before`.
fn merged(
    name: &BasisName,
    before: &StoredBasis,
    bytes: &[u8],
    added: Moments,
) -> Result<(StoredBasis, Moments)> {
    let document = Document::read(bytes)?;
    let current = StoredBasis::read(name, &document)?;
    if current.about.preprocessing != before.about.preprocessing
        || current.about.model.fingerprint != before.about.model.fingerprint
    {
        let detail =
            format!("the basis `{name}` was replaced meanwhile by one of other options; try again");
        return Err(Error::new(Kind::Conflict, detail));
    }
    let mut moments = document.moments()?;
    if moments.dim() != current.basis.dim() {
        let detail = format!("the basis `{name}` is damaged: its parts have several widths");
        return Err(Error::damaged(detail));
    }
    moments.merge(added);
    Ok((current, moments))
}
