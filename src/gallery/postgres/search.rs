//! The nearest items: compared one by one, or by the index.

use tokio_postgres::types::Type;

use super::{
    connection::Connection,
    failure::Outcome,
    filtering::{self, Parameters},
    galleries::{self, Found},
    index::Indexing,
    record,
};
use crate::gallery::{GalleryName, ItemFilter, Neighbor, Search};

/// A filter that so few items pass is answered exactly: comparing them all takes less than finding
/// them in the index.
const FEW: usize = 10_000;
/// More neighbors than this are found exactly. It is the most candidates that pgvector keeps.
const MOST_CANDIDATES: usize = 1000;
/// Fewest candidates of a search: recall is above 0.95 at ten neighbors of a million.
const CANDIDATES: usize = 200;
/// An index that was asked for k neighbors looks at no more items than this to find as many that
/// pass the filter.
const MOST_LOOKED_AT: usize = 200_000;

/// The nearest items, and the gallery as it was found.
pub(super) async fn nearest(
    mut client: Connection,
    name: &GalleryName,
    search: &Search,
    exact_up_to: usize,
) -> Outcome<(Vec<Neighbor>, Found)> {
    let gallery = galleries::find(&client, name).await?;
    search.check(name, &gallery.info.binding)?;
    let indexed = gallery.info.indexed > 0 && gallery.info.items > exact_up_to as u64;
    if indexed && !search.exact && search.k <= MOST_CANDIDATES {
        let few = match &search.filter {
            Some(filter) => passes_at_most(&client, &gallery, filter, FEW.min(exact_up_to)).await?,
            None => false,
        };
        if !few {
            let found = by_index(&mut client, &gallery, search).await?;
            // Fewer may pass the filter, or the index was not looked through far enough.
            if found.len() == search.k {
                return Ok((found, gallery));
            }
        }
    }
    Ok((one_by_one(&client, &gallery, search).await?, gallery))
}

/// Whether no more than `most` items pass the filter.
async fn passes_at_most(
    client: &Connection,
    gallery: &Found,
    filter: &ItemFilter,
    most: usize,
) -> Outcome<bool> {
    let mut parameters = Parameters::default();
    let limit = parameters.bind(most as i64 + 1, Type::INT8);
    let passes = filtering::expression(Some(filter), &mut parameters);
    let query = format!(
        "SELECT count(*) FROM (SELECT FROM {} WHERE {passes} LIMIT {limit}) AS passing",
        gallery.table
    );
    let count = client.query_typed(&query, &parameters.bound()).await?;
    Ok(count.first().map_or(0, |row| row.get::<_, i64>(0)) <= most as i64)
}

/// The parameters that both ways have, and the names that statements call them by.
struct Sought {
    parameters: Parameters,
    vector: String,
    /// The cosine; rounding may take it a little above 1.
    score: String,
    passes: String,
    limit: String,
}

fn sought(search: &Search) -> Sought {
    let mut parameters = Parameters::default();
    let vector = format!(
        "{}::real[]::vector",
        parameters.bind(search.vector.clone(), Type::FLOAT4_ARRAY)
    );
    let limit = parameters.bind(search.k as i64, Type::INT8);
    let mut passes = filtering::expression(search.filter.as_ref(), &mut parameters);
    if let Some(id) = &search.except {
        let id = parameters.bind(id.as_str().as_bytes().to_vec(), Type::BYTEA);
        passes = format!("{passes} AND id <> {id}");
    }
    let score = format!("greatest(-1, least(1, -(vector <#> {vector})))::real");
    Sought {
        parameters,
        vector,
        score,
        passes,
        limit,
    }
}

/// The order is by an expression that no index has, so that all are compared.
async fn one_by_one(
    client: &Connection,
    gallery: &Found,
    search: &Search,
) -> Outcome<Vec<Neighbor>> {
    let Sought {
        parameters,
        score,
        passes,
        limit,
        ..
    } = sought(search);
    let query = format!(
        "SELECT {}, {score} AS score FROM {} WHERE {passes} ORDER BY score DESC, place LIMIT {limit}",
        record::ITEM,
        gallery.table
    );
    neighbors(&client.query_typed(&query, &parameters.bound()).await?)
}

async fn by_index(
    client: &mut Connection,
    gallery: &Found,
    search: &Search,
) -> Outcome<Vec<Neighbor>> {
    let Some(indexing) = Indexing::of(gallery.info.binding.dim) else {
        return Ok(Vec::new());
    };
    let Sought {
        mut parameters,
        vector,
        score,
        passes,
        limit,
    } = sought(search);
    let candidates = (2 * search.k).clamp(CANDIDATES, MOST_CANDIDATES);
    // Half precision orders neighbors that are close to each other differently; more are taken,
    // and ordered again.
    let taken = if indexing.is_rounded() {
        search.k + search.k.max(32)
    } else {
        search.k
    };
    let taken = parameters.bind(taken as i64, Type::INT8);
    let settings = format!(
        "SET LOCAL enable_seqscan = off; SET LOCAL hnsw.ef_search = {candidates};
         SET LOCAL hnsw.iterative_scan = strict_order; SET LOCAL hnsw.max_scan_tuples = {MOST_LOOKED_AT}"
    );
    let query = format!(
        "WITH nearest AS MATERIALIZED (
            SELECT {item}, {score} AS score FROM {table} WHERE {passes}
            ORDER BY {expression} <#> {vector}{cast} LIMIT {taken}
         ) SELECT * FROM nearest ORDER BY score DESC, place LIMIT {limit}",
        item = record::ITEM,
        table = gallery.table,
        expression = indexing.expression(),
        cast = indexing.cast(),
    );
    let transaction = client.transaction().await?;
    transaction.batch_execute(&settings).await?;
    let rows = transaction.query_typed(&query, &parameters.bound()).await?;
    transaction.commit().await?;
    neighbors(&rows)
}

fn neighbors(rows: &[tokio_postgres::Row]) -> Outcome<Vec<Neighbor>> {
    rows.iter()
        .map(|row| {
            Ok(Neighbor {
                item: record::item(row)?,
                score: row.try_get("score")?,
            })
        })
        .collect()
}
