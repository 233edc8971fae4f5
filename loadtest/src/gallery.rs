//! Gallery searches against FAISS and hnswlib on the same vectors.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use dinoserve::gallery::{
    Binding, Gallery, GalleryConfig, GalleryName, ItemId, Metadata, NewItem, OpenMode, Search,
    VectorFormat, open,
};
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    report::replace_section,
    servers::resident_mb_of,
    stats::{median, spread},
};

const DIM: usize = 384;
const K: usize = 10;
const QUERIES: usize = 200;
const ROUNDS: usize = 5;
const HEADING: &str = "## Galleries\n";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The project's folder
    #[arg(long, default_value = ".")]
    project: PathBuf,

    /// Number of vectors of the exact search
    #[arg(long, default_value_t = 100_000)]
    exact: usize,

    /// Number of vectors of the approximate search
    #[arg(long, default_value_t = 1_000_000)]
    approximate: usize,

    /// File of the results, whose section about galleries is replaced
    #[arg(long, default_value = "loadtest/RESULTS.md")]
    to: PathBuf,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut text = format!(
        "{HEADING}\nVectors of width {DIM} and length 1 near a curved surface of 24 dimensions, \
         like image features; {QUERIES} queries one after the other, {K} neighbors each, through \
         the store's interface. FAISS and hnswlib from Python on the same vectors, in alternating \
         rounds.\n\n"
    );
    exact(options, &mut text).await?;
    approximate(options, &mut text).await?;
    replace_section(&options.to, HEADING, &text)
}

/// Measures exact searches in single and half precision, one query at a time.
async fn exact(options: &Options, text: &mut String) -> anyhow::Result<()> {
    let dataset = Dataset::make(options, options.exact)?;
    let single = dataset.store(VectorFormat::F32, usize::MAX).await?;
    let half = dataset.store(VectorFormat::F16, usize::MAX).await?;
    let mut peer = Peer::start(options, &dataset)?;
    let mut ours = Vec::new();
    let mut halves = Vec::new();
    let mut theirs = Vec::new();
    let mut ratios = Vec::new();
    let mut differ = 0;
    for _ in 0..ROUNDS {
        let results = dataset.search(&single, true).await?;
        let faiss = peer.search("exact")?;
        halves.push(dataset.search(&half, true).await?.median());
        differ += results
            .ids
            .iter()
            .zip(&faiss.ids)
            .filter(|(a, b)| a != b)
            .count();
        ours.push(results.median());
        theirs.push(faiss.median());
        ratios.push(results.median() / faiss.median());
    }
    writeln!(
        text,
        "**Exact**, {} vectors, medians of {ROUNDS} rounds: {} ms a query; FAISS `IndexFlatIP` on \
         one thread {} ms; ours to FAISS **{}**. In half precision {} ms. {differ} of {} results \
         differ from FAISS's.\n",
        thousands(options.exact),
        spread(&ours, 2),
        spread(&theirs, 2),
        spread(&ratios, 2),
        spread(&halves, 2),
        ROUNDS * QUERIES
    )?;
    single.close().await;
    half.close().await;
    Ok(())
}

