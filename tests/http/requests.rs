//! Requests as clients really send them, on every route that takes images: without a content type,
//! compressed, with base64 of all kinds, with null for an option, cut off, and with file names in
//! the encodings of RFC 5987 and RFC 2047.

use std::io::Write;

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use dinoserve::http::HttpConfig;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method, RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::support::{
    read_golden,
    server::{Server, new_gallery, ok, ok_json, problem},
    tiny,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";
const COFFEE: &str = "dinov2-small-focus/coffee.png";
const MAX_BODY_BYTES: usize = 1 << 20;

/// A route that takes images, with the options that it needs.
struct Route {
    method: Method,
    path: &'static str,
    query: &'static str,
}

/// Returns the routes whose body is an image.
fn routes() -> impl Iterator<Item = Route> {
    let routes = [
        (Method::POST, "/v1/embed", "size=112"),
        (Method::POST, "/v1/pca", "size=112"),
        (Method::POST, "/v1/attention", "size=112"),
        (Method::POST, "/v1/attention/stats", "size=112"),
        (Method::POST, "/v1/similarity", "size=112&patch=1,1"),
        (Method::POST, "/v1/objects", "size=112"),
        (Method::POST, "/v1/knn", "k=3"),
        (Method::POST, "/v1/classify", "k=3"),
        (Method::PUT, "/v1/gallery/photo", "gallery=photos"),
        (Method::PUT, "/v1/bases/photos", "size=112"),
    ];
    routes.into_iter().map(|(method, path, query)| Route {
        method,
        path,
        query,
    })
}

struct Fixture {
    server: Server,
    png: Vec<u8>,
}

impl Fixture {
    async fn start() -> Self {
        let config = HttpConfig {
            max_body_bytes: MAX_BODY_BYTES,
            ..HttpConfig::default()
        };
        let model = tiny("tiny-reg", "model.safetensors");
        let server = Server::start_on(new_gallery().await, model, config).await;
        for (id, file) in [("cat", CHELSEA), ("coffee", COFFEE)] {
            let put = server.put(&format!("/v1/gallery/{id}?label={id}"));
            ok(put
                .header("content-type", "image/png")
                .body(read_golden(file)))
            .await;
        }
        let png = read_golden(CHELSEA);
        assert!(png.len() < MAX_BODY_BYTES);
        Self { server, png }
    }

    fn request(&self, route: &Route) -> RequestBuilder {
        let url = self.server.url(&format!("{}?{}", route.path, route.query));
        let request = self.server.client.request(route.method.clone(), url);
        request.header("accept", "application/json")
    }

    /// Sends a request, and returns its answer without what differs from one write to the next.
    async fn answer(request: RequestBuilder) -> Value {
        let mut answer = ok_json(request).await;
        let object = answer.as_object_mut().unwrap();
        for volatile in ["created", "status", "updated_ms", "stored_ms"] {
            object.remove(volatile);
        }
        answer
    }

    /// Returns the answer to the image as a raw body with the right type.
    async fn expected(&self, route: &Route) -> Value {
        let request = self.request(route).header("content-type", "image/png");
        Self::answer(request.body(self.png.clone())).await
    }
}

#[tokio::test]
async fn an_image_is_accepted_whatever_its_content_type() {
    let t = Fixture::start().await;
    for route in routes() {
        let expected = t.expected(&route).await;
        for kind in [
            None,
            Some("application/x-www-form-urlencoded"),
            Some("binary/octet-stream"),
            Some("text/plain; charset=utf-8"),
            Some("IMAGE/PNG"),
            Some("png"),
            Some("application/json"),
            Some("multipart/form-data"),
            Some("multipart/form-data; boundary=x"),
        ] {
            let typed = |body: Vec<u8>| match kind {
                Some(kind) => t.request(&route).header("content-type", kind).body(body),
                None => t.request(&route).body(body),
            };
            let answer = Fixture::answer(typed(t.png.clone())).await;
            assert_eq!(answer, expected, "{} {kind:?}", route.path);
            let is_known = |kind: &str| {
                ["IMAGE", "application/json", "multipart"]
                    .iter()
                    .any(|known| kind.starts_with(known))
            };
            if kind.is_some_and(is_known) {
                continue;
            }
            let (status, body) = problem(typed(b"{\"image\": \"aaaa\"}".to_vec())).await;
            assert_eq!(status, 415, "{} {kind:?}: {body}", route.path);
            let named = match kind {
                None => "the Content-Type header is missing",
                Some("png") => "the Content-Type \"png\" is invalid",
                Some(kind) => kind,
            };
            assert!(body["detail"].as_str().unwrap().contains(named), "{body}");
        }
        // A part of a form is looked at in the same way.
        let part = Part::bytes(t.png.clone());
        let part = part.mime_str("application/octet-stream").unwrap();
        let form = Form::new().part("photo", part);
        let answer = Fixture::answer(t.request(&route).multipart(form)).await;
        assert_eq!(answer, expected, "{}: a part without a name", route.path);
    }
    // A text that begins as a BMP file does is an option.
    let part = Part::bytes(t.png.clone()).file_name("a.png");
    let form = Form::new().text("label", "BMW").part("image", part);
    let put = t.server.put("/v1/gallery/car?gallery=photos");
    assert_eq!(ok_json(put.multipart(form)).await["label"], "BMW");
    // Routes whose body is not one image still say what they take.
    for path in ["/v1/gallery", "/v1/embeddings", "/v1/probes"] {
        let (status, body) = problem(t.server.post(path).body(t.png.clone())).await;
        assert_eq!(
            (status, &body["code"]),
            (415, &json!("unsupported_media_type"))
        );
        let request = t
            .server
            .post(path)
            .header("content-type", "application/json");
        let (status, body) = problem(request.body(t.png.clone())).await;
        let expected = "the body is a file (PNG) and not JSON, which this operation takes";
        assert_eq!((status, &body["detail"]), (400, &json!(expected)), "{path}");
    }
    // JSON and forms that are none keep their errors.
    for (kind, text, expected) in [
        (
            "application/json",
            "\u{feff} {\"image\": ",
            "the JSON cannot be read",
        ),
        ("application/json", "hello", "the JSON cannot be read"),
        (
            "multipart/form-data",
            "--x\r\n",
            "the multipart body cannot be read: Invalid",
        ),
        (
            "multipart/form-data; boundary=x",
            "--y\r\n",
            "the body cannot be read",
        ),
        (
            "multipart/form-data; boundary=x",
            "",
            "the body cannot be read",
        ),
    ] {
        let request = t.server.post("/v1/embed").header("content-type", kind);
        let (status, body) = problem(request.body(text)).await;
        let detail = body["detail"].as_str().unwrap();
        assert!(
            status == 400 && detail.starts_with(expected),
            "{kind} {text}: {body}"
        );
    }
    // The limit of the body holds for one that is looked at first.
    let long = [&t.png[..], &vec![0; MAX_BODY_BYTES]].concat();
    let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(long)]);
    let request = t
        .server
        .post("/v1/embed")
        .header("content-type", "multipart/form-data");
    let (status, body) = problem(request.body(reqwest::Body::wrap_stream(chunks))).await;
    assert_eq!(
        (status, &body["limit"]["flag"]),
        (413, &json!("--max-body-bytes"))
    );
}

