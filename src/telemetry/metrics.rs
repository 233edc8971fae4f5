//! The metrics, declared once. Names and units follow Prometheus's conventions.

use std::{sync::LazyLock, time::Duration};

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// Answered requests by route, method and status.
    pub requests: IntCounterVec,
    /// Time from a request's head to its answer's, by route.
    pub request_duration: HistogramVec,
    /// Time in each stage of a request: decode, resize, queue, inference, post.
    pub stage_duration: HistogramVec,
    /// Requests whose answer is being made.
    pub requests_in_progress: IntGauge,
    /// Requests by the name of their API key.
    pub key_requests: IntCounterVec,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Requests refused before their body was read, by reason.
    pub rejections: IntCounterVec,
    /// Images that were given features.
    pub images: IntCounterVec,
    /// Images a batch.
    pub batch_size: Histogram,
    /// Jobs that wait for a worker.
    pub queue_depth: IntGauge,
    /// Jobs that may wait.
    pub queue_capacity: IntGauge,
    /// Panics that were caught, by where: worker, decoder or handler.
    pub panics: IntCounterVec,
    /// Sessions that were replaced because they did not work any more.
    pub worker_restarts: IntCounter,
    /// Files that were to be read anew and could not be used: keys or certificate.
    pub reload_failures: IntCounterVec,
    /// Look-ups in the result cache, by outcome: hit or miss.
    pub cache_lookups: IntCounterVec,
    /// Memory of the results that are kept.
    pub cache_bytes: IntGauge,
    /// Time of a search in a gallery.
    pub gallery_search_duration: Histogram,
    /// Items of the largest galleries by name, and of all others together.
    gallery_items: IntGaugeVec,
    /// Always 1; the labels tell what the largest galleries hold.
    gallery_info: IntGaugeVec,
    /// 1 when the model answers.
    pub ready: IntGauge,
    /// Always 1; the labels tell the version.
    pub build_info: IntGaugeVec,
    /// Always 1; the labels tell the model, its fingerprint, precision and provider.
    pub model_info: IntGaugeVec,
}

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

