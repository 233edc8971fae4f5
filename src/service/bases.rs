//! PCA bases that are kept: fitted on many images, so that the same part has the same color in
//! every picture.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Decoding, ImageOptions, Service, Stages,
    extractor::ExtractRequest,
    images::{Preparation, at_image},
    stages::Timed,
};
use crate::{
    engine::RequestedOutputs,
    error::{Error, Kind, Result},
    features::pca::{
        Basis, Moments,
        document::{self, Document},
    },
    gallery::{BasisName, DocumentKey, DocumentKind, GalleryName, ItemStream, Parts, StoredItem},
    model::ModelId,
    vision::{Preprocessing, ResizeMode},
};

/// What a basis is fitted on.
#[derive(Debug)]
pub enum BasisImages {
    /// Image files.
    Files(Vec<Bytes>),
    /// The thumbnails of some items of a gallery, the same each time. They are small, so this is an
    /// approximation.
    Gallery {
        /// Which gallery.
        name: GalleryName,
        /// Of how many items.
        sample: usize,
    },
}

/// How a basis came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BasisInfo {
    /// Model of the features.
    #[serde(flatten)]
    pub model: ModelId,
    /// How images became the model's input; added images are prepared alike.
    #[serde(flatten)]
    pub preprocessing: Preprocessing,
    /// How many images it was fitted on.
    pub images: u64,
    /// How many patches these had.
    pub patches: u64,
}

/// A basis as it is kept.
#[derive(Debug, Clone)]
pub struct StoredBasis {
    /// Its name.
    pub name: BasisName,
    /// How it came about.
    pub about: BasisInfo,
    /// Mean, components and ranges.
    pub basis: Basis,
}

impl StoredBasis {
    fn read(name: &BasisName, document: &Document<'_>) -> Result<Self> {
        let about = serde_json::from_str(document.about()?).map_err(|error| {
            Error::artifact(format!(
                "what is known of the basis `{name}` is damaged: {error}"
            ))
        })?;
        Ok(Self {
            name: name.clone(),
            about,
            basis: document.basis()?,
        })
    }

    fn check_model(&self, served: &ModelId) -> Result<()> {
        let holder = format_args!("the basis `{}`", self.name);
        let advice = "fit the basis again with PUT";
        self.about.model.require(served, holder, advice)
    }
}

impl Service {
    /// Fits `count` components on images and keeps them under a name. Tells whether the name was
    /// new.
    ///
    /// # Errors
    /// The first image that cannot be used, by its index; [`Kind::InvalidOption`] for a bad option,
    /// [`Kind::NotFound`] without a gallery of that name. What was kept under the name then stays
    /// as it was.
    pub async fn fit_basis(
        &self,
        name: &BasisName,
        images: BasisImages,
        image: &ImageOptions,
        count: usize,
    ) -> Result<(StoredBasis, bool, Stages)> {
        let store = self.gallery()?;
        let spec = self.extractor.engine().spec();
        if count == 0 || count > spec.architecture.dim {
            let detail = format!(
                "{count} is out of range; it must be 1 to {}",
                spec.architecture.dim
            );
            return Err(Error::option("components", detail));
        }
        let size = match images {
            BasisImages::Files(_) => spec.map_size,
            // A thumbnail has no more pixels than that.
            BasisImages::Gallery { .. } => spec.embed_size,
        };
        let preparation = image.over(&Preprocessing::new(ResizeMode::Fit, size));
        let about = BasisInfo {
            model: self.extractor.engine().model_id().clone(),
            preprocessing: preparation.preprocessing,
            images: 0,
            patches: 0,
        };
        let (moments, stages) = self.moments(images, preparation).await?;
        let _turn = self.basis_turn.lock().await;
        let known = store.documents(DocumentKind::Basis).await?;
        let new = !known.iter().any(|known| known == name.as_str());
        Ok((self.keep(name, about, moments, count).await?, new, stages))
    }

    /// Adds images to those that a basis is fitted on; they are seen as its first were. Who adds at
    /// the same time waits for the other; of two servers on one store that do so, the later one
    /// wins.
    ///
    /// # Errors
    /// As [`Service::fit_basis`] and [`Service::basis`]; [`Kind::Conflict`] for a basis of another
    /// model, or one that was replaced meanwhile.
    pub async fn add_to_basis(
        &self,
        name: &BasisName,
        images: BasisImages,
    ) -> Result<(StoredBasis, Stages)> {
        let known = self.basis(name).await?;
        known.check_model(self.extractor.engine().model_id())?;
        let preparation = Preparation {
            preprocessing: known.about.preprocessing,
            decoding: Decoding::default(),
        };
        let (added, stages) = self.moments(images, preparation).await?;
        // The model has done its work: others wait only for the store.
        let _turn = self.basis_turn.lock().await;
        let stored = self.gallery()?.require_document(name.into()).await?;
        let document = Document::read(&stored)?;
        let current = StoredBasis::read(name, &document)?;
        if current.about.preprocessing != known.about.preprocessing
            || current.about.model.fingerprint != known.about.model.fingerprint
        {
            let detail = format!(
                "the basis `{name}` was replaced by one of other options meanwhile; try again"
            );
            return Err(Error::new(Kind::Conflict, detail));
        }
        let mut moments = document.moments()?;
        moments.merge(added);
        let count = current.basis.ranges().len();
        Ok((
            self.keep(name, current.about, moments, count).await?,
            stages,
        ))
    }

    /// The basis of that name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none, or the server keeps no gallery.
    pub async fn basis(&self, name: &BasisName) -> Result<StoredBasis> {
        let document = self.gallery()?.require_document(name.into()).await?;
        StoredBasis::read(name, &Document::read(&document)?)
    }

