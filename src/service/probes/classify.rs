//! Classification by a trained probe.

use std::time::Instant;

use super::{Probes, stored::StoredProbe};
use crate::{
    error::{Error, Result},
    features::vote,
    gallery::{Label, ProbeName},
    service::{
        binding::{InputOptions, preparation},
        classify::Classification,
        embed::EmbedOptions,
        images::ImageOptions,
        models::ModelChoice,
        query::{QueryInput, check_finite, resolve},
        search::Answers,
        stages::Timed,
    },
};

impl Probes {
    /// Classifies each input. A vector must be the model's features that the probe takes.
    pub async fn classify(
        &self,
        model: &ModelChoice,
        name: &ProbeName,
        inputs: Vec<QueryInput>,
        image: &ImageOptions,
        min_score: Option<f32>,
    ) -> Result<Timed<Answers<Classification>>> {
        if let Some(score) = min_score.filter(|score| !(0.0..=1.0).contains(score)) {
            let detail = format_args!("{score} is out of range; for a probe it must be 0 to 1");
            return Err(Error::option("min_score", detail));
        }
        let (extractor, stored) = self.ready(model, name).await?;
        let extractor = &extractor;
        let binding = stored.about.binding.clone();
        let options = InputOptions {
            image: *image,
            ..InputOptions::default()
        };
        binding.check(&stored.about.gallery, &options.over(&binding))?;
        let preparation = preparation(&binding, image);
        let embed = EmbedOptions {
            pooling: stored.about.features.pooling(),
            normalize: false,
            ..EmbedOptions::default()
        };
        let vectors = resolve(
            inputs,
            extractor.engine().max_concurrent_images(),
            move |file| async move {
                let embedding = extractor.embed_file(file, preparation, &embed).await?;
                Ok(embedding.map(|embedding| embedding.vector))
            },
            |vector| check_features(vector, name, &stored),
        )
        .await;
        let started = Instant::now();
        let mut stages = vectors.stages;
        let work = move || {
            let vectors = vectors.value.into_iter();
            let outcomes = vectors.map(|vector| classify(&stored, &vector?, min_score));
            Ok(outcomes.collect())
        };
        let outcomes = extractor.on_blocking_thread("classifying by a probe", work);
        let outcomes = outcomes.await?;
        stages.post += started.elapsed();
        let value = Answers { binding, outcomes };
        Ok(Timed { value, stages })
    }
}

/// Rejects a client's vector that the probe cannot take.
fn check_features(features: Vec<f32>, name: &ProbeName, stored: &StoredProbe) -> Result<Vec<f32>> {
    let width = stored.probe.width();
    if features.len() != width {
        let detail = format_args!(
            "has {} values; the probe `{name}` takes the {width} of \
             /v1/embed?pooling={}&normalize=false",
            features.len(),
            stored.about.features
        );
        return Err(Error::option("vector", detail));
    }
    check_finite(&features)?;
    Ok(features)
}

fn classify(
    stored: &StoredProbe,
    features: &[f32],
    min_score: Option<f32>,
) -> Result<Classification> {
    let shares = stored.probe.probabilities(features)?;
    let classes = stored.probe.classes.iter().map(Label::new);
    let classes = classes.collect::<Result<_>>()?;
    let winner =
        vote::winner(&shares).filter(|&class| min_score.is_none_or(|min| shares[class] >= min));
    Ok(Classification::new(winner, classes, shares, None))
}
