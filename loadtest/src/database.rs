//! Galleries in PostgreSQL at size: filling, writers together, kinds of indexes, partitions.

use std::{
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use dinoserve::gallery::{
    Gallery, GalleryConfig, GalleryName, OpenMode, Search, VectorFormat, open, set_vectors,
};
use ndarray::{Array2, Axis};
use tokio_postgres::NoTls;

use crate::{
    points::{BLOCK, DIM, Surface, binding, item},
    report::{processor, replace_section},
    stats::{median, spread},
};

const K: usize = 10;
const QUERIES: usize = 200;
const ROUNDS: usize = 5;
/// Number of items in a transaction.
const BATCH: usize = 2000;
const WRITERS: usize = 8;
const WRITING: Duration = Duration::from_secs(5);
const FORMATS: [VectorFormat; 3] = [VectorFormat::F32, VectorFormat::F16, VectorFormat::B1];
const HEADING: &str = "## PostgreSQL at size\n";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Location of an empty database with pgvector
    #[arg(long)]
    url: String,

    /// Number of vectors
    #[arg(long, default_value_t = 1_000_000)]
    count: usize,

    /// Numbers of partitions to measure
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    partitions: Vec<usize>,

    /// File of the results, whose section about databases is replaced
    #[arg(long, default_value = "loadtest/RESULTS.md")]
    to: PathBuf,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let client = connect(&options.url).await?;
    let version: String = client.query_one("SHOW server_version", &[]).await?.get(0);
    let (memory, sync): (String, String) = {
        const SETTINGS: &str = "SELECT current_setting('shared_buffers'), current_setting('fsync')";
        let row = client.query_one(SETTINGS, &[]).await?;
        (row.get(0), row.get(1))
    };
    let mut text = format!(
        "{HEADING}\n{}, which the database shares with the client. PostgreSQL {version} with \
         pgvector, `shared_buffers` {memory}, `fsync` {sync}. {} vectors of width {DIM} near a \
         curved surface of 24 dimensions; {QUERIES} queries one after the other, {K} neighbors \
         each, through the store's interface. Medians of {ROUNDS} rounds; \
         exact searches are ten.\n\n",
        processor(),
        options.count
    );
    writers(options, &mut text).await?;
    let dataset = Dataset::make(options.count);
    writeln!(
        text,
        "| partitions | vectors in the index | index made in, s | index, MB | ms a query | \
         recall@{K} | exact, ms |\n|---|---|---|---|---|---|---|"
    )?;
    for &partitions in &options.partitions {
        searches(options, &client, &dataset, partitions, &mut text).await?;
    }
    writeln!(text)?;
    replace_section(&options.to, HEADING, &text)
}

async fn connect(url: &str) -> anyhow::Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Measures one writer against several, each of which stores one item after the other.
async fn writers(options: &Options, text: &mut String) -> anyhow::Result<()> {
    let store = open(&options.url, &GalleryConfig::default(), OpenMode::Serve).await?;
    let name = GalleryName::new("writers")?;
    store.create(&name, &binding()?).await?;
    let points = Surface::new().block(0, BLOCK);
    let mut written = 0;
    let mut rates = [Vec::new(), Vec::new()];
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        for (rates, count) in rates.iter_mut().zip([1, WRITERS]) {
            let stored = write(&store, &name, &points, count, written).await?;
            // Writers store different numbers of items, whose ids must stay new.
            written += stored.iter().max().unwrap_or(&0) * count;
            rates.push(stored.iter().sum::<usize>() as f64 / WRITING.as_secs_f64());
        }
        if let [Some(one), Some(several)] = rates.each_ref().map(|rates| rates.last()) {
            ratios.push(several / one);
        }
    }
    let [one, several] = rates;
    writeln!(
        text,
        "**Writers**, each with one item in a write: one stores {} items a second, {WRITERS} \
         store {}, {} times as many.\n",
        spread(&one, 0),
        spread(&several, 0),
        spread(&ratios, 1)
    )?;
    store.remove(&name).await?;
    store.close().await;
    Ok(())
}

/// Runs `count` writers, and returns the number of items that each stored.
async fn write(
    store: &Gallery,
    name: &GalleryName,
    points: &Array2<f32>,
    count: usize,
    first: usize,
) -> anyhow::Result<Vec<usize>> {
    let end = Instant::now() + WRITING;
    let binding = &binding()?;
    let writers = (0..count).map(|writer| async move {
        let mut stored = 0;
        while Instant::now() < end {
            let number = first + stored * count + writer;
            let item = item(number, points.row(number % BLOCK).to_vec())?;
            store.put(name, binding, vec![item]).await?;
            stored += 1;
        }
        anyhow::Ok(stored)
    });
    futures_util::future::try_join_all(writers).await
}

