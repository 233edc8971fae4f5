//! Search: exact, or by the approximate index.

use deadpool_postgres::Transaction;
use pgvector::Vector;
use tokio_postgres::{IsolationLevel, types::Type};

use super::{
    connection::Connection,
    failure::Outcome,
    filtering::{self, Parameters},
    gallery_row::{self, GalleryRow, Version},
    index_kind::IndexKind,
    item_row,
};
use crate::gallery::{GalleryName, ItemFilter, ItemId, Neighbor, Query, Search, no_item};

/// Maximum number of passing items for which a filtered search is exact: comparing so few takes
/// less time than finding them in the index.
const MAX_EXACT_PASSING: usize = 10_000;
/// Maximum number of candidates that pgvector keeps. It goes on to search if more are taken.
const MAX_VISITED: usize = 1000;
/// Maximum number of candidates and of neighbors of a search by the index.
const MAX_CANDIDATES: usize = 10_000;
/// Minimum number of candidates that pgvector keeps: of ten neighbors in a million it finds 99 of
/// 100.
const MIN_VISITED: usize = 100;
/// Maximum number of items that the index visits to find enough that pass the filter.
const MAX_SCAN_TUPLES: usize = 200_000;

/// Returns the nearest items, and the gallery's row, all from one snapshot of the database. Fails
/// with [`Failure::Behind`](super::failure::Failure::Behind) if that lacks a write that `at_least`
/// has.
pub(super) async fn nearest(
    client: &mut Connection,
    name: &GalleryName,
    search: &Search,
    exact_up_to: usize,
    at_least: Option<Version>,
) -> Outcome<(Vec<Neighbor>, GalleryRow)> {
    let transaction = client.build_transaction().read_only(true);
    let transaction = transaction.isolation_level(IsolationLevel::RepeatableRead);
    let mut transaction = transaction.start().await?;
    let gallery = gallery_row::require_version(&transaction, name, at_least).await?;
    search.check(name, &gallery.info.binding)?;
    let vector = match &search.query {
        Query::Vector(vector) => vector.clone(),
        Query::Item(id) => vector_of(&transaction, &gallery, id).await?,
    };
    let query = VectorQuery {
        gallery: &gallery,
        search,
        vector,
    };
    let neighbors = query.run(&mut transaction, exact_up_to).await?;
    transaction.commit().await?;
    Ok((neighbors, gallery))
}

/// Returns the vector of an item.
async fn vector_of(
    client: &Transaction<'_>,
    gallery: &GalleryRow,
    id: &ItemId,
) -> Outcome<Vec<f32>> {
    let query = format!("SELECT vector FROM {} WHERE id = $1", gallery.table);
    let bytes = id.as_str().as_bytes();
    let rows = client.query_typed(&query, &[(&bytes, Type::BYTEA)]).await?;
    let row = rows
        .first()
        .ok_or_else(|| no_item(&gallery.info.name, id))?;
    Ok(Vec::from(row.try_get::<_, Vector>(0)?))
}

/// A search for a vector.
struct VectorQuery<'a> {
    gallery: &'a GalleryRow,
    search: &'a Search,
    vector: Vec<f32>,
}