impl Metrics {
    fn new() -> Self {
        let seconds = vec![
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75,
            1.0, 2.5, 5.0, 10.0, 30.0,
        ];
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(
                prometheus::process_collector::ProcessCollector::for_self(),
            ))
            .expect("the process is registered once");
        macro_rules! register {
            ($metric:expr) => {{
                let metric = $metric.expect("the declaration of a metric is valid");
                registry
                    .register(Box::new(metric.clone()))
                    .expect("each metric is declared once");
                metric
            }};
        }
        let histogram =
            |name: &str, help: &str| HistogramOpts::new(name, help).buckets(seconds.clone());
        Self {
            requests: register!(IntCounterVec::new(
                Opts::new("dinoserve_requests_total", "Answered requests."),
                &["route", "method", "status"]
            )),
            request_duration: register!(HistogramVec::new(
                histogram("dinoserve_request_duration_seconds", "Time from a request's head to its answer's."),
                &["route"]
            )),
            stage_duration: register!(HistogramVec::new(
                histogram("dinoserve_stage_duration_seconds", "Time an image spends in each stage."),
                &["stage"]
            )),
            requests_in_progress: register!(IntGauge::new(
                "dinoserve_requests_in_progress",
                "Requests whose answer is being made."
            )),
            key_requests: register!(IntCounterVec::new(
                Opts::new("dinoserve_key_requests_total", "Requests by the name of their API key."),
                &["key"]
            )),
            connections: register!(IntGauge::new("dinoserve_connections", "Connections that are open.")),
            rejections: register!(IntCounterVec::new(
                Opts::new("dinoserve_rejections_total", "Requests refused before their body was read."),
                &["reason"]
            )),
            images: register!(IntCounterVec::new(
                Opts::new("dinoserve_images_total", "Images that were given features, or an error."),
                &["outcome"]
            )),
            batch_size: register!(Histogram::with_opts(
                HistogramOpts::new("dinoserve_batch_images", "Images that ran through the model together.")
                    .buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
            )),
            queue_depth: register!(IntGauge::new("dinoserve_queue_jobs", "Images that wait for a worker.")),
            queue_capacity: register!(IntGauge::new(
                "dinoserve_queue_capacity_jobs",
                "Images that may wait for a worker."
            )),
            panics: register!(IntCounterVec::new(
                Opts::new("dinoserve_panics_total", "Panics that were caught; each is a defect."),
                &["part"]
            )),
            worker_restarts: register!(IntCounter::new(
                "dinoserve_worker_restarts_total",
                "Sessions that were replaced because they did not work any more."
            )),
            reload_failures: register!(IntCounterVec::new(
                Opts::new(
                    "dinoserve_reload_failures_total",
                    "Files that were to be read anew and could not be used; the old ones stay in force."
                ),
                &["file"]
            )),
            cache_lookups: register!(IntCounterVec::new(
                Opts::new("dinoserve_cache_lookups_total", "Look-ups in the result cache."),
                &["outcome"]
            )),
            cache_bytes: register!(IntGauge::new("dinoserve_cache_bytes", "Memory of the results that are kept.")),
            gallery_search_duration: register!(Histogram::with_opts(histogram(
                "dinoserve_gallery_search_duration_seconds",
                "Time of a search for neighbors."
            ))),
            gallery_items: register!(IntGaugeVec::new(
                Opts::new(
                    "dinoserve_gallery_items",
                    "Items of a gallery; (others) are those of all smaller galleries."
                ),
                &["gallery"]
            )),
            gallery_info: register!(IntGaugeVec::new(
                Opts::new("dinoserve_gallery_info", "Always 1; the labels tell what a gallery holds."),
                &["gallery", "model", "fingerprint", "dim"]
            )),
            ready: register!(IntGauge::new("dinoserve_ready", "1 when the model answers, else 0.")),
            build_info: register!(IntGaugeVec::new(
                Opts::new("dinoserve_build_info", "Always 1; the labels tell the version."),
                &["version"]
            )),
            model_info: register!(IntGaugeVec::new(
                Opts::new("dinoserve_model_info", "Always 1; the labels tell the model that is served."),
                &["model", "fingerprint", "precision", "provider"]
            )),
            registry,
        }
        .ready_to_count()
    }

    /// A counter that first appears when it has counted is no use to whoever watches for a change,
    /// so those with few labels begin at 0.
    fn ready_to_count(self) -> Self {
        let known: [(&IntCounterVec, &[&str]); 5] = [
            (&self.rejections, &REJECTIONS),
            (&self.panics, &["worker", "decoder", "handler"]),
            (&self.reload_failures, &["keys", "certificate"]),
            (&self.images, &["ok", "error"]),
            (&self.cache_lookups, &["hit", "miss"]),
        ];
        for (counter, labels) in known {
            for label in labels {
                counter.with_label_values(&[label]).inc_by(0);
            }
        }
        self
    }

    /// Counts a refusal, by one of [`REJECTIONS`].
    pub fn count_rejection(&self, reason: &str) {
        self.rejections.with_label_values(&[reason]).inc();
    }

    /// Tells which model is served.
    pub fn set_model(&self, model: &str, fingerprint: &str, precision: &str, provider: &str) {
        self.model_info.reset();
        self.model_info
            .with_label_values(&[model, fingerprint, precision, provider])
            .set(1);
    }

    /// Tells what galleries there are. Clients name galleries, so only the largest become labels.
    pub fn set_galleries(&self, mut galleries: Vec<GalleryFacts>) {
        const SHOWN: usize = 50;
        galleries.sort_by_key(|gallery| std::cmp::Reverse(gallery.items));
        let of_others = galleries.split_off(SHOWN.min(galleries.len()));
        // Those that were deleted go.
        self.gallery_items.reset();
        self.gallery_info.reset();
        let count = |items: u64| i64::try_from(items).unwrap_or(i64::MAX);
        for GalleryFacts {
            name,
            items,
            model,
            fingerprint,
            dim,
        } in galleries
        {
            self.gallery_items
                .with_label_values(&[&name])
                .set(count(items));
            self.gallery_info
                .with_label_values(&[&name, &model, &fingerprint, &dim.to_string()])
                .set(1);
        }
        if !of_others.is_empty() {
            let items = of_others.iter().map(|gallery| gallery.items).sum();
            self.gallery_items
                .with_label_values(&["(others)"])
                .set(count(items));
        }
    }

    /// Records how long an image spent in a stage.
    pub fn observe_stage(&self, stage: &str, time: Duration) {
        self.stage_duration
            .with_label_values(&[stage])
            .observe(time.as_secs_f64());
    }

    /// All metrics in Prometheus's text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// Why requests are refused before their body is read.
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

/// What is told of a gallery.
#[derive(Debug, Clone)]
pub struct GalleryFacts {
    /// Its name.
    pub name: String,
    /// How many items it has.
    pub items: u64,
    /// The model of its vectors.
    pub model: String,
    /// That model's fingerprint.
    pub fingerprint: String,
    /// Width of its vectors.
    pub dim: usize,
}
