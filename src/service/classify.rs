//! Classification by the vote of labeled neighbors.

use std::collections::BTreeSet;

use super::{
    binding::InputOptions,
    galleries::Galleries,
    models::ModelChoice,
    query::QueryInput,
    search::{Answers, NeighborQuery},
    stages::{Stages, Timed},
};
use crate::{
    error::{Error, Result},
    features::vote::{self, Vote},
    gallery::{Binding, Label, Neighbor, Query, Search},
};

/// Options of a vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VoteOptions {
    /// Weighting of the votes.
    pub vote: Vote,
    /// Temperature of the weights; a lower one favors nearer neighbors more.
    pub temperature: f32,
    /// Minimum score of a neighbor to have a vote, -1 to 1.
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
    /// Rejects values out of range.
    fn check(&self) -> Result<()> {
        if !self.temperature.is_finite() || self.temperature <= 0.0 {
            let range = "above 0";
            return Err(Error::out_of_range("temperature", self.temperature, range));
        }
        match self.min_score {
            Some(score) if !(-1.0..=1.0).contains(&score) => {
                Err(Error::out_of_range("min_score", score, "-1 to 1"))
            }
            _ => Ok(()),
        }
    }

    /// Counts the votes.
    fn decide(&self, mut neighbors: Vec<Neighbor>) -> Classification {
        if let Some(min) = self.min_score {
            neighbors.retain(|neighbor| neighbor.score >= min);
        }
        let labels = neighbors
            .iter()
            .filter_map(|neighbor| neighbor.item.label.clone());
        let classes: Vec<Label> = labels.collect::<BTreeSet<_>>().into_iter().collect();
        let votes: Vec<(f32, usize)> = neighbors
            .iter()
            .filter_map(|neighbor| {
                let class = classes.binary_search(neighbor.item.label.as_ref()?).ok()?;
                Some((neighbor.score, class))
            })
            .collect();
        let shares = vote::shares(&votes, classes.len(), self.vote, self.temperature);
        let winner = vote::winner(&shares);
        Classification::new(winner, classes, shares, Some(neighbors))
    }
}

/// Classification of an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// Class with the largest share, of equal ones the first by name; `None` without votes.
    pub label: Option<Label>,
    /// Classes with their shares, which sum to 1: by falling share, equal ones by name.
    pub probabilities: Vec<(Label, f32)>,
    /// Neighbors that voted, by falling score; `None` for a probe's classification.
    pub neighbors: Option<Vec<Neighbor>>,
}

impl Classification {
    /// Sorts the `classes` of a classification, which are in the order of their names, by falling
    /// share.
    pub(super) fn new(
        winner: Option<usize>,
        classes: Vec<Label>,
        shares: Vec<f32>,
        neighbors: Option<Vec<Neighbor>>,
    ) -> Self {
        let label = winner.map(|class| classes[class].clone());
        let mut probabilities: Vec<(Label, f32)> = classes.into_iter().zip(shares).collect();
        // The sort is stable, so classes of equal share stay ordered by name.
        probabilities.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        Self {
            label,
            probabilities,
            neighbors,
        }
    }
}

impl Galleries {
    /// Classifies each input by the vote of its neighbors. Items without a label have no vote.
    pub async fn classify(
        &self,
        model: &ModelChoice,
        query: &NeighborQuery,
        inputs: Vec<QueryInput>,
        options: &InputOptions,
        vote: VoteOptions,
    ) -> Result<Timed<Answers<Classification>>> {
        query.check(self.limits())?;
        vote.check()?;
        let vectors = self.vectors(model, &query.gallery, inputs, options);
        let Timed { value, mut stages } = vectors.await?;
        let binding = value.binding;
        let mut outcomes = Vec::with_capacity(value.outcomes.len());
        for vector in value.outcomes {
            outcomes.push(match vector {
                Ok(vector) => {
                    let neighbors = self.labeled_neighbors(query, vector, &binding, &mut stages);
                    Ok(vote.decide(neighbors.await?))
                }
                Err(error) => Err(error),
            });
        }
        let value = Answers { binding, outcomes };
        Ok(Timed { value, stages })
    }

    /// Finds labeled neighbors. Most galleries have a label for each item, and their search is
    /// faster without a filter. So labels are filtered for only if an item without one was found.
    async fn labeled_neighbors(
        &self,
        query: &NeighborQuery,
        vector: Vec<f32>,
        binding: &Binding,
        stages: &mut Stages,
    ) -> Result<Vec<Neighbor>> {
        let search = query.search(Query::Vector(vector), binding);
        let neighbors = self.search(&query.gallery, search.clone(), stages).await?;
        let is_labeled = |neighbor: &Neighbor| neighbor.item.label.is_some();
        if neighbors.iter().all(is_labeled) {
            return Ok(neighbors);
        }
        let search = Search {
            filter: Some(search.filter.unwrap_or_default().labeled()),
            ..search
        };
        self.search(&query.gallery, search, stages).await
    }
}