impl VectorQuery<'_> {
    async fn run(
        &self,
        transaction: &mut Transaction<'_>,
        exact_up_to: usize,
    ) -> Outcome<Vec<Neighbor>> {
        let Self {
            gallery, search, ..
        } = self;
        let above = gallery.info.items > exact_up_to as u64;
        let index = gallery.index.filter(|_| above && !search.exact);
        let index = index.filter(|_| search.k <= MAX_CANDIDATES);
        if let Some(index) = index {
            let max = MAX_EXACT_PASSING.min(exact_up_to);
            let few = match &search.filter {
                Some(filter) => passes_at_most(transaction, gallery, filter, max).await?,
                None => false,
            };
            if !few {
                let found = self.by_index(transaction, index).await?;
                // With fewer neighbors the index may not have been scanned far enough.
                if found.len() == search.k {
                    return Ok(found);
                }
            }
        }
        self.one_by_one(transaction).await
    }

    fn parameters(&self) -> SearchParameters {
        let search = self.search;
        let mut parameters = Parameters::default();
        let vector = parameters.bind(self.vector.clone(), Type::FLOAT4_ARRAY);
        let vector = format!("{vector}::real[]::vector");
        let limit = parameters.bind(search.k as i64, Type::INT8);
        let mut passes = filtering::expression(search.filter.as_ref(), &mut parameters);
        if let Some(id) = &search.except {
            let id = parameters.bind(id.as_str().as_bytes().to_vec(), Type::BYTEA);
            passes = format!("{passes} AND id <> {id}");
        }
        let score = format!("greatest(-1, least(1, -(vector <#> {vector})))::real");
        SearchParameters {
            parameters,
            vector,
            score,
            passes,
            limit,
        }
    }

    /// Compares all items. No index has the expression of the order.
    async fn one_by_one(&self, client: &Transaction<'_>) -> Outcome<Vec<Neighbor>> {
        let of = self.parameters();
        let query = format!(
            "SELECT {}, {} AS score FROM {} WHERE {}
             ORDER BY score DESC, place LIMIT {}",
            item_row::ITEM,
            of.score,
            self.gallery.table,
            of.passes,
            of.limit
        );
        neighbors(&client.query_typed(&query, &of.parameters.bound()).await?)
    }

    /// Takes candidates from the index, and sorts them by the stored vectors.
    async fn by_index(
        &self,
        transaction: &mut Transaction<'_>,
        index: IndexKind,
    ) -> Outcome<Vec<Neighbor>> {
        let Self {
            gallery, search, ..
        } = self;
        let dim = gallery.info.binding.dim;
        let mut of = self.parameters();
        let taken = index.candidates(search.k, dim).min(MAX_CANDIDATES);
        let visited = (2 * search.k).max(taken).clamp(MIN_VISITED, MAX_VISITED);
        let taken = of.parameters.bind(taken as i64, Type::INT8);
        let settings = format!(
            "SET LOCAL enable_seqscan = off; SET LOCAL hnsw.ef_search = {visited};
             SET LOCAL hnsw.iterative_scan = strict_order;
             SET LOCAL hnsw.max_scan_tuples = {MAX_SCAN_TUPLES}"
        );
        let query = format!(
            "WITH nearest AS MATERIALIZED (
                SELECT {item}, {score} AS score FROM {table} WHERE {passes}
                ORDER BY {stored} {operator} {query} LIMIT {taken}
             ) SELECT * FROM nearest ORDER BY score DESC, place LIMIT {limit}",
            item = item_row::ITEM,
            score = of.score,
            passes = of.passes,
            limit = of.limit,
            table = gallery.table,
            stored = index.expression("vector", dim),
            operator = index.operator(),
            query = index.expression(&of.vector, dim),
        );
        // The settings end with the savepoint.
        let savepoint = transaction.transaction().await?;
        savepoint.batch_execute(&settings).await?;
        let rows = savepoint
            .query_typed(&query, &of.parameters.bound())
            .await?;
        savepoint.rollback().await?;
        neighbors(&rows)
    }
}

async fn passes_at_most(
    client: &Transaction<'_>,
    gallery: &GalleryRow,
    filter: &ItemFilter,
    max: usize,
) -> Outcome<bool> {
    let mut parameters = Parameters::default();
    let limit = parameters.bind(max as i64 + 1, Type::INT8);
    let passes = filtering::expression(Some(filter), &mut parameters);
    let query = format!(
        "SELECT count(*) FROM (SELECT FROM {} WHERE {passes} LIMIT {limit}) AS passing",
        gallery.table
    );
    let count = client.query_typed(&query, &parameters.bound()).await?;
    Ok(count.first().map_or(0, |row| row.get::<_, i64>(0)) <= max as i64)
}

/// Parameters of a search, and SQL expressions that refer to them.
struct SearchParameters {
    parameters: Parameters,
    vector: String,
    /// Cosine similarity, clamped because rounding may take it a little above 1.
    score: String,
    passes: String,
    limit: String,
}

fn neighbors(rows: &[tokio_postgres::Row]) -> Outcome<Vec<Neighbor>> {
    rows.iter()
        .map(|row| {
            Ok(Neighbor {
                item: item_row::item(row)?,
                score: row.try_get("score")?,
            })
        })
        .collect()
}
