//! Storing of items. An image goes through the model once; the gallery keeps its vector, the
//! features for probes, and a thumbnail.

use std::time::Instant;

use futures_util::{StreamExt, stream};

use super::{
    binding::{InputOptions, embed_options, preparation},
    extractor::{ExtractRequest, Extractor},
    galleries::Galleries,
    images::ImageOptions,
    models::ModelChoice,
    query::{QueryInput, unit_vector, unit_vector_of_model},
    search::Answers,
    stages::Timed,
};
use crate::{
    engine::RequestedOutputs,
    error::{Error, Kind, Result},
    features::pool::Pooling,
    gallery::{Binding, GalleryName, ItemId, Label, Metadata, NewItem, Written},
    names::option_enum,
};

/// An item to store.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEntry {
    /// Id of the item.
    pub id: ItemId,
    /// Class label.
    pub label: Option<Label>,
    /// Further facts about the item.
    pub metadata: Metadata,
    /// Content: an image or a vector.
    pub input: QueryInput,
    /// Features for probes of an item that is a vector: CLS and the mean of the patch tokens, one
    /// after the other.
    pub features: Option<Vec<f32>>,
}

option_enum! {
    /// What happens to a new item whose id is stored already.
    #[derive(Default)]
    pub enum OnConflict {
        /// It replaces the stored item.
        #[default]
        Replace,
        /// It is skipped, and the stored item stays.
        Skip,
        /// It fails, and the stored item stays.
        Error,
    }
}

impl Galleries {
    /// Stores all valid entries in one transaction. Creates the gallery if it does not exist.
    ///
    /// The outcome of an entry is a [`Kind::Conflict`] if its id is stored already and
    /// `on_conflict` is [`OnConflict::Error`].
    pub async fn insert(
        &self,
        model: &ModelChoice,
        name: &GalleryName,
        entries: Vec<NewEntry>,
        options: &InputOptions,
        on_conflict: OnConflict,
    ) -> Result<Timed<Answers<Written>>> {
        let has_images = entries.iter().any(|entry| entry.input.is_image());
        let (extractor, binding) = self
            .binding_to_write(model, name, options, has_images)
            .await?;
        let work = stream::iter(entries)
            .map(|entry| self.new_item(&extractor, entry, &binding, &options.image))
            .buffered(extractor.engine().max_concurrent_images());
        let Timed { value, stages } = Timed::collect(work).await;
        let mut items = Vec::with_capacity(value.len());
        let mut outcomes = Vec::with_capacity(value.len());
        for outcome in value {
            outcomes.push(outcome.map(|item: NewItem| {
                let id = item.id.clone();
                items.push(item);
                id
            }));
        }
        let written = match (items.is_empty(), on_conflict) {
            (true, _) => Vec::new(),
            (false, OnConflict::Replace) => self.store().put(name, &binding, items).await?,
            (false, OnConflict::Skip | OnConflict::Error) => {
                self.store().put_new(name, &binding, items).await?
            }
        };
        let mut written = written.into_iter();
        let outcomes = outcomes
            .into_iter()
            .map(|outcome| {
                let id = outcome?;
                match written.next() {
                    Some(Written::Kept { .. }) if on_conflict == OnConflict::Error => {
                        Err(is_stored(name, &id))
                    }
                    Some(written) => Ok(written),
                    None => Err(Error::internal("the store lost an outcome")),
                }
            })
            .collect();
        let value = Answers { binding, outcomes };
        Ok(Timed { value, stages })
    }

    /// Makes the item to store of an entry. `binding` is that of the gallery.
    pub async fn new_item(
        &self,
        extractor: &Extractor,
        entry: NewEntry,
        binding: &Binding,
        image: &ImageOptions,
    ) -> Result<Timed<NewItem>> {
        let dim = binding.dim;
        let item = NewItem {
            id: entry.id,
            label: entry.label,
            metadata: entry.metadata,
            vector: Vec::new(),
            features: None,
            thumbnail: None,
        };
        let file = match entry.input {
            QueryInput::Image(_) if entry.features.is_some() => {
                let detail = "the model makes those of an image; leave them out";
                return Err(Error::option("features", detail));
            }
            QueryInput::Image(file) => file,
            QueryInput::Vector(vector) => {
                let vector = unit_vector(vector, dim)?;
                let features = entry.features;
                if let Some(features) = &features {
                    binding.check_features(features)?;
                }
                let item = NewItem {
                    vector,
                    features,
                    ..item
                };
                return Ok(Timed::instant(item));
            }
        };
        let options = embed_options(binding);
        let request = ExtractRequest {
            preparation: preparation(binding, image),
            outputs: RequestedOutputs {
                patch_tokens: true,
                ..options.outputs()
            },
            with_image: false,
        };
        let extracted = extractor.extract(file.clone(), request).await?;
        let image = extracted.value;
        let side = self.limits().thumbnail_side;
        let started = Instant::now();
        let thumbnail = extractor.thumbnail(file, binding.preprocessing, side);
        let thumbnail = thumbnail.await?;
        let pool = move || {
            let cls = image.features.cls.view();
            let mut features = Vec::with_capacity(2 * cls.len());
            Pooling::ClsMean.pool(cls, image.patch_tokens(), &mut features);
            Ok(NewItem {
                vector: unit_vector_of_model(options.vector(&image.features), dim)?,
                features: Some(features),
                thumbnail: Some(thumbnail),
                ..item
            })
        };
        let item = extractor.on_blocking_thread("pooling features", pool);
        Ok(extracted.stages.finish(started, item.await?))
    }
}

fn is_stored(name: &GalleryName, id: &ItemId) -> Error {
    let detail = format!(
        "the gallery `{name}` already has an item {:?}; choose another id, or set \
         on_conflict=replace or on_conflict=skip",
        id.as_str()
    );
    Error::new(Kind::Conflict, detail)
}
