//! Anomaly banks over HTTP: made, extended, used, replaced, canceled and refused.

use std::time::Duration;

use dinoserve::{http::HttpConfig, service::BankInfo};
use image::{ImageFormat, Rgb, RgbImage};
use reqwest::{
    Method, RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::support::{
    focus, golden_png, read_golden,
    server::{Server, new_gallery, npy, ok, ok_bytes, ok_json, problem},
    tiny, until,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";

async fn focus_server() -> Server {
    Server::start_on(new_gallery().await, focus().clone(), HttpConfig::default()).await
}

fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = std::io::Cursor::new(&mut bytes);
    image.write_to(&mut writer, ImageFormat::Png).unwrap();
    bytes
}

/// Cloth: two waves of threads with some noise, which differs by the seed.
fn cloth(seed: u64) -> RgbImage {
    let mut random = fastrand::Rng::with_seed(seed);
    let [across, down] = [random.f32() * 6.3, random.f32() * 6.3];
    RgbImage::from_fn(280, 224, |x, y| {
        let wave = |at: u32, phase: f32| (at as f32 * 0.55 + phase).sin();
        let light = 120.0 + 45.0 * (wave(x, across) + wave(y, down)) + 20.0 * (random.f32() - 0.5);
        let light = light.clamp(0.0, 255.0) as u8;
        Rgb([light, light / 2 + 60, 90])
    })
}

/// Cloth with a stain at 168 to 210 across and 84 to 112 down.
fn stained(seed: u64) -> RgbImage {
    let mut image = cloth(seed);
    for y in 84..112 {
        for x in 168..210 {
            image.put_pixel(x, y, Rgb([25, 20, 15]));
        }
    }
    image
}

fn bank(server: &Server, method: Method, path: &str, files: &[Vec<u8>]) -> RequestBuilder {
    let form = files.iter().fold(Form::new(), |form, file| {
        form.part("image", Part::bytes(file.clone()).file_name("image.png"))
    });
    server
        .client
        .request(method, server.url(path))
        .multipart(form)
}

fn cloths(seeds: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    seeds.map(|seed| png(&cloth(seed))).collect()
}

fn score(server: &Server, path: &str, file: &[u8]) -> RequestBuilder {
    server
        .post(path)
        .header("content-type", "image/png")
        .body(file.to_vec())
}

fn as_json(request: RequestBuilder) -> RequestBuilder {
    request.header("accept", "application/json")
}

#[tokio::test]
async fn a_stain_is_found_on_cloth() {
    let server = focus_server().await;
    let path = "/v1/anomaly/cloth?size=224&wait=true";
    let made = ok_json(bank(&server, Method::PUT, path, &cloths(0..6))).await;
    assert_eq!(made["state"], "ready", "{made}");
    let about = &made["bank"];
    assert_eq!(about["images"], 6);
    assert_eq!(about["patches"], 6 * 16 * 20);
    assert_eq!(about["entries"], 6 * 16 * 20 / 4);
    assert_eq!(about["size"], 224);
    let threshold = about["threshold"].as_f64().unwrap();

    let path = "/v1/anomaly/cloth/score";
    let good = ok_json(as_json(score(&server, path, &png(&cloth(50))))).await;
    assert_eq!(good["anomalous"], false, "{good}");
    assert_eq!(good["boxes"], json!([]));
    assert_eq!(good["threshold"], threshold);

    let file = png(&stained(51));
    let found = ok_json(as_json(score(&server, path, &file))).await;
    assert_eq!(found["anomalous"], true, "{found}");
    assert!(found["score"].as_f64().unwrap() > threshold);
    assert_eq!(
        (&found["width"], &found["grid"]),
        (&json!(280), &json!([16, 20]))
    );
    let place = &found["boxes"][0];
    let edges: Vec<f64> = place["box"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| edge.as_f64().unwrap())
        .collect();
    for (edge, expected) in edges.iter().zip([168.0, 84.0, 210.0, 112.0]) {
        assert!((edge - expected).abs() <= 28.0, "{edges:?}");
    }

    // The three forms say the same.
    let map =
        npy(&ok_bytes(score(&server, path, &file).header("accept", "application/x-npy")).await);
    assert_eq!(map.shape(), [224, 280]);
    let inside = map[[98, 189]];
    assert!(f64::from(inside) > threshold && map[[20, 20]] < inside / 2.0);
    let response = ok(score(&server, path, &file)).await;
    assert_eq!(response.headers()["content-type"], "image/png");
    assert_eq!(response.headers()["image-size"], "224");
    let drawn = image::load_from_memory(&response.bytes().await.unwrap()).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (280, 224));
    let mask = ok_bytes(score(&server, &format!("{path}?output=mask"), &file)).await;
    let mask = indices(&mask);
    assert_eq!(mask[98 * 280 + 189], 1);
    assert_eq!(mask[20 * 280 + 20], 0);
    let clean = ok_bytes(score(
        &server,
        &format!("{path}?output=mask"),
        &png(&cloth(52)),
    ))
    .await;
    assert!(indices(&clean).iter().all(|&index| index == 0));
}

