//! A connection for a read that may take long. The read is cancelled if no request waits for it.

use deadpool_postgres::Object;
use tokio::sync::OwnedSemaphorePermit;
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::failure::Outcome;
use crate::error::Error;

/// A connection with its permits.
pub(super) struct ScanConnection {
    /// `None` after the end of the read.
    connection: Option<Object>,
    permits: Vec<OwnedSemaphorePermit>,
    tls: Option<MakeRustlsConnect>,
}

impl ScanConnection {
    pub(super) fn new(
        connection: Object,
        permits: Vec<OwnedSemaphorePermit>,
        tls: Option<MakeRustlsConnect>,
    ) -> Self {
        Self {
            connection: Some(connection),
            permits,
            tls,
        }
    }

    /// Runs a read. If this future is dropped, the statement is cancelled in the database.
    pub(super) async fn run<T>(
        mut self,
        read: impl AsyncFnOnce(&mut Object) -> Outcome<T>,
    ) -> Outcome<T> {
        let connection = self.connection.as_mut();
        let connection = connection.ok_or_else(|| Error::internal("a connection is missing"))?;
        let outcome = read(connection).await;
        // Returns the connection to the pool.
        self.connection = None;
        outcome
    }
}

impl Drop for ScanConnection {
    fn drop(&mut self) {
        let (Some(connection), Ok(tokio)) = (
            self.connection.take(),
            tokio::runtime::Handle::try_current(),
        ) else {
            return;
        };
        let token = connection.cancel_token();
        // Closing the connection ends its transaction. The permits are held until then.
        drop(Object::take(connection));
        let tls = self.tls.take();
        let permits = std::mem::take(&mut self.permits);
        tokio.spawn(async move {
            // An error means that the statement has ended, or that the database is gone.
            let _ = match tls {
                Some(tls) => token.cancel_query(tls).await,
                None => token.cancel_query(NoTls).await,
            };
            drop(permits);
        });
    }
}
