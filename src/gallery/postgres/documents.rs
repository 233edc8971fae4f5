//! Documents beside the galleries.

use bytes::Bytes;

use deadpool_postgres::Transaction;

use super::{connection::Connection, failure::Outcome};
use crate::{
    error::{Error, Kind},
    gallery::{DocumentKind, GalleryName},
};

pub(super) async fn put(
    client: &Transaction<'_>,
    kind: DocumentKind,
    name: &GalleryName,
    document: &[u8],
) -> Outcome<()> {
    const PUT: &str = "INSERT INTO documents VALUES ($1, $2, $3)
                       ON CONFLICT (kind, name) DO UPDATE SET document = excluded.document";
    client
        .execute(PUT, &[&kind.to_string(), &name.as_str(), &document])
        .await?;
    Ok(())
}

pub(super) async fn get(
    client: &Connection,
    kind: DocumentKind,
    name: &GalleryName,
) -> Outcome<Bytes> {
    const GET: &str = "SELECT document FROM documents WHERE kind = $1 AND name = $2";
    let row = client
        .query_opt(GET, &[&kind.to_string(), &name.as_str()])
        .await?;
    Ok(row
        .map(|row| Bytes::from(row.get::<_, Vec<u8>>(0)))
        .ok_or_else(|| missing(kind, name))?)
}

pub(super) async fn list(client: &Connection, kind: DocumentKind) -> Outcome<Vec<GalleryName>> {
    const LIST: &str = "SELECT name FROM documents WHERE kind = $1 ORDER BY name";
    let rows = client.query(LIST, &[&kind.to_string()]).await?;
    rows.iter()
        .map(|row| Ok(GalleryName::new(row.get::<_, String>(0))?))
        .collect()
}

pub(super) async fn remove(
    client: &Transaction<'_>,
    kind: DocumentKind,
    name: &GalleryName,
) -> Outcome<()> {
    const REMOVE: &str = "DELETE FROM documents WHERE kind = $1 AND name = $2";
    match client
        .execute(REMOVE, &[&kind.to_string(), &name.as_str()])
        .await?
    {
        0 => Err(missing(kind, name).into()),
        _ => Ok(()),
    }
}

fn missing(kind: DocumentKind, name: &GalleryName) -> Error {
    Error::new(Kind::NotFound, format!("there is no {kind} `{name}`"))
}