/// Fills a gallery, and measures searches with each kind of index.
async fn searches(
    options: &Options,
    client: &tokio_postgres::Client,
    dataset: &Dataset,
    partitions: usize,
    text: &mut String,
) -> anyhow::Result<()> {
    let config = |exact_up_to| GalleryConfig {
        exact_up_to,
        partitions,
        ..GalleryConfig::default()
    };
    let name = GalleryName::new(format!("of-{partitions}"))?;
    let store = open(&options.url, &config(usize::MAX), OpenMode::Serve).await?;
    let started = Instant::now();
    dataset.fill(&store, &name).await?;
    eprintln!("filled in {:.0} s", started.elapsed().as_secs_f64());
    client.batch_execute("VACUUM ANALYZE").await?;
    let exact = dataset.search(&store, &name, 10).await?;
    store.close().await;

    for format in FORMATS {
        set_vectors(&options.url, &config(0), &name, format).await?;
        let store = open(&options.url, &config(0), OpenMode::Serve).await?;
        let started = Instant::now();
        let suffix = match format {
            VectorFormat::F16 => "half",
            VectorFormat::B1 => "bits",
            VectorFormat::F32 | VectorFormat::I8 => "vector",
        };
        // The first search begins to make the index.
        dataset.search(&store, &name, 1).await?;
        while !is_made(client, suffix, partitions).await? {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let seconds = started.elapsed().as_secs_f64();
        // Reads the pages that searches need.
        dataset.search(&store, &name, QUERIES).await?;
        let (mut times, mut recall) = (Vec::new(), 0.0);
        for _ in 0..ROUNDS {
            let results = dataset.search(&store, &name, QUERIES).await?;
            times.push(median(&results.ms));
            recall = dataset.recall(&results);
        }
        let row = format!(
            "| {partitions} | {format} | {seconds:.0} | {:.0} | {} | {recall:.3} | {:.0} |",
            index_mb(client, suffix).await?,
            spread(&times, 2),
            median(&exact.ms)
        );
        eprintln!("{row}");
        writeln!(text, "{row}")?;
        store.close().await;
    }
    let store = open(&options.url, &config(0), OpenMode::Serve).await?;
    store.remove(&name).await?;
    store.close().await;
    Ok(())
}

/// Returns whether all partitions have an index of a kind, and no other one.
async fn is_made(
    client: &tokio_postgres::Client,
    suffix: &str,
    partitions: usize,
) -> anyhow::Result<bool> {
    const MADE: &str = "SELECT count(*) FILTER (WHERE indisvalid AND relname LIKE '%' || $1),
        count(*) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
        JOIN pg_am a ON a.oid = relam WHERE amname = 'hnsw'";
    let row = client.query_one(MADE, &[&suffix]).await?;
    let made = row.get::<_, i64>(0) as usize;
    Ok(made == partitions && row.get::<_, i64>(1) as usize == made)
}

async fn index_mb(client: &tokio_postgres::Client, suffix: &str) -> anyhow::Result<f64> {
    const BYTES: &str = "SELECT sum(pg_relation_size(c.oid))::bigint FROM pg_class c
        JOIN pg_am a ON a.oid = relam WHERE amname = 'hnsw' AND relname LIKE '%' || $1";
    let bytes: i64 = client.query_one(BYTES, &[&suffix]).await?.get(0);
    Ok(bytes as f64 / 1e6)
}

struct Dataset {
    vectors: Array2<f32>,
    queries: Array2<f32>,
    /// Numbers of the nearest items of each query.
    truth: Vec<Vec<usize>>,
}

impl Dataset {
    fn make(count: usize) -> Self {
        eprintln!("making {count} vectors");
        let all = Surface::new().points(count + QUERIES);
        let (vectors, queries) = all.view().split_at(Axis(0), count);
        let products = vectors.dot(&queries.t());
        let truth = products.columns().into_iter().map(|products| {
            let mut order: Vec<usize> = (0..count).collect();
            order.select_nth_unstable_by(K, |&a, &b| products[b].total_cmp(&products[a]));
            order.truncate(K);
            order
        });
        Self {
            truth: truth.collect(),
            vectors: vectors.to_owned(),
            queries: queries.to_owned(),
        }
    }

    async fn fill(&self, store: &Gallery, name: &GalleryName) -> anyhow::Result<()> {
        let binding = binding()?;
        for start in (0..self.vectors.nrows()).step_by(BATCH) {
            let items = (start..(start + BATCH).min(self.vectors.nrows()))
                .map(|index| item(index, self.vectors.row(index).to_vec()))
                .collect::<anyhow::Result<_>>()?;
            store.put(name, &binding, items).await?;
        }
        Ok(())
    }

    async fn search(
        &self,
        store: &Gallery,
        name: &GalleryName,
        queries: usize,
    ) -> anyhow::Result<SearchResults> {
        let mut results = SearchResults::default();
        for query in self.queries.rows().into_iter().take(queries) {
            let search = Search::new(query.to_vec(), K);
            let started = Instant::now();
            let found = store.search(name, search).await?;
            results.ms.push(started.elapsed().as_secs_f64() * 1e3);
            let ids = found
                .iter()
                .map(|neighbor| neighbor.item.id.as_str().parse());
            results.ids.push(ids.collect::<Result<_, _>>()?);
        }
        Ok(results)
    }

    /// Returns the share of the exact neighbors that were found.
    fn recall(&self, results: &SearchResults) -> f64 {
        let pairs = results.ids.iter().zip(&self.truth);
        let hits: usize = pairs
            .map(|(found, exact)| found.iter().filter(|id| exact.contains(id)).count())
            .sum();
        hits as f64 / (results.ids.len() * K) as f64
    }
}

/// The times and the neighbors of all queries.
#[derive(Default)]
struct SearchResults {
    ms: Vec<f64>,
    ids: Vec<Vec<usize>>,
}
