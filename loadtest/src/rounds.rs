//! The comparison in rounds. Everything is measured once per round in a random order, so that
//! disturbances of the machine affect all alike, and ratios are taken within a round.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use rand::seq::SliceRandom;

use crate::{
    client::{Arrivals, Target, load},
    servers::{Programs, Server, flags_of},
};

/// Sizes of the model's input, in pixels.
pub(crate) const SIZES: [usize; 2] = [224, 518];
/// Numbers of clients.
pub(crate) const CLIENTS: [usize; 2] = [1, 16];

/// Values of one round by name, such as `openvino at 16, 224: rate`.
type Round = BTreeMap<String, f64>;

#[derive(Debug, Default)]
pub(crate) struct Rounds(Vec<Round>);

/// A measurement of a round.
enum Turn<'a> {
    /// Responses per second and the median latency of a server with this many clients.
    Clients(&'a Server, usize, usize),
    /// `dinoserve bench` in this setting at one size: the pipeline and the model without HTTP.
    Bench(&'static str, usize),
}

impl Rounds {
    /// Runs `count` rounds over `servers` and the pipelines of `settings` with turns of
    /// `seconds`, or three times that for 16 clients at 518.
    pub(crate) async fn run(
        programs: &Programs,
        servers: &[Server],
        settings: &[&'static str],
        images: &Target,
        folder: &Path,
        (count, seconds): (usize, f64),
    ) -> anyhow::Result<Self> {
        let mut rounds = Vec::new();
        servers.iter().for_each(Server::pause);
        for number in 0..count {
            eprintln!("round {} of {count}", number + 1);
            let mut turns = Vec::new();
            for size in SIZES {
                turns.extend(settings.iter().map(|name| Turn::Bench(name, size)));
                for server in servers {
                    turns.extend(CLIENTS.map(|clients| Turn::Clients(server, clients, size)));
                }
            }
            turns.shuffle(&mut rand::rng());
            let mut round = Round::new();
            for turn in turns {
                match turn {
                    Turn::Clients(server, clients, size) => {
                        measure_server(server, clients, size, images, seconds, &mut round).await?;
                    }
                    Turn::Bench(setting, size) => {
                        measure_bench(programs, setting, size, folder, seconds, &mut round).await?;
                    }
                }
            }
            rounds.push(round);
        }
        servers.iter().for_each(Server::resume);
        Ok(Self(rounds))
    }

    /// Returns the values of `name` in all rounds.
    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        self.0
            .iter()
            .filter_map(|round| round.get(name).copied())
            .collect()
    }

    /// Returns the ratio of two values in all rounds.
    pub(crate) fn ratios(&self, numerator: &str, denominator: &str) -> Vec<f64> {
        self.0
            .iter()
            .filter_map(|round| Some(round.get(numerator)? / round.get(denominator)?))
            .collect()
    }
}

async fn measure_server(
    server: &Server,
    clients: usize,
    size: usize,
    images: &Target,
    seconds: f64,
    round: &mut Round,
) -> anyhow::Result<()> {
    let target = [Target {
        url: server.url(&format!("{}?size={size}", server.embed)),
        ..images.clone()
    }];
    let arrivals = Arrivals::Closed { clients };
    server.resume();
    // Wakes up sleeping threads of the server.
    let one = Arrivals::Closed { clients: 1 };
    load(&target, one, Duration::from_millis(500)).await;
    let seconds = match (size, clients) {
        (224, _) | (_, 1) => seconds,
        _ => 3.0 * seconds,
    };
    let outcome = load(&target, arrivals, Duration::from_secs_f64(seconds)).await;
    let name = &server.name;
    anyhow::ensure!(outcome.failures() == 0, "{name}: {:?}", outcome.statuses);
    server.pause();
    let name = format!("{name} at {clients}, {size}");
    round.insert(format!("{name}: rate"), outcome.rate());
    round.insert(format!("{name}: p50"), outcome.latency(0.5));
    Ok(())
}

async fn measure_bench(
    programs: &Programs,
    setting: &str,
    size: usize,
    folder: &Path,
    seconds: f64,
    round: &mut Round,
) -> anyhow::Result<()> {
    let seconds = seconds.to_string();
    let flags = [flags_of(setting), vec!["--seconds", &seconds]].concat();
    let repeats = if size == 224 { 21 } else { 7 };
    let row = programs.bench(folder, size, repeats, &flags).await?;
    for name in [
        "session_rate",
        "pipeline_rate",
        "pipeline_ms",
        "inference_ms",
    ] {
        let value = row[name]
            .as_f64()
            .with_context(|| format!("bench gives no {name}"))?;
        round.insert(format!("bench {setting}, {size}: {name}"), value);
    }
    Ok(())
}
