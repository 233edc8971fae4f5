//! Listening, and stopping without losing an answer.

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;

use crate::error::{Error, Result};

/// Serves until `stop` resolves, then finishes the requests that were accepted, but for at most `grace`.
///
/// # Errors
/// [`crate::error::Kind::Io`] if the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> Result<()> {
    let (stopping, mut stopped) = tokio::sync::watch::channel(false);
    let until = async move {
        stop.await;
        stopping.send_replace(true);
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(until);
    let too_long = async move {
        // The sender lives as long as the server, so an error cannot come first.
        let _ = stopped.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        done = server.into_future() => done.map_err(|error| Error::io("serving", error)),
        () = too_long => {
            tracing::warn!("some requests did not end in time and were cut off");
            Ok(())
        }
    }
}
