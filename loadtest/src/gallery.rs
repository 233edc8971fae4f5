//! Gallery searches against FAISS and hnswlib on the same vectors.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use dinoserve::gallery::{
    Gallery, GalleryConfig, GalleryName, OpenMode, Search, VectorFormat, open,
};
use ndarray::Array2;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    points::{DIM, Surface, binding, item},
    report::{processor, replace_section},
    servers::private_mb,
    stats::{median, spread},
};

const K: usize = 10;
const QUERIES: usize = 200;
const ROUNDS: usize = 5;
/// All precisions, from the largest.
const FORMATS: [VectorFormat; 4] = [
    VectorFormat::F32,
    VectorFormat::F16,
    VectorFormat::I8,
    VectorFormat::B1,
];
const HEADING: &str = "## Galleries\n";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The project's folder
    #[arg(long, default_value = ".")]
    project: PathBuf,

    /// Number of vectors that are searched without an index
    #[arg(long, default_value_t = 100_000)]
    exact: usize,

    /// Number of vectors that are searched with an index
    #[arg(long, default_value_t = 1_000_000)]
    approximate: usize,

    /// File of the results, whose section about galleries is replaced
    #[arg(long, default_value = "loadtest/RESULTS.md")]
    to: PathBuf,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut text = format!(
        "{HEADING}\n{}. Vectors of width {DIM} and length 1 near a curved surface of 24 \
         dimensions, like image features; {QUERIES} queries one after the other, {K} neighbors \
         each, through the store's interface. FAISS and hnswlib from Python on the same vectors, \
         in alternating rounds. Medians of {ROUNDS} rounds. Memory is that of the process without \
         pages of mapped files, after the gallery was opened again.\n\n",
        processor()
    );
    exact(options, &mut text).await?;
    approximate(options, &mut text).await?;
    replace_section(&options.to, HEADING, &text)
}

/// Measures searches that scan all vectors, in every precision.
async fn exact(options: &Options, text: &mut String) -> anyhow::Result<()> {
    let dataset = Dataset::make(options, options.exact)?;
    let mut peer = Peer::start(options, &dataset)?;
    let truth = peer.search("exact")?;
    let mut stores = Vec::new();
    for vectors in FORMATS {
        stores.push(dataset.opened_again(vectors, usize::MAX).await?);
    }
    let mut theirs = Vec::new();
    let mut ours = vec![Vec::new(); stores.len()];
    let mut ratios = ours.clone();
    let mut recalls = vec![0.0; stores.len()];
    for _ in 0..ROUNDS {
        let faiss = peer.search("exact")?.median();
        theirs.push(faiss);
        for (index, opened) in stores.iter().enumerate() {
            let results = dataset.search(&opened.store).await?;
            ours[index].push(results.median());
            ratios[index].push(faiss / results.median());
            recalls[index] = results.recall(&truth);
        }
    }
    writeln!(
        text,
        "**Without an index**, {} vectors. FAISS `IndexFlatIP` on one thread: {} ms a query.\n\n\
         | vectors in memory | ms a query | times as fast as FAISS | recall@{K} | memory, MB |\n\
         |---|---|---|---|---|",
        thousands(options.exact),
        spread(&theirs, 2)
    )?;
    for (index, opened) in stores.into_iter().enumerate() {
        writeln!(
            text,
            "| {} | {} | {} | {:.4} | {:.0} |",
            FORMATS[index],
            spread(&ours[index], 2),
            spread(&ratios[index], 2),
            recalls[index],
            opened.mb
        )?;
        opened.store.close().await;
    }
    writeln!(text)?;
    Ok(())
}

