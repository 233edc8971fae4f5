//! The training of a probe: reads the items, fits the weights on a thread of low priority, and
//! stores the probe.

use std::sync::Arc;

use futures_util::StreamExt;

use super::{
    super::{
        galleries::GalleryLimits,
        jobs::{Job, now_ms, on_low_priority_thread},
    },
    stored::{Origin, ProbeFeatures, StoredProbe},
};
use crate::{
    error::{Error, Kind, Result},
    features::{
        probe::{Examples, TrainingOptions, train},
        progress::{Progress, Stage},
    },
    gallery::{
        Binding, Gallery, GalleryName, ItemFilter, Parts, ProbeName, StoredItem, read_whole,
    },
};

/// Plan of a training.
#[derive(Debug, Clone)]
pub struct ProbePlan {
    /// Name of the probe. An existing probe is replaced when the new one is ready.
    pub name: ProbeName,
    /// Gallery whose items are the examples.
    pub gallery: GalleryName,
    /// Features that the probe takes.
    pub features: ProbeFeatures,
    /// Options of the training.
    pub options: TrainingOptions,
    /// Condition on the items.
    pub filter: Option<ItemFilter>,
}

/// A training with all that it needs.
pub(super) struct Work {
    pub(super) store: Gallery,
    pub(super) limits: GalleryLimits,
    /// Binding of the gallery when the training was requested.
    pub(super) binding: Binding,
    pub(super) plan: ProbePlan,
    /// Width of a token.
    pub(super) dim: usize,
}

impl Work {
    /// Trains the probe and stores it.
    pub(super) async fn run(self, job: Arc<Job>) -> Result<()> {
        let (examples, mut about) = self.read_examples(&job).await?;
        let options = self.plan.options;
        let observer = Arc::clone(&job);
        let fit = move || {
            train(&examples, &options, &mut |progress| {
                observer.advance(progress)
            })
        };
        let probe = on_low_priority_thread(fit)
            .await??
            .filter(|_| !job.is_stopped())
            .ok_or_else(|| job.cancelled())?;
        let name = &self.plan.name;
        if !probe.converged {
            tracing::warn!(
                probe = %name,
                l2 = probe.l2,
                "the training was cut short; a larger l2 makes it easier"
            );
        }
        about.trained_ms = now_ms();
        let document = StoredProbe { probe, about }.encode()?;
        self.store.put_document(name.into(), document).await
    }

    async fn read_examples(&self, job: &Job) -> Result<(Examples, Origin)> {
        let plan = &self.plan;
        let width = plan.features.width(self.dim);
        let mut examples = Examples::new(width, self.limits.max_probe_classes);
        let mut about = Origin {
            gallery: plan.gallery.clone(),
            features: plan.features,
            binding: self.binding.clone(),
            unlabelled: 0,
            without_features: 0,
            trained_ms: 0,
        };
        let parts = Parts {
            features: true,
            ..Parts::NONE
        };
        let (info, mut items) = read_whole(&self.store, &plan.gallery, parts).await?;
        // Another gallery may have got the name since the request.
        info.binding.check(&plan.gallery, &about.binding)?;
        let mut done = 0;
        while let Some(item) = items.next().await {
            done += 1;
            let progress = Progress {
                stage: Stage::Reading,
                done,
                total: Some(info.items as usize),
            };
            if !job.advance(progress) {
                return Err(job.cancelled());
            }
            self.add_example(item?, &mut examples, &mut about)?;
        }
        Ok((examples, about))
    }

    /// Adds an item to the examples if it passes the filter and has a label and features.
    fn add_example(
        &self,
        item: StoredItem,
        examples: &mut Examples,
        about: &mut Origin,
    ) -> Result<()> {
        let StoredItem { item, features, .. } = item;
        if let Some(filter) = &self.plan.filter
            && !filter.matches(item.label.as_ref(), &item.metadata)
        {
            return Ok(());
        }
        let Some(label) = item.label else {
            about.unlabelled += 1;
            return Ok(());
        };
        let Some(mut features) = features else {
            about.without_features += 1;
            return Ok(());
        };
        if examples.len() == self.limits.max_probe_items {
            let max = self.limits.max_probe_items;
            let detail = format!(
                "the gallery `{}` has more than {max} items to learn from, which takes more memory \
                 than is allowed; choose some with `where`, or raise the limit",
                self.plan.gallery
            );
            return Err(Error::new(Kind::TooLarge, detail).with_limit(
                "max_probe_items",
                max as u64,
                "--max-probe-items",
            ));
        }
        if features.len() > examples.width() {
            // CLS comes first.
            features.truncate(examples.width());
            features.shrink_to_fit();
        }
        examples
            .add(features, label.as_str())
            .map_err(|error| error.context(format_args!("item `{}`", item.id)))
    }
}
