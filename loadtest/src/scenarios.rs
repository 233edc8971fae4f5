//! Loads other than a steady one: overload, slow clients, a mixture of requests, memory.

use std::{fmt::Write as _, process::Command, time::Duration};

use anyhow::Context;

use crate::{
    client::{Arrivals, Target, load, send_slowly},
    servers::{Programs, Server},
    stats::spread,
};

/// Sends requests at 0.9 and at 3 times the server's capacity, in turns.
pub(crate) async fn overload(
    server: &Server,
    images: &Target,
    text: &mut String,
) -> anyhow::Result<()> {
    const ROUNDS: usize = 5;
    let target = Target {
        url: server.url("/v1/embed"),
        ..images.clone()
    };
    let target = std::slice::from_ref(&target);
    text.push_str(
        "Requests arrive at a constant mean rate with exponential gaps; latency counts from the \
         intended start. The capacity is measured again before each round.\n\n\
         | round | load | successful/s | p50, ms | p99, ms | rejected with 503 | failed \
         | resident, MB |\n|---|---|---|---|---|---|---|---|\n",
    );
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        // The machine's speed drifts within minutes.
        let capacity = load(
            target,
            Arrivals::Closed { clients: 16 },
            Duration::from_secs(8),
        )
        .await
        .rate();
        let mut p99 = Vec::new();
        for (factor, seconds) in [(0.9, 40), (3.0, 20)] {
            let outcome = load(
                target,
                Arrivals::Open {
                    rate: capacity * factor,
                },
                Duration::from_secs(seconds),
            )
            .await;
            p99.push(outcome.latency(0.99));
            let ms = |quantile| outcome.rejected.value_at_quantile(quantile) as f64 / 1e3;
            let rejected = match outcome.rejected.len() {
                0 => "0".to_owned(),
                count => format!("{count} (p50 {:.1} ms, p99 {:.1} ms)", ms(0.5), ms(0.99)),
            };
            writeln!(
                text,
                "| {round} | {factor} × {capacity:.1}/s | {:.1} | {:.0} | {:.0} | {rejected} | {} \
                 | {:.0} |",
                outcome.rate(),
                outcome.latency(0.5),
                outcome.latency(0.99),
                outcome.failures(),
                server.resident_mb()
            )?;
        }
        ratios.push(p99[1] / p99[0]);
    }
    writeln!(
        text,
        "\np99 of accepted requests at 3 times the capacity, to p99 at 0.9 in the same round: \
         **{}**.\n",
        spread(&ratios, 2)
    )?;
    Ok(())
}

/// Measures four clients, alone and along with connections that send a few bytes at a time.
pub(crate) async fn slow_clients(
    server: &Server,
    images: &Target,
    text: &mut String,
) -> anyhow::Result<()> {
    const SLOW: usize = 8;
    let target = [Target {
        url: server.url("/v1/embed"),
        ..images.clone()
    }];
    let time = Duration::from_secs(8);
    let alone = load(&target, Arrivals::Closed { clients: 4 }, time).await;
    let slow = send_slowly(&server.address, SLOW, time);
    let (together, closed) =
        tokio::join!(load(&target, Arrivals::Closed { clients: 4 }, time), slow);
    writeln!(
        text,
        "## Slow clients\n\nFour clients alone: {:.1} responses/s, p99 {:.0} ms. Along with \
         {SLOW} connections that send 20 bytes/s: {:.1} responses/s, p99 {:.0} ms, {} failed. \
         ({closed} of the slow connections were closed within {} s; `--request-timeout` closes \
         the others.)\n",
        alone.rate(),
        alone.latency(0.99),
        together.rate(),
        together.latency(0.99),
        together.failures(),
        time.as_secs()
    )?;
    Ok(())
}

/// Measures sixteen clients with six kinds of request and images of three sizes.
pub(crate) async fn mixture(
    server: &Server,
    sizes: &[Target],
    text: &mut String,
) -> anyhow::Result<()> {
    const PATHS: [&str; 6] = [
        "/v1/embed",
        "/v1/embed?pooling=cls_mean&layers=4",
        "/v1/attention?size=224",
        "/v1/embed?resize=fit&size=336",
        "/v1/pca?size=224",
        "/v1/embed?tokens=true&encoding_format=base64",
    ];
    let targets: Vec<Target> = PATHS
        .iter()
        .enumerate()
        .map(|(index, path)| Target {
            url: server.url(path),
            ..sizes[index % sizes.len()].clone()
        })
        .collect();
    let before = server.resident_mb();
    let outcome = load(
        &targets,
        Arrivals::Closed { clients: 16 },
        Duration::from_secs(20),
    )
    .await;
    writeln!(
        text,
        "## A mixture\n\nSixteen clients, six kinds of request in turn, images of 320×240, \
         1280×960 and 4000×3000: {:.1} responses/s, p50 {:.0} ms, p99 {:.0} ms, {} failed; \
         resident {before:.0} MB before and {:.0} MB after.\n",
        outcome.rate(),
        outcome.latency(0.5),
        outcome.latency(0.99),
        outcome.failures(),
        server.resident_mb()
    )?;
    Ok(())
}

/// Measures the resident memory under load for several numbers of sessions.
pub(crate) async fn memory(
    programs: &Programs,
    images: &Target,
    text: &mut String,
) -> anyhow::Result<()> {
    let model_mb = model_mb(programs)?;
    text.push_str(
        "## Memory\n\nResident memory after 8 s with 16 clients at 224.\n\n\
         | workers | sessions | resident, MB | to the model file | increase per further session |\n\
         |---|---|---|---|---|\n",
    );
    let mut first = None;
    for (workers, solo, sessions) in [("1", "0", 1), ("2", "0", 2), ("2", "2", 3), ("3", "2", 4)] {
        let server = programs
            .serve("dinoserve", &["--workers", workers, "--solo-threads", solo])
            .await?;
        let target = [Target {
            url: server.url("/v1/embed"),
            ..images.clone()
        }];
        load(
            &target,
            Arrivals::Closed { clients: 16 },
            Duration::from_secs(8),
        )
        .await;
        let resident = server.resident_mb();
        server.stop().await;
        let alone = *first.get_or_insert(resident);
        let increase = match sessions {
            1 => String::new(),
            _ => format!(
                "{:.0} %",
                (resident / alone - 1.0) / f64::from(sessions - 1) * 100.0
            ),
        };
        let solo = if solo == "0" {
            ""
        } else {
            " and one for single images"
        };
        writeln!(
            text,
            "| {workers}{solo} | {sessions} | {resident:.0} | {:.2} | {increase} |",
            resident / model_mb
        )?;
    }
    writeln!(text, "\nThe model takes {model_mb:.1} MB on disk.\n")?;
    Ok(())
}

/// Returns the size of the converted model's files, in megabytes.
fn model_mb(programs: &Programs) -> anyhow::Result<f64> {
    let output = Command::new(&programs.dinoserve)
        .args(["models", "verify", &programs.model, "--json"])
        .output()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let path = report["path"].as_str().context("the model's path")?;
    let mut bytes = 0;
    for path in [path.to_owned(), format!("{path}.data")] {
        bytes += std::fs::metadata(&path).context(path)?.len();
    }
    Ok(bytes as f64 / 1e6)
}
