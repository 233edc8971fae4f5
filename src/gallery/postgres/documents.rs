//! Statements about documents.

use bytes::Bytes;
use deadpool_postgres::Transaction;
use sha2::{Digest, Sha256};

use super::{connection::Connection, failure::Outcome};
use crate::gallery::{DocumentKey, DocumentKind};

pub(super) async fn put(
    transaction: &Transaction<'_>,
    key: DocumentKey<'_>,
    document: &[u8],
) -> Outcome<()> {
    const PUT: &str = "INSERT INTO documents VALUES ($1, $2, $3)
                       ON CONFLICT (kind, name) DO UPDATE SET document = excluded.document";
    transaction
        .execute(PUT, &[&key.kind().to_string(), &key.name(), &document])
        .await?;
    Ok(())
}

/// Replaces a document that is still `before`, and returns whether it was.
pub(super) async fn replace(
    transaction: &Transaction<'_>,
    key: DocumentKey<'_>,
    before: &[u8],
    document: &[u8],
) -> Outcome<bool> {
    const REPLACE: &str = "UPDATE documents SET document = $3
                           WHERE kind = $1 AND name = $2 AND sha256(document) = $4";
    let kind = key.kind().to_string();
    let before = Sha256::digest(before);
    let replaced = transaction
        .execute(REPLACE, &[&kind, &key.name(), &document, &&before[..]])
        .await?;
    Ok(replaced > 0)
}

pub(super) async fn get(client: &Connection, key: DocumentKey<'_>) -> Outcome<Option<Bytes>> {
    const GET: &str = "SELECT document FROM documents WHERE kind = $1 AND name = $2";
    let row = client
        .query_opt(GET, &[&key.kind().to_string(), &key.name()])
        .await?;
    Ok(row.map(|row| Bytes::from(row.get::<_, Vec<u8>>(0))))
}

pub(super) async fn list(client: &Connection, kind: DocumentKind) -> Outcome<Vec<String>> {
    const LIST: &str = "SELECT name FROM documents WHERE kind = $1 ORDER BY name";
    let rows = client.query(LIST, &[&kind.to_string()]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub(super) async fn remove(transaction: &Transaction<'_>, key: DocumentKey<'_>) -> Outcome<bool> {
    const REMOVE: &str = "DELETE FROM documents WHERE kind = $1 AND name = $2";
    let removed = transaction
        .execute(REMOVE, &[&key.kind().to_string(), &key.name()])
        .await?;
    Ok(removed > 0)
}

/// Gives a document, if it exists, another name.
pub(super) async fn rename(
    transaction: &Transaction<'_>,
    from: DocumentKey<'_>,
    to: &str,
) -> Outcome<()> {
    const RENAME: &str = "UPDATE documents SET name = $3 WHERE kind = $1 AND name = $2";
    transaction
        .execute(RENAME, &[&from.kind().to_string(), &from.name(), &to])
        .await?;
    Ok(())
}
