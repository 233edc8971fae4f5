//! Serves one connection until its end.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, http::Version, response::Response};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::{
    connection_activity::{ConnectionActivity, InProgress, TrackedBody},
    strict_head::StrictHead,
};
use crate::telemetry;

/// How long a connection made during shutdown may take to be accepted and to send its first
/// request.
pub(super) const LAST_CALL: Duration = Duration::from_millis(500);

/// Counts an open connection.
pub(super) struct OpenConnection(
    #[expect(dead_code, reason = "held until drop")] OwnedSemaphorePermit,
);

impl OpenConnection {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        telemetry::metrics().connections.inc();
        Self(permit)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        telemetry::metrics().connections.dec();
    }
}

/// Limits of one connection.
#[derive(Clone, Copy)]
pub(super) struct ConnectionLimits {
    /// Time until the next request head.
    pub(super) idle: Duration,
    /// Time without progress of a response.
    pub(super) write: Duration,
    /// Maximum size of a request head.
    pub(super) max_head_bytes: usize,
}

/// One connection, before its stream is known.
pub(super) struct Connection {
    pub(super) router: Router,
    pub(super) is_stopping: watch::Receiver<bool>,
    pub(super) limits: ConnectionLimits,
}

impl Connection {
    /// Serves a connection after its TLS handshake.
    pub(super) async fn serve_tls(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        acceptor: &TlsAcceptor,
    ) {
        let mut is_stopping = self.is_stopping.clone();
        let is_late = async {
            let _ = is_stopping.wait_for(|stopping| *stopping).await;
            sleep(LAST_CALL).await;
        };
        tokio::select! {
            handshake = timeout(self.limits.idle, acceptor.accept(stream)) => match handshake {
                Ok(Ok(stream)) => self.serve(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            },
            () = is_late => {}
        }
    }

    /// Serves requests until the client closes the connection, it is idle, its responses stall, or
    /// the server stops.
    pub(super) async fn serve(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) {
        let idle = self.limits.idle;
        let write = self.limits.write;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(idle);
        // Above our own limit, whose error says more. Each header counts 32 bytes here.
        let max_head = u32::try_from(2 * self.limits.max_head_bytes)
            .unwrap_or(u32::MAX)
            .saturating_add(16 << 10);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(idle)
            .max_header_list_size(max_head);
        let activity = Arc::new(ConnectionActivity::default());
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            answer(self.router.clone(), request, Arc::clone(&activity))
        });
        let io = TokioIo::new(StrictHead::new(stream));
        let mut connection = pin!(builder.serve_connection(io, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            // An HTTP/2 client can keep a connection open with pings.
            () = activity.idle_for(idle) => None,
            () = activity.stalled_for(write) => return tracing::debug!("{STALLED}"),
            _ = self.is_stopping.wait_for(|stopping| *stopping) => None,
        };
        let ended = match ended {
            // A client that has just connected is about to send a request.
            None if !activity.had_any_request() => tokio::select! {
                ended = connection.as_mut() => Some(ended),
                asked = timeout(LAST_CALL, activity.changed()) => {
                    if asked.is_err() {
                        connection.as_mut().graceful_shutdown();
                        // Half a request head is not an accepted request.
                        let _ = timeout(LAST_CALL, connection).await;
                        return;
                    }
                    None
                }
            },
            ended => ended,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                // Resolves when all requests in progress are answered.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = activity.drained_for(write), if activity.is_http2() => {
                        return tracing::debug!("{STALLED}");
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

const STALLED: &str = "a client stopped reading its responses";

/// Routes a request and records its activity.
async fn answer(
    router: Router,
    request: hyper::Request<hyper::body::Incoming>,
    activity: Arc<ConnectionActivity>,
) -> Result<Response, Infallible> {
    let is_http2 = request.version() == Version::HTTP_2;
    let _in_progress = InProgress::new(&activity, is_http2);
    let request: Request = request.map(Body::new);
    let response = router.oneshot(request).await?;
    // For HTTP/1.1 the socket's write timeout does the same.
    Ok(match is_http2 {
        true => response.map(|body| Body::new(TrackedBody::new(body, &activity))),
        false => response,
    })
}
