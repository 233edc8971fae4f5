//! Listening, and stopping without losing an answer.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, http::Version, response::Response};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::{
    error::Result,
    http::{
        AppState, Certificate, router,
        server::{
            activity::{Activity, Answer, Busy},
            reload::reload_on_change,
        },
    },
    telemetry,
};

/// Time for connections that are made while the server stops: to be accepted, and to send their
/// first request.
const LAST_CALL: Duration = Duration::from_millis(500);

/// How connections are treated.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Most connections that are open together; more are closed at once.
    pub max_connections: usize,
    /// In which a request's head must have arrived, and a TLS handshake be done; a connection that
    /// is idle for longer is closed.
    pub header_timeout: Duration,
    /// That a client may take nothing of its answer.
    pub write_timeout: Duration,
    /// That the server goes on as before, but for `/readyz`, after it is told to stop: time for
    /// load balancers to notice.
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

/// Serves until `stop` resolves, then finishes the requests that were accepted, within the grace.
/// When this returns, every connection is closed and the state is dropped.
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
        files.spawn(reload_on_change(
            "certificate",
            paths,
            config.reload_interval,
            reload,
        ));
    }
    if let Some(keys) = state.keys.clone() {
        files.spawn(reload_on_change(
            "keys",
            vec![keys.path()],
            config.reload_interval,
            move || keys.reload(),
        ));
    }
    let acceptor = config
        .certificate
        .as_ref()
        .map(Certificate::acceptor)
        .transpose()?;
    let (stopping, end) = watch::channel(false);
    let server = Connections {
        router: router::router(state.clone()),
        acceptor,
        places: Arc::new(Semaphore::new(
            config.max_connections.clamp(1, Semaphore::MAX_PERMITS),
        )),
        config: config.clone(),
        most_head: state.config.max_header_bytes,
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
    while let Ok(Ok((stream, _))) = timeout_at(
        latest.min(Instant::now() + LAST_CALL / 20),
        listener.accept(),
    )
    .await
    {
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
    most_head: usize,
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
        let (router, end) = (self.router.clone(), self.end.clone());
        let limits = ConnectionLimits {
            idle: self.config.header_timeout,
            untaken: self.config.write_timeout,
            most_head: self.most_head,
        };
        let open = OpenConnection::new(place);
        match self.acceptor.clone() {
            None => drop(tasks.spawn(async move {
                serve_connection(Box::pin(stream), router, end, limits).await;
                drop(open);
            })),
            Some(acceptor) => drop(tasks.spawn(async move {
                let mut ending = end.clone();
                let late = async {
                    let _ = ending.wait_for(|end| *end).await;
                    sleep(LAST_CALL).await;
                };
                tokio::select! {
                    shaken = timeout(limits.idle, acceptor.accept(Box::pin(stream))) => match shaken {
                        Ok(Ok(stream)) => serve_connection(stream, router, end, limits).await,
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    },
                    () = late => {}
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

/// What is expected of a connection.
#[derive(Clone, Copy)]
struct ConnectionLimits {
    /// Until its next request.
    idle: Duration,
    /// Until something is taken of an answer.
    untaken: Duration,
    /// Most bytes of a request's head.
    most_head: usize,
}

/// Serves the requests of a connection until its client closes it, it is idle, its answers are not
/// taken, or the server stops.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut end: watch::Receiver<bool>,
    ConnectionLimits {
        idle,
        untaken,
        most_head,
    }: ConnectionLimits,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(idle);
    // Beyond our own limit, whose answer says more. Each header counts 32 bytes there.
    let head = u32::try_from(2 * most_head)
        .unwrap_or(u32::MAX)
        .saturating_add(16 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(idle)
        .max_header_list_size(head);
    let activity = Arc::new(Activity::default());
    let of_service = Arc::clone(&activity);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let is_http2 = request.version() == Version::HTTP_2;
        let (busy, activity) = (Busy::new(&of_service, is_http2), Arc::clone(&of_service));
        let answer = router.clone().oneshot(request.map(Body::new) as Request);
        async move {
            let answer: Result<Response, std::convert::Infallible> = answer.await;
            // That a client of HTTP/1.1 takes nothing, the socket tells.
            let answer = answer.map(|answer| match is_http2 {
                true => answer.map(|body| Body::new(Answer::new(body, &activity))),
                false => answer,
            });
            drop(busy);
            answer
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        // A client of HTTP/2 can keep a connection open with pings.
        () = activity.quiet_for(idle) => None,
        () = activity.untaken_for(untaken) => return tracing::debug!("a client took nothing of its answers"),
        _ = end.wait_for(|end| *end) => None,
    };
    let ended = match ended {
        // A client that has just connected is about to ask something.
        None if !activity.was_used() => {
            let asked = tokio::select! {
                ended = connection.as_mut() => Err(ended),
                asked = timeout(LAST_CALL, activity.changed()) => Ok(asked.is_ok()),
            };
            match asked {
                Err(ended) => Some(ended),
                Ok(true) => None,
                Ok(false) => {
                    connection.as_mut().graceful_shutdown();
                    // Half a head is no request that was accepted.
                    let _ = timeout(LAST_CALL, connection).await;
                    return;
                }
            }
        }
        ended => ended,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // Ends when what is under way has been answered.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = activity.over_for(untaken), if activity.is_http2() => {
                    return tracing::debug!("a client took nothing of its answers");
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