/// Measures the approximate index against hnswlib at the same recall.
async fn approximate(options: &Options, text: &mut String) -> anyhow::Result<()> {
    let dataset = Dataset::make(options, options.approximate)?;
    let before = resident_mb();
    let started = Instant::now();
    let store = dataset
        .store(VectorFormat::F32, options.approximate / 2)
        .await?;
    let stored = started.elapsed();
    let rows_mb = resident_mb() - before;
    while store.require_gallery(&name()).await?.indexed < options.approximate as u64 {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let built = started.elapsed();
    let index_mb = resident_mb() - before - rows_mb;
    let exact = dataset.search(&store, true).await?;
    let mut peer = Peer::start(options, &dataset)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let build = peer.command(&format!("build {threads}"))?;

    let our_recall = dataset.search(&store, false).await?.recall(&exact);
    // The smallest effort at which hnswlib reaches our recall.
    let mut ef = 16;
    while peer.search(&format!("approximate {ef}"))?.recall(&exact) < our_recall && ef < 1024 {
        ef += ef / 4;
    }
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    let mut ratios = Vec::new();
    let mut their_recall = 0.0;
    for _ in 0..ROUNDS {
        let results = dataset.search(&store, false).await?;
        let hnswlib = peer.search(&format!("approximate {ef}"))?;
        their_recall = hnswlib.recall(&exact);
        ours.push(results.median());
        theirs.push(hnswlib.median());
        ratios.push(results.median() / hnswlib.median());
    }
    writeln!(
        text,
        "**Approximate**, {} vectors, medians of {ROUNDS} rounds:\n\n\
         | | recall@{K} | ms a query | build, s | memory of the index, MB |\n\
         |---|---|---|---|---|\n\
         | dinoserve | {our_recall:.4} | {} | {:.0}, after {:.0} of storing | {index_mb:.0}, plus \
         {rows_mb:.0} of vectors |\n\
         | hnswlib, ef {ef} | {their_recall:.4} | {} | {:.0} on {threads} threads | {:.0}, vectors \
         included |\n\n\
         Ours to hnswlib **{}**. dinoserve builds on half of the cores while it serves.\n",
        thousands(options.approximate),
        spread(&ours, 3),
        (built - stored).as_secs_f64(),
        stored.as_secs_f64(),
        spread(&theirs, 3),
        build["seconds"].as_f64().context("seconds")?,
        build["mb"].as_f64().context("mb")?,
        spread(&ratios, 2)
    )?;
    store.close().await;
    Ok(())
}

fn thousands(count: usize) -> String {
    if count.is_multiple_of(1_000_000) {
        format!("{} M", count / 1_000_000)
    } else {
        format!("{} k", count / 1000)
    }
}

fn name() -> GalleryName {
    GalleryName::default()
}

/// The vectors, in memory and as files for the peers.
struct Dataset {
    vectors: Array2<f32>,
    queries: Array2<f32>,
    folder: tempfile::TempDir,
}

impl Dataset {
    fn make(options: &Options, count: usize) -> anyhow::Result<Self> {
        eprintln!("making {count} vectors");
        let folder = tempfile::tempdir_in(options.project.join("target"))?;
        let mut random = StdRng::seed_from_u64(1);
        let all = points_near_surface(count + QUERIES, &mut random);
        let (vectors, queries) = all.view().split_at(ndarray::Axis(0), count);
        let dataset = Self {
            vectors: vectors.to_owned(),
            queries: queries.to_owned(),
            folder,
        };
        for (name, array) in [
            ("vectors.npy", &dataset.vectors),
            ("queries.npy", &dataset.queries),
        ] {
            std::fs::write(
                dataset.folder.path().join(name),
                dinoserve::features::npy::encode(array)?,
            )?;
        }
        Ok(dataset)
    }

    async fn store(&self, vectors: VectorFormat, exact_up_to: usize) -> anyhow::Result<Gallery> {
        eprintln!("storing {} vectors", self.vectors.nrows());
        let config = GalleryConfig {
            vectors,
            exact_up_to,
            ..GalleryConfig::default()
        };
        let folder = self.folder.path().join(format!("{vectors}-{exact_up_to}"));
        let store = open(&folder.to_string_lossy(), &config, OpenMode::Serve).await?;
        let binding: Binding = serde_json::from_value(serde_json::json!({
            "model": "made up", "fingerprint": "none", "dim": DIM, "pooling": "cls", "layers": 1,
            "size": 224, "resize": "crop", "filter": "bicubic", "exif": true, "background": "white",
        }))?;
        let item = |index: usize| {
            anyhow::Ok(NewItem {
                id: ItemId::new(index.to_string())?,
                label: None,
                metadata: Metadata::default(),
                vector: self.vectors.row(index).to_vec(),
                features: None,
                thumbnail: None,
            })
        };
        for start in (0..self.vectors.nrows()).step_by(2000) {
            let items = (start..(start + 2000).min(self.vectors.nrows()))
                .map(item)
                .collect::<anyhow::Result<_>>()?;
            store.put(&name(), &binding, items).await?;
        }
        Ok(store)
    }

    async fn search(&self, store: &Gallery, exact: bool) -> anyhow::Result<SearchResults> {
        let mut results = SearchResults::default();
        for query in self.queries.rows() {
            let search = Search {
                exact,
                ..Search::new(query.to_vec(), K)
            };
            let started = Instant::now();
            let found = store.search(&name(), search).await?;
            results.ms.push(started.elapsed().as_secs_f64() * 1e3);
            let ids = found
                .iter()
                .map(|neighbor| neighbor.item.id.as_str().parse());
            results.ids.push(ids.collect::<Result<_, _>>()?);
        }
        Ok(results)
    }
}

/// Makes points near a curved surface of few dimensions in a space of many, scaled to length 1.
fn points_near_surface(count: usize, random: &mut StdRng) -> Array2<f32> {
    const INNER: usize = 24;
    let first = Array2::from_shape_fn((INNER, 2 * INNER), |_| normal(random));
    let second = Array2::from_shape_fn((2 * INNER, DIM), |_| normal(random));
    let mut all = Array2::zeros((count, DIM));
    for mut block in all.axis_chunks_iter_mut(ndarray::Axis(0), 10_000) {
        let inner = Array2::from_shape_fn((block.nrows(), INNER), |_| normal(random));
        block.assign(&(inner.dot(&first) * 0.5).mapv(f32::tanh).dot(&second));
        for mut row in block.rows_mut() {
            row.mapv_inplace(|value| value + 0.3 * normal(random));
            let length = row.dot(&row).sqrt();
            row /= length;
        }
    }
    all
}

/// Draws from the standard normal distribution by the Box–Muller transform.
fn normal(random: &mut StdRng) -> f32 {
    let radius: f32 = random.random_range(1e-7..1.0);
    let angle: f32 = random.random();
    (-2.0 * radius.ln()).sqrt() * (std::f32::consts::TAU * angle).cos()
}

/// The times and the neighbors of all queries.
#[derive(Default, Deserialize)]
struct SearchResults {
    ms: Vec<f64>,
    ids: Vec<Vec<u64>>,
}

impl SearchResults {
    fn median(&self) -> f64 {
        median(&self.ms)
    }

    /// Returns the share of the exact neighbors that were found.
    fn recall(&self, exact: &Self) -> f64 {
        let pairs = self.ids.iter().zip(&exact.ids);
        let hits: usize = pairs
            .map(|(found, exact)| found.iter().filter(|id| exact.contains(id)).count())
            .sum();
        hits as f64 / (QUERIES * K) as f64
    }
}

/// The Python process with FAISS and hnswlib.
struct Peer {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Peer {
    fn start(options: &Options, dataset: &Dataset) -> anyhow::Result<Self> {
        let script = options.project.join("loadtest/peers/start.sh");
        let files = ["vectors.npy", "queries.npy"].map(|name| dataset.folder.path().join(name));
        let mut child = Command::new(script)
            .arg("gallery")
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the peers")?;
        let output = child.stdout.take().context("its output")?;
        Ok(Self {
            child,
            lines: BufReader::new(output).lines(),
        })
    }

    fn command(&mut self, command: &str) -> anyhow::Result<Value> {
        let input = self.child.stdin.as_mut().context("its input")?;
        writeln!(input, "{command}")?;
        let line = self.lines.next().context("the peers have exited")??;
        Ok(serde_json::from_str(&line)?)
    }

    fn search(&mut self, command: &str) -> anyhow::Result<SearchResults> {
        Ok(serde_json::from_value(self.command(command)?)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resident_mb() -> f64 {
    resident_mb_of(Path::new("/proc/self/status"))
}
