//! A gallery of ten million vectors: filled, killed, opened again, searched.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use dinoserve::gallery::{
    Gallery, GalleryConfig, GalleryName, OpenMode, Search, VectorFormat, open,
};
use ndarray::Array2;

use crate::{
    points::{BLOCK, Surface, binding, item},
    report::processor,
    servers::private_mb,
    stats::median,
};

const K: usize = 10;
const QUERIES: usize = 20;
/// Number of items in a transaction.
const BATCH: usize = 2000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folder of the gallery, on a disk with some 25 GB left for ten million vectors
    #[arg(long)]
    folder: PathBuf,

    /// Number of vectors
    #[arg(long, default_value_t = 10_000_000)]
    count: usize,

    /// Only fill the gallery from this block of ten thousand on, and print what is stored
    #[arg(long, value_name = "BLOCK", hide = true)]
    fill_from: Option<usize>,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    match options.fill_from {
        Some(first) => fill(options, first).await,
        None => measure(options).await,
    }
}

fn config(exact_up_to: usize) -> GalleryConfig {
    GalleryConfig {
        vectors: VectorFormat::B1,
        exact_up_to,
        ..GalleryConfig::default()
    }
}

async fn open_store(folder: &Path, exact_up_to: usize) -> anyhow::Result<Gallery> {
    Ok(open(
        &folder.to_string_lossy(),
        &config(exact_up_to),
        OpenMode::Serve,
    )
    .await?)
}

/// Fills the gallery, and prints the number of stored items after each transaction.
async fn fill(options: &Options, first: usize) -> anyhow::Result<()> {
    let store = open_store(&options.folder, usize::MAX).await?;
    let (surface, binding) = (Surface::new(), binding()?);
    for block in first..options.count.div_ceil(BLOCK) {
        let start = block * BLOCK;
        let points = surface.block(block as u64, BLOCK.min(options.count - start));
        for batch in (0..points.nrows()).step_by(BATCH) {
            let items = (batch..points.nrows().min(batch + BATCH))
                .map(|row| item(start + row, points.row(row).to_vec()));
            let items = items.collect::<anyhow::Result<Vec<_>>>()?;
            let stored = start + batch + items.len();
            store.put(&GalleryName::default(), &binding, items).await?;
            println!("{stored}");
        }
    }
    store.close().await;
    Ok(())
}

/// Runs a process that fills the gallery, and kills it once `kill_at` items are stored. Returns the
/// number of items whose transaction had ended.
fn fill_in_process(options: &Options, stored: usize, kill_at: usize) -> anyhow::Result<usize> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("large")
        .arg("--folder")
        .arg(&options.folder)
        .args(["--count", &options.count.to_string()])
        .args(["--fill-from", &(stored / BLOCK).to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("its output")?;
    let mut last = stored;
    for line in BufReader::new(output).lines() {
        last = line?.parse()?;
        if last >= kill_at {
            child.kill()?;
        }
    }
    child.wait()?;
    Ok(last)
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    println!("{}", processor());
    let started = Instant::now();
    let stored = fill_in_process(options, 0, options.count / 2)?;
    println!(
        "killed after {stored} items, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    let stored = {
        let store = open_store(&options.folder, usize::MAX).await?;
        let items = store.require_gallery(&GalleryName::default()).await?.items;
        anyhow::ensure!(
            items as usize >= stored,
            "of {stored} items {items} are left"
        );
        store.close().await;
        items as usize
    };
    fill_in_process(options, stored, usize::MAX)?;
    println!("filled after {:.0} s", started.elapsed().as_secs_f64());

    let before = private_mb();
    let opened = Instant::now();
    let store = open_store(&options.folder, usize::MAX).await?;
    println!(
        "opened in {:.0} s, {:.0} MB without pages of mapped files",
        opened.elapsed().as_secs_f64(),
        private_mb() - before
    );
    let items = store.require_gallery(&GalleryName::default()).await?.items;
    anyhow::ensure!(items as usize == options.count, "{items} items");
    let queries = Surface::new().block(u64::MAX / 2, QUERIES);
    let (exact, ms) = search(&store, &queries, true).await?;
    println!("exact: {ms:.0} ms a query");
    let (found, ms) = search(&store, &queries, false).await?;
    println!(
        "without an index: {ms:.1} ms, recall {:.3}",
        recall(&found, &exact)
    );
    store.close().await;
    drop(store);

    let store = open_store(&options.folder, GalleryConfig::default().exact_up_to).await?;
    let indexing = Instant::now();
    store.delete(&GalleryName::default(), Vec::new()).await?;
    while store
        .require_gallery(&GalleryName::default())
        .await?
        .indexed
        < items
    {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("index made in {:.0} s", indexing.elapsed().as_secs_f64());
    search(&store, &queries, false).await?;
    let (found, ms) = search(&store, &queries, false).await?;
    println!(
        "with an index: {ms:.2} ms, recall {:.3}, {:.0} MB",
        recall(&found, &exact),
        private_mb() - before
    );
    store.close().await;
    Ok(())
}

/// Returns the ids of the neighbors of all queries, and the median time in milliseconds.
async fn search(
    store: &Gallery,
    queries: &Array2<f32>,
    exact: bool,
) -> anyhow::Result<(Vec<Vec<String>>, f64)> {
    let (mut ids, mut times) = (Vec::new(), Vec::new());
    for query in queries.rows() {
        let search = Search {
            exact,
            ..Search::new(query.to_vec(), K)
        };
        let started = Instant::now();
        let found = store.search(&GalleryName::default(), search).await?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        ids.push(found.into_iter().map(|near| near.item.id.into()).collect());
    }
    Ok((ids, median(&times)))
}

fn recall(found: &[Vec<String>], exact: &[Vec<String>]) -> f64 {
    let pairs = found.iter().zip(exact);
    let hits: usize = pairs
        .map(|(found, exact)| found.iter().filter(|id| exact.contains(id)).count())
        .sum();
    hits as f64 / (exact.len() * K) as f64
}
