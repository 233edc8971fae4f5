//! Durations of the stages of a request, and what was noticed in them.

use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};

use crate::{error::Result, telemetry};

/// A value with the durations of the stages that produced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timed<T> {
    /// The value.
    pub value: T,
    /// Durations of its stages.
    pub stages: Stages,
}

impl<T> Timed<T> {
    /// Wraps a value that went through no stage, such as one from the cache.
    pub(super) fn instant(value: T) -> Self {
        Self {
            value,
            stages: Stages::default(),
        }
    }

    /// Replaces the value.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Timed<U> {
        Timed {
            value: change(self.value),
            stages: self.stages,
        }
    }

    /// Replaces the value, if `change` succeeds.
    pub(super) fn try_map<U>(self, change: impl FnOnce(T) -> Result<U>) -> Result<Timed<U>> {
        Ok(Timed {
            value: change(self.value)?,
            stages: self.stages,
        })
    }

    /// Collects the outcomes for the images of a request. Each stage is the longest of any image.
    pub(super) async fn collect(
        outcomes: impl Stream<Item = Result<Self>>,
    ) -> Timed<Vec<Result<T>>> {
        let mut stages = Stages::default();
        let values = outcomes.map(|outcome| {
            outcome.map(|timed| {
                stages = stages.longest(timed.stages);
                timed.value
            })
        });
        let value = values.collect().await;
        Timed { value, stages }
    }
}

/// Durations of the stages of a request. For several images, the longest of each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// Decoding of the file.
    pub decode: Duration,
    /// Resizing to the model's input.
    pub resize: Duration,
    /// Wait in the queue.
    pub queue: Duration,
    /// Inference of the batch.
    pub inference: Duration,
    /// Work on the model's output.
    pub post: Duration,
    /// Search in the gallery.
    pub search: Duration,
    /// Whether an image is nearly black because its samples use few of their 16 bits.
    pub has_dim_image: bool,
}

impl Stages {
    /// Returns the stages with their names. `search` is included only if there was one.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let of_every_image = [
            ("decode", self.decode),
            ("resize", self.resize),
            ("queue", self.queue),
            ("inference", self.inference),
            ("post", self.post),
        ];
        let search = (!self.search.is_zero()).then_some(("search", self.search));
        of_every_image.into_iter().chain(search)
    }

    /// Returns the longer of each stage.
    #[must_use]
    pub fn longest(self, other: Self) -> Self {
        Self {
            decode: self.decode.max(other.decode),
            resize: self.resize.max(other.resize),
            queue: self.queue.max(other.queue),
            inference: self.inference.max(other.inference),
            post: self.post.max(other.post),
            search: self.search.max(other.search),
            has_dim_image: self.has_dim_image || other.has_dim_image,
        }
    }

    /// Adds the work on the model's output, which began at `started`, and records the stages in the
    /// metrics. Skips stages that did not happen, as after a cache hit.
    pub(super) fn finish<T>(mut self, started: Instant, value: T) -> Timed<T> {
        self.post = started.elapsed();
        for (stage, time) in self.named().filter(|(_, time)| !time.is_zero()) {
            telemetry::metrics().observe_stage(stage, time);
        }
        let stages = self;
        Timed { value, stages }
    }
}
