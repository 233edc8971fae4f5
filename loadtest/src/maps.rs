//! `/v1/pca`: its cost on top of the model, against the usual NumPy code for the components.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;

use crate::{
    client::{Arrivals, Target, load},
    servers::{Programs, Server},
    stats::spread,
};

/// Measures PCA maps at 518 pixels. `python` has NumPy.
pub(crate) async fn measure(
    programs: &Programs,
    server: &Server,
    images: &Target,
    folder: &Path,
    python: Option<&Path>,
    rounds: usize,
    text: &mut String,
) -> anyhow::Result<()> {
    let target = [Target {
        url: server.url("/v1/pca?size=518"),
        ..images.clone()
    }];
    let arrivals = Arrivals::Closed { clients: 1 };
    let outcome = load(&target, arrivals, Duration::from_secs(15)).await;
    let inference = outcome.stage("inference");
    let overhead = (outcome.latency(0.5) / inference - 1.0) * 100.0;
    writeln!(
        text,
        "## Maps\n\n`/v1/pca` at 518, one client, ms: {:.1} in all (p50); decode {:.1}, resize \
         {:.1}, inference {inference:.1}, components and PNG {:.1}. **{overhead:.1} %** on top of \
         the inference.\n",
        outcome.latency(0.5),
        outcome.stage("decode"),
        outcome.stage("resize"),
        outcome.stage("post")
    )?;
    let Some(python) = python else {
        text.push_str("(No Python with NumPy was found for the comparison.)\n\n");
        return Ok(());
    };
    let tokens = folder.with_file_name("loadtest-tokens.npy");
    let file = images.files.first().context("an image file")?.clone();
    std::fs::write(&tokens, patch_tokens(server, file).await?)?;
    let mut ours = Vec::new();
    let mut numpy = Vec::new();
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let row = programs.bench(folder, 518, 21, &["--seconds", "0"]).await?;
        let pca_ms = row["pca_ms"].as_f64().context("bench gives no pca_ms")?;
        let script = programs.project.join("loadtest/peers/pca_numpy.py");
        let output = Command::new(python).arg(script).arg(&tokens).output()?;
        let report: Value = serde_json::from_slice(&output.stdout).context("pca_numpy.py")?;
        let numpy_ms = report["ms"].as_f64().context("pca_numpy.py gives no ms")?;
        ours.push(pca_ms);
        numpy.push(numpy_ms);
        ratios.push(numpy_ms / pca_ms);
    }
    writeln!(
        text,
        "The components of 37×37 patches take {} ms; `numpy.linalg.svd` on the same tokens takes \
         {} ms, **{}** times as long.\n",
        spread(&ours, 1),
        spread(&numpy, 0),
        spread(&ratios, 1)
    )?;
    Ok(())
}

async fn patch_tokens(server: &Server, file: bytes::Bytes) -> anyhow::Result<bytes::Bytes> {
    let response = reqwest::Client::new()
        .post(server.url("/v1/embed?tokens=true&size=518"))
        .header("accept", "application/x-npy")
        .header("content-type", "image/jpeg")
        .body(file)
        .send()
        .await?;
    Ok(response.bytes().await?)
}

/// Finds the Python of `PEERS_VENV` or of a peer, else the system's, with NumPy.
pub(crate) fn python_with_numpy(peers: &[String]) -> Option<PathBuf> {
    let cache = match std::env::var_os("DINOSERVE_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/dinoserve"),
    };
    let of_peers = peers
        .iter()
        .map(|name| cache.join(format!("peers/{name}/venv/bin/python")));
    std::env::var_os("PEERS_VENV")
        .map(|venv| PathBuf::from(venv).join("bin/python"))
        .into_iter()
        .chain(of_peers)
        .chain(["python3".into()])
        .find(|python| {
            Command::new(python)
                .args(["-c", "import numpy"])
                .output()
                .is_ok_and(|output| output.status.success())
        })
}
