//! Thousands of hostile files: bombs, false headers, corner cases of every format
//! (`tests/hostile/generate.py`).

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::support::{
    items::SplitMix,
    process::{Process, metric},
    read_golden, scratch,
    server::ok,
    skip,
};

/// Returns the number of requests of a run; `make soak` sets 10,000.
fn requests() -> usize {
    std::env::var("DINOSERVE_SOAK_HOSTILE")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(1500)
}
const CLIENTS: usize = 32;

/// Generates the files of the corpus.
fn corpus() -> Option<Vec<(String, Vec<u8>)>> {
    let folder = scratch("hostile");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/generate.py");
    let Ok(made) = Command::new("python3").arg(script).arg(&folder).output() else {
        skip("hostile: python3 is missing");
        return None;
    };
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let index: Value =
        serde_json::from_slice(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let name = |entry: &Value| entry["file"].as_str().expect("a file").to_owned();
    let files: Vec<String> = index.as_array().unwrap().iter().map(name).collect();
    Some(
        files
            .into_iter()
            .map(|file| (file.clone(), std::fs::read(folder.join(&file)).unwrap()))
            .collect(),
    )
}

/// Waits until memory has stopped falling, because the allocator returns that of large images with
/// a delay.
async fn settled(memory: impl Fn() -> f64) -> f64 {
    let mut least = memory();
    let mut rests = 0;
    for _ in 0..90 {
        if rests == 10 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = memory();
        rests = if now < 0.99 * least { 0 } else { rests + 1 };
        least = least.min(now);
    }
    least
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_files_do_no_harm() {
    let Some(files) = corpus() else { return };
    assert!(files.len() >= 200, "{} files", files.len());
    let process = Process::start(&["--max-image-pixels", "4000000", "--max-requests", "64"]);
    let client = crate::support::client::builder()
        .timeout(Duration::from_secs(120))
        .build()
        .unwrap();
    let files = Arc::new(files);
    // Each file once, in a fixed order, then again from the beginning.
    let mut order: Vec<usize> = (0..files.len()).collect();
    let mut random = SplitMix(7);
    for end in (1..order.len()).rev() {
        order.swap(end, random.below(end as u64 + 1) as usize);
    }
    let run = async |count: usize| {
        let ask = |turn: usize| {
            let (name, bytes) = &files[order[turn % order.len()]];
            let path = [
                "/v1/embed?size=56",
                "/v1/pca?size=56",
                "/v1/attention?size=56",
                "/v1/embed?size=56&decode=fast",
            ][turn % 4];
            let request = client
                .post(format!("{}{path}", process.url))
                .header("content-type", "application/octet-stream");
            let request = request.body(bytes.clone());
            async move {
                let response = request
                    .send()
                    .await
                    .unwrap_or_else(|error| panic!("{name}: no answer: {error:?}"));
                let status = response.status().as_u16();
                let body = response
                    .bytes()
                    .await
                    .unwrap_or_else(|error| panic!("{name}: an incomplete response: {error:?}"));
                let text = String::from_utf8_lossy(&body[..body.len().min(400)]).into_owned();
                assert!(status < 500 || status == 503, "{name}: {status} {text}");
                status
            }
        };
        stream::iter(0..count)
            .map(ask)
            .buffer_unordered(CLIENTS)
            .collect::<Vec<u16>>()
            .await
    };
    let memory = || process.metric("process_resident_memory_bytes");
    let at_start = memory();
    // Every file once: until then the allocator still grows.
    run(files.len().max(requests())).await;
    let before = settled(memory).await;
    let statuses = run(requests()).await;
    let good = statuses.iter().filter(|&&status| status == 200).count();
    let bad = statuses
        .iter()
        .filter(|&&status| (400..500).contains(&status))
        .count();
    assert!(
        good > statuses.len() / 20 && bad > statuses.len() / 3,
        "{good} were images, {bad} were rejected"
    );
    let after = settled(memory).await;
    eprintln!(
        "{} requests, {good} images; memory {:.0} MB at the start, {:.0} MB before, {:.0} MB after",
        statuses.len(),
        at_start / 1e6,
        before / 1e6,
        after / 1e6
    );
    assert!(after < 1.1 * before, "memory was {before} and is {after}");
    // An arena that keeps the largest batch would also be constant, but many times as large.
    assert!(
        after < 3.0 * at_start,
        "memory was {at_start} at the start and is {after}"
    );
    let metrics = ok(client.get(format!("{}/metrics", process.url)))
        .await
        .text()
        .await
        .unwrap();
    for part in ["worker", "decoder", "handler"] {
        assert_eq!(
            metric(
                &metrics,
                &format!("dinoserve_panics_total{{part=\"{part}\"}}")
            ),
            0.0,
            "{part}: {}",
            process.log()
        );
    }
    let image = client
        .post(format!("{}/v1/embed", process.url))
        .header("content-type", "image/png");
    ok(image.body(read_golden("dinov2-small-focus/coffee.png"))).await;
}
