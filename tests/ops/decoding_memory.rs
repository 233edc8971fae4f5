//! Memory of images that are decoded at the same time: bounded by `--max-decoding-bytes`.

use std::{io::Cursor, time::Duration};

use futures_util::{StreamExt, stream};
use image::{DynamicImage, ImageBuffer, ImageFormat, Rgba};
use serde_json::Value;

use crate::support::process::Process;

const MB: f64 = 1e6;
/// 24 megapixels take 192 MB with 16 bits a sample, and 72 MB more as RGB. Blocks of this size are
/// returned to the system at once.
const SIDES: (u32, u32) = (6000, 4000);
const IMAGE: f64 = 264.0 * MB;

/// Makes a PNG that is small as a file. Files differ, so that no answer comes from the cache.
fn file(number: u16) -> Vec<u8> {
    let (width, height) = SIDES;
    let image = ImageBuffer::from_pixel(width, height, Rgba([number, 40_000, 9_000, u16::MAX]));
    let mut file = Cursor::new(Vec::new());
    DynamicImage::ImageRgba16(image)
        .write_to(&mut file, ImageFormat::Png)
        .expect("a PNG");
    file.into_inner()
}

/// Sends `count` images at the same time, and returns the statuses and bodies.
async fn send(process: &Process, files: &[Vec<u8>]) -> Vec<(u16, Option<String>, Value)> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(120))
        .build()
        .expect("a client");
    let requests = files.iter().map(|file| {
        let request = client.post(format!("{}/v1/embed?size=56", process.url));
        let request = request.header("content-type", "image/png");
        let request = request.body(file.clone());
        async move {
            let response = request.send().await.expect("an answer");
            let status = response.status().as_u16();
            let retry = response.headers().get("retry-after");
            let retry = retry.map(|value| value.to_str().expect("text").to_owned());
            (status, retry, response.json().await.expect("JSON"))
        }
    });
    stream::iter(requests)
        .buffer_unordered(files.len())
        .collect()
        .await
}

/// Returns a line of the process's status, in bytes.
fn memory(process: &Process, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    kib.expect("a line").parse::<f64>().expect("a number") * 1024.0
}

#[tokio::test(flavor = "multi_thread")]
async fn images_share_the_memory_for_decoding() {
    // One image exceeds the budget, and is decoded alone.
    let process = Process::start(&["--max-decoding-bytes", "60000000", "--max-requests", "64"]);
    let files: Vec<_> = (0..9).map(file).collect();
    send(&process, &files[8..]).await;
    let rest = memory(&process, "VmRSS").min(memory(&process, "VmHWM") - IMAGE);
    let answers = send(&process, &files[..8]).await;
    for (status, _, body) in &answers {
        assert_eq!(*status, 200, "{body}");
    }
    let peak = memory(&process, "VmHWM") - rest;
    eprintln!("8 images of 264 MB: {:.0} MB at the peak", peak / MB);
    // Two images at the same time would take 528 MB.
    assert!(peak < 1.5 * IMAGE, "{:.0} MB", peak / MB);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_waits_too_long_is_answered_with_503() {
    let flags = ["--max-decoding-bytes", "60000000", "--max-requests", "400"];
    let process = Process::start(&[&flags[..], &["--request-timeout", "10"]].concat());
    let files: Vec<_> = (0..40).map(file).collect();
    let answers = send(&process, &files).await;
    let of = |wanted: u16| answers.iter().filter(move |(status, ..)| *status == wanted);
    assert!(of(200).count() > 0, "some images are decoded");
    assert!(of(503).count() > 0, "some images wait too long");
    assert_eq!(
        of(200).count() + of(503).count(),
        answers.len(),
        "{answers:?}"
    );
    for (_, retry, body) in of(503) {
        assert_eq!(retry.as_deref(), Some("1"));
        assert_eq!(body["limit"]["flag"], "--max-decoding-bytes");
        assert_eq!(body["limit"]["value"], 60_000_000);
    }
    // Nothing is left behind.
    let answers = send(&process, &files[..1]).await;
    assert_eq!(answers[0].0, 200);
}
