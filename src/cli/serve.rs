//! `dinoserve serve`.

use std::{io::Write, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{Args, builder::RangedU64ValueParser};
use tokio::net::TcpListener;

use super::{
    common::{EngineFlags, GalleryFlags, LimitFlags},
    http_flags::{AccessFlags, HttpFlags},
};
use crate::{
    artifacts::{ModelFile, remove_unfinished},
    engine::Runtime,
    gallery::OpenMode,
    http::{self, AppState, Certificate, Stop, access::ApiKeys},
    service::{Extractor, GalleryLimits, LiveService, Service},
    telemetry::{self, TraceExport},
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) engine: EngineFlags,

    #[command(flatten)]
    limits: LimitFlags,

    #[command(flatten)]
    pub(super) gallery: GalleryFlags,

    /// Megabytes of memory for results, so that the same file with the same options does not go
    /// through the model twice; 0 keeps none
    #[arg(
        long,
        env = "DINOSERVE_CACHE_MB",
        value_name = "MB",
        default_value_t = 0
    )]
    cache_mb: u64,

    #[command(flatten)]
    gallery_limits: GalleryLimitFlags,

    #[command(flatten)]
    http: HttpFlags,

    #[command(flatten)]
    access: AccessFlags,

    /// Address of a collector that spans of requests are sent to, by OTLP over HTTP, such as
    /// http://localhost:4318
    #[arg(long, env = "DINOSERVE_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,

    /// Share of the traces that begin here that is sent, 0 to 1
    #[arg(
        long,
        env = "DINOSERVE_OTLP_SAMPLE",
        value_name = "SHARE",
        default_value_t = 1.0
    )]
    otlp_sample: f64,
}

/// Limits of requests about galleries.
#[derive(Debug, Clone, Args)]
struct GalleryLimitFlags {
    /// Most neighbors of a search; at least 20, which is the default of `k`
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
        let &Self {
            max_neighbors,
            max_page_items,
            thumbnail_side,
            max_probe_items,
            max_probe_classes,
        } = self;
        GalleryLimits {
            max_neighbors,
            max_page_items,
            thumbnail_side,
            max_probe_items,
            max_probe_classes,
        }
    }
}

impl Serve {
    pub(super) fn address(&self) -> SocketAddr {
        self.http.address()
    }

    /// Where spans of requests go.
    pub(super) fn trace_export(&self) -> Option<TraceExport> {
        let endpoint = self
            .otlp_endpoint
            .clone()
            .filter(|endpoint| !endpoint.is_empty())?;
        Some(TraceExport {
            endpoint,
            sample: self.otlp_sample,
        })
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        raise_file_limit();
        // What is wrong with the flags is said before seconds go into a model.
        let (keys, certificate) = (self.access.keys()?, self.access.certificate()?);
        let runtime = self.engine.runtime()?;
        let model = self.engine.model_file()?;
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let ended = tokio.block_on(self.serve(&runtime, model, keys, certificate));
        // Not waiting for what may take long and nobody needs any more, such as the download of
        // another model.
        tokio.shutdown_timeout(Duration::from_secs(1));
        remove_unfinished();
        ended
    }

    async fn serve(
        self,
        runtime: &Runtime,
        model: ModelFile,
        keys: Option<Arc<ApiKeys>>,
        certificate: Option<Arc<Certificate>>,
    ) -> anyhow::Result<ExitCode> {
        let address = self.address();
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let gallery = self.gallery.open(OpenMode::Serve).await?;
        if let Some(gallery) = &gallery {
            tracing::info!(gallery = gallery.describe(), "open");
        }
        if keys.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "whoever reaches this address may do everything; --api-keys FILE asks for keys");
        }
        let (engine, thread) = self.engine.start(runtime, model)?;
        let service = Service::new(Extractor::new(
            engine,
            self.limits.limits(),
            self.cache_mb << 20,
        ));
        let service = service
            .with_gallery(gallery.clone())
            .with_gallery_limits(self.gallery_limits.limits());
        let live = Arc::new(LiveService::new(
            service,
            thread,
            Some(self.engine.source(runtime)?),
        ));
        let state = AppState::new(
            Arc::clone(&live),
            self.http.http_config(self.access.cors_origins()),
            keys,
        );
        let scheme = if certificate.is_some() {
            "https"
        } else {
            "http"
        };
        let config = self
            .http
            .serve_config(certificate, self.access.reload_interval());
        telemetry::metrics()
            .build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);

        // The one line on standard output: whoever started us reads the port from it.
        writeln!(
            std::io::stdout(),
            "listening on {scheme}://{}",
            listener.local_addr()?
        )?;
        let loaded = async {
            live.ready().await?;
            // From here on only a signal ends the server.
            std::future::pending::<anyhow::Result<()>>().await
        };
        tokio::select! {
            served = http::serve(listener, state, stop_signal(), config) => served?,
            failed = loaded => failed?,
        }
        live.close().await;
        if let Some(gallery) = gallery {
            gallery.close().await;
        }
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}

/// As many connections as the system allows, which often starts programs with a low limit that they
/// may raise.
fn raise_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let raised = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                ..limit
            },
        );
        if let Err(error) = raised {
            tracing::debug!(%error, "the limit of open files stays");
        }
    }
}

/// Resolves on SIGTERM or Ctrl-C.
async fn stop_signal() -> Stop {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    let stop = {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => tokio::select! {
                _ = interrupt => Stop::Now,
                _ = terminate.recv() => Stop::Gracefully,
            },
            Err(_) => {
                drop(interrupt.await);
                Stop::Now
            }
        }
    };
    #[cfg(not(unix))]
    let stop = {
        drop(interrupt.await);
        Stop::Now
    };
    tracing::info!("stopping: accepted requests are finished, new ones are refused");
    stop
}