/// An image as the value of `image` in JSON, in each form that clients send.
fn image_values(png: &[u8]) -> Vec<Value> {
    let standard = BASE64_STANDARD.encode(png);
    let url_safe = BASE64_URL_SAFE_NO_PAD.encode(png);
    assert!(url_safe.contains(['-', '_']), "both alphabets must differ");
    let escaped = standard
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let lines: Vec<&str> = standard
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let uri = format!("data:image/png;base64,{standard}");
    let component = utf8_percent_encode(&uri, NON_ALPHANUMERIC).to_string();
    vec![
        json!(component),
        json!(
            component.to_lowercase().replace(
                &utf8_percent_encode(&standard, NON_ALPHANUMERIC)
                    .to_string()
                    .to_lowercase(),
                &standard,
            )
        ),
        json!(format!("data:image/jpeg;base64%2C{standard}")),
        json!(format!("data:image/jpeg%3Bbase64,{standard}")),
        json!(format!("DATA:image%2fjpeg%3bBASE64%2c{escaped}")),
        json!({"image_url": {"url": component}}),
        json!(standard),
        json!(standard.trim_end_matches('=')),
        json!(url_safe),
        json!(lines.join("\r\n")),
        json!(format!("  {uri}\n")),
        json!(format!("data:image/png;base64,{escaped}")),
        json!(format!("data:image/jpeg; base64,{url_safe}")),
        json!(format!("DATA:image/jpeg;BASE64,{standard}")),
        json!(format!("data:;base64,{}", lines.join("\n"))),
        json!({"url": uri}),
        json!({"image": standard}),
        json!({"type": "image_url", "image_url": {"url": uri, "detail": "auto"}}),
        json!({"type": "input_image", "image_url": uri}),
        json!({"content": [{"type": "image_url", "image_url": {"url": uri}}], "role": "user"}),
    ]
}

