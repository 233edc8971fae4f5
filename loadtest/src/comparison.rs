//! The same load on `dinoserve`, on its peers, and on the pipeline without HTTP.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::Context;

use crate::{
    client::{Arrivals, Target, load},
    rounds::Rounds,
    servers::{Programs, Server},
    stats::spread,
};

/// Writes the throughput and latency of all servers.
pub(crate) fn over_http(
    rounds: &Rounds,
    servers: &[Server],
    text: &mut String,
) -> anyhow::Result<()> {
    text.push_str(
        "## Embeddings over HTTP\n\n\
         | server | responses/s, 16 clients | responses/s, 1 client | p50, ms, 1 client \
         | dinoserve to it, 16 clients | 1 client |\n|---|---|---|---|---|---|\n",
    );
    for Server { name, .. } in servers {
        let many = format!("{name} at 16: rate");
        let one = format!("{name} at 1: rate");
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} |",
            spread(&rounds.values(&many), 1),
            spread(&rounds.values(&one), 1),
            spread(&rounds.values(&format!("{name} at 1: p50")), 1),
            spread(&rounds.ratios("dinoserve at 16: rate", &many), 2),
            spread(&rounds.ratios("dinoserve at 1: rate", &one), 2),
        )?;
    }
    text.push_str("\nThe peers are described in [peers/README.md](peers/README.md).\n\n");
    Ok(())
}

/// Writes the throughput without HTTP, and what HTTP keeps of it.
pub(crate) fn without_http(rounds: &Rounds, text: &mut String) -> anyhow::Result<()> {
    text.push_str(
        "## Without HTTP\n\n`dinoserve bench` on the same files: the model alone, and from the \
         file on.\n\n| | fp32 | int8 |\n|---|---|---|\n",
    );
    for (row, name, digits) in [
        ("model alone, images/s", "session_rate", 1),
        ("from the file, images/s", "pipeline_rate", 1),
    ] {
        let value = |precision| {
            spread(
                &rounds.values(&format!("bench {precision}: {name}")),
                digits,
            )
        };
        writeln!(text, "| {row} | {} | {} |", value("fp32"), value("int8"))?;
    }
    let pipeline_to_model = |precision| {
        let pipeline = format!("bench {precision}: pipeline_rate");
        let session = format!("bench {precision}: session_rate");
        spread(&rounds.ratios(&pipeline, &session), 3)
    };
    writeln!(
        text,
        "| from the file to the model alone | {} | {} |",
        pipeline_to_model("fp32"),
        pipeline_to_model("int8")
    )?;
    let http_to_pipeline = |server, precision| {
        let http = format!("{server} at 16: rate");
        let pipeline = format!("bench {precision}: pipeline_rate");
        spread(&rounds.ratios(&http, &pipeline), 3)
    };
    writeln!(
        text,
        "| 16 clients over HTTP to that from the file | {} | {} |",
        http_to_pipeline("dinoserve", "fp32"),
        http_to_pipeline("dinoserve int8", "int8")
    )?;
    let int8 = rounds.ratios("dinoserve int8 at 16: rate", "dinoserve at 16: rate");
    writeln!(
        text,
        "\nint8 handles **{}** times as many requests as fp32 at 16 clients.\n",
        spread(&int8, 2)
    )?;
    Ok(())
}

/// Measures what HTTP and the engine add for a single client, in short pairs of measurements: the
/// machine's speed drifts by more than the difference.
pub(crate) async fn one_client(
    programs: &Programs,
    servers: &[Server],
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
    for (server, precision) in servers.iter().zip(["fp32", "int8"]) {
        let target = [Target {
            url: server.url("/v1/embed"),
            ..images.clone()
        }];
        let mut pipeline = Vec::new();
        let mut http = Vec::new();
        let mut differences = Vec::new();
        for _ in 0..PAIRS {
            let flags = ["--precision", precision, "--seconds", "0"];
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
            "| {precision} | {} | {} | **{}** |",
            spread(&pipeline, 1),
            spread(&http, 1),
            spread(&differences, 1)
        )?;
    }
    servers.iter().for_each(Server::resume);
    writeln!(text, "\n{PAIRS} pairs of measurements.\n")?;
    Ok(())
}