/// Returns the indices of a PNG with a palette.
fn indices(file: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(file))
        .read_info()
        .unwrap();
    assert_eq!(reader.info().color_type, png::ColorType::Indexed);
    let mut indices = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut indices).unwrap();
    indices
}

#[tokio::test]
async fn a_bank_that_grows_is_the_bank_of_all_its_images() {
    let server = focus_server().await;
    let options = "size=112&wait=true&coreset=0.5";
    let all = format!("/v1/anomaly/all?{options}");
    let all = ok_json(bank(&server, Method::PUT, &all, &cloths(0..5))).await;
    let some = format!("/v1/anomaly/some?{options}");
    ok(bank(&server, Method::PUT, &some, &cloths(0..2))).await;
    let path = "/v1/anomaly/some?wait=true";
    let grown = ok_json(bank(&server, Method::POST, path, &cloths(2..5))).await;
    for member in [
        "images",
        "patches",
        "entries",
        "threshold",
        "size",
        "coreset",
    ] {
        assert_eq!(grown["bank"][member], all["bank"][member], "{member}");
    }
    let file = png(&stained(9));
    let mut scores = Vec::new();
    for name in ["all", "some"] {
        let path = format!("/v1/anomaly/{name}/score");
        scores.push(ok_json(as_json(score(&server, &path, &file))).await);
    }
    assert_eq!(scores[0], scores[1]);
    // Both files hold the same bank but for the time.
    let response = ok(server.get("/v1/anomaly/some/snapshot")).await;
    let disposition = response.headers()["content-disposition"].to_str().unwrap();
    assert!(disposition.contains("some.safetensors"), "{disposition}");
    let some = BankInfo::decode(&response.bytes().await.unwrap()).unwrap();
    let all = ok_bytes(server.get("/v1/anomaly/all/snapshot")).await;
    assert_eq!(some.0, BankInfo::decode(&all).unwrap().0);
    assert_eq!(some.1.images, 5);
    let listed = ok_json(server.get("/v1/anomaly")).await;
    let expected = json!([
        {"name": "all", "state": "ready"},
        {"name": "some", "state": "ready"},
    ]);
    assert_eq!(listed["data"], expected);
    let deleted = ok(server.delete("/v1/anomaly/all")).await;
    assert_eq!(deleted.status(), 204);
    let (status, _) = problem(server.get("/v1/anomaly/all")).await;
    assert_eq!(status, 404);
    let (status, _) = problem(score(&server, "/v1/anomaly/all/score", &file)).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn options_of_a_bank_change_what_it_learns() {
    let server = focus_server().await;
    let make = async |options: &str| {
        let path = format!("/v1/anomaly/x?size=112&wait=true{options}");
        let made = ok_json(bank(&server, Method::PUT, &path, &cloths(0..2))).await;
        let scored = as_json(score(&server, "/v1/anomaly/x/score", &png(&stained(7))));
        (made["bank"].clone(), ok_json(scored).await["score"].clone())
    };
    let (plain, early) = make("").await;
    assert_eq!(
        (&plain["tokens"], &plain["patches"]),
        (&json!("early"), &json!(160))
    );
    let (last, by_last) = make("&tokens=last").await;
    let (all, by_all) = make("&tokens=all").await;
    assert_eq!(
        (&last["tokens"], &all["tokens"]),
        (&json!("last"), &json!("all"))
    );
    assert!(early != by_last && early != by_all && by_last != by_all);
    let (turned, _) = make("&augment=rotate").await;
    assert_eq!(
        (&turned["patches"], &turned["images"]),
        (&json!(640), &json!(2))
    );
    let (foreground, _) = make("&foreground=auto").await;
    assert!(foreground["patches"].as_u64().unwrap() < 160);
    let (whole, _) = make("&coreset=1").await;
    assert_eq!(whole["entries"], 160);
}

#[tokio::test]
async fn turned_copies_and_the_foreground_take_part() {
    let server = focus_server().await;
    let cat = golden_png(CHELSEA);
    let cat = image::imageops::crop_imm(&cat, 70, 0, 300, 300).to_image();
    let turned = png(&image::imageops::rotate90(&cat));
    let learned = async |options: &str| {
        let path = format!("/v1/anomaly/cat?size=224&coreset=1&wait=true&{options}");
        ok(bank(&server, Method::PUT, &path, &[png(&cat)])).await;
        let scored = as_json(score(&server, "/v1/anomaly/cat/score", &turned));
        ok_json(scored).await["score"].as_f64().unwrap()
    };
    let (upright, all_ways) = (
        learned("augment=none").await,
        learned("augment=rotate").await,
    );
    assert!(
        all_ways < 0.1 && upright > 3.0 * all_ways,
        "{upright} {all_ways}"
    );

    // Patches of the background have no distance.
    learned("foreground=auto").await;
    let coffee = png(&golden_png("dinov2-small-focus/coffee.png"));
    let map = score(&server, "/v1/anomaly/cat/score", &coffee);
    let map = npy(&ok_bytes(map.header("accept", "application/x-npy")).await);
    let zeros = map.iter().filter(|&&distance| distance == 0.0).count();
    let share = zeros as f64 / map.len() as f64;
    assert!((0.2..0.9).contains(&share), "{share}");
    assert!(map[[200, 300]] > 0.2, "the cup");
}

#[tokio::test]
async fn a_bank_of_one_image_scores_without_a_verdict() {
    let server = focus_server().await;
    let path = "/v1/anomaly/one?size=112&wait=true";
    let made = ok_json(bank(&server, Method::PUT, path, &cloths(0..1))).await;
    assert_eq!(made["bank"]["threshold"], Value::Null);
    let file = png(&stained(1));
    let found = ok_json(as_json(score(&server, "/v1/anomaly/one/score", &file))).await;
    assert_eq!(found["anomalous"], Value::Null);
    assert_eq!(found["threshold"], Value::Null);
    assert_eq!(found["boxes"], json!([]));
    assert!(found["score"].as_f64().unwrap() > 0.0);
    ok(score(&server, "/v1/anomaly/one/score", &file)).await;
}

#[tokio::test]
async fn a_failed_training_leaves_the_bank_and_says_why() {
    let server = focus_server().await;
    let path = "/v1/anomaly/b?size=112&wait=true";
    let before = ok_json(bank(&server, Method::PUT, path, &cloths(0..2))).await;
    // The header is whole, and the pixels are not.
    let mut files = cloths(0..3);
    files[1].truncate(2000);
    let (status, problem) = problem(bank(&server, Method::PUT, path, &files)).await;
    assert_eq!(status, 422, "{problem}");
    assert!(
        problem["detail"].as_str().unwrap().starts_with("image 1"),
        "{problem}"
    );
    let response = ok(bank(&server, Method::PUT, "/v1/anomaly/b?size=112", &files)).await;
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["location"], "/v1/anomaly/b");
    let failed = async || {
        let about = ok_json(server.get("/v1/anomaly/b")).await;
        about["state"] == "failed"
    };
    until(failed).await;
    let about = ok_json(server.get("/v1/anomaly/b")).await;
    assert_eq!(about["bank"], before["bank"]);
    assert!(
        about["error"]["detail"]
            .as_str()
            .unwrap()
            .contains("image 1"),
        "{about}"
    );
    ok(score(&server, "/v1/anomaly/b/score", &files[0])).await;
}

