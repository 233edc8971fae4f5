//! `dinoserve serve`.

use std::{io::Write, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use tokio::net::TcpListener;

use super::{
    executor::async_runtime,
    flags::{
        AccessFlags, EngineFlags, GalleryFlags, GalleryLimitFlags, HttpFlags, ImageLimitFlags,
    },
};
use crate::{
    artifacts::{ModelFile, remove_unfinished},
    engine::{Engine, EngineThread, Runtime},
    gallery::OpenMode,
    http::{self, AppState, Certificate, Stop, access::ApiKeys},
    names::repeated,
    service::{CacheBytes, Extractor, Models, Service},
    telemetry::{self, TraceExport},
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Name of a model to serve; repeated, or a list with commas, for several. The first answers
    /// requests that name none. `dinoserve models list` shows all
    #[arg(
        long = "model",
        env = "DINOSERVE_MODEL",
        value_name = "NAME",
        value_delimiter = ','
    )]
    #[arg(default_value = "dinov2-small")]
    pub(super) models: Vec<String>,

    /// Maximum number of models that are served at the same time
    #[arg(
        long,
        env = "DINOSERVE_MAX_MODELS",
        value_name = "COUNT",
        default_value_t = 8
    )]
    max_models: usize,

    #[command(flatten)]
    pub(super) engine: EngineFlags,

    #[command(flatten)]
    limits: ImageLimitFlags,

    #[command(flatten)]
    pub(super) gallery: GalleryFlags,

    /// Memory for cached results, in megabytes, so that the model does not run twice for the same
    /// file and options; 0 turns the cache off
    #[arg(long, env = "DINOSERVE_CACHE_MB", value_name = "MB")]
    #[arg(default_value_t = 0, help_heading = "Caches")]
    cache_mb: u64,

    /// Memory for features of maps, in megabytes, which are kept for two seconds: a client that
    /// asks for several maps of one photograph then waits for the model once; 0 turns this off
    #[arg(long, env = "DINOSERVE_RECENT_MB", value_name = "MB")]
    #[arg(default_value_t = 32, help_heading = "Caches")]
    recent_mb: u64,

    #[command(flatten)]
    gallery_limits: GalleryLimitFlags,

    #[command(flatten)]
    http: HttpFlags,

    #[command(flatten)]
    pub(super) access: AccessFlags,

    /// Address of a collector that receives request spans by OTLP over HTTP, such as
    /// http://localhost:4318
    #[arg(
        long,
        env = "DINOSERVE_OTLP_ENDPOINT",
        value_name = "URL",
        help_heading = "Traces"
    )]
    otlp_endpoint: Option<String>,

    /// Share of sent traces among those that begin in this server, 0 to 1
    #[arg(
        long,
        env = "DINOSERVE_OTLP_SAMPLE",
        value_name = "SHARE",
        help_heading = "Traces"
    )]
    #[arg(default_value_t = 1.0)]
    otlp_sample: f64,
}

impl Serve {
    /// Checks the list of models before any of them is downloaded.
    pub(super) fn check_models(&self) -> anyhow::Result<()> {
        if let Some(twice) = repeated(&self.models) {
            bail!("--model {twice} is given twice");
        }
        let (count, max) = (self.models.len(), self.max_models);
        if count > max {
            bail!("{count} models are more than --max-models {max}");
        }
        Ok(())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.http.address()
    }

    /// Returns the export of spans, if a collector is given.
    pub(super) fn trace_export(&self) -> Option<TraceExport> {
        let endpoint = self.otlp_endpoint.clone()?;
        (!endpoint.is_empty()).then_some(TraceExport {
            endpoint,
            sample: self.otlp_sample,
        })
    }

    pub(super) fn run(self) -> anyhow::Result<()> {
        raise_file_limit();
        self.check_models()?;
        // Files of flags are checked before the model is loaded, which takes seconds.
        let keys = self.access.keys()?;
        let certificate = self.access.certificate()?;
        let onnxruntime = self.engine.runtime()?;
        let models = self.engine.served_model_files(&self.models)?;
        let runtime = async_runtime()?;
        let served = runtime.block_on(self.serve(&onnxruntime, models, keys, certificate));
        // Abandons tasks that may take long and are no longer needed, such as the download of
        // another model.
        runtime.shutdown_timeout(Duration::from_secs(1));
        drop(remove_unfinished());
        served
    }

    async fn serve(
        self,
        onnxruntime: &Runtime,
        models: Vec<ModelFile>,
        keys: Option<Arc<ApiKeys>>,
        certificate: Option<Arc<Certificate>>,
    ) -> anyhow::Result<()> {
        let address = self.address();
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let gallery = self.gallery.open(OpenMode::Serve).await?;
        if let Some(gallery) = &gallery {
            tracing::info!(gallery = gallery.describe(), "open");
        }
        if keys.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "the API is open to all clients of this address; --api-keys FILE requires keys"
            );
        }
        let http_config = self.http.http_config(self.access.cors_origins());
        // An image that waits for half of the time can still be answered in the other half.
        let cache = CacheBytes {
            all: self.cache_mb << 20,
            recent: self.recent_mb << 20,
        };
        let limits = self.limits.limits();
        let mut served: Vec<(Extractor, EngineThread)> = Vec::with_capacity(models.len());
        for model in models {
            let (engine, thread) = Engine::start(onnxruntime, model, &self.engine.config())?;
            let extractor = match served.first() {
                Some((first, _)) => first.with_engine(engine),
                None => Extractor::new(engine, limits, cache)
                    .with_max_wait(http_config.request_timeout / 2),
            };
            served.push((extractor, thread));
        }
        let source = self.engine.source(onnxruntime)?;
        let models = Models::new(served, Some(source), self.max_models);
        let limits = self.gallery_limits.limits();
        let service = Service::new(Arc::clone(&models), gallery.clone(), limits);
        let state = AppState::new(service.clone(), http_config, keys);
        let scheme = certificate.as_ref().map_or("http", |_| "https");
        let config = self.http.serve_config(&self.access, certificate);
        let build_info = &telemetry::metrics().build_info;
        build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);

        // The only line on standard output; the parent process reads the port from it.
        let local = listener.local_addr()?;
        writeln!(std::io::stdout(), "listening on {scheme}://{local}")?;
        let loaded = async {
            models.ready().await?;
            // From now on only a signal ends the server.
            std::future::pending::<anyhow::Result<()>>().await
        };
        tokio::select! {
            served = http::serve(listener, state, stop_signal(), config) => served?,
            failed = loaded => failed?,
        }
        drop(models);
        service.close().await;
        if let Some(gallery) = gallery {
            gallery.close().await;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Raises the limit of open files, and so of connections, to the maximum that the system allows.
fn raise_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files is unchanged");
        }
    }
}

/// Resolves on SIGTERM or Ctrl-C.
async fn stop_signal() -> Stop {
    let stop = tokio::select! {
        _ = tokio::signal::ctrl_c() => Stop::Now,
        () = terminated() => Stop::Gracefully,
    };
    tracing::info!("stopping: accepted requests are finished, new ones are rejected");
    stop
}

/// Resolves on SIGTERM; never on a system that cannot signal it.
async fn terminated() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            terminate.recv().await;
            return;
        }
    }
    std::future::pending::<()>().await;
}
