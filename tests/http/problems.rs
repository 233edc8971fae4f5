//! Bad requests: each gets its status and a problem that names the fault, and the server goes on.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dinoserve::{
    artifacts::{ModelFile, ModelPaths},
    http::HttpConfig,
};
use reqwest::{
    RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    read_golden, scratch,
    server::{BadRequest, Server, assert_problem, ok, problem},
    tiny,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";

/// Returns a PNG header of 30000×30000 pixels without their data.
fn giant_png_header() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    let mut header = Vec::new();
    header.extend_from_slice(&30_000u32.to_be_bytes());
    header.extend_from_slice(&30_000u32.to_be_bytes());
    header.extend_from_slice(&[8, 2, 0, 0, 0]);
    bytes.extend_from_slice(&header);
    let mut crc = flate2::Crc::new();
    crc.update(b"IHDR");
    crc.update(&header);
    bytes.extend_from_slice(&crc.sum().to_be_bytes());
    // The start of the pixels, which must not be read.
    bytes.extend_from_slice(&[0, 0, 0, 0, b'I', b'D', b'A', b'T', 0x35, 0xAF, 0x06, 0x1E]);
    bytes
}

/// A server with low limits, and requests to `/v1/embed`.
struct Fixture {
    server: Server,
}

impl Fixture {
    async fn start() -> Self {
        let config = HttpConfig {
            max_body_bytes: 1 << 20,
            max_images: 3,
            ..HttpConfig::default()
        };
        let server = Server::start(tiny("tiny-reg", "model.safetensors"), config).await;
        Self { server }
    }

    /// Sends the requests. Each is rejected as its row says, and the server goes on.
    async fn assert_rejected(&self, cases: Vec<BadRequest>) {
        for case in cases {
            assert_problem(case).await;
            ok(self.image("/v1/embed")).await;
        }
    }

    fn image(&self, path: &str) -> RequestBuilder {
        self.server.post_file(path, CHELSEA)
    }

    fn raw(&self, kind: &'static str, body: Vec<u8>) -> RequestBuilder {
        let request = self.server.post("/v1/embed");
        request.header("content-type", kind).body(body)
    }

    fn json(&self, body: Value) -> RequestBuilder {
        self.server.post("/v1/embed").json(&body)
    }

    fn json_text(&self, body: &str) -> RequestBuilder {
        self.raw("application/json", body.as_bytes().to_vec())
    }

    fn files(&self, count: usize) -> RequestBuilder {
        let file = || Part::bytes(read_golden(CHELSEA)).file_name("a.png");
        let form = (0..count).fold(Form::new(), |form, _| form.part("image", file()));
        self.server.post("/v1/embed").multipart(form)
    }
}

#[tokio::test]
async fn bad_images_are_rejected() {
    let t = Fixture::start().await;
    let good = read_golden(CHELSEA);
    let jpeg = read_golden("dinov2-small-focus/rocket.jpg");
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("truncated PNG", t.raw("image/png", good[..good.len() / 2].to_vec()),
         422, "undecodable_image", "the PNG cannot be decoded"),
        ("truncated JPEG", t.raw("image/jpeg", jpeg[..jpeg.len() / 2].to_vec()),
         422, "undecodable_image", "the JPEG cannot be decoded: Premature end"),
        ("JPEG without pixels", t.raw("image/jpeg", jpeg[..200].to_vec()),
         422, "undecodable_image", "the JPEG cannot be decoded"),
        ("empty", t.raw("image/png", vec![]), 422, "undecodable_image", "the image is empty"),
        ("text as JPEG", t.raw("image/jpeg", b"Hello, I am not a picture".to_vec()),
         422, "undecodable_image",
         "begin with \"Hello, I am not \" are not an image; send JPEG, PNG"),
        ("zeros", t.raw("image/jpeg", vec![0; 64]), 422, "undecodable_image", "00 00"),
        ("giant header", t.raw("image/png", giant_png_header()),
         413, "too_large", "30000×30000 = 900000000 pixels, more than the limit of 120000000"),
    ];
    t.assert_rejected(cases).await;
}