#[tokio::test]
async fn one_training_runs_at_a_time_and_can_be_canceled() {
    let server = focus_server().await;
    let files = cloths(0..20);
    let response = ok(bank(
        &server,
        Method::PUT,
        "/v1/anomaly/long?size=448",
        &files,
    ))
    .await;
    let about: Value = response.json().await.unwrap();
    assert_eq!(
        (&about["state"], &about.get("bank")),
        (&json!("training"), &None)
    );
    assert_eq!(about["training"]["total"], 20);
    // Also an addition to the bank that is being made.
    let more = bank(&server, Method::POST, "/v1/anomaly/long", &files[..2]);
    assert_eq!(problem(more).await.0, 503);
    let second = bank(&server, Method::PUT, "/v1/anomaly/other", &files[..2]);
    let (status, problem) = problem(second).await;
    assert_eq!(status, 503);
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("bank `long`") && detail.contains("/v1/anomaly/long"),
        "{detail}"
    );
    let (status, early) =
        crate::support::server::problem(score(&server, "/v1/anomaly/long/score", &files[0])).await;
    assert_eq!(status, 404);
    assert!(
        early["detail"]
            .as_str()
            .unwrap()
            .contains("not ready: in progress"),
        "{early}"
    );
    assert_eq!(ok(server.delete("/v1/anomaly/long")).await.status(), 204);
    let path = "/v1/anomaly/other?size=112&wait=true";
    ok(bank(&server, Method::PUT, path, &files[..2])).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let listed = ok_json(server.get("/v1/anomaly")).await;
    assert_eq!(listed["data"], json!([{"name": "other", "state": "ready"}]));
}

