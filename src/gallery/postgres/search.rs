//! Search: exact, or by the approximate index.

use tokio_postgres::types::Type;

use super::{
    connection::Connection,
    failure::Outcome,
    filtering::{self, Parameters},
    galleries::{self, GalleryRow},
    index::Indexing,
    item_row,
};
use crate::gallery::{GalleryName, ItemFilter, Neighbor, Search};

/// Maximum number of passing items for which a filtered search is exact: comparing so few takes
/// less time than finding them in the index.
const MAX_EXACT_PASSING: usize = 10_000;
/// Maximum number of candidates that pgvector keeps. Searches for more neighbors are exact.
const MAX_CANDIDATES: usize = 1000;
/// Minimum number of candidates of a search: recall is above 0.95 at ten neighbors of a million.
const MIN_CANDIDATES: usize = 200;
/// Maximum number of items that the index visits to find enough that pass the filter.
const MAX_SCAN_TUPLES: usize = 200_000;

/// Returns the nearest items, and the gallery's row.
pub(super) async fn nearest(
    mut client: Connection,
    name: &GalleryName,
    search: &Search,
    exact_up_to: usize,
) -> Outcome<(Vec<Neighbor>, GalleryRow)> {
    let gallery = galleries::require(&client, name).await?;
    search.check(name, &gallery.info.binding)?;
    let indexed = gallery.info.indexed > 0 && gallery.info.items > exact_up_to as u64;
    if indexed && !search.exact && search.k <= MAX_CANDIDATES {
        let max = MAX_EXACT_PASSING.min(exact_up_to);
        let few = match &search.filter {
            Some(filter) => passes_at_most(&client, &gallery, filter, max).await?,
            None => false,
        };
        if !few {
            let found = by_index(&mut client, &gallery, search).await?;
            // With fewer neighbors the index may not have been scanned far enough.
            if found.len() == search.k {
                return Ok((found, gallery));
            }
        }
    }
    Ok((one_by_one(&client, &gallery, search).await?, gallery))
}

async fn passes_at_most(
    client: &Connection,
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

fn search_parameters(search: &Search) -> SearchParameters {
    let mut parameters = Parameters::default();
    let vector = parameters.bind(search.vector.clone(), Type::FLOAT4_ARRAY);
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
async fn one_by_one(
    client: &Connection,
    gallery: &GalleryRow,
    search: &Search,
) -> Outcome<Vec<Neighbor>> {
    let of = search_parameters(search);
    let query = format!(
        "SELECT {}, {} AS score FROM {} WHERE {}
         ORDER BY score DESC, place LIMIT {}",
        item_row::ITEM,
        of.score,
        gallery.table,
        of.passes,
        of.limit
    );
    neighbors(&client.query_typed(&query, &of.parameters.bound()).await?)
}

async fn by_index(
    client: &mut Connection,
    gallery: &GalleryRow,
    search: &Search,
) -> Outcome<Vec<Neighbor>> {
    let Some(indexing) = Indexing::of(gallery.info.binding.dim) else {
        return Ok(Vec::new());
    };
    let mut of = search_parameters(search);
    let candidates = (2 * search.k).clamp(MIN_CANDIDATES, MAX_CANDIDATES);
    // Half precision may swap neighbors with similar scores, so more are fetched and sorted again.
    let taken = if indexing.is_rounded() {
        search.k + search.k.max(32)
    } else {
        search.k
    };
    let taken = of.parameters.bind(taken as i64, Type::INT8);
    let settings = format!(
        "SET LOCAL enable_seqscan = off; SET LOCAL hnsw.ef_search = {candidates};
         SET LOCAL hnsw.iterative_scan = strict_order;
         SET LOCAL hnsw.max_scan_tuples = {MAX_SCAN_TUPLES}"
    );
    let query = format!(
        "WITH nearest AS MATERIALIZED (
            SELECT {item}, {score} AS score FROM {table} WHERE {passes}
            ORDER BY {expression} <#> {vector}{cast} LIMIT {taken}
         ) SELECT * FROM nearest ORDER BY score DESC, place LIMIT {limit}",
        item = item_row::ITEM,
        score = of.score,
        passes = of.passes,
        vector = of.vector,
        limit = of.limit,
        table = gallery.table,
        expression = indexing.expression(),
        cast = indexing.cast(),
    );
    let transaction = client.transaction().await?;
    transaction.batch_execute(&settings).await?;
    let rows = transaction
        .query_typed(&query, &of.parameters.bound())
        .await?;
    transaction.commit().await?;
    neighbors(&rows)
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