#[tokio::test]
async fn bad_bodies_are_rejected() {
    let t = Fixture::start().await;
    let encoded = BASE64_STANDARD.encode(read_golden(CHELSEA));
    let image = format!("\"image\": \"{encoded}\"");
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("wrong content type", t.raw("text/html", b"<p>".to_vec()),
         415, "unsupported_media_type", "text/html is not supported; send an image"),
        ("no content type", t.server.post("/v1/embed").body("no image"),
         415, "unsupported_media_type", "the Content-Type header is missing"),
        ("broken content type", t.raw("image", b"no image".to_vec()),
         415, "unsupported_media_type", "is invalid"),
        ("wrong base64", t.json(json!({"image": "??not base64??"})),
         400, "malformed_request", "`image`: not base64"),
        ("address", t.json(json!({"image": "http://127.0.0.1/cat.png"})),
         400, "malformed_request", "URLs are not fetched"),
        ("data URI", t.json(json!({"image": "data:image/png,abc"})),
         400, "malformed_request", "the data: URI is not base64"),
        ("image no string", t.json(json!({"image": 7})),
         400, "malformed_request", "`image` must be a base64 string"),
        ("images no list", t.json(json!({"images": "abc"})),
         400, "malformed_request", "a list of base64 strings or data: URIs in `images`"),
        ("broken JSON", t.json_text("{\"image\": "),
         400, "malformed_request", "the JSON cannot be read"),
        ("JSON option twice", t.json_text(&format!("{{{image}, \"size\": 14, \"size\": 28}}")),
         422, "invalid_option", "option `size`: given twice"),
        ("JSON option a list", t.json(json!({"image": encoded, "size": [[], []]})),
         422, "invalid_option", "option `size`: must be a string, a number, true or false"),
        ("JSON with a tail", t.json_text(&format!("{{{image}}} x")),
         400, "malformed_request", "trailing characters"),
        ("too many images in JSON", t.json(json!({"images": ["", "", "", ""]})),
         413, "too_large", "more than 3 images"),
        ("too many options",
         t.image(&format!("/v1/embed?{}", (0..70).map(|i| format!("o{i}=1&")).collect::<String>())),
         422, "invalid_option", "more than 64 options"),
        ("JSON list", t.json(json!([1, 2])),
         400, "malformed_request", "the JSON cannot be read"),
        ("no image", t.json(json!({"size": 224})),
         400, "malformed_request", "the request contains no image"),
        ("broken multipart", t.raw("multipart/form-data; boundary=x", b"--y\r\n".to_vec()),
         400, "malformed_request", "the body cannot be read"),
        ("multipart without boundary", t.raw("multipart/form-data", b"--y\r\n".to_vec()),
         400, "malformed_request", "the multipart body cannot be read"),
        ("too many images", t.files(4),
         413, "too_large", "more than 3 images"),
        ("too large", t.raw("image/png", vec![0; (1 << 20) + 1]),
         413, "too_large", "the body is larger than the limit of 1048576 bytes"),
    ];
    t.assert_rejected(cases).await;
}

#[tokio::test]
async fn bad_options_are_rejected() {
    let t = Fixture::start().await;
    let encoded = BASE64_STANDARD.encode(read_golden(CHELSEA));
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("unknown option", t.image("/v1/embed?sise=224"),
         422, "invalid_option",
         "option `sise`: unknown; expected one of model, size, resize"),
        ("option of another endpoint", t.image("/v1/embed?colormap=gray"),
         422, "invalid_option", "option `colormap`: unknown; expected one of"),
        ("option twice", t.image("/v1/embed?size=224&size=448"),
         422, "invalid_option", "option `size`: given twice"),
        ("query and JSON",
         t.server.post("/v1/embed?size=224").json(&json!({"image": encoded, "size": 224})),
         422, "invalid_option", "option `size`: given twice"),
        ("size not a number", t.image("/v1/embed?size=big"),
         422, "invalid_option", "option `size`: invalid type: string \"big\""),
        ("size negative", t.image("/v1/embed?size=-14"),
         422, "invalid_option", "option `size`: invalid value: integer `-14`"),
        ("size zero", t.image("/v1/embed?size=0"),
         422, "invalid_option", "0 is below one patch of 14 pixels"),
        ("size odd", t.image("/v1/embed?size=225"),
         422, "invalid_option", "225 is not a multiple of the patch size 14; use 224 or 238"),
        ("size too large", t.image("/v1/embed?size=2800"),
         422, "limit_exceeded",
         "40000 patches (width × height), more than the limit of 4096; the largest `size` that \
          fits this image is 896"),
        ("size enormous", t.image("/v1/pca?size=99999999999999"),
         422, "invalid_option", "99999999999999 is out of range; it must be 14 to 57344"),
        ("bad pooling", t.image("/v1/embed?pooling=max"),
         422, "invalid_option",
         "option `pooling`: unknown variant `max`, expected one of `cls`, `mean`, `cls_mean`, \
          `gem`"),
        ("bad layers", t.image("/v1/embed?layers=9"),
         422, "invalid_option", "option `layers`: 9 is out of range; it must be 1 to 2"),
        ("bad truth value", t.image("/v1/embed?normalize=maybe"),
         422, "invalid_option",
         "option `normalize`: invalid type: string \"maybe\", expected a boolean"),
        ("bad components", t.image("/v1/pca?components=0"),
         422, "invalid_option", "option `components`: 0 is out of range; it must be 1 to 64"),
        ("too few patches", t.image("/v1/pca?size=14&resize=squash"),
         422, "invalid_option", "3 components cannot be fitted on 1 patch of"),
        ("bad overlay", t.image("/v1/pca?overlay=1.5"),
         422, "invalid_option", "option `overlay`: 1.5 is out of range; it must be 0 to 1"),
        ("bad head", t.image("/v1/attention?head=2"),
         422, "invalid_option", "option `head`: the model has no head 2; its heads are 0 to 1"),
        ("no head", t.image("/v1/attention?head=left"),
         422, "invalid_option",
         "option `head`: \"left\" is neither `mean`, `max`, `all` nor the number of a head"),
        ("bad threshold", t.image("/v1/attention?threshold=nan"),
         422, "invalid_option", "option `threshold`"),
        ("broken query", t.image("/v1/embed?size=%ff"),
         400, "malformed_request", "the query is not valid: percent-decoded, it must be UTF-8"),
    ];
    t.assert_rejected(cases).await;
}

