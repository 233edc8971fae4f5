//! Storing: an image goes through the model once and leaves a vector, the features of probes, and a
//! thumbnail.

use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    Decoding, ImageOptions, Service, Stages, VectorOptions,
    binding::{binding_preparation, embed_options},
    extractor::ExtractRequest,
    query::{QueryInput, unit_vector, unit_vector_of_model},
    stages::Timed,
};
use crate::{
    engine::RequestedOutputs,
    error::{Error, Result},
    features::pool::Pooling,
    gallery::{Binding, GalleryName, ItemId, Label, Metadata, NewItem, Written},
    vision::thumbnail,
};

/// What is to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEntry {
    /// Its id.
    pub id: ItemId,
    /// What it shows.
    pub label: Option<Label>,
    /// What else is known of it.
    pub metadata: Metadata,
    /// What its vector is made of.
    pub input: QueryInput,
}

/// What became of entries.
#[derive(Debug)]
pub struct Inserted {
    /// What the vectors of the gallery are.
    pub binding: Binding,
    /// Outcome of each entry.
    pub outcomes: Vec<Result<Written>>,
    /// The longest of each stage.
    pub stages: Stages,
}

/// What a gallery keeps of an image.
struct StoredFeatures {
    vector: Vec<f32>,
    features: Vec<f32>,
    thumbnail: Vec<u8>,
}

impl Service {
    /// Stores what is good of `entries`, in one transaction. The gallery is made if there is none.
    ///
    /// # Errors
    /// [`crate::error::Kind::Conflict`] if the gallery holds vectors of another kind, and as
    /// [`crate::gallery::GalleryStore::put`]; nothing is stored then.
    pub async fn insert(
        &self,
        name: &GalleryName,
        entries: Vec<NewEntry>,
        image: &ImageOptions,
        vectors: &VectorOptions,
    ) -> Result<Inserted> {
        let store = self.gallery()?;
        let by_model = entries.iter().any(|entry| entry.input.is_image());
        let binding = self
            .binding_to_write(name, image, vectors, by_model)
            .await?;
        let work = stream::iter(entries).map(|entry| self.new_item(entry, &binding, image.decode));
        let mut work = work.buffered(self.extractor.engine().max_concurrent_images());
        let (mut items, mut outcomes, mut stages) = (Vec::new(), Vec::new(), Stages::default());
        while let Some(outcome) = work.next().await {
            outcomes.push(outcome.map(|(item, of_item)| {
                stages = stages.longest(of_item);
                items.push(item);
            }));
        }
        drop(work);
        let written = if items.is_empty() {
            Vec::new()
        } else {
            store.put(name, &binding, items).await?
        };
        let mut written = written.into_iter();
        let outcomes = outcomes
            .into_iter()
            .map(|outcome| {
                outcome.and_then(|()| {
                    written
                        .next()
                        .ok_or_else(|| Error::internal("the store lost an outcome"))
                })
            })
            .collect();
        Ok(Inserted {
            binding,
            outcomes,
            stages,
        })
    }

    async fn new_item(
        &self,
        entry: NewEntry,
        binding: &Binding,
        decode: Decoding,
    ) -> Result<(NewItem, Stages)> {
        let NewEntry {
            id,
            label,
            metadata,
            input,
        } = entry;
        match input {
            QueryInput::Vector(vector) => {
                let vector = unit_vector(vector, binding.dim)?;
                let item = NewItem {
                    id,
                    label,
                    metadata,
                    vector,
                    features: None,
                    thumbnail: None,
                };
                Ok((item, Stages::default()))
            }
            QueryInput::Image(file) => {
                let Timed {
                    value:
                        StoredFeatures {
                            vector,
                            features,
                            thumbnail,
                        },
                    stages,
                } = self.extract_item(file, binding, decode).await?;
                let (features, thumbnail) = (Some(features), Some(thumbnail.into()));
                Ok((
                    NewItem {
                        id,
                        label,
                        metadata,
                        vector,
                        features,
                        thumbnail,
                    },
                    stages,
                ))
            }
        }
    }

    async fn extract_item(
        &self,
        file: Bytes,
        binding: &Binding,
        decode: Decoding,
    ) -> Result<Timed<StoredFeatures>> {
        let options = embed_options(binding);
        let dim = binding.dim;
        let request = ExtractRequest {
            preparation: binding_preparation(binding, decode),
            outputs: RequestedOutputs {
                patch_tokens: true,
                ..options.outputs()
            },
            with_image: true,
        };
        let Timed {
            value: image,
            stages,
        } = self.extractor.extract(file, request).await?;
        let side = self.gallery_limits.thumbnail_side;
        let started = Instant::now();
        let work = move || {
            let cls = image.features.cls.view();
            let mut features = Vec::with_capacity(2 * cls.len());
            Pooling::ClsMean.pool(cls, image.patch_tokens(), &mut features);
            Ok(StoredFeatures {
                vector: unit_vector_of_model(options.vector(&image.features), dim)?,
                features,
                thumbnail: thumbnail(image.image(), side)?,
            })
        };
        let value = self
            .extractor
            .on_blocking_thread("making a thumbnail", work)
            .await?;
        let stages = Stages {
            post: started.elapsed(),
            ..stages
        };
        stages.observe();
        Ok(Timed { value, stages })
    }
}
