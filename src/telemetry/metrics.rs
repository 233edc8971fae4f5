//! The metrics, each declared once. Names and units follow Prometheus's conventions.

use std::{cmp::Reverse, sync::LazyLock, time::Duration};

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};

/// Bucket limits of durations, in seconds.
const SECONDS: [f64; 18] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5,
    5.0, 10.0, 30.0,
];
/// Bucket limits of batch sizes, in images.
const IMAGES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
/// Maximum number of galleries with labels of their own, because clients choose the names.
const MAX_LABELED_GALLERIES: usize = 50;
/// Reasons for rejections before the body is read.
const REJECTIONS: [&str; 9] = [
    "loading",
    "failed",
    "overloaded",
    "unauthenticated",
    "forbidden",
    "rate_limited",
    "cross_site",
    "head_too_large",
    "connections",
];

/// Declares [`Metrics`]: the doc comment of a metric is also its help text.
macro_rules! declare_metrics {
    ($(
        $(#[doc = $help:literal])+
        $visibility:vis $field:ident: $kind:ty = $register:ident($($argument:expr),+);
    )+) => {
        /// All metrics of the process.
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ $visibility $field: $kind,)+
        }

        impl Metrics {
            fn new() -> Self {
                let registry = Registry::new();
                Self {
                    $($field: $register(&registry, concat!($($help),+).trim(), $($argument),+),)+
                    registry,
                }
            }
        }
    };
}

declare_metrics! {
    /// Number of responses, by route, method and status.
    pub requests: IntCounterVec =
        counters("dinoserve_requests_total", &["route", "method", "status"]);
    /// Time from the request head to the response head, by route.
    pub request_duration: HistogramVec =
        histograms("dinoserve_request_duration_seconds", &["route"], &SECONDS);
    /// Time of an image in each stage: decode, resize, queue, inference, post.
    pub stage_duration: HistogramVec =
        histograms("dinoserve_stage_duration_seconds", &["stage"], &SECONDS);
    /// Number of requests in progress.
    pub requests_in_progress: IntGauge = gauge("dinoserve_requests_in_progress");
    /// Number of requests, by the name of their API key.
    pub key_requests: IntCounterVec = counters("dinoserve_key_requests_total", &["key"]);
    /// Number of open connections.
    pub connections: IntGauge = gauge("dinoserve_connections");
    /// Number of requests rejected before their body was read, by reason.
    pub rejections: IntCounterVec = counters("dinoserve_rejections_total", &["reason"]);
    /// Number of processed images, by model and outcome: ok or error.
    pub images: IntCounterVec = counters("dinoserve_images_total", &["model", "outcome"]);
    /// Number of images in a batch, by model.
    pub batch_size: HistogramVec = histograms("dinoserve_batch_images", &["model"], &IMAGES);
    /// Number of images that wait for a worker, by model.
    queue_depth: IntGaugeVec = gauges("dinoserve_queue_jobs", &["model"]);
    /// Maximum number of images that wait for a worker, by model.
    queue_capacity: IntGaugeVec = gauges("dinoserve_queue_capacity_jobs", &["model"]);
    /// Number of caught panics, by part: worker, decoder or handler. Each is a bug.
    pub panics: IntCounterVec = counters("dinoserve_panics_total", &["part"]);
    /// Number of broken sessions that were replaced, by model.
    pub worker_restarts: IntCounterVec = counters("dinoserve_worker_restarts_total", &["model"]);
    /// Number of failed reloads of a file, keys or certificate; the old contents stay in force.
    pub reload_failures: IntCounterVec = counters("dinoserve_reload_failures_total", &["file"]);
    /// Number of lookups in the result cache, by outcome: hit or miss.
    pub cache_lookups: IntCounterVec = counters("dinoserve_cache_lookups_total", &["outcome"]);
    /// Memory of the cached results, in bytes.
    pub cache_bytes: IntGauge = gauge("dinoserve_cache_bytes");
    /// Time of a search for neighbors in a gallery.
    pub gallery_search_duration: Histogram =
        histogram("dinoserve_gallery_search_duration_seconds", &SECONDS);
    /// Number of items in a gallery; (others) is the sum over all smaller galleries.
    gallery_items: IntGaugeVec = gauges("dinoserve_gallery_items", &["gallery"]);
    /// Always 1; the labels describe the vectors of a gallery.
    gallery_info: IntGaugeVec =
        gauges("dinoserve_gallery_info", &["gallery", "model", "fingerprint", "dim"]);
    /// 1 if all models are ready, else 0.
    pub ready: IntGauge = gauge("dinoserve_ready");
    /// 1 if the model is ready, else 0.
    model_ready: IntGaugeVec = gauges("dinoserve_model_ready", &["model"]);
    /// Growth of the process while the model was loaded, in bytes.
    model_memory: IntGaugeVec = gauges("dinoserve_model_memory_bytes", &["model"]);
    /// Always 1; the label is the version.
    pub build_info: IntGaugeVec = gauges("dinoserve_build_info", &["version"]);
    /// Always 1; the labels describe a served model.
    model_info: IntGaugeVec =
        gauges("dinoserve_model_info", &["model", "fingerprint", "precision", "provider"]);
}

/// Returns the metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
        let metrics = Metrics::new();
        metrics.register_process();
        metrics.create_known_counters();
        metrics
    });
    &METRICS
}

impl Metrics {
    /// Counts a rejection for one of [`REJECTIONS`].
    pub fn count_rejection(&self, reason: &str) {
        self.rejections.with_label_values(&[reason]).inc();
    }

    /// Counts a caught panic in `part`: worker, decoder or handler.
    pub fn count_panic(&self, part: &str) {
        self.panics.with_label_values(&[part]).inc();
    }

