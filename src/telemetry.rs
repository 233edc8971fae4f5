//! Logs and metrics, declared once.

use std::{io::IsTerminal, sync::LazyLock, time::Duration};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use tracing_subscriber::EnvFilter;

/// Form of the log on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people, coloured on a terminal.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `filter` is in `tracing`'s syntax, such as `info` or `dinoserve=debug,warn`.
pub fn start_logging(format: LogFormat, filter: &str) {
    // The runtime warns of what we do on purpose (an input with a default); a filter that names `ort` shows it.
    let with_default = format!("ort=error,{filter}");
    let filter = EnvFilter::try_new(with_default).unwrap_or_else(|_| EnvFilter::new("ort=error,info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as in tests, is of no consequence.
    let _ = match format {
        LogFormat::Pretty => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// Answered requests by route, method and status.
    pub requests: IntCounterVec,
    /// Time from a request's head to its answer's, by route.
    pub request_duration: HistogramVec,
    /// Time in each stage of a request: decode, resize, queue, inference, post.
    pub stage_duration: HistogramVec,
    /// Requests refused before their body was read, by reason.
    pub rejections: IntCounterVec,
    /// Images that were given features.
    pub images: IntCounterVec,
    /// Images a batch.
    pub batch_size: Histogram,
    /// Jobs that wait for a worker.
    pub queue_depth: IntGauge,
    /// Look-ups in the result cache, by outcome: hit or miss.
    pub cache_lookups: IntCounterVec,
    /// Memory of the results that are kept.
    pub cache_bytes: IntGauge,
    /// Time of a search in a gallery.
    pub gallery_search_duration: Histogram,
    /// Items of the largest galleries by name, and of all others together.
    gallery_items: IntGaugeVec,
    /// 1 when the model answers.
    pub ready: IntGauge,
    /// Always 1; the labels tell the version.
    pub build_info: GaugeVec,
    /// Always 1; the labels tell the model, its fingerprint, precision and provider.
    pub model_info: GaugeVec,
    /// Resident memory.
    pub resident_memory: Gauge,
}

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

impl Metrics {
    fn new() -> Self {
        let seconds = vec![
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
            30.0,
        ];
        let registry = Registry::new();
        macro_rules! register {
            ($metric:expr) => {{
                let metric = $metric.expect("the declaration of a metric is valid");
                registry.register(Box::new(metric.clone())).expect("each metric is declared once");
                metric
            }};
        }
        let histogram = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(seconds.clone());
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
            cache_lookups: register!(IntCounterVec::new(
                Opts::new("dinoserve_cache_lookups_total", "Look-ups in the result cache."),
                &["outcome"]
            )),
            cache_bytes: register!(IntGauge::new("dinoserve_cache_bytes", "Memory of the results that are kept.")),
            gallery_search_duration: register!(Histogram::with_opts(histogram(
                "dinoserve_gallery_search_duration_seconds",
                "Time of a search for neighbours."
            ))),
            gallery_items: register!(IntGaugeVec::new(
                Opts::new(
                    "dinoserve_gallery_items",
                    "Items of a gallery; (others) are those of all smaller galleries."
                ),
                &["gallery"]
            )),
            ready: register!(IntGauge::new("dinoserve_ready", "1 when the model answers, else 0.")),
            build_info: register!(GaugeVec::new(
                Opts::new("dinoserve_build_info", "Always 1; the labels tell the version."),
                &["version"]
            )),
            model_info: register!(GaugeVec::new(
                Opts::new("dinoserve_model_info", "Always 1; the labels tell the model that is served."),
                &["model", "fingerprint", "precision", "provider"]
            )),
            resident_memory: register!(Gauge::new("process_resident_memory_bytes", "Resident memory size in bytes.")),
            registry,
        }
    }

    /// Sets how many items the galleries have. Clients name galleries, so only the largest become labels.
    pub fn set_gallery_items(&self, mut galleries: Vec<(String, u64)>) {
        const SHOWN: usize = 50;
        galleries.sort_by_key(|(_, items)| std::cmp::Reverse(*items));
        let others: u64 = galleries.iter().skip(SHOWN).map(|(_, items)| items).sum();
        if galleries.len() > SHOWN {
            galleries.truncate(SHOWN);
            galleries.push(("(others)".to_owned(), others));
        }
        // Those that were deleted go.
        self.gallery_items.reset();
        for (name, items) in galleries {
            self.gallery_items.with_label_values(&[&name]).set(i64::try_from(items).unwrap_or(i64::MAX));
        }
    }

    /// Records how long an image spent in a stage.
    pub fn observe_stage(&self, stage: &str, time: Duration) {
        self.stage_duration.with_label_values(&[stage]).observe(time.as_secs_f64());
    }

    /// All metrics in Prometheus's text format.
    pub fn render(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            self.resident_memory.set(bytes as f64);
        }
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// Resident memory of this process, where the system tells it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
