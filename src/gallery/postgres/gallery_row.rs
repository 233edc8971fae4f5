//! The rows of galleries, as they are read. The row of a gallery has its number, and the number
//! names its table.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::{
    connection::Connection,
    failure::{Failure, Outcome},
    index_kind::IndexKind,
    schema,
};
use crate::{
    error::Error,
    gallery::{Binding, GalleryInfo, GalleryName, VectorFormat, no_gallery},
};

/// A gallery as its row describes it.
pub(super) struct GalleryRow {
    pub(super) number: i64,
    pub(super) table: String,
    pub(super) last_place: i64,
    pub(super) partitions: usize,
    /// Number of writes.
    pub(super) version: i64,
    /// The index that searches use: the one for the format of its vectors, or another one until
    /// that is made.
    pub(super) index: Option<IndexKind>,
    /// Whether it has other indexes, or parts of them.
    has_other_indexes: bool,
    /// Whether the row was read from a standby.
    is_of_standby: bool,
    pub(super) info: GalleryInfo,
}

impl GalleryRow {
    /// Returns the index that the gallery should have.
    pub(super) fn wanted_index(&self) -> Option<IndexKind> {
        IndexKind::of(self.info.vectors, self.info.binding.dim)
    }

    /// Returns whether the gallery has this index, and no other one.
    pub(super) fn has_only(&self, kind: IndexKind) -> bool {
        self.index == Some(kind) && !self.has_other_indexes
    }
}

/// State of a gallery, to find out whether a standby has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    number: i64,
    writes: i64,
}

impl Version {
    /// Fails with [`Failure::Behind`] unless the row is of a standby that has these writes. A
    /// former standby that has become a primary has writes of its own.
    fn check(self, row: GalleryRow) -> Outcome<GalleryRow> {
        let has_all = row.number == self.number && row.version >= self.writes;
        match has_all && row.is_of_standby {
            true => Ok(row),
            false => Err(Failure::Behind),
        }
    }
}

/// Columns of a [`GalleryRow`]. `indexes` are the kinds of which a partition has an index, with `?`
/// unless every partition has a valid one: `indisvalid` is false during the build of an index and
/// after one that failed.
const COLUMNS: &str =
    "SELECT number, name, binding, items, last_place, vectors, partitions, version,
    pg_is_in_recovery() AS is_of_standby, ARRAY(
        SELECT CASE count(*) FILTER (WHERE valid)
            WHEN partitions THEN kind ELSE kind || '?' END
        FROM (
            SELECT kind, (
                SELECT indisvalid FROM pg_index
                WHERE indexrelid = to_regclass(concat_ws('_', 'dinoserve.items', number,
                    CASE WHEN partitions > 1 THEN part END, kind))
            ) AS valid
            FROM unnest(ARRAY['vector', 'half', 'bits']) AS kind,
                generate_series(0, partitions - 1) AS part
            OFFSET 0
        ) AS parts WHERE valid IS NOT NULL GROUP BY kind
    ) AS indexes, (
        SELECT atttypmod FROM pg_attribute
        WHERE attrelid = to_regclass('dinoserve.items_' || number) AND attname = 'vector'
    ) AS dim FROM galleries";

/// Maximum place of an item: far above any that can be written, and low enough for additions.
pub(super) const MAX_PLACE: i64 = 1 << 62;

