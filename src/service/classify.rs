//! Labels for images that have none: the labeled neighbors vote.

use std::collections::BTreeSet;

use super::{
    Answers, ImageOptions, QueryInput, SearchOptions, Service, Stages, VectorOptions,
    search::search,
};
use crate::{
    error::{Error, Result},
    features::vote::{self, Vote},
    gallery::{Binding, GalleryName, ItemFilter, Label, Neighbor},
};

/// How neighbors vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VoteOptions {
    /// With which weights.
    pub vote: Vote,
    /// How much nearer neighbors weigh more: the lower, the more.
    pub temperature: f32,
    /// Neighbors with a lower score have no vote.
    pub min_score: Option<f32>,
}

impl Default for VoteOptions {
    fn default() -> Self {
        Self {
            vote: Vote::default(),
            temperature: vote::TEMPERATURE,
            min_score: None,
        }
    }
}

impl VoteOptions {
    fn check(&self) -> Result<()> {
        if !self.temperature.is_finite() || self.temperature <= 0.0 {
            return Err(Error::option(
                "temperature",
                format!("{} is not above 0", self.temperature),
            ));
        }
        match self.min_score {
            Some(score) if !(-1.0..=1.0).contains(&score) => Err(Error::option(
                "min_score",
                format!("{score} is out of range; it must be -1 to 1"),
            )),
            _ => Ok(()),
        }
    }

    /// Counts the votes.
    fn decide(&self, mut neighbors: Vec<Neighbor>) -> Classification {
        if let Some(least) = self.min_score {
            neighbors.retain(|neighbor| neighbor.score >= least);
        }
        let classes: BTreeSet<Label> = neighbors
            .iter()
            .filter_map(|neighbor| neighbor.item.label.clone())
            .collect();
        let classes: Vec<Label> = classes.into_iter().collect();
        let of_class = |neighbor: &Neighbor| {
            let class = classes.binary_search(neighbor.item.label.as_ref()?).ok()?;
            Some((neighbor.score, class))
        };
        let votes: Vec<(f32, usize)> = neighbors.iter().filter_map(of_class).collect();
        let shares = vote::shares(&votes, classes.len(), self.vote, self.temperature);
        let label = vote::winner(&shares).map(|class| classes[class].clone());
        let mut probabilities: Vec<(Label, f32)> = classes.into_iter().zip(shares).collect();
        // The order of equal shares stays: by name.
        probabilities.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        Classification {
            label,
            probabilities,
            neighbors: Some(neighbors),
        }
    }
}

/// What an image shows, as far as the gallery can tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// The class with the largest share, of equal ones the first by name; `None` if nobody had a
    /// vote.
    pub label: Option<Label>,
    /// The classes of those who voted with their shares, which sum to 1: by falling share, equal
    /// ones by name.
    pub probabilities: Vec<(Label, f32)>,
    /// Those who voted, by falling score; `None` if no vote was taken.
    pub neighbors: Option<Vec<Neighbor>>,
}

impl Service {
    /// The class of each subject by the vote of its neighbors. Items without a label have no vote.
    ///
    /// # Errors
    /// As [`Service::neighbors`], and [`crate::error::Kind::InvalidOption`] for bad options of the
    /// vote.
    pub async fn classify(
        &self,
        name: &GalleryName,
        inputs: Vec<QueryInput>,
        kind: (&ImageOptions, &VectorOptions),
        options: SearchOptions,
        filter: Option<ItemFilter>,
        vote: VoteOptions,
    ) -> Result<Answers<Classification>> {
        self.gallery_limits.check_neighbors(options.k)?;
        vote.check()?;
        let Answers {
            binding,
            outcomes: vectors,
            mut stages,
        } = self.vectors(name, inputs, kind).await?;
        let mut outcomes = Vec::with_capacity(vectors.len());
        for vector in vectors {
            outcomes.push(match vector {
                Ok(vector) => {
                    let filter = filter.clone();
                    Ok(vote.decide(
                        self.labeled_neighbors(
                            name,
                            &binding,
                            vector,
                            options,
                            filter,
                            &mut stages,
                        )
                        .await?,
                    ))
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

    /// Most galleries have a label for each item, and their search is faster without a filter; so a
    /// filter for labels is used only if an item without one was found.
    async fn labeled_neighbors(
        &self,
        name: &GalleryName,
        binding: &Binding,
        vector: Vec<f32>,
        options: SearchOptions,
        filter: Option<ItemFilter>,
        stages: &mut Stages,
    ) -> Result<Vec<Neighbor>> {
        let neighbors = self
            .search(
                name,
                search(vector.clone(), binding, options, filter.clone()),
                stages,
            )
            .await?;
        if neighbors
            .iter()
            .all(|neighbor| neighbor.item.label.is_some())
        {
            return Ok(neighbors);
        }
        let labeled = filter.unwrap_or_default().labeled();
        self.search(
            name,
            search(vector, binding, options, Some(labeled)),
            stages,
        )
        .await
    }
}