#[tokio::test]
async fn every_form_of_base64_is_accepted() {
    let t = Fixture::start().await;
    for route in routes() {
        let expected = t.expected(&route).await;
        for (at, image) in image_values(&t.png).into_iter().enumerate() {
            let request = t.request(&route).json(&json!({"image": image}));
            let answer = Fixture::answer(request).await;
            assert_eq!(answer, expected, "{} form {at}", route.path);
        }
        let (status, body) = problem(
            t.request(&route)
                .json(&json!({"image": "https://example.org/a.png"})),
        )
        .await;
        assert_eq!(status, 400, "{body}");
        assert!(
            body["detail"]
                .as_str()
                .unwrap()
                .contains("URLs are not fetched")
        );
    }
    for image in image_values(&t.png) {
        let items = json!({"items": [{"id": "x", "image": image}], "gallery": "batch"});
        let answer = ok_json(t.server.post("/v1/gallery").json(&items)).await;
        assert_ne!(answer["data"][0]["status"], "failed", "{answer}");
    }
}

/// Returns a mask of an image, whose left half is 1.
fn half_mask(png: &[u8]) -> Vec<u8> {
    let (width, height) = image::load_from_memory(png).unwrap().to_rgb8().dimensions();
    let mask =
        image::GrayImage::from_fn(width, height, |x, _| image::Luma([u8::from(2 * x < width)]));
    let mut file = std::io::Cursor::new(Vec::new());
    mask.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

#[tokio::test]
async fn null_is_the_default_of_every_option() {
    let t = Fixture::start().await;
    let encoded = BASE64_STANDARD.encode(&t.png);
    let mask = BASE64_STANDARD.encode(half_mask(&t.png));
    let description = serde_json::to_value(dinoserve::http::description()).unwrap();
    // What other operations add to and use.
    for (path, body) in [
        ("/v1/anomaly/new?wait=true", json!({"image": encoded})),
        (
            "/v1/segmenters/new?wait=true",
            json!({"image": encoded, "mask": mask}),
        ),
    ] {
        ok(t.server.put(path).json(&body)).await;
    }
    let mut operations = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let json_body = &operation["requestBody"]["content"]["application/json"];
            let once = ["/v1/models/load", "/v1/galleries/{name}"];
            if json_body.is_null() || once.contains(&path.as_str()) {
                continue;
            }
            // What the operation needs, in JSON.
            let body = match path.as_str() {
                _ if method == "patch" => json!({"label": "new"}),
                "/v1/embeddings" => json!({"input": encoded}),
                "/v1/gallery" => json!({"items": [{"id": "a", "image": encoded}]}),
                "/v1/probes" => json!({"name": "p", "wait": true}),
                "/v1/similarity" => json!({"image": encoded, "patch": "1,1"}),
                "/v1/match" => json!({"images": [encoded, encoded]}),
                "/v1/anomaly/{name}" => json!({"image": encoded, "wait": true}),
                "/v1/segmenters/{name}" => json!({"image": encoded, "mask": mask, "wait": true}),
                "/v1/segment" => json!({"image": encoded, "segmenter": "new"}),
                _ => json!({"image": encoded}),
            };
            let mut with_nulls = body.clone();
            let members = with_nulls.as_object_mut().unwrap();
            let mut names: Vec<String> = operation["parameters"]
                .as_array()
                .unwrap_or(&Vec::new())
                .iter()
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
                .collect();
            if path == "/v1/embeddings" {
                let options = [
                    "encoding_format",
                    "dimensions",
                    "user",
                    "model",
                    "messages",
                    "size",
                    "embedding_type",
                    "normalized",
                    "pooling",
                    "normalize",
                    "layers",
                    "tokens",
                ];
                names.extend(options.map(str::to_owned));
            }
            names.extend(["images", "vector"].map(str::to_owned));
            assert!(names.len() >= 4, "{path}: {names:?}");
            for name in names {
                members.entry(name).or_insert(Value::Null);
            }
            let url = t
                .server
                .url(&path.replace("{id}", "new").replace("{name}", "new"));
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let send = |body: &Value| {
                let request = t.server.client.request(method.clone(), &url);
                let request = request.header("accept", "application/json").json(body);
                async { request.send().await.unwrap() }
            };
            let plain = send(&body).await;
            let nulls = send(&with_nulls).await;
            // Labels are too few for a probe, so that both requests fail alike.
            let (expected, found) = (plain.status().as_u16(), nulls.status().as_u16());
            assert!(
                found == expected || (expected, found) == (201, 200),
                "{method} {path}: {expected} {found} {}",
                nulls.text().await.unwrap()
            );
            assert!(found < 300 || path == "/v1/probes", "{path}: {found}");
            operations += 1;
        }
    }
    assert_eq!(operations, 21, "every operation with a JSON body is here");
    // The members of a filter, too.
    let condition = json!({"gte": 1, "lt": null, "any": null});
    for filter in [
        json!(null),
        json!({"label": null, "metadata": null}),
        json!({"label": "cat", "metadata": {"year": null}}),
        json!({"label": {"any": ["cat", "coffee"], "gt": null}, "metadata": null}),
        json!({"label": {"gte": "a", "lte": null}, "other": null}),
    ] {
        let request = t.server.post("/v1/knn");
        let body = json!({"image": encoded, "where": filter, "gallery": null});
        let found = ok_json(request.json(&body)).await;
        assert_ne!(found["data"][0]["hits"], json!([]), "{filter}: {found}");
        let request = t.server.get("/v1/gallery");
        ok_json(request.query(&[("where", filter.to_string())])).await;
    }
    let filter = json!({"metadata": {"year": condition}});
    ok_json(
        t.server
            .post("/v1/knn")
            .json(&json!({"image": encoded, "where": filter})),
    )
    .await;
    for filter in [
        json!({"label": {"any": [null]}}),
        json!({"label": {"gte": null}}),
    ] {
        let body = json!({"image": encoded, "where": filter});
        let (status, _) = problem(t.server.post("/v1/knn").json(&body)).await;
        assert_eq!(status, 422, "{filter}");
    }
    let put = t
        .server
        .put("/v1/gallery/c?metadata=null")
        .header("content-type", "image/png");
    assert_eq!(
        ok_json(put.body(t.png.clone())).await["metadata"],
        json!({})
    );
    // The options of an item, too.
    let item =
        json!({"id": "b", "image": encoded, "vector": null, "label": null, "metadata": null});
    let answer = ok_json(t.server.post("/v1/gallery").json(&json!({"items": [item]}))).await;
    assert_eq!(answer["data"][0]["status"], "created");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn compressed_bodies_are_decompressed_within_the_limit() {
    let t = Fixture::start().await;
    let json = json!({"image": BASE64_STANDARD.encode(&t.png)}).to_string();
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < MAX_BODY_BYTES / 8, "{}", bomb.len());
    for route in routes() {
        let expected = t.expected(&route).await;
        let send = |kind: &'static str, encoding: &'static str, body: Vec<u8>| {
            let request = t.request(&route).header("content-type", kind);
            request.header("content-encoding", encoding).body(body)
        };
        for request in [
            send("image/png", "gzip", gzip(&t.png)),
            send("image/png", "X-GZIP", gzip(&t.png)),
            send("image/png", "deflate", zlib(&t.png)),
            send("image/png", "identity", t.png.clone()),
            send("application/json", "gzip", gzip(json.as_bytes())),
            send("application/x-unknown", "identity, gzip", gzip(&t.png)),
        ] {
            assert_eq!(Fixture::answer(request).await, expected, "{}", route.path);
        }
        for (encoding, body, status, detail) in [
            (
                "br",
                t.png.clone(),
                415,
                "the Content-Encoding is not supported: br",
            ),
            ("zstd", t.png.clone(), 415, "not supported: zstd"),
            (
                "gzip, gzip",
                gzip(&gzip(&t.png)),
                415,
                "not supported: gzip, gzip",
            ),
            ("gzip", t.png.clone(), 400, "the body cannot be read"),
            (
                "gzip",
                gzip(&t.png)[..2000].to_vec(),
                400,
                "the body cannot be read",
            ),
            (
                "gzip",
                bomb.clone(),
                413,
                "the body is larger than the limit of 1048576 bytes",
            ),
        ] {
            let response = send("image/png", encoding, body.clone())
                .send()
                .await
                .unwrap();
            let accepted = response.headers().get("accept-encoding").cloned();
            let expected = (status == 415).then_some("gzip, deflate");
            let accepted = accepted.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(accepted, expected, "{} {encoding}", route.path);
            let (found, problem) = problem(send("image/png", encoding, body)).await;
            assert_eq!(found, status, "{} {encoding}: {problem}", route.path);
            assert!(
                problem["detail"].as_str().unwrap().contains(detail),
                "{problem}"
            );
        }
    }
    // Every other route takes compressed bodies, too.
    let input = json!({"input": BASE64_STANDARD.encode(&t.png)}).to_string();
    let request = t
        .server
        .post("/v1/embeddings")
        .header("content-type", "application/json");
    ok(request
        .header("content-encoding", "gzip")
        .body(gzip(input.as_bytes())))
    .await;
    let request = t.server.get("/v1/models").header("content-encoding", "br");
    assert_eq!(problem(request).await.0, 415);
}

