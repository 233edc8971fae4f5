//! The option `levels`, and the hint that an image needs it.

use std::io::Cursor;

use base64::{Engine, prelude::BASE64_STANDARD};
use dinoserve::http::HttpConfig;
use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma};
use reqwest::{
    RequestBuilder,
    header::HeaderMap,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::support::{
    server::{Server, floats, ok},
    tiny,
};

const HINT: &str = "x-image-hint";

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let image: DynamicImage = image.into();
    image.write_to(&mut file, ImageFormat::Png).expect("a PNG");
    file.into_inner()
}

/// A picture with 12 bits in 16, and the same with the high 8 of the 12 bits.
fn pictures() -> [Vec<u8>; 2] {
    let sample = |x: u32, y: u32| ((x * 67 + y * 31) % 4096) as u16;
    let deep = ImageBuffer::from_fn(64, 64, |x, y| Luma([sample(x, y)]));
    let plain = GrayImage::from_fn(64, 64, |x, y| Luma([(sample(x, y) >> 4) as u8]));
    [png(deep), png(plain)]
}

async fn send(server: &Server, path: &str, file: &[u8]) -> (HeaderMap, Vec<u8>) {
    let request = server.client.post(server.url(path));
    let request = request.header("content-type", "image/png");
    let response = ok(request.body(file.to_vec())).await;
    let headers = response.headers().clone();
    (headers, response.bytes().await.expect("a body").to_vec())
}

async fn embed(server: &Server, options: &str, file: &[u8]) -> (bool, Vec<f32>) {
    let (headers, body) = send(server, &format!("/v1/embed?size=56{options}"), file).await;
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    (
        headers.contains_key(HINT),
        floats(&body["data"][0]["embedding"]),
    )
}

#[tokio::test]
async fn twelve_bits_in_sixteen_are_scaled_on_request() {
    let config = HttpConfig::default();
    let server = Server::start_with(tiny("tiny-reg", "model.safetensors"), config, 1 << 20).await;
    let [deep, plain] = pictures();
    let (hint, expected) = embed(&server, "", &plain).await;
    assert!(!hint, "8 bits need no hint");
    let (hint, scaled) = embed(&server, "&levels=data", &deep).await;
    assert!(!hint, "the option was used");
    assert_eq!(scaled, expected);
    // The second answer comes from the cache.
    for _ in 0..2 {
        let (hint, dark) = embed(&server, "&levels=type", &deep).await;
        assert!(hint && dark != expected);
    }
    assert!(embed(&server, "", &deep).await.0);
    assert_eq!(
        embed(&server, "&levels=data", &plain).await,
        (false, expected)
    );
    server.stopped().await;
}

#[tokio::test]
async fn every_kind_of_answer_has_the_hint() {
    let server = Server::tiny_with_gallery().await;
    let [deep, plain] = pictures();
    for path in [
        "/v1/embed?size=56",
        "/v1/pca?size=56",
        "/v1/attention?size=56",
        "/v1/attention/stats?size=56",
        "/v1/similarity?size=56&patch=1,1",
    ] {
        let (headers, _) = send(&server, path, &deep).await;
        let hint = headers
            .get(HINT)
            .unwrap_or_else(|| panic!("{path}: no hint"));
        assert!(hint.to_str().expect("text").contains("levels=data"));
        let (headers, _) = send(&server, path, &plain).await;
        assert!(!headers.contains_key(HINT), "{path}");
    }
    // Those of a gallery, and those with other bodies. The plain picture makes the items.
    for (file, is_dim) in [(&plain, false), (&deep, true)] {
        let image = |request: RequestBuilder| {
            let request = request.header("content-type", "image/png");
            request.body(file.clone())
        };
        let form = |request: RequestBuilder| {
            let part = Part::bytes(file.clone()).file_name("a.png");
            request.multipart(Form::new().part("image", part))
        };
        let uri = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(file));
        for request in [
            image(server.put("/v1/gallery/a?label=x")),
            image(server.put("/v1/gallery/b?label=y")),
            form(server.post("/v1/gallery")),
            image(server.post("/v1/knn?k=1")),
            form(server.post("/v1/knn?k=1")),
            image(server.post("/v1/classify?k=1")),
            server.post("/v1/embeddings").json(&json!({"input": [uri]})),
        ] {
            let response = ok(request).await;
            let path = response.url().path().to_owned();
            assert_eq!(response.headers().contains_key(HINT), is_dim, "{path}");
        }
    }
    server.stopped().await;
}
