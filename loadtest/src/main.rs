//! Load tests and benchmarks of `dinoserve` and of alternatives to it.
//!
//! `load` sends one kind of load to any server; `report` runs everything and writes `RESULTS.md`.

mod accuracy;
mod client;
mod comparison;
mod database;
mod gallery;
mod images;
mod large;
mod maps;
mod plot;
mod points;
mod report;
mod rounds;
mod scenarios;
mod servers;
mod sizes;
mod stats;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};

use client::{Arrivals, Target, load};

#[derive(Parser)]
#[command(about = "Load tests and benchmarks of dinoserve and of alternatives to it")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send one kind of load to a running server
    Load(Load),
    /// Run everything and write the results
    Report(report::Options),
    /// Compare gallery searches with FAISS and hnswlib, and write their section of the results
    Gallery(gallery::Options),
    /// Measure galleries in PostgreSQL, and write their section of the results
    Database(database::Options),
    /// Fill, kill, open and search a gallery of ten million vectors
    Large(large::Options),
}

#[derive(clap::Args)]
struct Load {
    /// Address to post images to, such as `http://127.0.0.1:8080/v1/embed`; several take turns
    #[arg(required = true)]
    urls: Vec<String>,

    /// Number of clients, each of which waits for its response before its next request
    #[arg(long, default_value_t = 1, conflicts_with = "rate")]
    clients: usize,

    /// Mean number of requests per second, however long responses take
    #[arg(long)]
    rate: Option<f64>,

    /// Duration of the load, in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,

    /// Width and height of the images, in pixels
    #[arg(long, default_value = "500x375")]
    size: String,

    /// Folder with the project's test images
    #[arg(long, default_value = "tests/golden")]
    golden: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // For the TLS of clients. Fails if it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().command {
        Command::Load(command) => command.run().await,
        Command::Report(options) => report::run(&options).await,
        Command::Gallery(options) => gallery::run(&options).await,
        Command::Database(options) => database::run(&options).await,
        Command::Large(options) => large::run(&options).await,
    }
}

impl Load {
    async fn run(self) -> anyhow::Result<()> {
        let sides = self
            .size
            .split_once('x')
            .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
        let (width, height) = sides.context("--size is WIDTHxHEIGHT")?;
        let files = images::jpeg_files(&self.golden, 48, width, height)?;
        let targets: Vec<Target> = self
            .urls
            .into_iter()
            .map(|url| Target {
                url,
                files: files.clone(),
            })
            .collect();
        let arrivals = match self.rate {
            Some(rate) => Arrivals::Open { rate },
            None => Arrivals::Closed {
                clients: self.clients,
            },
        };
        let outcome = load(&targets, arrivals, Duration::from_secs_f64(self.seconds)).await;
        println!("{:.2} successful responses/s", outcome.rate());
        println!(
            "latency of successful responses in ms: p50 {:.1}, p90 {:.1}, p99 {:.1}, maximum {:.1}",
            outcome.latency(0.5),
            outcome.latency(0.9),
            outcome.latency(0.99),
            outcome.latency(1.0)
        );
        if !outcome.rejected.is_empty() {
            let p99 = outcome.rejected.value_at_quantile(0.99) as f64 / 1e3;
            println!(
                "{} rejected with 503, p99 {p99:.1} ms",
                outcome.rejected.len()
            );
        }
        println!("responses by status (0: none): {:?}", outcome.statuses);
        Ok(())
    }
}