#[tokio::test]
async fn bad_routes_are_rejected() {
    let t = Fixture::start().await;
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("nothing acceptable", t.image("/v1/embed").header("accept", "text/html"),
         406, "not_acceptable",
         "matches none of application/json, application/octet-stream, application/x-npy"),
        ("no such route", t.server.get("/v1/nothing"),
         404, "not_found", "unknown path /v1/nothing"),
        ("wrong method", t.server.get("/v1/embed"),
         405, "method_not_allowed", "/v1/embed does not take GET"),
    ];
    t.assert_rejected(cases).await;
}

#[tokio::test]
async fn a_limit_is_named_with_its_flag() {
    let t = Fixture::start().await;
    let (_, body) = problem(t.image("/v1/embed?size=2800")).await;
    let limit = json!({"name": "max_patches", "value": 4096, "flag": "--max-patches"});
    assert_eq!(body["limit"], limit);
}

#[tokio::test]
async fn a_full_server_rejects_before_the_body() {
    let config = HttpConfig {
        max_requests: Some(1),
        ..HttpConfig::default()
    };
    let server = Server::start(tiny("tiny-reg", "model.safetensors"), config).await;
    // A client that has begun to upload takes the only place.
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(upload("/v1/embed", 100_000).as_bytes())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;

    let response = server.post_file("/v1/embed", CHELSEA).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        (body["code"].as_str(), body["limit"]["flag"].as_str()),
        (Some("overloaded"), Some("--max-requests"))
    );

    // A client that is rejected during its upload gets the response, and its connection stays open,
    // wherever the request is rejected.
    for (path, status) in [
        ("/v1/embed", "503"),
        ("/v1/nothing", "404"),
        ("/healthz", "405"),
    ] {
        assert_refused_while_sending(&server, path, status).await;
    }

    // Its place is free after it disconnects.
    drop(slow);
    tokio::time::sleep(Duration::from_millis(200)).await;
    ok(server.post_file("/v1/embed", CHELSEA)).await;
}

/// The head of a request that announces a body.
fn upload(path: &str, bytes: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n\
         content-length: {bytes}\r\n\r\n"
    )
}

async fn assert_refused_while_sending(server: &Server, path: &str, status: &str) {
    let mut late = TcpStream::connect(server.address).await.unwrap();
    late.write_all(upload(path, 2_000_000).as_bytes())
        .await
        .unwrap();
    late.write_all(&vec![0; 1_000_000]).await.unwrap();
    let mut answer = vec![0; 4096];
    let count = late.read(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer[..count]);
    assert!(
        text.starts_with(&format!("HTTP/1.1 {status} ")),
        "{path}: {text}"
    );
    late.write_all(&vec![0; 1_000_000]).await.unwrap();
    late.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let next = async {
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains("HTTP/1.1 200 OK") {
            let count = late.read(&mut answer).await.unwrap();
            assert!(
                count > 0,
                "{path}: the connection is closed: {}",
                String::from_utf8_lossy(&all)
            );
            all.extend_from_slice(&answer[..count]);
        }
    };
    tokio::time::timeout(Duration::from_secs(10), next)
        .await
        .expect("an answer on the same connection");
}