    /// Sets the served models; those not listed are removed.
    pub fn set_models(&self, models: &[ModelFacts]) {
        for gauges in [
            &self.model_info,
            &self.model_ready,
            &self.model_memory,
            &self.queue_depth,
            &self.queue_capacity,
        ] {
            gauges.reset();
        }
        for model in models {
            let name = model.name.as_str();
            let set = |gauges: &IntGaugeVec, value: u64| {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                gauges.with_label_values(&[name]).set(value);
            };
            set(&self.model_ready, u64::from(model.provider.is_some()));
            set(&self.queue_depth, model.queued as u64);
            set(&self.queue_capacity, model.queue_depth as u64);
            if let Some(memory) = model.memory {
                set(&self.model_memory, memory);
            }
            if let Some(provider) = &model.provider {
                let labels = [name, &model.fingerprint, &model.precision, provider];
                self.model_info.with_label_values(&labels).set(1);
            }
            // Prometheus sees the first increase of a counter only if it was 0 before.
            self.batch_size.with_label_values(&[name]);
            self.worker_restarts.with_label_values(&[name]).inc_by(0);
            for outcome in ["ok", "error"] {
                self.images.with_label_values(&[name, outcome]).inc_by(0);
            }
        }
        let all_ready = models.iter().all(|model| model.provider.is_some());
        self.ready.set(i64::from(all_ready));
    }

    /// Counts an image that went through `model`, or failed to.
    pub fn count_image(&self, model: &str, is_ok: bool) {
        let outcome = if is_ok { "ok" } else { "error" };
        self.images.with_label_values(&[model, outcome]).inc();
    }

    /// Records the number of images in a batch.
    pub fn observe_batch(&self, model: &str, images: usize) {
        let batches = self.batch_size.with_label_values(&[model]);
        batches.observe(images as f64);
    }

    /// Counts a broken session that was replaced.
    pub fn count_worker_restart(&self, model: &str) {
        self.worker_restarts.with_label_values(&[model]).inc();
    }

    /// Sets the galleries; those not listed are removed. Only the largest have labels.
    pub fn set_galleries(&self, mut galleries: Vec<GalleryFacts>) {
        galleries.sort_by_key(|gallery| Reverse(gallery.items));
        let others = galleries.split_off(MAX_LABELED_GALLERIES.min(galleries.len()));
        self.gallery_items.reset();
        self.gallery_info.reset();
        for gallery in galleries {
            self.set_gallery_items(&gallery.name, gallery.items);
            let dim = gallery.dim.to_string();
            self.gallery_info
                .with_label_values(&[&gallery.name, &gallery.model, &gallery.fingerprint, &dim])
                .set(1);
        }
        if !others.is_empty() {
            let items = others.iter().map(|gallery| gallery.items).sum();
            self.set_gallery_items("(others)", items);
        }
    }

    /// Records the time that an image spent in a stage.
    pub fn observe_stage(&self, stage: &str, time: Duration) {
        self.stage_duration
            .with_label_values(&[stage])
            .observe(time.as_secs_f64());
    }

    /// Returns all metrics in Prometheus's text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    fn set_gallery_items(&self, gallery: &str, items: u64) {
        self.gallery_items
            .with_label_values(&[gallery])
            .set(i64::try_from(items).unwrap_or(i64::MAX));
    }

    /// Adds the metrics of the process: memory, CPU, open files.
    fn register_process(&self) {
        #[cfg(target_os = "linux")]
        self.registry
            .register(Box::new(
                prometheus::process_collector::ProcessCollector::for_self(),
            ))
            .expect("the process is registered once");
    }

    /// Creates the counters with few labels at 0, so that Prometheus sees their first increase.
    fn create_known_counters(&self) {
        let known: [(&IntCounterVec, &[&str]); 4] = [
            (&self.rejections, &REJECTIONS),
            (&self.panics, &["worker", "decoder", "handler"]),
            (&self.reload_failures, &["keys", "certificate"]),
            (&self.cache_lookups, &["hit", "miss"]),
        ];
        for (counter, labels) in known {
            for label in labels {
                counter.with_label_values(&[label]).inc_by(0);
            }
        }
    }
}

/// Description of a served model for the metrics.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    /// Name.
    pub name: String,
    /// Fingerprint of its features.
    pub fingerprint: String,
    /// Precision of its weights.
    pub precision: String,
    /// Where it runs; `None` if it is not ready.
    pub provider: Option<String>,
    /// Growth of the process while it was loaded, in bytes.
    pub memory: Option<u64>,
    /// Number of images that wait for it.
    pub queued: usize,
    /// Maximum number of images that wait for it.
    pub queue_depth: usize,
}

/// Description of a gallery for the metrics.
#[derive(Debug, Clone)]
pub struct GalleryFacts {
    /// Name of the gallery.
    pub name: String,
    /// Number of items.
    pub items: u64,
    /// Model of the vectors.
    pub model: String,
    /// Fingerprint of the model.
    pub fingerprint: String,
    /// Dimension of the vectors.
    pub dim: usize,
}

fn counters(registry: &Registry, help: &str, name: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, help: &str, name: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn gauges(registry: &Registry, help: &str, name: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn histogram(registry: &Registry, help: &str, name: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(options))
}

fn histograms(
    registry: &Registry,
    help: &str,
    name: &str,
    labels: &[&str],
    buckets: &[f64],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, HistogramVec::new(options, labels))
}

fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("the declaration of a metric is valid");
    registry
        .register(Box::new(metric.clone()))
        .expect("each metric is declared once");
    metric
}