fn gallery_row(row: &Row) -> Outcome<GalleryRow> {
    let number: i64 = row.get("number");
    let name: String = row.get("name");
    let damaged = |damage: &dyn std::fmt::Display| {
        let detail = format!(
            "the gallery `{name}` is damaged: {damage}; delete it, or restore a snapshot of it"
        );
        Error::damaged(detail)
    };
    let binding: Binding =
        serde_json::from_str(row.get("binding")).map_err(|error| damaged(&error))?;
    binding.check_possible().map_err(|error| damaged(&error))?;
    let columns: Option<i32> = row.get("dim");
    if columns.is_some_and(|columns| usize::try_from(columns) != Ok(binding.dim)) {
        return Err(damaged(&"its table holds vectors of another width").into());
    }
    let last_place: i64 = row.get("last_place");
    if !(0..=MAX_PLACE).contains(&last_place) {
        return Err(damaged(&"the number of its last place is out of range").into());
    }
    let items: i64 = row.get("items");
    if !(0..=last_place).contains(&items) {
        return Err(damaged(&"the number of its items is out of range").into());
    }
    let items = items.unsigned_abs();
    let vectors: &str = row.get("vectors");
    let vectors: VectorFormat = vectors
        .parse()
        .map_err(|_| damaged(&format_args!("`{vectors}` is no format of vectors")))?;
    let partitions = usize::try_from(row.get::<_, i32>("partitions")).unwrap_or(0);
    if partitions == 0 {
        return Err(damaged(&"the number of its partitions is out of range").into());
    }
    let indexes: Vec<&str> = row.get("indexes");
    let index = IndexKind::usable(&indexes, vectors, binding.dim);
    let indexed = if index.is_some() { items } else { 0 };
    Ok(GalleryRow {
        number,
        table: schema::items(number),
        last_place,
        partitions,
        version: row.get("version"),
        index,
        has_other_indexes: indexes
            .iter()
            .any(|name| index.map(IndexKind::name) != Some(*name)),
        is_of_standby: row.get("is_of_standby"),
        info: GalleryInfo {
            number: number.unsigned_abs(),
            name: GalleryName::stored(name)?,
            binding,
            vectors,
            items,
            indexed,
        },
    })
}

pub(super) async fn find(
    client: &impl GenericClient,
    name: &GalleryName,
) -> Outcome<Option<GalleryRow>> {
    let query = format!("{COLUMNS} WHERE name = $1");
    let statement = client.prepare_cached(&query).await?;
    let row = client.query_opt(&statement, &[&name.as_str()]).await?;
    row.as_ref().map(gallery_row).transpose()
}

pub(super) async fn require(
    client: &impl GenericClient,
    name: &GalleryName,
) -> Outcome<GalleryRow> {
    Ok(find(client, name).await?.ok_or_else(|| no_gallery(name))?)
}

/// Returns a gallery that must exist. Fails with [`Failure::Behind`] if the database lacks a write
/// that `at_least` has.
pub(super) async fn require_version(
    client: &impl GenericClient,
    name: &GalleryName,
    at_least: Option<Version>,
) -> Outcome<GalleryRow> {
    let found = find(client, name).await?;
    match (found, at_least) {
        (None, Some(_)) => Err(Failure::Behind),
        (None, None) => Err(no_gallery(name).into()),
        (Some(row), None) => Ok(row),
        (Some(row), Some(version)) => version.check(row),
    }
}

pub(super) async fn list(client: &Connection) -> Outcome<Vec<GalleryInfo>> {
    let query = format!("{COLUMNS} WHERE name IS NOT NULL ORDER BY name");
    let rows = client.query(&query, &[]).await?;
    // A damaged gallery must not hide the others.
    let usable = rows.iter().filter_map(|row| match gallery_row(row) {
        Ok(row) => Some(row.info),
        Err(failure) => {
            tracing::error!(error = %Error::from(failure), "a gallery cannot be used");
            None
        }
    });
    Ok(usable.filter(|info| !info.name.is_staging()).collect())
}

/// Returns the names of the galleries that are being restored.
pub(super) async fn staging(client: &Connection) -> Outcome<Vec<GalleryName>> {
    const STAGING: &str = "SELECT name FROM galleries WHERE starts_with(name, $1)";
    let prefix = &GalleryName::STAGING_PREFIX;
    let rows = client.query(STAGING, &[prefix]).await?;
    let names = rows
        .iter()
        .map(|row| Ok(GalleryName::stored(row.get::<_, String>(0))?));
    names.collect()
}

/// Returns the number of a gallery, and that of its writes.
pub(super) async fn version(
    client: &impl GenericClient,
    name: &GalleryName,
) -> Outcome<Option<Version>> {
    const VERSION: &str = "SELECT number, version FROM galleries WHERE name = $1";
    let statement = client.prepare_cached(VERSION).await?;
    let row = client.query_opt(&statement, &[&name.as_str()]).await?;
    Ok(row.map(|row| Version {
        number: row.get(0),
        writes: row.get(1),
    }))
}
