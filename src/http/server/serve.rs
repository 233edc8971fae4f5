//! Accepts connections, and stops without losing a response.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::{
    connection::{Connection, ConnectionLimits, LAST_CALL, OpenConnection},
    reload::reload_on_change,
    tls::Certificate,
};
use crate::{
    error::Result,
    http::{router::router, state::AppState},
    telemetry,
};

/// Limits and times of connections.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Maximum number of open connections; further ones are closed at once.
    pub max_connections: usize,
    /// Timeout for a request head and for a TLS handshake. Idle connections are closed after it.
    pub header_timeout: Duration,
    /// How long a client may go without reading its response.
    pub write_timeout: Duration,
    /// How long to keep serving after SIGTERM while `/readyz` fails, so that load balancers can
    /// drain.
    pub shutdown_delay: Duration,
    /// How long accepted requests may take to finish after that.
    pub shutdown_grace: Duration,
    /// Certificate for TLS; `None` serves plain HTTP.
    pub certificate: Option<Arc<Certificate>>,
    /// Interval between checks of key and certificate files.
    pub reload_interval: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            max_connections: 8192,
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            shutdown_delay: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(25),
            certificate: None,
            reload_interval: Duration::from_secs(10),
        }
    }
}

/// How a server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// After the shutdown delay, since load balancers may still route requests here.
    Gracefully,
    /// Without the delay, since a person waits at a terminal.
    Now,
}

/// Serves until `stop` resolves, then finishes accepted requests within the grace period. On
/// return, every connection is closed and the state is dropped.
///
/// # Errors
/// [`crate::error::Kind::Internal`] if TLS cannot be set up.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    stop: impl Future<Output = Stop>,
    config: ServeConfig,
) -> Result<()> {
    let _reloads = spawn_reloads(&state, &config);
    let (stopping, is_stopping) = watch::channel(false);
    let permits = config.max_connections.clamp(1, Semaphore::MAX_PERMITS);
    let acceptor = config.certificate.as_ref().map(Certificate::acceptor);
    let server = ConnectionFactory {
        router: router(state.clone()),
        acceptor: acceptor.transpose()?,
        permits: Arc::new(Semaphore::new(permits)),
        limits: ConnectionLimits {
            idle: config.header_timeout,
            write: config.write_timeout,
            max_head_bytes: state.config.max_header_bytes,
        },
        is_stopping,
    };
    let mut connections = JoinSet::new();
    let stopped = async move {
        let stop = stop.await;
        state.stop();
        if stop == Stop::Gracefully {
            sleep(config.shutdown_delay).await;
        }
    };
    let mut stopped = pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.accept(stream, &mut connections),
                Err(error) => {
                    // Most likely out of file descriptors: others close in a moment.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    // Serves connections that the system has accepted already.
    let latest = Instant::now() + LAST_CALL;
    let next = || latest.min(Instant::now() + LAST_CALL / 20);
    while let Ok(Ok((stream, _))) = timeout_at(next(), listener.accept()).await {
        server.accept(stream, &mut connections);
    }
    drop(listener);
    drop(server);
    let _ = stopping.send(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(config.shutdown_grace, all_ended).await.is_err() {
        tracing::warn!("some requests did not finish within the grace period and were cut off");
    }
    connections.shutdown().await;
    Ok(())
}

/// Watches the key and certificate files for as long as the returned tasks are held.
fn spawn_reloads(state: &AppState, config: &ServeConfig) -> JoinSet<()> {
    let interval = config.reload_interval;
    let mut tasks = JoinSet::new();
    if let Some(certificate) = config.certificate.clone() {
        let files = certificate.files();
        let reload = move || certificate.reload();
        tasks.spawn(reload_on_change("certificate", files, interval, reload));
    }
    if let Some(keys) = state.keys.clone() {
        let files = vec![keys.path()];
        let reload = move || keys.reload();
        tasks.spawn(reload_on_change("keys", files, interval, reload));
    }
    tasks
}

/// What every connection needs.
struct ConnectionFactory {
    router: Router,
    acceptor: Option<TlsAcceptor>,
    permits: Arc<Semaphore>,
    limits: ConnectionLimits,
    is_stopping: watch::Receiver<bool>,
}

impl ConnectionFactory {
    /// Serves a connection in its own task, if a permit is free.
    fn accept(&self, stream: TcpStream, tasks: &mut JoinSet<()>) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            telemetry::metrics().count_rejection("connections");
            return;
        };
        // Responses are written whole, so there is nothing to coalesce.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.limits.write));
        let stream = Box::pin(stream);
        let open = OpenConnection::new(permit);
        let connection = Connection {
            router: self.router.clone(),
            is_stopping: self.is_stopping.clone(),
            limits: self.limits,
        };
        match self.acceptor.clone() {
            None => drop(tasks.spawn(async move {
                connection.serve(stream).await;
                drop(open);
            })),
            Some(acceptor) => drop(tasks.spawn(async move {
                connection.serve_tls(stream, &acceptor).await;
                drop(open);
            })),
        }
    }
}
