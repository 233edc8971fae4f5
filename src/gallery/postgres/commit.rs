//! Commits a write, and finds out the outcome if the connection is lost during the commit.
//!
//! If the connection breaks between the commit and its reply, the write may or may not be stored.
//! Therefore each write inserts a token into the table `writes`. After a lost reply the token is
//! looked up on another connection.

use std::time::Duration;

use deadpool_postgres::Transaction;

use super::{
    connection::{Connection, Database},
    failure::{Failure, Outcome},
};
use crate::error::Error;

/// Timeout for finding out whether a write was committed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn commit(database: &Database, transaction: Transaction<'_>) -> Outcome<()> {
    let insert = transaction
        .prepare_cached("INSERT INTO writes DEFAULT VALUES RETURNING token::text")
        .await?;
    let token: String = transaction.query_one(&insert, &[]).await?.get(0);
    match transaction.commit().await.map_err(Failure::from) {
        Err(lost) if lost.connection_is_lost() => {
            match tokio::time::timeout(LOOKUP_TIMEOUT, was_committed(database, &token)).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(lost),
                Err(_) => Err(Error::from(lost)
                    .context("it is not known whether the write was stored")
                    .into()),
            }
        }
        done => done,
    }
}

/// Returns whether a write was committed, as soon as the database can be reached.
///
/// Inserts the token again. This waits for the transaction if it is still running, and inserts a
/// row only if it failed.
async fn was_committed(database: &Database, token: &str) -> bool {
    const INSERT: &str =
        "INSERT INTO writes (token) VALUES ($1::text::uuid) ON CONFLICT DO NOTHING";
    loop {
        let inserted = async {
            let connection = database.connection().await?;
            Ok::<u64, Failure>(connection.execute(INSERT, &[&token]).await?)
        };
        match inserted.await {
            Ok(rows) => return rows == 0,
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

/// Deletes tokens that are too old to be looked up.
pub(super) async fn forget(connection: &Connection) -> Outcome<()> {
    const OLD: &str = "DELETE FROM writes WHERE at < now() - interval '1 hour'";
    connection.execute(OLD, &[]).await?;
    Ok(())
}
