//! What happens beyond a steady load: crowds, overload, slow clients, a mix of everything.

use std::{fmt::Write as _, time::Duration};

use crate::{
    client::{Arrivals, Target, dribble, load},
    servers::{Programs, Server},
};

/// Requests at 0.9 and at 3 times what the server can do, in turns, and what became of them.
pub(crate) async fn overload(
    server: &Server,
    photos: &Target,
    text: &mut String,
) -> anyhow::Result<()> {
    const ROUNDS: usize = 5;
    let target = Target {
        url: server.url("/v1/embed"),
        ..photos.clone()
    };
    let target = std::slice::from_ref(&target);
    text.push_str(
        "Requests arrive at a constant mean rate with exponential gaps; latency counts from the intended start. The capacity is measured \
         anew before each round.\n\n| round | load | good answers/s | p50, ms | p99, ms | refused with 503 | failed | resident, MB \
         |\n|---|---|---|---|---|---|---|---|\n",
    );
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        // What it can do now, and not what it could a few minutes ago.
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
            let ms = |quantile| outcome.refused.value_at_quantile(quantile) as f64 / 1e3;
            let refused = match outcome.refused.len() {
                0 => "0".to_owned(),
                count => format!("{count} (p50 {:.1} ms, p99 {:.1} ms)", ms(0.5), ms(0.99)),
            };
            writeln!(
                text,
                "| {round} | {factor} × {capacity:.1}/s | {:.1} | {:.0} | {:.0} | {refused} | {} | {:.0} |",
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
        "\np99 of accepted requests at 3 times the capacity, to p99 at 0.9 in the same round: **{}**.\n",
        crate::report::spread(&ratios, 2)
    )?;
    Ok(())
}

/// Four ordinary clients, alone and beside connections that send their photograph a few bytes at a
/// time.
pub(crate) async fn slow_clients(
    server: &Server,
    photos: &Target,
    text: &mut String,
) -> anyhow::Result<()> {
    const SLOW: usize = 8;
    let target = [Target {
        url: server.url("/v1/embed"),
        ..photos.clone()
    }];
    let time = Duration::from_secs(8);
    let alone = load(&target, Arrivals::Closed { clients: 4 }, time).await;
    let slow = dribble(&server.address, SLOW, time);
    let (beside, ended) = tokio::join!(load(&target, Arrivals::Closed { clients: 4 }, time), slow);
    writeln!(
        text,
        "Four clients alone: {:.1} answers/s, p99 {:.0} ms. Beside {SLOW} connections that send 20 bytes a second: {:.1} answers/s, \
         p99 {:.0} ms, {} failed. ({ended} of the slow ones were ended within {} s; the rest is ended by `--request-timeout`.)\n",
        alone.rate(),
        alone.latency(0.99),
        beside.rate(),
        beside.latency(0.99),
        beside.failures(),
        time.as_secs()
    )?;
    Ok(())
}

/// Sixteen clients that ask for everything, with photographs of three sizes.
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
        "Sixteen clients, six kinds of request in turn, photographs of 320×240, 1280×960 and 4000×3000: {:.1} answers/s, p50 {:.0} ms, p99 \
         {:.0} ms, {} failed; resident {before:.0} MB before and {:.0} MB after.\n",
        outcome.rate(),
        outcome.latency(0.5),
        outcome.latency(0.99),
        outcome.failures(),
        server.resident_mb()
    )?;
    Ok(())
}

/// Resident memory under load by the number of sessions.
pub(crate) async fn memory(
    programs: &Programs,
    photos: &Target,
    model_mb: f64,
    text: &mut String,
) -> anyhow::Result<()> {
    text.push_str("| workers | sessions | resident, MB | to the model file | more for each further session |\n|---|---|---|---|---|\n");
    let mut first = None;
    for (workers, solo, sessions) in [("1", "0", 1), ("2", "0", 2), ("2", "2", 3), ("3", "2", 4)] {
        let server = programs
            .serve("dinoserve", &["--workers", workers, "--solo-threads", solo])
            .await?;
        let target = [Target {
            url: server.url("/v1/embed"),
            ..photos.clone()
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
        let each = match sessions {
            1 => String::new(),
            _ => format!(
                "{:.0} %",
                (resident / alone - 1.0) / f64::from(sessions - 1) * 100.0
            ),
        };
        let solo = if solo == "0" {
            ""
        } else {
            " and one for lone images"
        };
        writeln!(
            text,
            "| {workers}{solo} | {sessions} | {resident:.0} | {:.2} | {each} |",
            resident / model_mb
        )?;
    }
    writeln!(text, "\nThe model takes {model_mb:.1} MB on disk.\n")?;
    Ok(())
}
