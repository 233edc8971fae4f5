//! The comparison: everything has its turn in every round, in another order each time, so that what
//! disturbs the machine disturbs all alike, and ratios are taken within a round.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use rand::seq::SliceRandom;

use crate::{
    client::{Arrivals, Target, load},
    servers::{Programs, Server},
};

/// Values of one round by what was measured, such as `openvino at 16 clients`.
type Round = BTreeMap<String, f64>;

/// All rounds.
#[derive(Debug, Default)]
pub(crate) struct Rounds(Vec<Round>);

/// What is measured in each round.
enum Turn<'a> {
    /// A server with this many clients: answers a second, and the median latency.
    Clients(&'a Server, usize),
    /// `dinoserve bench` in this precision: the pipeline and the model without HTTP.
    Bench(&'static str),
}

impl Rounds {
    /// Runs `count` rounds over `servers` with turns of `seconds`.
    pub(crate) async fn run(
        programs: &Programs,
        servers: &[Server],
        photos: &Target,
        folder: &Path,
        count: usize,
        seconds: f64,
    ) -> anyhow::Result<Self> {
        let mut rounds = Vec::new();
        servers.iter().for_each(Server::pause);
        for number in 0..count {
            eprintln!("round {} of {count}", number + 1);
            let mut turns: Vec<Turn<'_>> = vec![Turn::Bench("fp32"), Turn::Bench("int8")];
            turns.extend(
                servers
                    .iter()
                    .flat_map(|server| [1, 16].map(|clients| Turn::Clients(server, clients))),
            );
            turns.shuffle(&mut rand::rng());
            let mut round = Round::new();
            for turn in turns {
                match turn {
                    Turn::Clients(server, clients) => {
                        server.resume();
                        let target = Target {
                            url: server.url(server.embed),
                            ..photos.clone()
                        };
                        let time = Duration::from_secs_f64(seconds);
                        // Threads of the server that have fallen asleep wake up.
                        let warm_up = Duration::from_millis(500);
                        load(
                            std::slice::from_ref(&target),
                            Arrivals::Closed { clients },
                            warm_up,
                        )
                        .await;
                        let outcome = load(&[target], Arrivals::Closed { clients }, time).await;
                        anyhow::ensure!(
                            outcome.failures() == 0,
                            "{}: {:?}",
                            server.name,
                            outcome.statuses
                        );
                        server.pause();
                        let name = &server.name;
                        round.insert(format!("{name} at {clients}: rate"), outcome.rate());
                        round.insert(format!("{name} at {clients}: p50"), outcome.latency(0.5));
                    }
                    Turn::Bench(precision) => {
                        let seconds = seconds.to_string();
                        let flags = [
                            "--precision",
                            precision,
                            "--sizes",
                            "224",
                            "--rounds",
                            "41",
                            "--seconds",
                            &seconds,
                        ];
                        let report = programs.bench(folder, &flags).await?;
                        let row = &report["rows"][0];
                        for value in [
                            "session_rate",
                            "pipeline_rate",
                            "pipeline_ms",
                            "inference_ms",
                        ] {
                            let number = row[value]
                                .as_f64()
                                .with_context(|| format!("bench gives no {value}"))?;
                            round.insert(format!("bench {precision}: {value}"), number);
                        }
                    }
                }
            }
            rounds.push(round);
        }
        servers.iter().for_each(Server::resume);
        Ok(Self(rounds))
    }

    /// The values of `what` in all rounds.
    pub(crate) fn values(&self, what: &str) -> Vec<f64> {
        self.0
            .iter()
            .filter_map(|round| round.get(what).copied())
            .collect()
    }

    /// The ratio of two values, round by round.
    pub(crate) fn ratios(&self, of: &str, to: &str) -> Vec<f64> {
        self.0
            .iter()
            .filter_map(|round| Some(round.get(of)? / round.get(to)?))
            .collect()
    }
}
