//! Listening, and stopping without losing an answer.

use std::time::Duration;

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};

/// Times of the connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionTimes {
    /// In which a request's head must have arrived; a connection that is idle for longer is closed.
    pub header: Duration,
    /// That accepted requests get to end when the server stops.
    pub grace: Duration,
}

/// Serves until `stop` resolves, then finishes the requests that were accepted, within the grace. When this returns,
/// every connection is closed and the router is dropped.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>, times: ConnectionTimes) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(times.header);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(times.header);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Answers are written whole; there is nothing to wait for.
                    let _ = stream.set_nodelay(true);
                    let service = TowerToHyperService::new(router.clone());
                    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
                    let connection = graceful.watch(connection);
                    connections.spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a connection ended early");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others will be closed in a moment.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(times.grace) => tracing::warn!("some requests did not end in time and were cut off"),
    }
    connections.shutdown().await;
}
