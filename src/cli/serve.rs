//! `dinoserve serve`.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, builder::RangedU64ValueParser};
use tokio::net::TcpListener;

use super::common::{EngineFlags, GalleryFlags, LimitFlags};
use crate::{
    gallery::OpenMode,
    http::{self, AppState, ConnectionTimes, HttpConfig},
    service::{GalleryLimits, Service},
    telemetry,
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Address to listen on; 0.0.0.0 for every network
    #[arg(long, env = "DINOSERVE_HOST", default_value = "127.0.0.1")]
    host: IpAddr,

    /// Port to listen on; 0 picks a free one
    #[arg(long, env = "DINOSERVE_PORT", default_value_t = 8080)]
    port: u16,

    #[command(flatten)]
    pub(super) engine: EngineFlags,

    #[command(flatten)]
    limits: LimitFlags,

    #[command(flatten)]
    pub(super) gallery: GalleryFlags,

    /// Most bytes of a request's body
    #[arg(long, env = "DINOSERVE_MAX_BODY_BYTES", default_value_t = HttpConfig::default().max_body_bytes)]
    max_body_bytes: usize,

    /// Most images of a request
    #[arg(long, env = "DINOSERVE_MAX_IMAGES", default_value_t = HttpConfig::default().max_images)]
    max_images: usize,

    /// Requests that may be under way together; more are refused at once with 503 [default: 10 for each core, at least 16;
    /// on GPUs 4 for each image of a batch]
    #[arg(long, env = "DINOSERVE_MAX_REQUESTS", value_name = "COUNT")]
    max_requests: Option<usize>,

    /// Megabytes of memory for results, so that the same file with the same options does not go through the model twice;
    /// 0 keeps none
    #[arg(long, env = "DINOSERVE_CACHE_MB", value_name = "MB", default_value_t = 0)]
    cache_mb: u64,

    #[command(flatten)]
    gallery_limits: GalleryLimitFlags,

    /// Seconds in which a request must have been sent and answered
    #[arg(long, env = "DINOSERVE_REQUEST_TIMEOUT", default_value_t = HttpConfig::default().request_timeout.as_secs())]
    request_timeout: u64,

    /// Seconds that a snapshot of a gallery may stand still on its way in or out
    #[arg(long, env = "DINOSERVE_SNAPSHOT_IDLE_TIMEOUT", default_value_t = HttpConfig::default().snapshot_idle.as_secs())]
    snapshot_idle_timeout: u64,

    /// Seconds in which a request's head must have arrived; a connection that is idle for longer is closed
    #[arg(long, env = "DINOSERVE_HEADER_TIMEOUT", default_value_t = 30)]
    header_timeout: u64,

    /// Seconds that accepted requests get to end when the server is stopped
    #[arg(long, env = "DINOSERVE_SHUTDOWN_GRACE", default_value_t = 25)]
    shutdown_grace: u64,
}

/// Limits of requests about galleries.
#[derive(Debug, Clone, Args)]
struct GalleryLimitFlags {
    /// Most neighbours of a search; at least 20, which is the default of `k`
    #[arg(long, env = "DINOSERVE_MAX_NEIGHBORS", default_value_t = GalleryLimits::default().max_neighbors,
        value_parser = RangedU64ValueParser::<usize>::new().range(20..))]
    max_neighbors: usize,

    /// Most items of a page of a gallery; at least 100, which is the default of `limit`
    #[arg(long, env = "DINOSERVE_MAX_PAGE_ITEMS", default_value_t = GalleryLimits::default().max_page_items,
        value_parser = RangedU64ValueParser::<usize>::new().range(100..))]
    max_page_items: usize,

    /// Longer side of the thumbnails of stored images, in pixels
    #[arg(long, env = "DINOSERVE_THUMBNAIL_SIDE", default_value_t = GalleryLimits::default().thumbnail_side,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    thumbnail_side: usize,

    /// Most items that a linear probe is trained on; their features take 4 bytes a number of memory
    #[arg(long, env = "DINOSERVE_MAX_PROBE_ITEMS", default_value_t = GalleryLimits::default().max_probe_items)]
    max_probe_items: usize,

    /// Most classes of a linear probe
    #[arg(long, env = "DINOSERVE_MAX_PROBE_CLASSES", default_value_t = GalleryLimits::default().max_probe_classes)]
    max_probe_classes: usize,
}

impl GalleryLimitFlags {
    fn limits(&self) -> GalleryLimits {
        let &Self { max_neighbors, max_page_items, thumbnail_side, max_probe_items, max_probe_classes } = self;
        GalleryLimits { max_neighbors, max_page_items, thumbnail_side, max_probe_items, max_probe_classes }
    }
}

impl Serve {
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = self.engine.runtime()?;
        let model = self.engine.model_file()?;
        let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        tokio.block_on(self.serve(&runtime, model))
    }

    async fn serve(
        self,
        runtime: &crate::engine::Runtime,
        model: crate::artifacts::ModelFile,
    ) -> anyhow::Result<ExitCode> {
        let address = self.address();
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let gallery = self.gallery.open(OpenMode::Serve).await?;
        if let Some(gallery) = &gallery {
            tracing::info!(gallery = gallery.describe(), "open");
        }
        let (engine, thread) = self.engine.start(runtime, model)?;
        let config = HttpConfig {
            max_body_bytes: self.max_body_bytes,
            max_images: self.max_images,
            max_requests: self.max_requests,
            request_timeout: Duration::from_secs(self.request_timeout),
            snapshot_idle: Duration::from_secs(self.snapshot_idle_timeout),
        };
        let service = Service::new(engine.clone(), self.limits.limits(), self.cache_mb << 20);
        let service = service.with_gallery(gallery.clone()).with_gallery_limits(self.gallery_limits.limits());
        let trainings = service.clone();
        let router = http::router(AppState::new(service, config));

        // The one line on standard output: whoever started us reads the port from it.
        writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
        let loaded = async {
            let plan = engine.ready().await?;
            let spec = engine.spec();
            let metrics = telemetry::metrics();
            metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
            let (precision, provider) = (engine.precision().to_string(), plan.provider());
            let labels = [&spec.name, engine.fingerprint(), &precision, &provider];
            metrics.model_info.with_label_values(&labels).set(1.0);
            let fingerprint = &engine.fingerprint()[..12];
            tracing::info!(model = spec.name, fingerprint, precision, %plan, "ready");
            // From here on only a signal ends the server.
            std::future::pending::<anyhow::Result<()>>().await
        };
        let times = ConnectionTimes {
            header: Duration::from_secs(self.header_timeout),
            grace: Duration::from_secs(self.shutdown_grace),
        };
        let served = http::serve(listener, router, stop_signal(), times);
        tokio::select! {
            () = served => {}
            failed = loaded => failed?,
        }
        drop(engine);
        trainings.stop_training().await;
        drop(trainings);
        if let Some(gallery) = gallery {
            gallery.close().await;
        }
        // All connections are closed, so the worker ends when its queue is empty.
        let _ = tokio::time::timeout(Duration::from_secs(5), tokio::task::spawn_blocking(move || thread.join())).await;
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}

/// Resolves on SIGTERM or Ctrl-C.
async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return drop(interrupt.await) };
        tokio::select! {
            _ = interrupt => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    drop(interrupt.await);
    tracing::info!("stopping: accepted requests are finished, new ones are refused");
}
