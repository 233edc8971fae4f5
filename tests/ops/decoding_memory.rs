//! Memory of images that are decoded at the same time: bounded by `--max-decoding-bytes`.

use std::{
    io::{Cursor, Write},
    time::Duration,
};

use flate2::{Compression, write::ZlibEncoder};
use futures_util::{StreamExt, stream};
use image::{DynamicImage, ImageBuffer, ImageFormat, Rgb, RgbImage, Rgba};
use serde_json::Value;

use crate::support::{process::Process, read_golden};

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

/// Side of a square image of 49 megapixels.
const SIDE: u32 = 7000;

/// Makes a TIFF of 49 megapixels in strips of 100 rows, as libraries write them.
fn tiff() -> Vec<u8> {
    const ROWS: u32 = 100;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(&vec![90; (SIDE * ROWS * 3) as usize])
        .expect("memory");
    let strip = encoder.finish().expect("memory");
    let count = SIDE / ROWS;
    let length = strip.len() as u32;
    let mut file = b"II*\0\0\0\0\0".to_vec();
    let offsets: Vec<u32> = (0..count).map(|number| 8 + number * length).collect();
    file.extend(strip.repeat(count as usize));
    let lists = file.len() as u32;
    let lengths = vec![length; count as usize];
    let values = offsets.iter().chain(&lengths).chain(&[8, 8, 8]);
    file.extend(values.flat_map(|value| value.to_le_bytes()));
    let start = file.len() as u32;
    file[4..8].copy_from_slice(&start.to_le_bytes());
    // Tags of type LONG.
    let tags = [
        (256, 1, SIDE),
        (257, 1, SIDE),
        (258, 3, lists + 8 * count),
        (259, 1, 8),
        (262, 1, 2),
        (273, count, lists),
        (277, 1, 3),
        (278, 1, ROWS),
        (279, count, lists + 4 * count),
    ];
    file.extend((tags.len() as u16).to_le_bytes());
    for (tag, count, value) in tags {
        file.extend([tag, 4_u16].map(u16::to_le_bytes).as_flattened());
        file.extend([count, value].map(u32::to_le_bytes).as_flattened());
    }
    file.extend([0; 4]);
    file
}

/// Makes a WebP of 49 megapixels.
fn webp() -> Vec<u8> {
    let image = RgbImage::from_pixel(SIDE, SIDE, Rgb([90, 60, 30]));
    let mut file = Cursor::new(Vec::new());
    image
        .write_to(&mut file, ImageFormat::WebP)
        .expect("a WebP");
    file.into_inner()
}

/// Sends `count` images at the same time, and returns the statuses and bodies.
async fn send(process: &Process, files: &[Vec<u8>]) -> Vec<(u16, Option<String>, Value)> {
    let client = crate::support::client::builder()
        .timeout(Duration::from_secs(120))
        .build()
        .expect("a client");
    let requests = files.iter().map(|file| {
        let request = client.post(format!("{}/v1/embed?size=56", process.url));
        let request = request.header("content-type", "application/octet-stream");
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
    // The budget has room for one image.
    let process = Process::start(&["--max-decoding-bytes", "300000000", "--max-requests", "64"]);
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
async fn an_image_that_takes_more_than_the_limit_is_rejected() {
    let process = Process::start(&["--max-decoding-bytes", "60000000"]);
    let (status, _, body) = send(&process, &[file(0)]).await.remove(0);
    assert_eq!(status, 413, "{body}");
    assert_eq!(body["limit"]["flag"], "--max-decoding-bytes");
    assert_eq!(body["limit"]["value"], 60_000_000);
    let detail = body["detail"].as_str().expect("a text");
    assert!(detail.contains("and the limit is 60000000"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_waits_too_long_is_answered_with_503() {
    let flags = ["--max-decoding-bytes", "300000000", "--max-requests", "400"];
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
        assert_eq!(body["limit"]["value"], 300_000_000);
    }
    // Nothing is left behind.
    let answers = send(&process, &files[..1]).await;
    assert_eq!(answers[0].0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_take_the_documented_memory() {
    let pixels = f64::from(SIDE * SIDE);
    for (name, file, bytes_per_pixel) in [("TIFF", tiff(), 3.0), ("WebP", webp(), 11.0)] {
        // Room for one image.
        let budget = (1.3 * bytes_per_pixel * pixels) as u64;
        let process = Process::start(&["--max-decoding-bytes", &budget.to_string()]);
        // A small image, after which the allocator keeps no large blocks.
        send(&process, &[read_golden("formats/png_rgb8.png")]).await;
        let rest = memory(&process, "VmRSS");
        std::fs::write(format!("/proc/{}/clear_refs", process.id()), "5").expect("Linux");
        // Bytes behind the image make other files of it, which no cache answers.
        let files: Vec<_> = (0..3).map(|end| [&file[..], &[end]].concat()).collect();
        for (status, _, body) in send(&process, &files).await {
            assert_eq!(status, 200, "{name}: {body}");
        }
        let peak = memory(&process, "VmHWM") - rest;
        let bound = bytes_per_pixel * pixels;
        eprintln!(
            "3 {name} of 49 megapixels: {:.0} MB of {:.0} MB at the peak",
            peak / MB,
            bound / MB
        );
        // The resized rows, the files and the features come on top.
        assert!(peak < bound + 60.0 * MB, "{name}: {:.0} MB", peak / MB);
    }
}