#[tokio::test]
async fn bad_requests_for_banks_are_refused() {
    let server = Server::tiny_with_gallery().await;
    let file = read_golden(CHELSEA);
    let good = vec![file.clone(); 2];
    ok(bank(
        &server,
        Method::PUT,
        "/v1/anomaly/b?size=112&wait=true",
        &good,
    ))
    .await;
    for (path, files, status, text) in [
        (
            "/v1/anomaly/c?coreset=0",
            &good[..],
            422,
            "above 0, and at most 1",
        ),
        (
            "/v1/anomaly/c?coreset=1.5",
            &good,
            422,
            "above 0, and at most 1",
        ),
        ("/v1/anomaly/c?coreset=nan", &good, 422, "coreset"),
        ("/v1/anomaly/c?tokens=middle", &good, 422, "tokens"),
        ("/v1/anomaly/c?augment=flip", &good, 422, "augment"),
        ("/v1/anomaly/c?overlay=1", &good, 422, "unknown"),
        ("/v1/anomaly/c?size=9", &good, 422, "size"),
        ("/v1/anomaly/UPPER", &good, 422, "is no name"),
        (
            "/v1/anomaly/c",
            &[b"text".to_vec()],
            422,
            "are not an image",
        ),
    ] {
        let (found, problem) = problem(bank(&server, Method::PUT, path, files)).await;
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(found, status, "{path}: {detail}");
        assert!(detail.contains(text), "{path}: {detail}");
    }
    for (path, status, text) in [
        ("/v1/anomaly/b/score?overlay=2", 422, "it must be 0 to 1"),
        (
            "/v1/anomaly/b/score?output=mask&overlay=2",
            422,
            "it must be 0 to 1",
        ),
        (
            "/v1/anomaly/b/score?size=112",
            422,
            "option `size`: unknown",
        ),
        ("/v1/anomaly/b/score?output=heat", 422, "output"),
        ("/v1/anomaly/none/score", 404, "there is no bank `none`"),
        ("/v1/anomaly/b/score?model=other", 404, "other"),
    ] {
        let (found, problem) = problem(score(&server, path, &file)).await;
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(found, status, "{path}: {detail}");
        assert!(detail.contains(text), "{path}: {detail}");
    }
    let two = bank(&server, Method::POST, "/v1/anomaly/b/score", &good);
    let (status, two) = problem(two).await;
    assert_eq!(status, 400, "{two}");
    let missing = bank(&server, Method::POST, "/v1/anomaly/none", &good);
    assert_eq!(problem(missing).await.0, 404);
    assert_eq!(problem(server.delete("/v1/anomaly/none")).await.0, 404);
    // A refused option leaves what is stored.
    assert_eq!(ok_json(server.get("/v1/anomaly/b")).await["state"], "ready");
}

#[tokio::test]
async fn a_bank_belongs_to_its_model() {
    let store = new_gallery().await;
    let server = Server::start_on(
        store.clone(),
        tiny("tiny", "model.safetensors"),
        HttpConfig::default(),
    )
    .await;
    let file = read_golden(CHELSEA);
    let good = vec![file.clone(); 2];
    ok(bank(
        &server,
        Method::PUT,
        "/v1/anomaly/b?size=112&wait=true",
        &good,
    ))
    .await;
    drop(server);
    let other = Server::start_on(
        store,
        tiny("tiny-reg", "model.safetensors"),
        HttpConfig::default(),
    )
    .await;
    let (status, problem) = problem(score(&other, "/v1/anomaly/b/score", &file)).await;
    assert_eq!(status, 409);
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("the bank `b` holds features of tiny"),
        "{detail}"
    );
    let added = bank(&other, Method::POST, "/v1/anomaly/b", &good);
    assert_eq!(crate::support::server::problem(added).await.0, 409);
    // Its own model makes a new one in its place.
    ok(bank(
        &other,
        Method::PUT,
        "/v1/anomaly/b?size=112&wait=true",
        &good,
    ))
    .await;
    ok(score(&other, "/v1/anomaly/b/score", &file)).await;
}