#[tokio::test]
async fn json_that_was_cut_or_begins_with_a_bom_is_understood() {
    let t = Fixture::start().await;
    let encoded = BASE64_STANDARD.encode(&t.png);
    for route in routes() {
        let expected = t.expected(&route).await;
        let send = |body: Vec<u8>| {
            let request = t.request(&route).header("content-type", "application/json");
            request.body(body)
        };
        let json = format!("\u{feff}{{\"image\": \"{encoded}\"}}");
        let answer = Fixture::answer(send(json.clone().into_bytes())).await;
        assert_eq!(answer, expected, "{}", route.path);

        // The text of the image holds both words.
        let cut = format!("{{\"image\": \"NaNInfinity{}", &encoded[..1000]);
        let (status, body) = problem(send(cut.clone().into_bytes())).await;
        let detail = body["detail"].as_str().unwrap();
        let ending = format!(
            "; the body ends after {} bytes, before the JSON does",
            cut.len()
        );
        assert!(
            status == 400 && detail.ends_with(&ending),
            "{}: {detail}",
            route.path
        );
        assert!(!detail.contains("NaN"), "{detail}");

        let (status, body) = problem(send(b"{\"image\": NaN}".to_vec())).await;
        let detail = body["detail"].as_str().unwrap();
        assert!(
            status == 400 && detail.ends_with("; JSON has no NaN and no Infinity"),
            "{body}"
        );
    }
    let with_bom = "\u{feff}{\"model\": \"no-such-model\"}";
    let (_, body) = problem(t.server.post("/v1/models/load").body(with_bom)).await;
    assert!(
        !body["detail"].as_str().unwrap().contains("the body is not"),
        "{body}"
    );
}

