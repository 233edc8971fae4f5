//! The feature endpoints: every body form, option and representation, compared with the goldens
//! where they exist.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dinoserve::{http::HttpConfig, service::CacheBytes};
use futures_util::future::join_all;
use ndarray::Axis;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::{
    SAMPLES, Tensors, cosine, difference, focus, golden_png, read_golden,
    server::{Server, Setup, floats, npy, ok, ok_bytes, ok_json},
    tiny,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";
const COFFEE: &str = "dinov2-small-focus/coffee.png";
/// Options that make the pixels those of the `fit448` goldens.
const FIT448: &str = "resize=fit&size=448";

async fn focus_server() -> Server {
    Server::start(focus().clone(), HttpConfig::default()).await
}

fn png_of(bytes: &[u8]) -> image::RgbImage {
    assert_eq!(
        image::guess_format(bytes).expect("an image"),
        image::ImageFormat::Png
    );
    image::load_from_memory(bytes).expect("a PNG").into_rgb8()
}

#[tokio::test]
async fn embeddings_match_the_reference() {
    let server = focus_server().await;
    for sample in SAMPLES {
        let stem = sample.split('.').next().unwrap();
        let expected = Tensors::read(&format!("dinov2-small-focus/{stem}_crop224.safetensors"));
        let file = format!("dinov2-small-focus/{sample}");
        let answer = ok_json(server.post_file("/v1/embed?normalize=false", &file)).await;
        let found = floats(&answer["data"][0]["embedding"]);
        let (largest, mean) = difference(&found, expected.get("cls"));
        assert!(
            largest <= 1e-3 && mean <= 1e-4,
            "{sample}: {largest} {mean}"
        );
        assert!(cosine(found.iter().copied(), expected.get("cls").iter().copied()) >= 0.99999);
        assert_eq!(answer["data"][0]["grid"], json!([16, 16]));
        assert_eq!(
            (answer["model"].as_str(), answer["dim"].as_u64()),
            (Some("dinov2-small-focus"), Some(384))
        );
        assert_eq!(answer["fingerprint"], focus().fingerprint);
    }
}

#[tokio::test]
async fn every_body_form_gives_the_same_embedding() {
    let server = Server::tiny().await;
    let file = read_golden(CHELSEA);
    let encoded = BASE64_STANDARD.encode(&file);
    let post = |path: &str| server.client.post(server.url(path));
    let part = || Part::bytes(file.clone()).file_name("cat.png");
    let json_body = json!({"image": encoded, "size": 112, "pooling": "mean"});
    let data_uri = format!("data:image/png;base64,{encoded}");
    let data_uri = json!({"image": data_uri, "size": "112", "pooling": "mean"});
    let unpadded =
        json!({"images": [encoded.trim_end_matches('=')], "size": 112, "pooling": "mean"});
    let broken_lines: String = encoded
        .as_bytes()
        .chunks(76)
        .map(|line| format!("{}\r\n", String::from_utf8_lossy(line)))
        .collect();
    let requests = [
        post("/v1/embed?size=112&pooling=mean")
            .header("content-type", "image/png")
            .body(file.clone()),
        post("/v1/embed?size=112&pooling=mean")
            .header("content-type", "application/octet-stream")
            .body(file.clone()),
        post("/v1/embed?size=112&pooling=mean").multipart(Form::new().part("image", part())),
        post("/v1/embed").multipart(
            Form::new()
                .text("size", "112")
                .text("pooling", "mean")
                .part("anything", part()),
        ),
        post("/v1/embed").json(&json_body),
        post("/v1/embed").json(&data_uri),
        post("/v1/embed").json(&unpadded),
        post("/v1/embed?pooling=mean").json(&json!({"image": broken_lines, "size": 112})),
    ];
    let mut answers = Vec::new();
    for request in requests {
        answers.push(ok_json(request).await);
    }
    answers
        .iter()
        .for_each(|answer| assert_eq!(answer, &answers[0]));
    assert_eq!(answers[0]["data"][0]["grid"], json!([8, 8]));
}

#[tokio::test]
async fn every_representation_holds_the_same_numbers() {
    let server = Server::tiny().await;
    let request =
        |path: &str, accept: &str| server.post_file(path, CHELSEA).header("accept", accept);
    let json =
        floats(&ok_json(request("/v1/embed", "application/json")).await["data"][0]["embedding"]);
    let raw = ok_bytes(request("/v1/embed", "application/octet-stream")).await;
    let raw: Vec<f32> = raw
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let matrix = npy(&ok_bytes(request("/v1/embed", "application/x-npy")).await);
    let base64 = ok_json(request("/v1/embed?encoding_format=base64", "*/*")).await;
    let base64 = BASE64_STANDARD
        .decode(base64["data"][0]["embedding"].as_str().unwrap())
        .unwrap();
    let base64: Vec<f32> = base64
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(matrix.shape(), [1, 64]);
    assert_eq!((&raw, &base64), (&json, &json));
    assert_eq!(matrix.iter().copied().collect::<Vec<_>>(), json);
    let length: f32 = json.iter().map(|v| v * v).sum();
    assert!((length - 1.0).abs() < 1e-5, "normalized by default");
}

#[tokio::test]
async fn pooling_is_computed_from_the_tokens() {
    let server = Server::tiny().await;
    let embed = async |options: &str| {
        let answer =
            ok_json(server.post_file(&format!("/v1/embed?normalize=false&{options}"), CHELSEA))
                .await;
        floats(&answer["data"][0]["embedding"])
    };
    let tokens = ok_bytes(
        server
            .post_file("/v1/embed?tokens=true", CHELSEA)
            .header("accept", "application/x-npy"),
    )
    .await;
    let tokens = npy(&tokens);
    assert_eq!(tokens.shape(), [1, 256, 64]);
    let tokens = tokens.index_axis_move(Axis(0), 0);
    let mean = tokens.mean_axis(Axis(0)).unwrap();
    assert!(difference(&embed("pooling=mean").await, &mean).0 < 1e-5);
    let gem = tokens
        .mapv(|v| v.max(1e-6).powi(3))
        .mean_axis(Axis(0))
        .unwrap()
        .mapv(f32::cbrt);
    assert!(difference(&embed("pooling=gem").await, &gem).0 < 1e-5);

    let cls = embed("pooling=cls").await;
    let both = embed("pooling=cls_mean").await;
    assert_eq!(both.len(), 128);
    assert_eq!(&both[..64], &cls);
    assert!(difference(&both[64..], &mean).0 < 1e-5);

    // The tiny model has two blocks; the last comes last.
    let layers = embed("layers=2").await;
    assert_eq!(layers.len(), 128);
    assert_eq!(&layers[64..], &cls);
    let layers = embed("layers=2&pooling=cls_mean").await;
    assert_eq!(layers.len(), 256);
    assert!(difference(&layers[128..], &both).0 < 1e-5);

    let answer = ok_json(server.post_file("/v1/embed?tokens=true", CHELSEA)).await;
    assert_eq!(
        floats(&answer["data"][0]["tokens"]),
        tokens.iter().copied().collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_bad_image_in_a_batch_fails_alone() {
    let server = Server::tiny().await;
    let good = BASE64_STANDARD.encode(read_golden(CHELSEA));
    let bad = BASE64_STANDARD.encode(b"this is no image");
    let body = json!({"images": [good, bad, good]});
    let post = || server.client.post(server.url("/v1/embed")).json(&body);
    let answer = ok_json(post()).await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 3);
    assert_eq!(
        answer["data"][0]["embedding"],
        answer["data"][2]["embedding"]
    );
    assert_eq!(answer["data"][2]["index"], 2);
    assert_eq!(answer["data"][1]["error"]["code"], "undecodable_image");
    assert_eq!(answer["data"][1]["embedding"], Value::Null);

    // A matrix cannot hold an error.
    let response = post()
        .header("accept", "application/x-npy")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 422);
    let problem: Value = response.json().await.unwrap();
    assert!(
        problem["detail"].as_str().unwrap().starts_with("image 1: "),
        "{problem}"
    );
}

#[tokio::test]
async fn pca_maps_match_the_reference() {
    let server = focus_server().await;
    for sample in SAMPLES {
        let stem = sample.split('.').next().unwrap();
        let expected = Tensors::read(&format!("dinov2-small-focus/{stem}_fit448.safetensors"));
        let [height, width] =
            ["grid_h", "grid_w"].map(|key| expected.metadata[key].parse::<usize>().unwrap());
        let file = format!("dinov2-small-focus/{sample}");
        let request = |options: &str, accept: &str| {
            server
                .post_file(&format!("/v1/pca?{FIT448}&{options}"), &file)
                .header("accept", accept.to_owned())
        };
        let map = npy(&ok_bytes(request("", "application/x-npy")).await);
        assert_eq!(map.shape(), [height, width, 3]);
        let (largest, _) = difference(&map, expected.get("pca"));
        assert!(largest <= 2.0 / 255.0, "{sample}: {largest}");

        let rendering = png_of(&ok_bytes(request("output=patch", "image/png")).await);
        assert_eq!(rendering.dimensions(), (width as u32, height as u32));
        let off = rendering
            .iter()
            .zip(expected.get("pca"))
            .map(|(&found, &e)| (f32::from(found) - e * 255.0).abs());
        assert!(
            off.fold(0.0, f32::max) <= 2.5,
            "{sample}: the rendering is off"
        );

        if sample != SAMPLES[0] {
            continue;
        }
        let large = png_of(&ok_bytes(request("", "image/png")).await);
        assert_eq!(large.dimensions(), (width as u32 * 14, height as u32 * 14));
        assert_eq!(
            large.get_pixel(14 * 5 + 3, 14 * 7 + 9),
            rendering.get_pixel(5, 7),
            "each patch is a square"
        );

        // Opacity 0 leaves the image that the model saw.
        let original = png_of(&ok_bytes(request("overlay=0", "image/png")).await);
        assert!(original == golden_png(&format!("dinov2-small-focus/{stem}_fit448_input.png")));
    }
}

#[tokio::test]
async fn pca_options_have_their_documented_effect() {
    let server = focus_server().await;
    let request = |options: &str, accept: &str| {
        server
            .post_file(&format!("/v1/pca?{FIT448}&{options}"), CHELSEA)
            .header("accept", accept.to_owned())
    };
    let five = npy(&ok_bytes(request("components=5", "application/x-npy")).await);
    assert_eq!(five.shape(), [32, 48, 5]);
    let answer = ok_json(request("foreground=auto", "application/json")).await;
    let explained = floats(&answer["explained"]);
    assert!(explained.len() == 3 && explained[0] > explained[1] && explained[1] > explained[2]);
    let shown: Vec<bool> = answer["data"][0]["foreground"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap().iter().map(|v| v.as_bool().unwrap()))
        .collect();
    let map = floats(&answer["data"][0]["map"]);
    assert_eq!((shown.len(), map.len()), (32 * 48, 32 * 48 * 3));
    for (patch, &shown) in map.chunks(3).zip(&shown) {
        assert!(shown || patch == [0.0; 3], "background is black");
    }
    // The cat fills the middle of the image, not its right edge.
    let share = |columns: std::ops::Range<usize>| {
        let of = (0..32)
            .flat_map(|y| columns.clone().map(move |x| y * 48 + x))
            .collect::<Vec<_>>();
        of.iter().filter(|&&i| shown[i]).count() as f64 / of.len() as f64
    };
    assert!(
        share(14..32) > 0.7 && share(44..48) < 0.2,
        "{} {}",
        share(14..32),
        share(44..48)
    );

    let again = ok_bytes(request("", "image/png")).await;
    assert_eq!(
        again,
        ok_bytes(request("", "image/png")).await,
        "the same image has the same colors"
    );
}

#[tokio::test]
async fn several_images_share_one_basis() {
    let server = focus_server().await;
    let parts = |files: &[&str]| {
        files.iter().fold(Form::new(), |form, file| {
            form.part(
                "image",
                Part::bytes(read_golden(file)).file_name((*file).to_owned()),
            )
        })
    };
    let post = |files: &[&str], accept: &str| {
        let url = server.url(&format!("/v1/pca?{FIT448}"));
        server
            .client
            .post(url)
            .multipart(parts(files))
            .header("accept", accept.to_owned())
    };
    let twice = npy(&ok_bytes(post(&[CHELSEA, CHELSEA], "application/x-npy")).await);
    assert_eq!(twice.shape(), [2, 32, 48, 3]);
    assert_eq!(
        twice.index_axis(Axis(0), 0),
        twice.index_axis(Axis(0), 1),
        "the same image has the same colors"
    );

    let alone = npy(&ok_bytes(post(&[CHELSEA], "application/x-npy")).await);
    let joint = npy(&ok_bytes(post(&[CHELSEA, COFFEE], "application/x-npy")).await);
    assert!(
        difference(&alone, joint.index_axis(Axis(0), 0)).0 > 0.02,
        "another image changes the basis"
    );

    let strip = png_of(&ok_bytes(post(&[CHELSEA, COFFEE], "image/png")).await);
    assert_eq!(strip.dimensions(), (2 * 48 * 14 + 8, 32 * 14));
    let response = ok(post(&[CHELSEA, COFFEE], "multipart/mixed")).await;
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let boundary = kind.split("boundary=").nth(1).unwrap().to_owned();
    let body = response.bytes().await.unwrap();
    let mut parts = multer::Multipart::new(
        futures_util::stream::iter([Ok::<_, std::io::Error>(body)]),
        boundary,
    );
    for index in 0..2 {
        let part = parts.next_field().await.unwrap().expect("a part per image");
        assert_eq!(part.content_type().unwrap().as_ref(), "image/png");
        let rendering = png_of(&part.bytes().await.unwrap());
        let of_strip =
            image::imageops::crop_imm(&strip, index * (48 * 14 + 8), 0, 48 * 14, 32 * 14)
                .to_image();
        assert!(
            rendering == of_strip,
            "the parts are the strip's renderings"
        );
    }
    assert!(parts.next_field().await.unwrap().is_none());

    let response = post(
        &[CHELSEA, "dinov2-small-focus/astronaut.png"],
        "application/x-npy",
    )
    .send()
    .await
    .unwrap();
    assert_eq!(
        response.status(),
        406,
        "different grids do not fit into one array"
    );
}

#[tokio::test]
async fn attention_maps_match_the_reference() {
    let server = focus_server().await;
    for sample in SAMPLES {
        let stem = sample.split('.').next().unwrap();
        let expected = Tensors::read(&format!("dinov2-small-focus/{stem}_fit448.safetensors"));
        let [height, width] =
            ["grid_h", "grid_w"].map(|key| expected.metadata[key].parse::<usize>().unwrap());
        let rows = expected
            .get("attention")
            .slice(ndarray::s![.., 1..])
            .to_owned();
        let file = format!("dinov2-small-focus/{sample}");
        let request = |options: &str, accept: &str| {
            server
                .post_file(&format!("/v1/attention?{FIT448}&{options}"), &file)
                .header("accept", accept.to_owned())
        };
        let found = npy(&ok_bytes(request("", "application/x-npy")).await);
        assert_eq!(found.shape(), [6, height, width]);
        assert!(difference(&found, &rows).0 <= 1e-3);
        let json = ok_json(request("", "application/json")).await;
        assert_eq!(
            floats(&json["data"][0]["attention"]),
            found.iter().copied().collect::<Vec<_>>()
        );

        if sample != SAMPLES[0] {
            continue;
        }
        let mean = npy(&ok_bytes(request("head=mean", "application/x-npy")).await);
        assert!(difference(&mean, &found.mean_axis(Axis(0)).unwrap()).0 < 1e-7);
        let largest = npy(&ok_bytes(request("head=max", "application/x-npy")).await);
        assert_eq!(
            largest.index_axis(Axis(0), 0),
            found.fold_axis(Axis(0), 0.0f32, |a, b| a.max(*b))
        );
        let third = npy(&ok_bytes(request("head=3", "application/x-npy")).await);
        assert_eq!(third.index_axis(Axis(0), 0), found.index_axis(Axis(0), 3));

        // The kept patches carry at least the requested mass, and less without the weakest one.
        let kept = npy(&ok_bytes(request("head=3&threshold=0.6", "application/x-npy")).await);
        let total: f32 = third.sum();
        let weakest = kept
            .iter()
            .copied()
            .filter(|&v| v > 0.0)
            .fold(f32::INFINITY, f32::min);
        assert!(kept.sum() / total >= 0.6 - 1e-4 && (kept.sum() - weakest) / total < 0.6 + 1e-4);
        assert!(
            kept.iter()
                .zip(&third)
                .all(|(kept, all)| *kept == 0.0 || kept == all)
        );
    }
}

#[tokio::test]
async fn attention_renderings_show_the_maps() {
    let server = focus_server().await;
    let request =
        |options: &str| server.post_file(&format!("/v1/attention?{FIT448}&{options}"), CHELSEA);
    let small = png_of(&ok_bytes(request("output=patch&colormap=gray&head=5")).await);
    assert_eq!(small.dimensions(), (48, 32));
    let brightest = small
        .enumerate_pixels()
        .max_by_key(|(_, _, pixel)| pixel[0])
        .unwrap();
    assert_eq!(brightest.2.0, [255; 3], "the map is scaled to its range");
    // Head 5 of this model attends to the cat's eyes, which are in the upper half.
    assert!(
        brightest.1 < 20,
        "the brightest patch is at {}, {}",
        brightest.0,
        brightest.1
    );

    let sheet = png_of(&ok_bytes(request("head=all")).await);
    assert_eq!(
        sheet.dimensions(),
        (3 * (672 + 8) + 8, 2 * (448 + 48 + 8) + 8),
        "three by two heads with captions"
    );
    let ink = |x: u32, y: u32| sheet.get_pixel(x, y).0 == [40; 3];
    assert!(
        (8..200).any(|x| (8..48).any(|y| ink(x, y))),
        "the first caption is written"
    );

    let mut seen = Vec::new();
    for map in ["viridis", "inferno", "magma", "gray"] {
        seen.push(ok_bytes(request(&format!("colormap={map}"))).await);
    }
    (0..4).for_each(|i| {
        (0..i).for_each(|j| assert_ne!(seen[i], seen[j], "each colormap looks different"));
    });
}

#[tokio::test]
async fn unusual_headers_and_large_parts_are_accepted() {
    let server = Server::tiny().await;
    let java = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2";
    let answer = ok(server
        .post_file("/v1/embed", CHELSEA)
        .header("accept", java))
    .await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    ok(server
        .post_file("/v1/embed", CHELSEA)
        .header("accept", "application/json; charset=utf-8"))
    .await;
    let browser = "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5";
    let answer = ok(server
        .post_file("/v1/pca?size=224", CHELSEA)
        .header("accept", browser))
    .await;
    assert_eq!(answer.headers()["content-type"], "image/png");
    let post = || server.client.post(server.url("/v1/embed"));
    ok(post()
        .header("content-type", "Image/PNG")
        .body(read_golden(CHELSEA)))
    .await;
    // A part of more than 2 MB, the default limit of axum.
    let mut large = read_golden(CHELSEA);
    large.resize(3 << 20, 0);
    ok(post().multipart(Form::new().part("image", Part::bytes(large).file_name("a.png")))).await;
}

#[tokio::test]
async fn exif_and_background_change_the_pixels() {
    let server = Server::tiny().await;
    let embed = async |file: &str, options: &str| {
        ok_json(server.post_file(&format!("/v1/embed?resize=squash&size=28&{options}"), file)).await
            ["data"]
            .clone()
    };
    let turned = embed("formats/jpeg_orientation_6.jpg", "").await;
    assert_ne!(
        turned,
        embed("formats/jpeg_orientation_6.jpg", "exif=false").await
    );
    assert_eq!(
        turned,
        embed("formats/jpeg_orientation_6.jpg", "exif=true").await
    );
    let white = embed("formats/png_rgba.png", "").await;
    assert_ne!(
        white,
        embed("formats/png_rgba.png", "background=black").await
    );
    assert_ne!(
        white,
        embed("formats/png_rgba.png", "background=ignore").await
    );
    assert_eq!(
        white,
        embed("formats/png_rgba.png", "background=white").await
    );
    assert_ne!(
        white,
        embed("formats/png_rgba.png", "filter=bilinear").await
    );
}

#[tokio::test]
async fn models_and_metrics_describe_the_server() {
    let server = focus_server().await;
    let models = ok_json(server.get("/v1/models")).await;
    let model = &models["data"][0];
    assert_eq!(
        (model["id"].as_str(), model["provider"].as_str()),
        (Some("dinov2-small-focus"), Some("cpu"))
    );
    assert!(
        model["notice"]
            .as_str()
            .unwrap()
            .contains("NOT Meta's checkpoint")
    );
    assert_eq!(
        ok(server.get("/healthz")).await.text().await.unwrap(),
        "ok\n"
    );
    assert_eq!(ok_json(server.get("/readyz")).await["provider"], "cpu");

    let response = ok(server
        .post_file("/v1/embed", CHELSEA)
        .header("x-request-id", "my-id-7"))
    .await;
    assert_eq!(response.headers()["x-request-id"], "my-id-7");
    let timing = response.headers()["server-timing"].to_str().unwrap();
    for stage in ["decode", "resize", "queue", "inference", "post"] {
        assert!(timing.contains(&format!("{stage};dur=")), "{timing}");
    }
    let response = ok(server
        .get("/healthz")
        .header("x-request-id", "x".repeat(200)))
    .await;
    assert_eq!(
        response.headers()["x-request-id"].len(),
        36,
        "an unfit id is replaced by a UUID"
    );

    let odd = reqwest::Method::from_bytes(b"FOO123").unwrap();
    assert_eq!(
        server
            .client
            .request(odd, server.url("/v1/embed"))
            .send()
            .await
            .unwrap()
            .status(),
        405
    );
    let metrics = ok(server.get("/metrics")).await.text().await.unwrap();
    let value = |start: &str| -> f64 {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("{start} in {metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(
        value(r#"dinoserve_requests_total{method="POST",route="/v1/embed",status="200"}"#) >= 1.0
    );
    assert!(
        metrics.contains(r#"method="OTHER""#) && !metrics.contains("FOO123"),
        "no client makes up labels"
    );
    assert!(value(r#"dinoserve_images_total{model="dinov2-small-focus",outcome="ok"}"#) >= 1.0);
    assert!(value(r#"dinoserve_stage_duration_seconds_count{stage="inference"}"#) >= 1.0);
    assert!(value("dinoserve_batch_images_count") >= 1.0);
    assert_eq!(value("dinoserve_ready"), 1.0);
    assert!(value("process_resident_memory_bytes") > 1e7);
}

#[tokio::test]
async fn a_cached_result_is_the_same_and_skips_the_model() {
    let server = Server::start_with(
        tiny("tiny-reg", "model.safetensors"),
        HttpConfig::default(),
        16 << 20,
    )
    .await;
    let timing = |response: &reqwest::Response| {
        response.headers()["server-timing"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    let mut seen = Vec::new();
    for (path, file) in [
        ("/v1/embed", CHELSEA),
        ("/v1/embed", COFFEE),
        ("/v1/embed?pooling=mean", CHELSEA),
        ("/v1/embed?size=112", CHELSEA),
        ("/v1/embed?layers=2", CHELSEA),
        ("/v1/embed?decode=fast", CHELSEA),
        ("/v1/pca?size=140&overlay=0.5", CHELSEA),
        ("/v1/attention?size=154&overlay=0.5", CHELSEA),
    ] {
        let first = ok(server.post_file(path, file)).await;
        assert!(
            !timing(&first).contains("inference;dur=0.00"),
            "{path} {file} is not taken from another's place"
        );
        let first = first.bytes().await.unwrap();
        let again = ok(server.post_file(path, file)).await;
        assert!(
            timing(&again).contains("inference;dur=0.00"),
            "{path}: {}",
            timing(&again)
        );
        assert_eq!(again.bytes().await.unwrap(), first, "{path}");
        seen.push((path, file, first));
    }
    assert!(seen[0].2 != seen[1].2 && seen[0].2 != seen[2].2 && seen[0].2 != seen[3].2);
    let metrics = ok(server.get("/metrics")).await.text().await.unwrap();
    for line in [
        "dinoserve_cache_lookups_total{outcome=\"hit\"} 8",
        "dinoserve_cache_lookups_total{outcome=\"miss\"} 8",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let bytes = metrics
        .lines()
        .find_map(|line| line.strip_prefix("dinoserve_cache_bytes "))
        .unwrap();
    assert!(bytes.parse::<f64>().unwrap() > 100_000.0, "{bytes}");
}

#[tokio::test]
async fn several_maps_of_one_photograph_take_one_inference() {
    let setup = Setup {
        cache: CacheBytes {
            all: 0,
            recent: 32 << 20,
        },
        ..Setup::tiny()
    };
    let server = setup.start().await;
    let runs = async || {
        let metrics = ok(server.get("/metrics")).await.text().await.unwrap();
        let line = metrics.lines().find_map(|line| {
            line.strip_prefix("dinoserve_batch_images_count{model=\"tiny-reg\"} ")
        });
        line.unwrap().parse::<f64>().unwrap()
    };
    let maps = [
        "/v1/pca?size=140",
        "/v1/pca?size=140&foreground=auto",
        "/v1/attention?size=140&head=all",
        "/v1/similarity?size=140&patch=1,2",
        "/v1/attention/stats?size=140",
    ];
    let before = runs().await;
    let at_once = maps.map(|path| ok(server.post_file(path, CHELSEA)));
    let responses = join_all(at_once).await;
    assert_eq!(runs().await - before, 1.0, "all maps together");
    ok(server.post_file("/v1/pca?size=140", COFFEE)).await;
    assert_eq!(runs().await - before, 2.0, "another photograph");
    ok(server.post_file("/v1/pca?size=154", CHELSEA)).await;
    assert_eq!(runs().await - before, 3.0, "another size");
    let uncached = Server::tiny().await;
    for (path, response) in maps.iter().zip(responses) {
        let alone = ok(uncached.post_file(path, CHELSEA)).await;
        let [alone, shared] = [alone, response].map(reqwest::Response::bytes);
        assert_eq!(alone.await.unwrap(), shared.await.unwrap(), "{path}");
    }
}

#[tokio::test]
async fn a_cache_stays_within_its_budget() {
    let server = Server::start_with(
        tiny("tiny-reg", "model.safetensors"),
        HttpConfig::default(),
        1 << 20,
    )
    .await;
    for size in (1..12).map(|n| n * 14) {
        // Images and tokens: some of them alone exceed the budget.
        ok(server.post_file(&format!("/v1/pca?size={}", 140 + size * 3), CHELSEA)).await;
        let metrics = ok(server.get("/metrics")).await.text().await.unwrap();
        let bytes = metrics
            .lines()
            .find_map(|line| line.strip_prefix("dinoserve_cache_bytes "))
            .unwrap();
        let bytes = bytes.parse::<f64>().unwrap();
        assert!(
            bytes > 100_000.0 && bytes <= f64::from(1 << 20),
            "something is kept, and not too much: {bytes}"
        );
    }
}

#[tokio::test]
async fn fast_decoding_gives_nearly_the_same_features_on_the_same_grid() {
    let server = focus_server().await;
    let large = {
        let original =
            image::load_from_memory(&read_golden("dinov2-small-focus/astronaut.png")).unwrap();
        let large = original
            .resize_exact(1601, 1203, image::imageops::FilterType::CatmullRom)
            .into_rgb8();
        let mut file = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 92)
            .encode_image(&large)
            .unwrap();
        file
    };
    let post = |query: &str| {
        server
            .client
            .post(server.url(&format!("/v1/embed?{query}")))
            .body(large.clone())
    };
    for query in ["resize=crop", "resize=fit", "resize=squash", "size=448"] {
        let request = |decode: &str| {
            post(&format!("{query}&decode={decode}")).header("content-type", "image/jpeg")
        };
        let exact = ok_json(request("exact")).await;
        let fast = ok_json(request("fast")).await;
        assert_eq!(exact["data"][0]["grid"], fast["data"][0]["grid"], "{query}");
        let exact = floats(&exact["data"][0]["embedding"]);
        let fast = floats(&fast["data"][0]["embedding"]);
        let cosine = cosine(exact.iter().copied(), fast.iter().copied());
        assert!(cosine > 0.99 && exact != fast, "{query}: {cosine}");
    }
}
