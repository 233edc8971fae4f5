//! The tables, and their migration.
//!
//! All tables are in the schema `dinoserve`. Each gallery has a separate table, because an index
//! needs vectors of one width; the table `galleries` lists them.

use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::types::FromSqlOwned;

use super::{
    connection::Connection,
    failure::{Failure, Outcome},
};
use crate::error::{Error, Kind};

/// Migration steps. The version of a database is the number of steps that were applied. Steps are
/// added and never changed.
const STEPS: [&str; 2] = [
    "
    CREATE TABLE galleries (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        -- NULL once the gallery was removed, until its table has no reader and is dropped.
        name text COLLATE \"C\" UNIQUE,
        binding text NOT NULL,
        items bigint NOT NULL DEFAULT 0,
        last_place bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 50);
    CREATE TABLE documents (
        kind text COLLATE \"C\" NOT NULL,
        name text COLLATE \"C\" NOT NULL,
        document bytea NOT NULL,
        PRIMARY KEY (kind, name)
    );
    -- Writes of the last hour, to look up those whose reply was lost.
    CREATE TABLE writes (
        token uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        at timestamptz NOT NULL DEFAULT now()
    );
    ",
    "
    ALTER TABLE galleries
        ADD COLUMN vectors text NOT NULL DEFAULT 'f32',
        ADD COLUMN partitions integer NOT NULL DEFAULT 1,
        -- Number of writes. A standby whose row has fewer is behind.
        ADD COLUMN version bigint NOT NULL DEFAULT 0;
    -- The same in a database and its standbys, and in no other one.
    CREATE TABLE identity (id uuid NOT NULL DEFAULT gen_random_uuid());
    INSERT INTO identity DEFAULT VALUES;
    ",
];

/// First key of the advisory locks of writes and migrations: `dino` in ASCII.
pub(super) const LOCKS: i32 = 0x6469_6e6f;