/// A form with one file, whose part has this `Content-Disposition`.
fn form_with(disposition: &[u8], file: &[u8]) -> Vec<u8> {
    [
        b"--edge\r\nContent-Disposition: ",
        disposition,
        b"\r\nContent-Type: image/png\r\n\r\n",
        file,
        b"\r\n--edge--\r\n",
    ]
    .concat()
}

#[tokio::test]
async fn file_names_are_decoded() {
    let t = Fixture::start().await;
    for (disposition, expected) in [
        // Python's aiohttp and Ruby
        (
            &b"form-data; name=\"f\"; filename*=UTF-8''%C3%A4%20b.png"[..],
            "\u{e4} b.png",
        ),
        // .NET sends both
        (
            b"form-data; name=f; filename=\"=?utf-8?B?w6QgYy5wbmc=?=\"; \
              filename*=utf-8''%C3%A4%20c.png",
            "\u{e4} c.png",
        ),
        (
            b"form-data; name=f; filename=\"=?utf-8?B?w6QgZC5wbmc=?=\"",
            "\u{e4} d.png",
        ),
        (
            b"form-data; name=f; filename=\"=?iso-8859-1?Q?=E4_e.png?=\"",
            "\u{e4} e.png",
        ),
        // Bytes of Latin-1 and of UTF-8
        (
            b"form-data; name=f; filename=\"\xe4 f.png\"",
            "\u{e4} f.png",
        ),
        (
            "form-data; name=f; filename=\"\u{e4} g.png\"".as_bytes(),
            "\u{e4} g.png",
        ),
    ] {
        let request = t.server.post("/v1/gallery?gallery=names");
        let request = request.header("content-type", "multipart/form-data; boundary=edge");
        let answer = ok_json(request.body(form_with(disposition, &t.png))).await;
        let outcome = &answer["data"][0];
        let expected = (&json!(expected), &json!("created"));
        assert_eq!((&outcome["id"], &outcome["status"]), expected);
    }
}

