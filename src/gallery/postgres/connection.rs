//! Connections to the database: the location, TLS, the pool, and what each connection is set to.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{
    Config, NoTls,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{failure::Outcome, scan::ScanConnection};
use crate::error::{Error, Kind, Result, ResultExt};

/// A connection of the pool, which goes back to it when dropped.
pub(super) type Connection = deadpool_postgres::Object;

/// Timeout for making a connection, and for checking that it is alive.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for a free connection.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time without an acknowledgment from the network after which a connection is closed.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(30);

/// Settings of each connection.
///
/// Acknowledged writes are durable, also in a database with `synchronous_commit = off`. Timeouts
/// release the locks of a writer that hangs and end searches that were abandoned. JIT compilation
/// of a search takes longer than the search. The extension can be in any schema.
const SESSION: &str = "
    SET client_min_messages = warning;
    SET default_transaction_isolation = 'read committed';
    SET lock_timeout = '30s';
    SET idle_in_transaction_session_timeout = '60s';
    SET jit = off;
    SELECT set_config('statement_timeout', '60s', false)
        WHERE current_setting('statement_timeout') = '0';
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') = 'off';
    SELECT set_config('search_path', concat_ws(', ', 'dinoserve', (
        SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
        WHERE extname = 'vector'
    )), false)";

pub(super) struct Database {
    pool: Pool,
    location: String,
    tls: Option<MakeRustlsConnect>,
    permits: Permits,
}

/// Permits for kinds of work that take long. Their sum is below the number of connections, so that
/// short work always finds one.
struct Permits {
    /// Writers, which wait for each other.
    writers: Arc<Semaphore>,
    /// Readers of whole galleries, which are as slow as their clients.
    streams: Arc<Semaphore>,
    /// Searches and pages, which may read all items.
    scans: Arc<Semaphore>,
    /// Pages, which need a permit of both kinds: searches always find one.
    pages: Arc<Semaphore>,
}

impl Permits {
    fn new(connections: usize) -> Self {
        let sixteenths = |count: usize| {
            let permits = (connections * count / 16).max(1);
            Arc::new(Semaphore::new(permits))
        };
        Self {
            writers: sixteenths(5),
            streams: sixteenths(3),
            scans: sixteenths(6),
            pages: sixteenths(3),
        }
    }
}

/// A connection for longer work, with the permit that limits their number.
pub(super) type LongConnection = (Connection, OwnedSemaphorePermit);

impl Database {
    /// Creates a pool, which connects when a connection is needed and replaces broken ones. `flag`
    /// is the one that gave the URL.
    pub(super) fn new(flag: &str, url: &str, connections: usize) -> Result<Self> {
        // The parser's message is left out, because it may quote a part of the password.
        let form = "the gallery's location is not the URL of a database; write \
                    postgres://user:password@host:5432/database, with %40 for an @ in the \
                    password, and ?sslmode=require for TLS (sslmode is disable, prefer or require)";
        let mut config: Config = url.parse().map_err(|_| Error::option(flag, form))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Error::option(flag, form));
        }
        if config.get_application_name().is_none() {
            config.application_name("dinoserve");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(NETWORK_TIMEOUT);
        }
        config.keepalives_idle(config.get_keepalives_idle().min(NETWORK_TIMEOUT));

        let location = location(&config);
        // Each connection is checked before use.
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Verified,
        };
        let tls = match config.get_ssl_mode() {
            SslMode::Require => Some(tls()?),
            _ => None,
        };
        let manager = match tls.clone() {
            Some(tls) => Manager::from_config(config, tls, recycling),
            None => Manager::from_config(config, NoTls, recycling),
        };
        let set_up = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
            Box::pin(async move {
                client
                    .batch_execute(SESSION)
                    .await
                    .map_err(HookError::Backend)
            })
        });
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT_TIMEOUT))
            // Several addresses may be tried in turn.
            .create_timeout(Some(4 * CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .post_create(set_up)
            .build()
            .internal("creating a connection pool")?;
        Ok(Self {
            pool,
            location,
            tls,
            permits: Permits::new(connections),
        })
    }

    /// Returns host, port and name of the database.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Returns a connection for short work.
    pub(super) async fn connection(&self) -> Outcome<Connection> {
        Ok(self.pool.get().await?)
    }

    pub(super) async fn writer(&self) -> Outcome<LongConnection> {
        self.long_connection(&self.permits.writers).await
    }

    /// Returns a connection for reading a whole gallery.
    pub(super) async fn stream(&self) -> Outcome<LongConnection> {
        self.long_connection(&self.permits.streams).await
    }

    /// Returns a connection for a search.
    pub(super) async fn search(&self) -> Outcome<ScanConnection> {
        let (connection, permit) = self.long_connection(&self.permits.scans).await?;
        Ok(ScanConnection::new(
            connection,
            vec![permit],
            self.tls.clone(),
        ))
    }

    /// Returns a connection for a page.
    pub(super) async fn page(&self) -> Outcome<ScanConnection> {
        let page = permit(&self.permits.pages).await?;
        let (connection, scan) = self.long_connection(&self.permits.scans).await?;
        Ok(ScanConnection::new(
            connection,
            vec![page, scan],
            self.tls.clone(),
        ))
    }

    async fn long_connection(&self, permits: &Arc<Semaphore>) -> Outcome<LongConnection> {
        let permit = permit(permits).await?;
        Ok((self.connection().await?, permit))
    }

    /// Closes the pool; connections in use close when they are returned.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// Waits for a permit.
async fn permit(permits: &Arc<Semaphore>) -> Outcome<OwnedSemaphorePermit> {
    let acquired = tokio::time::timeout(WAIT_TIMEOUT, Arc::clone(permits).acquire_owned()).await;
    let Ok(Ok(permit)) = acquired else {
        let detail = "too many requests use the gallery's database; try again shortly, or raise \
                      --gallery-connections";
        return Err(Error::new(Kind::Overloaded, detail).into());
    };
    Ok(permit)
}

/// Returns TLS that verifies certificate and host name with the certificates the machine trusts.
fn tls() -> Result<MakeRustlsConnect> {
    use rustls_platform_verifier::BuilderVerifierExt;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| {
            let detail = format!("TLS to the gallery's database: {error}");
            Error::new(Kind::Unavailable, detail)
        })?;
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

fn location(config: &Config) -> String {
    let named = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(folder) => folder.display().to_string(),
    });
    let mut hosts: Vec<String> = named.collect();
    if hosts.is_empty() {
        let addresses = config.get_hostaddrs().iter();
        hosts = addresses.map(ToString::to_string).collect();
    }
    let ports = config.get_ports();
    for (at, host) in hosts.iter_mut().enumerate() {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        *host = format!("{host}:{port}");
    }
    let database = config.get_dbname().or(config.get_user());
    let database = database.unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gallery::GalleryConfig;

    #[test]
    fn no_kind_of_work_takes_the_permits_of_another() {
        for connections in GalleryConfig::MIN_CONNECTIONS..200 {
            let permits = Permits::new(connections);
            let of = |kind: &Semaphore| kind.available_permits();
            let long = of(&permits.writers) + of(&permits.streams) + of(&permits.scans);
            assert!(long < connections, "{connections}: short work has one");
            assert!(
                of(&permits.pages) < of(&permits.scans),
                "{connections}: so have searches"
            );
        }
    }
}