/// Migrates the database. Several servers may do so at the same time.
pub(super) async fn migrate(connection: &mut Connection) -> Outcome<()> {
    let transaction = connection.transaction().await?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1, 0)", &[&LOCKS])
        .await?;
    let encoding: String = single(&transaction, "SHOW server_encoding").await?;
    if encoding != "UTF8" {
        return Err(unavailable(format!(
            "the gallery's database is encoded in {encoding}; make one with ENCODING 'UTF8'"
        )));
    }
    let version = version(&transaction).await?;
    check_version(version)?;
    if version == 0 {
        transaction
            .batch_execute("CREATE SCHEMA IF NOT EXISTS dinoserve")
            .await?;
    }
    extension(&transaction).await?;
    if version == 0 {
        transaction
            .batch_execute(
                "CREATE TABLE dinoserve.schema (version integer NOT NULL, done timestamptz)",
            )
            .await?;
    }
    for (step, number) in STEPS.iter().zip(1..).skip(version) {
        transaction.batch_execute(step).await?;
        transaction
            .execute("INSERT INTO schema VALUES ($1, now())", &[&number])
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Checks that the database is up to date, without changing it.
pub(super) async fn verify(connection: &Connection) -> Outcome<()> {
    let version = version(connection).await?;
    check_version(version)?;
    if version == STEPS.len() {
        return Ok(());
    }
    if version == 0 {
        let detail = "the database holds no galleries; `dinoserve serve` creates the tables";
        return Err(Error::new(Kind::NotFound, detail).into());
    }
    Err(unavailable(format!(
        "the galleries in the database are of version {version}, and this program reads version \
         {}; start the server once, which brings them up to date",
        STEPS.len()
    )))
}

async fn version(client: &impl GenericClient) -> Outcome<usize> {
    const EXISTS: &str = "SELECT to_regclass('dinoserve.schema') IS NOT NULL";
    const VERSION: &str = "SELECT coalesce(max(version), 0) FROM dinoserve.schema";
    if !single::<bool>(client, EXISTS).await? {
        return Ok(0);
    }
    let version: i32 = single(client, VERSION).await?;
    Ok(usize::try_from(version).unwrap_or(0))
}

/// Returns the single value of a query without parameters.
async fn single<T: FromSqlOwned>(client: &impl GenericClient, query: &str) -> Outcome<T> {
    Ok(client.query_one(query, &[]).await?.try_get(0)?)
}

fn unavailable(detail: impl Into<String>) -> Failure {
    Error::new(Kind::Unavailable, detail).into()
}

fn check_version(version: usize) -> Outcome<()> {
    if version <= STEPS.len() {
        return Ok(());
    }
    Err(unavailable(format!(
        "the galleries in the database are of version {version}, and this program knows versions \
         up to {}; use a newer dinoserve",
        STEPS.len()
    )))
}

/// Installs pgvector if needed. Version 0.8 introduced iterative scans, which filtered searches
/// need.
async fn extension(transaction: &Transaction<'_>) -> Outcome<()> {
    const INSTALLED: &str = "SELECT extversion FROM pg_extension WHERE extname = 'vector'";
    const AVAILABLE: &str =
        "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'";
    let installed = transaction.query_opt(INSTALLED, &[]).await?;
    let version: Option<String> = match &installed {
        Some(row) => Some(row.get(0)),
        None => transaction
            .query_opt(AVAILABLE, &[])
            .await?
            .map(|row| row.get(0)),
    };
    let Some(version) = version else {
        let detail = "the gallery's database needs pgvector 0.8 or newer: install it on the \
                      database's machine (the package postgresql-NN-pgvector on Debian), so that \
                      `CREATE EXTENSION vector` works";
        return Err(unavailable(detail));
    };
    let mut numbers = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (0, 8) {
        return Err(unavailable(format!(
            "the gallery's database has pgvector {version} and needs 0.8 or newer: install that, \
             and run `ALTER EXTENSION vector UPDATE` if an older one is in use"
        )));
    }
    if installed.is_none() {
        transaction
            .batch_execute("CREATE EXTENSION vector SCHEMA dinoserve")
            .await?;
    }
    Ok(())
}

/// Returns the table of the items of a gallery.
pub(super) fn items(number: i64) -> String {
    format!("dinoserve.items_{number}")
}

/// Returns the tables that hold the rows: the partitions, or the table itself if it has only one.
pub(super) fn parts(number: i64, partitions: usize) -> Vec<String> {
    let items = items(number);
    match partitions {
        0 | 1 => vec![items],
        _ => (0..partitions)
            .map(|part| format!("{items}_{part}"))
            .collect(),
    }
}

/// Returns the statements that create the item table of a gallery.
///
/// Vectors are stored in the row while it fits a page, because scans read them. Features and
/// thumbnails, which scans skip, are stored outside and uncompressed. `metadata` is the JSON as it
/// was given; `terms` is the part that filters compare. Rows are distributed to partitions by their
/// id, which PostgreSQL then can keep unique; places are assigned under the gallery's lock.
pub(super) fn create_items(number: i64, dim: usize, partitions: usize) -> String {
    let items = items(number);
    let parts = parts(number, partitions);
    let partitioned = parts.len() > 1;
    let (keys, distribution) = match partitioned {
        true => ("PRIMARY KEY (id)", "PARTITION BY HASH (id)"),
        false => ("PRIMARY KEY (place), UNIQUE (id)", ""),
    };
    let mut statements = format!(
        "CREATE TABLE {items} (
            place bigint NOT NULL,
            stored_ms bigint NOT NULL,
            checksum bigint NOT NULL,
            vector vector({dim}) NOT NULL,
            id bytea NOT NULL,
            label text COLLATE \"C\",
            metadata text NOT NULL,
            terms jsonb NOT NULL,
            features bytea,
            thumbnail bytea,
            {keys}
        ) {distribution};
        ALTER TABLE {items}
            ALTER vector SET STORAGE MAIN,
            ALTER features SET STORAGE EXTERNAL,
            ALTER thumbnail SET STORAGE EXTERNAL;
        CREATE INDEX items_{number}_label ON {items} (label);
        CREATE INDEX items_{number}_terms ON {items} USING gin (terms jsonb_path_ops);"
    );
    if partitioned {
        statements += &format!("CREATE INDEX items_{number}_place ON {items} (place);");
        for (remainder, part) in parts.iter().enumerate() {
            statements += &format!(
                "CREATE TABLE {part} PARTITION OF {items}
                 FOR VALUES WITH (MODULUS {partitions}, REMAINDER {remainder});"
            );
        }
    }
    statements
}
