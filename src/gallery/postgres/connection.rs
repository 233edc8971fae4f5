//! Connections to the database: the location, TLS, the pool, and what each connection is set to.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{
    Config, NoTls,
    config::{Host, SslMode},
};

use super::failure::Outcome;
use crate::error::{Error, Kind, Result};

/// A connection that is lent by the pool and goes back to it when dropped.
pub(super) type Connection = deadpool_postgres::Object;

/// How long a connection may take to be made, or to prove that it is alive.
const CONNECT: Duration = Duration::from_secs(5);
/// How long to wait for one that is free.
const WAIT: Duration = Duration::from_secs(30);
/// After so long without an answer of the other end's network the connection is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// What a connection is set to.
///
/// Acknowledged writes are on disk, also where the database is set to be faster than that. A writer
/// that hangs gives its locks back, and a search that nobody waits for any more ends. Compiling a
/// search takes longer than the search. The schema of the extension can be any.
const SESSION: &str = "
    SET client_min_messages = warning;
    SET default_transaction_isolation = 'read committed';
    SET lock_timeout = '30s';
    SET idle_in_transaction_session_timeout = '60s';
    SET jit = off;
    SELECT set_config('statement_timeout', '60s', false) WHERE current_setting('statement_timeout') = '0';
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
    SELECT set_config('search_path', concat_ws(', ', 'dinoserve', (
        SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector'
    )), false)";

/// The way to a database.
pub(super) struct Database {
    pool: Pool,
    place: String,
    /// Places of writers, who wait for each other: half of the connections, so that readers always
    /// find one.
    writers: Arc<Semaphore>,
    /// Places of readers of whole galleries, who take as long as their clients do: a quarter.
    streams: Arc<Semaphore>,
}

/// A connection with the place among those who may have one for long.
pub(super) struct Placed {
    pub(super) connection: Connection,
    pub(super) place: OwnedSemaphorePermit,
}

impl Database {
    /// A pool without connections; they are made when they are needed, and again when they broke.
    pub(super) fn new(url: &str, connections: usize) -> Result<Self> {
        // What is wrong in detail is not said: it may be a piece of the password.
        let form = "the gallery's location is no URL of a database; write postgres://user:password@host:5432/database, with \
                    %40 for an @ in the password, and ?sslmode=require for TLS (sslmode is disable, prefer or require)";
        let mut config: Config = url.parse().map_err(|_| Error::option("gallery", form))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Error::option("gallery", form));
        }
        if config.get_application_name().is_none() {
            config.application_name("dinoserve");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE);
        }
        config.keepalives_idle(config.get_keepalives_idle().min(SILENCE));

        let place = place(&config);
        // A connection is asked for a sign of life before it is lent.
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Verified,
        };
        let manager = match config.get_ssl_mode() {
            SslMode::Require => Manager::from_config(config, tls()?, recycling),
            _ => Manager::from_config(config, NoTls, recycling),
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
            .wait_timeout(Some(WAIT))
            // Several addresses may be tried in turn.
            .create_timeout(Some(4 * CONNECT))
            .recycle_timeout(Some(CONNECT))
            .post_create(set_up)
            .build()
            .map_err(|error| Error::internal(error.to_string()))?;
        let places = |most| Arc::new(Semaphore::new(most));
        Ok(Self {
            pool,
            place,
            writers: places(connections / 2),
            streams: places(connections / 4),
        })
    }

    /// Host, port and name of the database.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// A connection that works, for a short while.
    pub(super) async fn connection(&self) -> Outcome<Connection> {
        Ok(self.pool.get().await?)
    }

    /// A connection to write with.
    pub(super) async fn writer(&self) -> Outcome<Placed> {
        self.placed(&self.writers).await
    }

    /// A connection to read a whole gallery with.
    pub(super) async fn stream(&self) -> Outcome<Placed> {
        self.placed(&self.streams).await
    }

    async fn placed(&self, places: &Arc<Semaphore>) -> Outcome<Placed> {
        let place = tokio::time::timeout(WAIT, Arc::clone(places).acquire_owned()).await;
        let place = place
            .ok()
            .and_then(std::result::Result::ok)
            .ok_or_else(|| {
                Error::new(
                    Kind::Overloaded,
                    "too many others work on the gallery's database; try again shortly",
                )
            })?;
        Ok(Placed {
            connection: self.connection().await?,
            place,
        })
    }

    /// Closes the connections; those that are lent close when they are given back.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// TLS that checks certificate and host name against the certificates that the machine trusts.
fn tls() -> Result<tokio_postgres_rustls::MakeRustlsConnect> {
    use rustls_platform_verifier::BuilderVerifierExt;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| {
            Error::new(
                Kind::Unavailable,
                format!("TLS to the gallery's database: {error}"),
            )
        })?;
    Ok(tokio_postgres_rustls::MakeRustlsConnect::new(
        config.with_no_client_auth(),
    ))
}

fn place(config: &Config) -> String {
    let named = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(folder) => folder.display().to_string(),
    });
    let mut hosts: Vec<String> = named.collect();
    if hosts.is_empty() {
        hosts = config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .collect();
    }
    let ports = config.get_ports();
    for (at, host) in hosts.iter_mut().enumerate() {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        *host = format!("{host}:{port}");
    }
    let database = config
        .get_dbname()
        .or(config.get_user())
        .unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}
