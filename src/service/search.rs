//! Nearest neighbors of stored items, images and vectors.

use std::time::Instant;

use super::{
    binding::{InputOptions, check_input, embed_options, preparation},
    galleries::{Galleries, GalleryLimits},
    models::ModelChoice,
    query::{QueryInput, resolve, unit_vector, unit_vector_of_model},
    stages::{Stages, Timed},
};
use crate::{
    error::Result,
    gallery::{Binding, GalleryName, ItemFilter, ItemId, Neighbor, Query, Search},
    telemetry,
};

/// Options of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchOptions {
    /// Number of neighbors.
    pub k: usize,
    /// Whether to compare every item, without the approximate index.
    pub exact: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            // As in DINO's evaluation.
            k: 20,
            exact: false,
        }
    }
}

/// A search for neighbors in a gallery.
#[derive(Debug, Clone)]
pub struct NeighborQuery {
    /// Gallery to search.
    pub gallery: GalleryName,
    /// Options of the search.
    pub search: SearchOptions,
    /// Condition on the neighbors.
    pub filter: Option<ItemFilter>,
}

impl NeighborQuery {
    /// Rejects a query above a limit.
    pub(super) fn check(&self, limits: &GalleryLimits) -> Result<()> {
        limits.check_neighbors(self.search.k)?;
        limits.check_filter(self.filter.as_ref())
    }

    /// Returns the search for the neighbors of one query.
    pub(super) fn search(&self, of: Query, binding: &Binding) -> Search {
        Search {
            binding: Some(binding.clone()),
            filter: self.filter.clone(),
            exact: self.search.exact,
            ..Search::of(of, self.search.k)
        }
    }
}

/// Outcomes for the inputs of a request.
#[derive(Debug)]
pub struct Answers<T> {
    /// Binding of the gallery.
    pub binding: Binding,
    /// Value or error of each input.
    pub outcomes: Vec<Result<T>>,
}

impl Galleries {
    /// Finds the neighbors of a stored item, by falling score, and the binding of the gallery. The
    /// item itself is left out unless `include_self`.
    pub async fn neighbors_of_item(
        &self,
        model: &ModelChoice,
        query: &NeighborQuery,
        id: &ItemId,
        include_self: bool,
    ) -> Result<Timed<(Binding, Vec<Neighbor>)>> {
        query.check(self.limits())?;
        let name = &query.gallery;
        let binding = self.store().require_gallery(name).await?.binding;
        model.allow(&binding.model, format_args!("the gallery `{name}` holds"))?;
        let mut search = query.search(Query::Item(id.clone()), &binding);
        search.except = (!include_self).then(|| id.clone());
        let mut stages = Stages::default();
        let neighbors = self.search(name, search, &mut stages).await?;
        let value = (binding, neighbors);
        Ok(Timed { value, stages })
    }

    /// Finds the neighbors of each input.
    pub async fn neighbors(
        &self,
        model: &ModelChoice,
        query: &NeighborQuery,
        inputs: Vec<QueryInput>,
        options: &InputOptions,
    ) -> Result<Timed<Answers<Vec<Neighbor>>>> {
        query.check(self.limits())?;
        let vectors = self.vectors(model, &query.gallery, inputs, options);
        let Timed { value, mut stages } = vectors.await?;
        let binding = value.binding;
        let mut outcomes = Vec::with_capacity(value.outcomes.len());
        for vector in value.outcomes {
            outcomes.push(match vector {
                Ok(vector) => {
                    let search = query.search(Query::Vector(vector), &binding);
                    Ok(self.search(&query.gallery, search, &mut stages).await?)
                }
                Err(error) => Err(error),
            });
        }
        let value = Answers { binding, outcomes };
        Ok(Timed { value, stages })
    }

    /// Returns the vector of each input as the gallery would store it.
    pub(super) async fn vectors(
        &self,
        model: &ModelChoice,
        name: &GalleryName,
        inputs: Vec<QueryInput>,
        options: &InputOptions,
    ) -> Result<Timed<Answers<Vec<f32>>>> {
        let has_images = inputs.iter().any(QueryInput::is_image);
        let binding = self.store().require_gallery(name).await?.binding;
        let extractor = &check_input(model, name, &binding, options, has_images)?;
        let dim = binding.dim;
        let preparation = preparation(&binding, &options.image);
        let embed = embed_options(&binding);
        let vectors = resolve(
            inputs,
            extractor.engine().max_concurrent_images(),
            move |file| async move {
                extractor
                    .embed_file(file, preparation, &embed)
                    .await?
                    .try_map(|embedding| unit_vector_of_model(embedding.vector, dim))
            },
            |vector| unit_vector(vector, dim),
        )
        .await;
        Ok(vectors.map(|outcomes| Answers { binding, outcomes }))
    }

    /// Searches, and adds the duration to `stages`.
    pub(super) async fn search(
        &self,
        name: &GalleryName,
        search: Search,
        stages: &mut Stages,
    ) -> Result<Vec<Neighbor>> {
        let started = Instant::now();
        let neighbors = self.search_store(name, search).await?;
        let duration = started.elapsed();
        telemetry::metrics()
            .gallery_search_duration
            .observe(duration.as_secs_f64());
        stages.search += duration;
        Ok(neighbors)
    }
}
