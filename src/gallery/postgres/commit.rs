//! The end of a write: it is stored, or it is not, and whoever asked for it is told which.
//!
//! When the connection breaks between the commit and its answer, either may be. So each write
//! leaves a token in the table `writes`, and one whose answer was lost is looked up by it on
//! another connection.

use std::time::Duration;

use deadpool_postgres::Transaction;

use super::{
    connection::{Connection, Database},
    failure::{Failure, Outcome},
};
use crate::error::Error;

/// For how long the database is asked what became of a write.
const INQUIRY: Duration = Duration::from_secs(20);

/// Commits.
pub(super) async fn commit(database: &Database, transaction: Transaction<'_>) -> Outcome<()> {
    let leave = transaction
        .prepare_cached("INSERT INTO writes DEFAULT VALUES RETURNING token::text")
        .await?;
    let token: String = transaction.query_one(&leave, &[]).await?.get(0);
    match transaction.commit().await.map_err(Failure::from) {
        Err(lost) if lost.connection_is_lost() => {
            match tokio::time::timeout(INQUIRY, was_committed(database, &token)).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(lost),
                Err(_) => Err(Error::from(lost)
                    .context("whether the write is stored is not known")
                    .into()),
            }
        }
        done => done,
    }
}

/// Whether a write is stored, as soon as the database can be asked.
///
/// The token is left once more: that waits for a transaction that is still at it, and succeeds only
/// if that one failed.
async fn was_committed(database: &Database, token: &str) -> bool {
    const LEAVE: &str = "INSERT INTO writes (token) VALUES ($1::text::uuid) ON CONFLICT DO NOTHING";
    loop {
        let left = async {
            Ok::<u64, Failure>(
                database
                    .connection()
                    .await?
                    .execute(LEAVE, &[&token])
                    .await?,
            )
        };
        match left.await {
            Ok(rows) => return rows == 0,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Forgets tokens that nobody asks for any more.
pub(super) async fn forget(connection: &Connection) -> Outcome<()> {
    connection
        .execute(
            "DELETE FROM writes WHERE at < now() - interval '1 hour'",
            &[],
        )
        .await?;
    Ok(())
}