#[tokio::test]
async fn renderings_side_by_side_have_a_size_limit() {
    let server = Server::tiny().await;
    let line = |width: u32, height: u32| {
        let mut file = std::io::Cursor::new(Vec::new());
        image::GrayImage::new(width, height)
            .write_to(&mut file, image::ImageFormat::Png)
            .unwrap();
        Part::bytes(file.into_inner()).file_name("line.png")
    };
    let form = || {
        Form::new()
            .part("a", line(14_000, 14))
            .part("b", line(14, 14_000))
    };
    let post = || {
        server
            .client
            .post(server.url("/v1/attention?size=14"))
            .multipart(form())
    };
    let (status, body) = problem(post()).await;
    assert_eq!(status, 422, "{body}");
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("14022×14000, more than the limit"),
        "{body}"
    );
    ok(post().header("accept", "multipart/mixed")).await;
}

#[tokio::test]
async fn an_incomplete_head_times_out() {
    let mut server = Server::tiny().await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"POST /v1/embed HTTP/1.1\r\nhost: x\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is closed");
    // Neither a silent connection nor one with half a head delays a shutdown.
    let _idle = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"POST /v1/embed HTTP/1.1\r\nhost")
        .await
        .unwrap();
    server.stop();
    tokio::time::timeout(Duration::from_secs(10), server.stopped())
        .await
        .expect("a stop");
}

#[tokio::test]
async fn an_incomplete_body_times_out() {
    let config = HttpConfig {
        request_timeout: Duration::from_secs(1),
        ..HttpConfig::default()
    };
    let server = Server::start(tiny("tiny-reg", "model.safetensors"), config).await;
    for route in ["/v1/embed", "/v1/models/load"] {
        let mut slow = TcpStream::connect(server.address).await.unwrap();
        slow.write_all(upload(route, 100_000).as_bytes())
            .await
            .unwrap();
        let mut answer = vec![0; 4096];
        let count = tokio::time::timeout(Duration::from_secs(10), slow.read(&mut answer))
            .await
            .expect("an answer")
            .unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]);
        assert!(
            answer.starts_with("HTTP/1.1 408 ") && answer.contains("--request-timeout"),
            "{answer}"
        );
    }
}

/// A form text longer than an option may be is not read, and not repeated in the message.
#[tokio::test]
async fn options_that_are_too_long_are_not_read() {
    let server = Server::tiny_with_gallery().await;
    let form = |name: &'static str, text: String| {
        let image = Part::bytes(read_golden(CHELSEA)).file_name("chelsea.png");
        Form::new().part("image", image).text(name, text)
    };
    let long = format!("[{}1]", "1,".repeat(1_000_000));
    let (status, body) = problem(
        server
            .post("/v1/embed")
            .multipart(form("size", long.clone())),
    )
    .await;
    let detail = body["detail"].as_str().unwrap();
    assert!(
        status == 422 && detail.contains("2000003 bytes long, over the limit of 4096"),
        "{status}: {detail}"
    );
    let (status, body) = problem(server.post("/v1/gallery").multipart(form("items", long))).await;
    let detail = body["detail"].as_str().unwrap();
    assert!(
        status == 422 && detail.contains("more entries than the form has files (1)"),
        "{status}: {detail}"
    );
}

#[tokio::test]
async fn a_model_that_cannot_run_is_never_ready() {
    let model = tiny("tiny-reg", "model.safetensors");
    let broken = scratch("broken-model").join("fp32.onnx");
    std::fs::write(&broken, b"not a model").unwrap();
    let server = Server::start_unready(
        ModelFile {
            paths: ModelPaths::new(broken),
            ..model
        },
        HttpConfig::default(),
    )
    .await;
    assert!(server.engine().ready().await.is_err());
    for request in [
        server.get("/readyz"),
        server.post_file("/v1/embed", CHELSEA),
    ] {
        let (status, body) = problem(request).await;
        assert_eq!(status, 503, "{body}");
        assert!(
            body["detail"]
                .as_str()
                .unwrap()
                .contains("the model cannot run"),
            "{body}"
        );
    }
    ok(server.get("/healthz")).await;
}