    /// All bases, by name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the server keeps no gallery.
    pub async fn bases(&self) -> Result<Vec<StoredBasis>> {
        let store = self.gallery()?;
        let mut found = Vec::new();
        for name in store.documents(DocumentKind::Basis).await? {
            let name = BasisName::new(name)?;
            // `None` if it was deleted since the names were listed.
            if let Some(document) = store.document((&name).into()).await? {
                found.push(StoredBasis::read(&name, &Document::read(&document)?)?);
            }
        }
        Ok(found)
    }

    /// Deletes the basis of that name.
    ///
    /// # Errors
    /// As [`Service::basis`].
    pub async fn remove_basis(&self, name: &BasisName) -> Result<()> {
        let _turn = self.basis_turn.lock().await;
        match self.gallery()?.remove_document(name.into()).await? {
            true => Ok(()),
            false => Err(DocumentKey::from(name).missing()),
        }
    }

    /// The basis of that name, for features of this server's model.
    pub(super) async fn basis_of_model(&self, name: &BasisName) -> Result<Basis> {
        let kept = self.basis(name).await?;
        kept.check_model(self.extractor.engine().model_id())?;
        Ok(kept.basis)
    }

    /// What there is to know of the patch tokens of images. Takes the memory of the images that are
    /// worked on, not of all.
    async fn moments(
        &self,
        images: BasisImages,
        preparation: Preparation,
    ) -> Result<(Moments, Stages)> {
        let files = match images {
            BasisImages::Files(files) => files,
            BasisImages::Gallery { name, sample } => self.thumbnails(&name, sample).await?,
        };
        let count = files.len();
        let request = ExtractRequest {
            preparation,
            outputs: RequestedOutputs {
                patch_tokens: true,
                ..RequestedOutputs::default()
            },
            with_image: false,
        };
        let moments = Arc::new(Mutex::new(Moments::new(
            self.extractor.engine().spec().architecture.dim,
        )));
        let add = async |(index, file): (usize, Bytes)| {
            let extracted = self.extractor.extract(file, request).await;
            let Timed {
                value: image,
                stages,
            } = extracted.map_err(|error| at_image(error, index, count))?;
            let all = Arc::clone(&moments);
            let merge = move || {
                let of_image = Moments::of(image.patch_tokens());
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .merge(of_image);
                Ok(())
            };
            self.extractor
                .on_blocking_thread("adding to a basis", merge)
                .await?;
            Ok::<_, Error>(stages)
        };
        let work = stream::iter(files.into_iter().enumerate())
            .map(add)
            .buffered(self.extractor.engine().max_concurrent_images());
        let stages = work
            .try_fold(Stages::default(), async |all, of_image| {
                Ok(all.longest(of_image))
            })
            .await?;
        let moments = Arc::into_inner(moments)
            .ok_or_else(|| Error::internal("an image is still being added"))?;
        Ok((
            moments.into_inner().unwrap_or_else(PoisonError::into_inner),
            stages,
        ))
    }

    /// Fits and stores.
    async fn keep(
        &self,
        name: &BasisName,
        about: BasisInfo,
        moments: Moments,
        count: usize,
    ) -> Result<StoredBasis> {
        let about = BasisInfo {
            images: moments.images(),
            patches: moments.patches(),
            ..about
        };
        let text =
            serde_json::to_string(&about).map_err(|error| Error::internal(error.to_string()))?;
        let fit = move || {
            let basis = moments.fit(count)?;
            let document = document::encode(&basis, &moments, &text)?;
            Ok((basis, document))
        };
        let (basis, document) = self
            .extractor
            .on_blocking_thread("fitting a basis", fit)
            .await?;
        self.gallery()?
            .put_document(name.into(), document.into())
            .await?;
        Ok(StoredBasis {
            name: name.clone(),
            about,
            basis,
        })
    }

    /// Thumbnails of `sample` items of a gallery: those whose ids have the least hashes, which are
    /// an even sample and the same each time. Items that came as vectors have none.
    async fn thumbnails(&self, gallery: &GalleryName, sample: usize) -> Result<Vec<Bytes>> {
        let store = self.gallery()?;
        let parts = Parts {
            thumbnail: true,
            ..Parts::NONE
        };
        let chosen = least_hashes(store.read(gallery, Parts::NONE).await?, sample, |item| {
            Some(item.item.id)
        })
        .await?;
        let mut thumbnails = Vec::new();
        for id in &chosen {
            let stored = store.get(gallery, id, parts).await?;
            thumbnails.extend(stored.and_then(|stored| stored.thumbnail));
        }
        if thumbnails.len() < chosen.len() {
            // Some have none. Reading all pictures takes longer, so it is done only now.
            thumbnails = least_hashes(store.read(gallery, parts).await?, sample, |item| {
                item.thumbnail
            })
            .await?;
        }
        if thumbnails.is_empty() {
            let detail = format!("`{gallery}` has no items with pictures to fit a basis on");
            return Err(Error::option("gallery", detail));
        }
        Ok(thumbnails)
    }
}

/// What `keep` takes of the `count` items whose ids have the least hashes, of those that it takes
/// something of.
async fn least_hashes<T>(
    mut items: ItemStream,
    count: usize,
    keep: impl Fn(StoredItem) -> Option<T>,
) -> Result<Vec<T>> {
    let mut chosen: BTreeMap<[u8; 32], T> = BTreeMap::new();
    while let Some(stored) = items.try_next().await? {
        let hash = Sha256::digest(stored.item.id.as_str()).into();
        if let Some(kept) = keep(stored) {
            chosen.insert(hash, kept);
            if chosen.len() > count {
                chosen.pop_last();
            }
        }
    }
    Ok(chosen.into_values().collect())
}
