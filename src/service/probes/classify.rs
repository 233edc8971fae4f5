//! Labels for images by a trained probe.

use std::time::Instant;

use super::{
    super::{
        Answers, Classification, EmbedOptions, ImageOptions, Service, VectorOptions,
        binding::{binding_preparation, overlay},
        query::{QueryInput, check_finite, resolve},
        stages::Timed,
    },
    StoredProbe,
};
use crate::{
    error::{Error, Result},
    features::vote,
    gallery::{Label, ProbeName},
};

impl Service {
    /// The class of each subject as a probe sees it. A vector must be the features that the probe
    /// takes, as the model gives them.
    ///
    /// # Errors
    /// As [`Service::ready_probe`]; [`crate::error::Kind::Conflict`] for an image to be prepared in
    /// another way than those that the probe learned from; [`crate::error::Kind::InvalidOption`] for
    /// a bad `min_score`.
    pub async fn classify_by_probe(
        &self,
        name: &ProbeName,
        inputs: Vec<QueryInput>,
        image: &ImageOptions,
        min_score: Option<f32>,
    ) -> Result<Answers<Classification>> {
        if let Some(score) = min_score.filter(|score| !(0.0..=1.0).contains(score)) {
            return Err(Error::option(
                "min_score",
                format!("{score} is out of range; for a probe it must be 0 to 1"),
            ));
        }
        let stored = self.ready_probe(name).await?;
        let binding = stored.about.binding.clone();
        binding.check(
            &stored.about.gallery,
            &overlay(&binding, image, &VectorOptions::default()),
        )?;

        let extractor = &self.extractor;
        let preparation = binding_preparation(&binding, image.decode);
        let options = EmbedOptions {
            pooling: stored.about.features.pooling(),
            normalize: false,
            layers: 1,
            tokens: false,
        };
        let Timed {
            value: vectors,
            mut stages,
        } = resolve(
            inputs,
            extractor.engine().max_concurrent_images(),
            move |file| async move {
                let embedding = extractor.embed_file(file, preparation, &options).await?;
                Ok(embedding.map(|embedding| embedding.vector))
            },
            |vector| check_features(vector, name, &stored),
        )
        .await;
        let started = Instant::now();
        let outcomes = extractor.on_blocking_thread("classifying by a probe", move || {
            let classify = |vector: Result<Vec<f32>>| classify(&stored, &vector?, min_score);
            Ok(vectors.into_iter().map(classify).collect())
        });
        let outcomes = outcomes.await?;
        stages.post += started.elapsed();
        Ok(Answers {
            binding,
            outcomes,
            stages,
        })
    }
}

fn check_features(features: Vec<f32>, name: &ProbeName, stored: &StoredProbe) -> Result<Vec<f32>> {
    let width = stored.probe.width();
    if features.len() != width {
        let detail = format!(
            "has {} values; the probe `{name}` takes the {width} of /v1/embed?pooling={}&normalize=false",
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
    let labels: Vec<Label> = stored
        .probe
        .classes
        .iter()
        .map(Label::new)
        .collect::<Result<_>>()?;
    let winner =
        vote::winner(&shares).filter(|&class| min_score.is_none_or(|least| shares[class] >= least));
    let label = winner.map(|class| labels[class].clone());
    let mut probabilities: Vec<(Label, f32)> = labels.into_iter().zip(shares).collect();
    // The order of equal shares stays: by name.
    probabilities.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    Ok(Classification {
        label,
        probabilities,
        neighbors: None,
    })
}