/// A picture 40 times as wide as high, in PNG.
fn panorama() -> Vec<u8> {
    let pixel = |x: u32, y: u32| image::Rgb([x as u8, y as u8, (x / 16) as u8]);
    let mut file = std::io::Cursor::new(Vec::new());
    let picture = image::RgbImage::from_fn(4000, 100, pixel);
    picture
        .write_to(&mut file, image::ImageFormat::Png)
        .unwrap();
    file.into_inner()
}

#[tokio::test]
async fn maps_of_long_images_get_the_largest_size_that_fits() {
    let server = Server::tiny().await;
    let send = |path: &str, accept: &str| {
        let request = server.post(path).header("content-type", "image/png");
        request.header("accept", accept).body(panorama())
    };
    for path in [
        "/v1/pca",
        "/v1/attention",
        "/v1/attention/stats",
        "/v1/similarity?patch=0,0",
    ] {
        let response = ok(send(path, "application/json")).await;
        assert_eq!(response.headers()["image-size"], "140", "{path}");
        let answer: Value = response.json().await.unwrap();
        // 10 of 400 patches are 4000; 11 of 440 would be above 4096.
        assert_eq!(answer["data"][0]["grid"], json!([10, 400]), "{path}");
        assert_eq!(answer["data"][0]["size"], 140, "{path}");

        // An explicit size is not changed, even if it is the default.
        let separator = if path.contains('?') { '&' } else { '?' };
        let explicit = format!("{path}{separator}size=518");
        let (status, body) = problem(send(&explicit, "application/json")).await;
        assert_eq!((status, &body["code"]), (422, &json!("limit_exceeded")));
        let detail = body["detail"].as_str().unwrap();
        assert!(
            detail.ends_with("the largest `size` that fits this image is 140"),
            "{detail}"
        );
        let explicit = format!("{path}{separator}size=140");
        let same: Value = ok_json(send(&explicit, "application/json")).await;
        assert_eq!(same["data"], answer["data"], "{path}");
    }
    for accept in ["image/png", "multipart/mixed", "application/x-npy"] {
        let response = ok(send("/v1/attention", accept)).await;
        assert_eq!(response.headers()["image-size"], "140", "{accept}");
    }
    // Each image of a request has a size of its own.
    let file = |bytes: Vec<u8>| Part::bytes(bytes).file_name("a.png");
    let form = Form::new()
        .part("a", file(panorama()))
        .part("b", file(read_golden(CHELSEA)));
    let request = server.post("/v1/pca").header("accept", "application/json");
    let response = ok(request.multipart(form)).await;
    assert_eq!(response.headers()["image-size"], "140, 518");
    let answer: Value = response.json().await.unwrap();
    let sizes = [&answer["data"][0]["size"], &answer["data"][1]["size"]];
    assert_eq!(sizes, [&json!(140), &json!(518)]);
}