/// Measures the index against hnswlib at the same recall or a higher one, and one bit without an
/// index.
async fn approximate(options: &Options, text: &mut String) -> anyhow::Result<()> {
    let dataset = Dataset::make(options, options.approximate)?;
    let mut peer = Peer::start(options, &dataset)?;
    let truth = peer.search("exact")?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let build = peer.command(&format!("build {threads}"))?;
    writeln!(
        text,
        "**With an index**, {} vectors. hnswlib was built in {:.0} s on {threads} threads, and \
         takes {:.0} MB with its vectors. dinoserve builds on half of the cores, while it \
         serves.\n\n\
         | vectors in memory | ms a query | recall@{K} | hnswlib at that recall, ms | ours to \
         hnswlib | built in, s | memory, MB |\n|---|---|---|---|---|---|---|",
        thousands(options.approximate),
        build["seconds"].as_f64().context("seconds")?,
        build["mb"].as_f64().context("mb")?,
    )?;
    for (vectors, exact_up_to) in [
        (VectorFormat::F32, options.approximate / 2),
        (VectorFormat::B1, options.approximate / 2),
        (VectorFormat::B1, usize::MAX),
    ] {
        let opened = dataset.opened_again(vectors, exact_up_to).await?;
        let recall = dataset.search(&opened.store).await?.recall(&truth);
        // The smallest effort at which hnswlib reaches our recall.
        let mut ef = 16;
        while peer.search(&format!("approximate {ef}"))?.recall(&truth) < recall && ef < 1024 {
            ef += ef / 4;
        }
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let results = dataset.search(&opened.store).await?.median();
            let hnswlib = peer.search(&format!("approximate {ef}"))?.median();
            ours.push(results);
            theirs.push(hnswlib);
            ratios.push(results / hnswlib);
        }
        let (name, built) = match opened.built {
            Some(seconds) => (vectors.to_string(), format!("{seconds:.0}")),
            None => (format!("{vectors}, no index"), "–".to_owned()),
        };
        writeln!(
            text,
            "| {name} | {} | {recall:.4} | {} (ef {ef}) | {} | {built} | {:.0} |",
            spread(&ours, 3),
            spread(&theirs, 3),
            spread(&ratios, 2),
            opened.mb
        )?;
        opened.store.close().await;
    }
    writeln!(text)?;
    Ok(())
}

/// A gallery that was filled, closed and opened again.
struct Opened {
    store: Gallery,
    /// Memory that it takes.
    mb: f64,
    /// Time in which its index was made, in seconds.
    built: Option<f64>,
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
        let all = Surface::new().points(count + QUERIES);
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

    /// Fills a gallery, waits for its index if it needs one, and opens it again.
    async fn opened_again(
        &self,
        vectors: VectorFormat,
        exact_up_to: usize,
    ) -> anyhow::Result<Opened> {
        let count = self.vectors.nrows();
        eprintln!("storing {count} vectors as {vectors}");
        let config = GalleryConfig {
            vectors,
            exact_up_to,
            ..GalleryConfig::default()
        };
        let folder = self.folder.path().join(format!("{vectors}-{exact_up_to}"));
        let folder = folder.to_string_lossy();
        // Filled without an index, which is then made at once.
        let filling = GalleryConfig {
            exact_up_to: usize::MAX,
            ..config.clone()
        };
        let store = open(&folder, &filling, OpenMode::Serve).await?;
        self.fill(&store).await?;
        store.close().await;
        drop(store);
        let mut built = None;
        if exact_up_to < count {
            let store = open(&folder, &config, OpenMode::Serve).await?;
            let started = Instant::now();
            store.delete(&name(), Vec::new()).await?;
            while store.require_gallery(&name()).await?.indexed < count as u64 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            built = Some(started.elapsed().as_secs_f64());
            store.close().await;
        }
        let before = private_mb();
        let store = open(&folder, &config, OpenMode::Serve).await?;
        let mb = private_mb() - before;
        // Reads the pages that searches need.
        self.search(&store).await?;
        Ok(Opened { store, mb, built })
    }

    async fn fill(&self, store: &Gallery) -> anyhow::Result<()> {
        let binding = binding()?;
        let item = |index: usize| item(index, self.vectors.row(index).to_vec());
        for start in (0..self.vectors.nrows()).step_by(2000) {
            let items = (start..(start + 2000).min(self.vectors.nrows()))
                .map(item)
                .collect::<anyhow::Result<_>>()?;
            store.put(&name(), &binding, items).await?;
        }
        Ok(())
    }

    async fn search(&self, store: &Gallery) -> anyhow::Result<SearchResults> {
        let mut results = SearchResults::default();
        for query in self.queries.rows() {
            let search = Search::new(query.to_vec(), K);
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
