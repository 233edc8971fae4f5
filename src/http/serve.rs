//! Listening, and stopping without losing an answer.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Request, response::Response};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::{AppState, Certificate, reload::reload_on_change, router};
use crate::{error::Result, telemetry};

/// Time for connections that are made while the server stops: to be accepted, and to send their first request.
const LAST_CALL: Duration = Duration::from_millis(500);

/// How connections are treated.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Most connections that are open together; more are closed at once.
    pub max_connections: usize,
    /// In which a request's head must have arrived, and a TLS handshake be done; a connection that is idle for longer is
    /// closed.
    pub header_timeout: Duration,
    /// That a client may take no bytes of its answer.
    pub write_timeout: Duration,
    /// That the server goes on as before, but for `/readyz`, after it is told to stop: time for load balancers to notice.
    pub shutdown_delay: Duration,
    /// That accepted requests then get to end.
    pub shutdown_grace: Duration,
    /// Speaks TLS with this.
    pub certificate: Option<Arc<Certificate>>,
    /// How often files are looked at that may change.
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

/// Why a server is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Others may still send requests here until they have noticed.
    Gracefully,
    /// Somebody waits at a terminal.
    Now,
}

/// Serves until `stop` resolves, then finishes the requests that were accepted, within the grace. When this returns,
/// every connection is closed and the state is dropped.
///
/// # Errors
/// [`crate::error::Kind::Internal`] if TLS cannot be spoken.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    stop: impl Future<Output = Stop>,
    config: ServeConfig,
) -> Result<()> {
    let mut files = JoinSet::new();
    if let Some(certificate) = config.certificate.clone() {
        let (paths, reload) = (certificate.files(), move || certificate.reload());
        files.spawn(reload_on_change("certificate", paths, config.reload_interval, reload));
    }
    if let Some(keys) = state.keys.clone() {
        files.spawn(reload_on_change("keys", vec![keys.path()], config.reload_interval, move || keys.reload()));
    }
    let acceptor = config.certificate.as_ref().map(Certificate::acceptor).transpose()?;
    let (stopping, end) = watch::channel(false);
    let server = Connections {
        router: router(state.clone()),
        acceptor,
        places: Arc::new(Semaphore::new(config.max_connections.clamp(1, Semaphore::MAX_PERMITS))),
        config: config.clone(),
        end,
    };
    let mut connections = JoinSet::new();
    let delay = async move {
        let stop = stop.await;
        state.stop();
        if stop == Stop::Gracefully {
            sleep(config.shutdown_delay).await;
        }
    };
    let mut delay = pin!(delay);
    loop {
        tokio::select! {
            () = &mut delay => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.accept(stream, &mut connections),
                Err(error) => {
                    // Out of file descriptors, most likely: others will be closed in a moment.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    // Who has been let in by the system already is served.
    let latest = Instant::now() + LAST_CALL;
    while let Ok(Ok((stream, _))) = timeout_at(latest.min(Instant::now() + LAST_CALL / 20), listener.accept()).await {
        server.accept(stream, &mut connections);
    }
    drop((listener, server));
    let _ = stopping.send(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(config.shutdown_grace, all_ended).await.is_err() {
        tracing::warn!("some requests did not end in time and were cut off");
    }
    connections.shutdown().await;
    Ok(())
}

/// What every connection is made with.
struct Connections {
    router: Router,
    acceptor: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    config: ServeConfig,
    end: watch::Receiver<bool>,
}

impl Connections {
    /// Serves a connection in a task of its own, if there is a place for it.
    fn accept(&self, stream: TcpStream, tasks: &mut JoinSet<()>) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            telemetry::metrics().count_rejection("connections");
            return;
        };
        // Answers are written whole; there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.config.write_timeout));
        let (router, end, idle) = (self.router.clone(), self.end.clone(), self.config.header_timeout);
        let open = OpenConnection::new(place);
        match self.acceptor.clone() {
            None => drop(tasks.spawn(async move {
                serve_connection(Box::pin(stream), router, end, idle).await;
                drop(open);
            })),
            Some(acceptor) => drop(tasks.spawn(async move {
                match timeout(idle, acceptor.accept(Box::pin(stream))).await {
                    Ok(Ok(stream)) => serve_connection(stream, router, end, idle).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
                drop(open);
            })),
        }
    }
}

/// Counts a connection while it is there.
struct OpenConnection(#[expect(dead_code, reason = "held for its place")] OwnedSemaphorePermit);

impl OpenConnection {
    fn new(place: OwnedSemaphorePermit) -> Self {
        telemetry::metrics().connections.inc();
        Self(place)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        telemetry::metrics().connections.dec();
    }
}

/// Serves the requests of a connection until its client closes it, it is idle, or the server stops.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut end: watch::Receiver<bool>,
    idle: Duration,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(idle);
    let activity = Arc::new(Activity::default());
    let of_service = Arc::clone(&activity);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let busy = Busy::new(&of_service);
        let answer = router.clone().oneshot(request.map(axum::body::Body::new) as Request);
        async move {
            let answer: Result<Response, std::convert::Infallible> = answer.await;
            drop(busy);
            answer
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        // A client of HTTP/2 can keep a connection open with pings.
        () = activity.quiet_for(idle) => None,
        _ = end.wait_for(|end| *end) => None,
    };
    let ended = match ended {
        // A client that has just connected is about to ask something.
        None if !activity.was_used() => {
            let first_request = timeout(LAST_CALL, activity.changed.notified());
            tokio::select! {
                ended = connection.as_mut() => Some(ended),
                _ = first_request => None,
            }
        }
        ended => ended,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // Ends when what is under way has been answered.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// How many requests of a connection are being answered.
#[derive(Default)]
struct Activity {
    busy: AtomicUsize,
    used: AtomicBool,
    changed: Notify,
}

impl Activity {
    /// Whether there ever was a request.
    fn was_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// Resolves when no request has been there for so long.
    async fn quiet_for(&self, time: Duration) {
        loop {
            let changed = self.changed.notified();
            let quiet = async {
                if self.busy.load(Ordering::Acquire) > 0 {
                    std::future::pending::<()>().await;
                }
                // A little longer than HTTP/1.1 waits for a head, which closes the connection by itself.
                sleep(time + time / 4).await;
            };
            tokio::select! {
                () = changed => {}
                () = quiet => return,
            }
        }
    }
}

/// A request that is being answered.
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.busy.fetch_add(1, Ordering::AcqRel);
        activity.used.store(true, Ordering::Release);
        activity.changed.notify_one();
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}
