//! The same load on `dinoserve`, on its peers, and on the pipeline without HTTP.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::Context;

use crate::{
    client::{Arrivals, Target, load},
    rounds::{Rounds, SIZES},
    servers::{Programs, Server, flags_of},
    stats::{median, spread},
};

/// Classes of accuracy: the least cosine similarity to fp32.
const CLASSES: [f64; 3] = [0.9999, 0.998, 0.99];

/// Writes the throughput and latency of all servers at one size, by classes of accuracy.
/// `cosines` are those of [`lowest_cosines`](crate::accuracy::lowest_cosines).
pub(crate) fn over_http(
    rounds: &Rounds,
    servers: &[Server],
    cosines: &[f64],
    size: usize,
    text: &mut String,
) -> anyhow::Result<()> {
    writeln!(text, "### {size} pixels\n")?;
    let rate = |name: &str, clients: usize| format!("{name} at {clients}, {size}: rate");
    for (index, least) in CLASSES.into_iter().enumerate() {
        let is_above = |cosine: f64| index > 0 && cosine >= CLASSES[index - 1];
        let with_cosine: Vec<(&Server, f64)> =
            servers.iter().zip(cosines.iter().copied()).collect();
        let members: Vec<_> = with_cosine
            .iter()
            .filter(|(_, cosine)| *cosine >= least && !is_above(*cosine))
            .collect();
        if members.is_empty() {
            continue;
        }
        // More exact ones serve this class, too.
        let ours = |clients: usize| {
            let able = with_cosine.iter().filter(|(server, cosine)| {
                server.name.starts_with("dinoserve") && *cosine >= least
            });
            let name = |server: &Server| rate(&server.name, clients);
            able.map(|(server, _)| name(server))
                .max_by(|a, b| median(&rounds.values(a)).total_cmp(&median(&rounds.values(b))))
        };
        let [many, one] = [16, 1].map(ours);
        let (many, one) = many.zip(one).context("dinoserve is in the comparison")?;
        writeln!(
            text,
            "Cosine of at least {least}; ratios are those of {} and {} to each.\n\n\
             | server | lowest cosine | responses/s, 16 clients | responses/s, 1 client \
             | p50, ms, 1 client | ratio, 16 clients | ratio, 1 client |\n\
             |---|---|---|---|---|---|---|",
            many.split(" at ").next().unwrap_or_default(),
            one.split(" at ").next().unwrap_or_default(),
        )?;
        for (Server { name, .. }, cosine) in members {
            writeln!(
                text,
                "| {name} | {cosine:.5} | {} | {} | {} | {} | {} |",
                spread(&rounds.values(&rate(name, 16)), 1),
                spread(&rounds.values(&rate(name, 1)), 1),
                spread(&rounds.values(&format!("{name} at 1, {size}: p50")), 1),
                spread(&rounds.ratios(&many, &rate(name, 16)), 2),
                spread(&rounds.ratios(&one, &rate(name, 1)), 2),
            )?;
        }
        text.push('\n');
    }
    Ok(())
}

/// Writes the speed without HTTP, and what HTTP keeps of it.
pub(crate) fn without_http(
    rounds: &Rounds,
    settings: &[&str],
    text: &mut String,
) -> anyhow::Result<()> {
    text.push_str(
        "## Without HTTP\n\n`dinoserve bench` on the same files: the model alone, and from the \
         file on.\n\n\
         | | one image, ms | model alone, images/s | from the file, images/s \
         | from the file to the model alone | 16 clients over HTTP to that from the file \
         | one image, to fp32 | model alone, to fp32 |\n|---|---|---|---|---|---|---|---|\n",
    );
    for size in SIZES {
        for setting in settings {
            let value = |name| format!("bench {setting}, {size}: {name}");
            let of_fp32 = |name| format!("bench fp32, {size}: {name}");
            let [alone, pipeline] = ["session_rate", "pipeline_rate"].map(value);
            let http = format!("dinoserve {setting} at 16, {size}: rate");
            let one_image = value("inference_ms");
            writeln!(
                text,
                "| {setting}, {size} | {} | {} | {} | {} | {} | {} | {} |",
                spread(&rounds.values(&one_image), 1),
                spread(&rounds.values(&alone), 2),
                spread(&rounds.values(&pipeline), 2),
                spread(&rounds.ratios(&pipeline, &alone), 3),
                spread(&rounds.ratios(&http, &pipeline), 3),
                spread(&rounds.ratios(&of_fp32("inference_ms"), &one_image), 2),
                spread(&rounds.ratios(&alone, &of_fp32("session_rate")), 2),
            )?;
        }
    }
    text.push('\n');
    Ok(())
}

/// Measures what HTTP and the engine add for a single client, in short pairs of measurements: the
/// machine's speed drifts by more than the difference.
pub(crate) async fn one_client(
    programs: &Programs,
    servers: &[Server],
    settings: &[&str],
    images: &Target,
    folder: &Path,
    text: &mut String,
) -> anyhow::Result<()> {
    const PAIRS: usize = 15;
    text.push_str(
        "## One client\n\n| | from the file, ms | over HTTP, p50, ms | difference of each pair, ms \
         |\n|---|---|---|---|\n",
    );
    servers.iter().for_each(Server::pause);
    for (server, setting) in servers.iter().zip(settings) {
        let target = [Target {
            url: server.url("/v1/embed"),
            ..images.clone()
        }];
        let mut pipeline = Vec::new();
        let mut http = Vec::new();
        let mut differences = Vec::new();
        for _ in 0..PAIRS {
            let flags = [flags_of(setting), vec!["--seconds", "0"]].concat();
            let row = programs.bench(folder, 224, 41, &flags).await?;
            let alone = row["pipeline_ms"]
                .as_f64()
                .context("bench gives no pipeline_ms")?;
            let arrivals = Arrivals::Closed { clients: 1 };
            server.resume();
            load(&target, arrivals, Duration::from_millis(300)).await;
            let served = load(&target, arrivals, Duration::from_secs(2))
                .await
                .latency(0.5);
            server.pause();
            pipeline.push(alone);
            http.push(served);
            differences.push(served - alone);
        }
        writeln!(
            text,
            "| {setting} | {} | {} | **{}** |",
            spread(&pipeline, 1),
            spread(&http, 1),
            spread(&differences, 1)
        )?;
    }
    servers.iter().for_each(Server::resume);
    writeln!(text, "\n{PAIRS} pairs of measurements.\n")?;
    Ok(())
}
