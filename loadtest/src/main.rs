//! Puts load on `dinoserve` and on what one would pick instead.
//!
//! `load` puts one kind of load on any server; `report` runs everything and writes `RESULTS.md`.

mod client;
mod gallery;
mod photos;
mod plot;
mod report;
mod rounds;
mod scenarios;
mod servers;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};

use client::{Arrivals, Target, load};

#[derive(Parser)]
#[command(about = "Puts load on dinoserve and on what one would pick instead")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put one kind of load on a server that runs
    Load(Load),
    /// Run everything and write the results
    Report(Report),
    /// Search galleries beside FAISS and hnswlib, and write their part of the results
    Gallery(gallery::Options),
}

#[derive(clap::Args)]
struct Load {
    /// Address to post photographs to, such as `http://127.0.0.1:8080/v1/embed`; several take turns
    #[arg(required = true)]
    urls: Vec<String>,

    /// Clients that wait for their answers
    #[arg(long, default_value_t = 1, conflicts_with = "rate")]
    clients: usize,

    /// Requests a second, however long answers take
    #[arg(long)]
    rate: Option<f64>,

    /// How long
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,

    /// Width and height of the photographs
    #[arg(long, default_value = "500x375")]
    size: String,

    /// Folder with the project's photographs
    #[arg(long, default_value = "tests/golden")]
    golden: PathBuf,
}

#[derive(clap::Args)]
struct Report {
    /// The project's folder
    #[arg(long, default_value = ".")]
    project: PathBuf,

    /// The program to measure
    #[arg(long, default_value = "target/release/dinoserve")]
    dinoserve: PathBuf,

    /// The model to serve
    #[arg(long, default_value = "dinov2-small-focus")]
    model: String,

    /// What to compare with, from `loadtest/peers`; `none` for nothing
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "fastapi_pytorch,fastapi_onnxruntime,litserve_batched,openvino"
    )]
    peers: Vec<String>,

    /// Rounds, in each of which everything has its turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Seconds of each turn
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,

    /// Where the results go
    #[arg(long, default_value = "loadtest/RESULTS.md")]
    to: PathBuf,

    /// Measure overload alone, and leave the rest of the results as it is
    #[arg(long)]
    only_overload: bool,
}

/// The middle one, or the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Load(command) => command.run().await,
        Command::Report(command) => report::run(&command).await,
        Command::Gallery(command) => gallery::run(&command).await,
    }
}

impl Load {
    async fn run(self) -> anyhow::Result<()> {
        let sides = self
            .size
            .split_once('x')
            .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
        let (width, height) = sides.context("--size is WIDTHxHEIGHT")?;
        let photos = photos::photos(&self.golden, 48, width, height)?;
        let targets: Vec<Target> = self
            .urls
            .into_iter()
            .map(|url| Target {
                url,
                photos: photos.clone(),
            })
            .collect();
        let arrivals = match self.rate {
            Some(rate) => Arrivals::Open { rate },
            None => Arrivals::Closed {
                clients: self.clients,
            },
        };
        let outcome = load(&targets, arrivals, Duration::from_secs_f64(self.seconds)).await;
        println!("{:.2} good answers a second", outcome.rate());
        println!(
            "latency of good answers in ms: p50 {:.1}, p90 {:.1}, p99 {:.1}, largest {:.1}",
            outcome.latency(0.5),
            outcome.latency(0.9),
            outcome.latency(0.99),
            outcome.latency(1.0)
        );
        if !outcome.refused.is_empty() {
            let p99 = outcome.refused.value_at_quantile(0.99) as f64 / 1e3;
            println!(
                "{} refused with 503, p99 {p99:.1} ms",
                outcome.refused.len()
            );
        }
        println!("answers by status (0: none): {:?}", outcome.statuses);
        Ok(())
    }
}
