//! How exact the embeddings of the servers are.

use anyhow::Context;
use serde_json::Value;

use crate::{client::Target, servers::Server};

/// Number of images that are compared.
const IMAGES: usize = 8;

/// Returns, for each server, the lowest cosine similarity of its embeddings to those of the first
/// server, over several images at `size`.
pub(crate) async fn lowest_cosines(
    servers: &[Server],
    images: &Target,
    size: usize,
) -> anyhow::Result<Vec<f64>> {
    let mut reference = Vec::new();
    let mut lowest = Vec::new();
    for server in servers {
        let vectors = embeddings(server, images, size)
            .await
            .with_context(|| server.name.clone())?;
        if reference.is_empty() {
            reference.clone_from(&vectors);
        }
        let pairs = vectors.iter().zip(&reference);
        lowest.push(pairs.map(|(a, b)| cosine(a, b)).fold(1.0, f64::min));
    }
    Ok(lowest)
}

async fn embeddings(
    server: &Server,
    images: &Target,
    size: usize,
) -> anyhow::Result<Vec<Vec<f64>>> {
    let client = reqwest::Client::new();
    let mut vectors = Vec::new();
    for file in images.files.iter().take(IMAGES) {
        let answer: Value = client
            .post(server.url(&format!("{}?size={size}", server.embed)))
            .header("content-type", "image/jpeg")
            .body(file.clone())
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let of_ours = answer.pointer("/data/0/embedding");
        let vector = of_ours
            .or(answer.get("embedding"))
            .context("no embedding")?;
        vectors.push(serde_json::from_value(vector.clone())?);
    }
    Ok(vectors)
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| -> f64 { x.iter().zip(y).map(|(x, y)| x * y).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
