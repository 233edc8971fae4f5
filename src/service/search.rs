//! Nearest neighbors of a stored item, of an image, or of a vector.

use std::time::Instant;

use super::{
    ImageOptions, Service, Stages, VectorOptions,
    binding::{binding_preparation, embed_options},
    query::{QueryInput, resolve, unit_vector, unit_vector_of_model},
    stages::Timed,
};
use crate::{
    error::Result,
    gallery::{Binding, GalleryName, ItemFilter, ItemId, Neighbor, Parts, Search},
    telemetry,
};

/// How neighbors are sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchOptions {
    /// How many.
    pub k: usize,
    /// Compare with every item, without the approximate index.
    pub exact: bool,
}

impl Default for SearchOptions {
    /// The k of DINO's evaluation.
    fn default() -> Self {
        Self {
            k: 20,
            exact: false,
        }
    }
}

/// An answer about each subject of a request.
#[derive(Debug)]
pub struct Answers<T> {
    /// What the vectors of the gallery are.
    pub binding: Binding,
    /// What was found for each subject, or what is wrong with it.
    pub outcomes: Vec<Result<T>>,
    /// The longest of each stage.
    pub stages: Stages,
}

impl Service {
    /// The neighbors of a stored item; it is its own only `with_itself`.
    ///
    /// # Errors
    /// [`crate::error::Kind::NotFound`] if there is no such gallery or item,
    /// [`crate::error::Kind::InvalidOption`] or [`crate::error::Kind::LimitExceeded`] for a bad
    /// `k`.
    pub async fn neighbors_of_item(
        &self,
        name: &GalleryName,
        id: &ItemId,
        options: SearchOptions,
        filter: Option<ItemFilter>,
        with_itself: bool,
    ) -> Result<(Binding, Vec<Neighbor>, Stages)> {
        let store = self.gallery()?;
        self.gallery_limits.check_neighbors(options.k)?;
        let binding = store.require_gallery(name).await?.binding;
        let vector = store
            .require_item(
                name,
                id,
                Parts {
                    vector: true,
                    ..Parts::NONE
                },
            )
            .await?
            .vector;
        let except = (!with_itself).then(|| id.clone());
        let mut stages = Stages::default();
        let neighbors = self
            .search(
                name,
                Search {
                    except,
                    ..search(vector, &binding, options, filter)
                },
                &mut stages,
            )
            .await?;
        Ok((binding, neighbors, stages))
    }

    /// The neighbors of each subject.
    ///
    /// # Errors
    /// [`crate::error::Kind::NotFound`] if there is no such gallery,
    /// [`crate::error::Kind::Conflict`] if it holds vectors of another kind,
    /// [`crate::error::Kind::InvalidOption`] or [`crate::error::Kind::LimitExceeded`] for a bad
    /// `k`.
    pub async fn neighbors(
        &self,
        name: &GalleryName,
        inputs: Vec<QueryInput>,
        kind: (&ImageOptions, &VectorOptions),
        options: SearchOptions,
        filter: Option<ItemFilter>,
    ) -> Result<Answers<Vec<Neighbor>>> {
        self.gallery_limits.check_neighbors(options.k)?;
        let Answers {
            binding,
            outcomes: vectors,
            mut stages,
        } = self.vectors(name, inputs, kind).await?;
        let mut outcomes = Vec::with_capacity(vectors.len());
        for vector in vectors {
            outcomes.push(match vector {
                Ok(vector) => {
                    let search = search(vector, &binding, options, filter.clone());
                    Ok(self.search(name, search, &mut stages).await?)
                }
                Err(error) => Err(error),
            });
        }
        Ok(Answers {
            binding,
            outcomes,
            stages,
        })
    }

    /// The vector of each subject as the gallery would store it.
    pub(super) async fn vectors(
        &self,
        name: &GalleryName,
        inputs: Vec<QueryInput>,
        (image, vectors): (&ImageOptions, &VectorOptions),
    ) -> Result<Answers<Vec<f32>>> {
        let by_model = inputs.iter().any(QueryInput::is_image);
        let binding = self.binding_to_read(name, image, vectors, by_model).await?;
        let extractor = &self.extractor;
        let dim = binding.dim;
        let preparation = binding_preparation(&binding, image.decode);
        let options = embed_options(&binding);
        let Timed {
            value: outcomes,
            stages,
        } = resolve(
            inputs,
            extractor.engine().max_concurrent_images(),
            move |file| async move {
                extractor
                    .embed_file(file, preparation, &options)
                    .await?
                    .try_map(|embedding| unit_vector_of_model(embedding.vector, dim))
            },
            |vector| unit_vector(vector, dim),
        )
        .await;
        Ok(Answers {
            binding,
            outcomes,
            stages,
        })
    }

    /// Searches, and adds the time to the stage.
    pub(super) async fn search(
        &self,
        name: &GalleryName,
        search: Search,
        stages: &mut Stages,
    ) -> Result<Vec<Neighbor>> {
        let started = Instant::now();
        let neighbors = self.gallery()?.search(name, search).await?;
        let took = started.elapsed();
        telemetry::metrics()
            .gallery_search_duration
            .observe(took.as_secs_f64());
        stages.search += took;
        Ok(neighbors)
    }
}

/// A search for all neighbors.
pub(super) fn search(
    vector: Vec<f32>,
    binding: &Binding,
    options: SearchOptions,
    filter: Option<ItemFilter>,
) -> Search {
    Search {
        binding: Some(binding.clone()),
        filter,
        exact: options.exact,
        ..Search::new(vector, options.k)
    }
}
