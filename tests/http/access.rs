//! Access: keys, roles, rate limits, cross-site requests and request heads that are too large.

use std::{path::Path, sync::Arc, time::Duration};

use dinoserve::{
    error::Kind,
    http::{
        HttpConfig,
        access::{ApiKeys, NewKey, Role},
        description,
    },
    telemetry,
};
use reqwest::{Method, RequestBuilder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    process::{Process, metric},
    replace, scratch,
    server::{Server, Setup, http2_request, new_gallery, ok, ok_json, problem},
    until,
};

/// A key of each role, and the file that knows them.
struct Keys {
    file: std::path::PathBuf,
    read: String,
    write: String,
    admin: String,
    /// Has two requests a minute.
    slow: String,
}

impl Keys {
    fn new() -> Self {
        let file = scratch("keys").join("keys.toml");
        let mut text = String::new();
        let mut make = |name: &str, role, rate: Option<u32>| {
            let NewKey { secret, entry } =
                NewKey::random(name, role, rate.and_then(std::num::NonZero::new), None).unwrap();
            text.push_str(&entry);
            secret
        };
        let read = make("reader", Role::Read, None);
        let write = make("writer", Role::Write, None);
        let admin = make("boss", Role::Admin, None);
        let slow = make("slow", Role::Read, Some(2));
        text.push_str("burst = 2\n");
        std::fs::write(&file, text).unwrap();
        Self {
            file,
            read,
            write,
            admin,
            slow,
        }
    }

    fn open(&self) -> Arc<ApiKeys> {
        ApiKeys::open(&self.file).unwrap()
    }

    async fn server(&self) -> Server {
        Setup {
            keys: Some(self.open()),
            gallery: Some(new_gallery().await),
            ..Setup::tiny()
        }
        .start()
        .await
    }
}

fn counted(reason: &str) -> u64 {
    telemetry::metrics()
        .rejections
        .with_label_values(&[reason])
        .get()
}

/// The role that every operation requires, by the first words of its description.
const ROLES: [(&str, Option<Role>); 61] = [
    ("get /healthz", None),
    ("get /readyz", None),
    ("get /version", None),
    ("get /v1", None),
    ("get /metrics", Some(Role::Read)),
    ("get /v1/models", Some(Role::Read)),
    ("get /v1/models/{id}", Some(Role::Read)),
    ("post /v1/models/load", Some(Role::Admin)),
    ("delete /v1/models/{id}", Some(Role::Admin)),
    ("post /v1/embed", Some(Role::Read)),
    ("post /v1/embeddings", Some(Role::Read)),
    ("post /v1/pca", Some(Role::Read)),
    ("post /v1/attention", Some(Role::Read)),
    ("post /v1/attention/stats", Some(Role::Read)),
    ("post /v1/similarity", Some(Role::Read)),
    ("post /v1/match", Some(Role::Read)),
    ("post /v1/objects", Some(Role::Read)),
    ("get /v1/anomaly", Some(Role::Read)),
    ("get /v1/anomaly/{name}", Some(Role::Read)),
    ("put /v1/anomaly/{name}", Some(Role::Write)),
    ("post /v1/anomaly/{name}", Some(Role::Write)),
    ("delete /v1/anomaly/{name}", Some(Role::Write)),
    ("post /v1/anomaly/{name}/score", Some(Role::Read)),
    ("get /v1/anomaly/{name}/snapshot", Some(Role::Read)),
    ("get /v1/segmenters", Some(Role::Read)),
    ("get /v1/segmenters/{name}", Some(Role::Read)),
    ("put /v1/segmenters/{name}", Some(Role::Write)),
    ("delete /v1/segmenters/{name}", Some(Role::Write)),
    ("post /v1/segment", Some(Role::Read)),
    ("get /v1/knn", Some(Role::Read)),
    ("post /v1/knn", Some(Role::Read)),
    ("post /v1/classify", Some(Role::Read)),
    ("get /v1/gallery", Some(Role::Read)),
    ("post /v1/gallery", Some(Role::Write)),
    ("get /v1/gallery/{id}", Some(Role::Read)),
    ("put /v1/gallery/{id}", Some(Role::Write)),
    ("patch /v1/gallery/{id}", Some(Role::Write)),
    ("delete /v1/gallery/{id}", Some(Role::Write)),
    ("get /v1/gallery/{id}/thumbnail", Some(Role::Read)),
    ("get /v1/galleries", Some(Role::Read)),
    ("get /v1/galleries/{name}", Some(Role::Read)),
    ("patch /v1/galleries/{name}", Some(Role::Admin)),
    ("delete /v1/galleries/{name}", Some(Role::Admin)),
    ("get /v1/galleries/{name}/audit", Some(Role::Read)),
    ("post /v1/galleries/{name}/audit", Some(Role::Write)),
    ("delete /v1/galleries/{name}/audit", Some(Role::Write)),
    ("get /v1/galleries/{name}/map", Some(Role::Read)),
    ("post /v1/galleries/{name}/map", Some(Role::Write)),
    ("delete /v1/galleries/{name}/map", Some(Role::Write)),
    ("get /v1/galleries/{name}/snapshot", Some(Role::Read)),
    ("put /v1/galleries/{name}/snapshot", Some(Role::Admin)),
    ("get /v1/bases", Some(Role::Read)),
    ("get /v1/bases/{name}", Some(Role::Read)),
    ("put /v1/bases/{name}", Some(Role::Write)),
    ("post /v1/bases/{name}", Some(Role::Write)),
    ("delete /v1/bases/{name}", Some(Role::Write)),
    ("get /v1/probes", Some(Role::Read)),
    ("post /v1/probes", Some(Role::Write)),
    ("get /v1/probes/{name}", Some(Role::Read)),
    ("delete /v1/probes/{name}", Some(Role::Write)),
    ("get /openapi.json", None),
];

#[tokio::test]
async fn every_operation_requires_its_role() {
    let description = serde_json::to_value(description()).unwrap();
    let mut described = vec!["get /openapi.json".to_owned()];
    for (path, methods) in description["paths"].as_object().unwrap() {
        described.extend(
            methods
                .as_object()
                .unwrap()
                .keys()
                .map(|method| format!("{method} {path}")),
        );
    }
    let mut listed: Vec<&str> = ROLES.iter().map(|(operation, _)| *operation).collect();
    described.sort();
    listed.sort_unstable();
    assert_eq!(described, listed, "each operation has its role here");

    let keys = Keys::new();
    let server = keys.server().await;
    for (operation, least) in ROLES {
        let (method, path) = operation.split_once(' ').unwrap();
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let path = path.replace("{id}", "x").replace("{name}", "x");
        let ask = || server.client.request(method.clone(), server.url(&path));
        let status =
            async |request: RequestBuilder| request.send().await.unwrap().status().as_u16();
        let Some(least) = least else {
            assert!(status(ask()).await < 300, "{operation} is for everybody");
            continue;
        };
        let response = ask().send().await.unwrap();
        assert_eq!(response.status(), 401, "{operation}");
        assert_eq!(
            response.headers()["www-authenticate"],
            "Bearer realm=\"dinoserve\""
        );
        for (role, key) in [
            (Role::Read, &keys.read),
            (Role::Write, &keys.write),
            (Role::Admin, &keys.admin),
        ] {
            let status = status(ask().bearer_auth(key)).await;
            let rejected = matches!(status, 401 | 403);
            assert_eq!(
                rejected,
                role < least,
                "{operation} with the role {role}: {status}"
            );
            assert!(
                !rejected || status == 403,
                "{operation}: a known key is only forbidden"
            );
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn keys_are_distinguished_and_named_in_logs() {
    let keys = Keys::new();
    let server = keys.server().await;
    let before = counted("unauthenticated");
    let (status, body) = problem(server.get("/v1/models")).await;
    assert_eq!(
        (status, body["code"].as_str()),
        (401, Some("unauthenticated"))
    );
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("Authorization: Bearer")
    );
    let almost = format!("{}x", keys.read);
    for wrong in [almost.as_str(), "", &keys.read[..20]] {
        assert_eq!(
            problem(server.get("/v1/models").bearer_auth(wrong)).await.0,
            401,
            "{wrong:?}"
        );
    }
    let basic = server
        .get("/v1/models")
        .header("authorization", format!("Basic {}", keys.read));
    assert_eq!(problem(basic).await.0, 401);
    assert_eq!(counted("unauthenticated") - before, 5);
    let (status, body) = problem(server.delete("/v1/galleries/x").bearer_auth(&keys.write)).await;
    assert_eq!(status, 403);
    assert_eq!(
        body["detail"],
        "the API key `writer` has the role write, and this needs admin"
    );
    // The scheme does not mind case, and there is a second way.
    ok(server
        .get("/v1/models")
        .header("authorization", format!("bearer {}", keys.read)))
    .await;
    ok(server.get("/v1/models").header("x-api-key", &keys.read)).await;
    let metrics = ok(server.get("/metrics").bearer_auth(&keys.admin))
        .await
        .text()
        .await
        .unwrap();
    assert!(metric(&metrics, "dinoserve_key_requests_total{key=\"reader\"}") >= 2.0);
    // No key appears in the metrics.
    for secret in [&keys.read, &keys.write, &keys.admin] {
        assert!(
            !metrics.contains(secret.as_str())
                && !format!("{:?}", keys.open()).contains(secret.as_str())
        );
    }
    server.stopped().await;
}

/// Sends a head with `Expect: 100-continue` and returns the first line of the response.
async fn first_line(server: &Server, path: &str, key: Option<&str>) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let key = key
        .map(|key| format!("Authorization: Bearer {key}\r\n"))
        .unwrap_or_default();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{key}Content-Type: image/png\r\n\
         Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let count = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&answer[..count])
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The server sends `100 Continue` when a handler begins to read the body, so this covers every
/// body reader.
#[tokio::test]
async fn rejected_requests_never_reach_a_body_reader_or_the_model() {
    let keys = Keys::new();
    let server = keys.server().await;
    assert_eq!(
        first_line(&server, "/v1/embed", Some(&keys.read)).await,
        "HTTP/1.1 100 Continue",
        "this one is read"
    );
    let seen = || {
        let metrics = telemetry::metrics();
        (
            metrics
                .batch_size
                .with_label_values(&["tiny-reg"])
                .get_sample_count(),
            metrics
                .images
                .with_label_values(&["tiny-reg", "error"])
                .get(),
        )
    };
    for _ in 0..2 {
        ok(server.get("/v1/models").bearer_auth(&keys.slow)).await;
    }
    let before = seen();
    for _ in 0..20 {
        assert_eq!(
            first_line(&server, "/v1/embed", None).await,
            "HTTP/1.1 401 Unauthorized"
        );
        assert_eq!(
            first_line(&server, "/v1/embed", Some("ds_wrong")).await,
            "HTTP/1.1 401 Unauthorized"
        );
        assert_eq!(
            first_line(&server, "/v1/gallery", Some(&keys.read)).await,
            "HTTP/1.1 403 Forbidden"
        );
        assert_eq!(
            first_line(&server, "/v1/models/load", Some(&keys.write)).await,
            "HTTP/1.1 403 Forbidden"
        );
        assert_eq!(
            first_line(&server, "/v1/embed", Some(&keys.slow)).await,
            "HTTP/1.1 429 Too Many Requests"
        );
    }
    // Rejections of requests whose body follows at once are answered, too; the body is not read.
    let image = || server.post_file("/v1/embed", "dinov2-small-focus/chelsea.png");
    for (request, status) in [(image(), 401), (image().bearer_auth(&keys.slow), 429)] {
        let (found, body) = problem(request).await;
        assert_eq!(found, status, "{body}");
    }
    assert_eq!(
        seen(),
        before,
        "no image was decoded, none went through the model"
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_key_has_a_rate_limit() {
    let keys = Keys::new();
    let server = keys.server().await;
    let ask = || server.get("/v1/models").bearer_auth(&keys.slow);
    ok(ask()).await;
    ok(ask()).await;
    let response = ask().send().await.unwrap();
    assert_eq!(response.status(), 429);
    let wait: u64 = response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        (1..=30).contains(&wait),
        "two a minute are one in 30 s, and {wait} s are to be waited"
    );
    let (_, body) = problem(ask()).await;
    assert_eq!(body["limit"]["name"], "requests_per_minute");
    assert_eq!(body["limit"]["value"], 2);
    // Other keys and public routes are not limited.
    ok(server.get("/v1/models").bearer_auth(&keys.read)).await;
    ok(server.get("/readyz").bearer_auth(&keys.slow)).await;
    server.stopped().await;
}

#[tokio::test]
async fn keys_are_rotated_without_a_restart() {
    let keys = Keys::new();
    let server = keys.server().await;
    let status = async |key: &str| {
        server
            .get("/v1/models")
            .bearer_auth(key)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    for _ in 0..2 {
        assert_eq!(status(&keys.slow).await, 200);
    }
    // A key is added and the reader's removed. The limited key does not get its requests back.
    let old = std::fs::read_to_string(&keys.file).unwrap();
    let slow = &old[old.find("[[key]]\nname = \"slow\"").unwrap()..];
    let NewKey { secret, entry } = NewKey::random("next", Role::Read, None, None).unwrap();
    replace(&keys.file, &format!("{entry}{slow}"));
    until(async || status(&secret).await == 200).await;
    assert_eq!(status(&keys.read).await, 401);
    assert_eq!(status(&keys.slow).await, 429);
    // An invalid file changes nothing and is counted.
    let failures = || {
        telemetry::metrics()
            .reload_failures
            .with_label_values(&["keys"])
            .get()
    };
    let before = failures();
    replace(&keys.file, "[[key]]\nname = \"x\"\n");
    until(async || failures() > before).await;
    assert_eq!(status(&secret).await, 200);
    replace(&keys.file, &entry);
    until(async || status(&keys.slow).await == 401).await;
    server.stopped().await;
}

#[test]
fn errors_in_a_key_file_are_named() {
    let file = scratch("keys").join("keys.toml");
    let hash = "0123456789abcdef".repeat(4);
    let good = format!("[[key]]\nname = \"a\"\nrole = \"read\"\nsha256 = \"{hash}\"\n");
    let cases = [
        (String::new(), "the file has no [[key]]"),
        ("[[key]".to_owned(), "keys.toml"),
        (good.replace("\"read\"", "\"owner\""), "owner"),
        (good.replace(&hash, "secret"), "64 hexadecimal digits"),
        (good.replace("\"a\"", "\"a b\""), "letters, digits"),
        (format!("{good}{good}"), "listed twice"),
        (format!("{good}requests_per_minute = 0\n"), "nonzero"),
        (format!("{good}burst = 5\n"), "without requests_per_minute"),
        (format!("{good}rate = 5\n"), "rate"),
    ];
    for (text, expected) in cases {
        std::fs::write(&file, &text).unwrap();
        let error = ApiKeys::open(&file).unwrap_err();
        assert!(error.to_string().contains(expected), "{text:?}: {error}");
        assert!(error.to_string().contains("keys.toml"), "{error}");
        // A wrong entry may hold the key itself.
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    std::fs::write(&file, &good).unwrap();
    ApiKeys::open(&file).unwrap();
    assert_eq!(
        ApiKeys::open(Path::new("/no/such/file"))
            .unwrap_err()
            .kind(),
        Kind::Io
    );
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing_unless_allowed() {
    let server = Setup {
        gallery: Some(new_gallery().await),
        ..Setup::tiny()
    }
    .start()
    .await;
    let own = format!("http://{}", server.address);
    let write = || server.delete("/v1/gallery/x");
    let before = counted("cross_site");
    for (header, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let (status, body) = problem(write().header(header, value)).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (403, Some("forbidden")),
            "{header}: {value}"
        );
    }
    assert_eq!(counted("cross_site") - before, 4);
    let spoofed = write()
        .header("origin", &own)
        .header("sec-fetch-site", "cross-site");
    assert_eq!(problem(spoofed).await.0, 403);
    for request in [
        write(),
        write().header("origin", &own),
        write().header("sec-fetch-site", "same-origin"),
    ] {
        assert_eq!(
            problem(request).await.0,
            404,
            "the request is allowed, and the item is missing"
        );
    }
    // HTTP/2 has no `Host`; the address replaces it.
    for (host, status) in [("one.example", 0x8d), ("two.example", 0x48)] {
        let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
        let fields = [
            &b"\x02\x06DELETE\x86\x04"[..],
            &text("/v1/gallery/x"),
            b"\x01",
            &text(host),
        ]
        .concat();
        let origin = [&b"\0"[..], &text("origin"), &text("http://one.example")].concat();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream
            .write_all(&http2_request(100, &[fields, origin].concat()))
            .await
            .unwrap();
        let mut frame = [0; 9];
        loop {
            stream.read_exact(&mut frame).await.unwrap();
            let mut payload = vec![0; usize::from(frame[1]) << 8 | usize::from(frame[2])];
            stream.read_exact(&mut payload).await.unwrap();
            if frame[3] == 1 {
                // 404 has a counter of its own, 403 has none.
                assert_eq!(payload[0], status, "{host}: {payload:?}");
                break;
            }
        }
    }
    let response = server
        .get("/v1/models")
        .header("origin", "https://evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200, "the request is allowed");
    assert!(
        !response
            .headers()
            .contains_key("access-control-allow-origin"),
        "no page may read the response"
    );
    server.stopped().await;

    let http = HttpConfig {
        cors_origins: vec!["https://app.example".to_owned()],
        ..HttpConfig::default()
    };
    let server = Setup {
        http,
        gallery: Some(new_gallery().await),
        ..Setup::tiny()
    }
    .start()
    .await;
    let preflight = server
        .client
        .request(Method::OPTIONS, server.url("/v1/embed"))
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type",
        );
    let response = ok(preflight).await;
    assert_eq!(
        response.headers()["access-control-allow-origin"],
        "https://app.example"
    );
    let allowed = response.headers()["access-control-allow-headers"]
        .to_str()
        .unwrap();
    assert!(allowed.contains("authorization") && allowed.contains("traceparent"));
    let write = |origin| server.delete("/v1/gallery/x").header("origin", origin);
    assert_eq!(problem(write("https://app.example")).await.0, 404);
    assert_eq!(problem(write("https://evil.example")).await.0, 403);
    server.stopped().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_named() {
    let http = HttpConfig {
        max_header_bytes: 1000,
        ..HttpConfig::default()
    };
    let server = Setup {
        http,
        ..Setup::tiny()
    }
    .start()
    .await;
    ok(server.get("/v1/models").header("x-filler", "x".repeat(500))).await;
    let before = counted("head_too_large");
    let (status, body) = problem(
        server
            .get("/v1/models")
            .header("x-filler", "x".repeat(1000)),
    )
    .await;
    assert_eq!(
        (status, body["code"].as_str()),
        (431, Some("head_too_large"))
    );
    assert_eq!(body["limit"]["flag"], "--max-header-bytes");
    assert_eq!(counted("head_too_large") - before, 1);
    server.stopped().await;
}

/// Minutes may pass between reading the file and the first request, if a model is downloaded.
#[tokio::test]
async fn keys_that_change_while_the_server_starts_are_read() {
    let keys = Keys::new();
    let opened = keys.open();
    let NewKey { secret, entry } = NewKey::random("newcomer", Role::Read, None, None).unwrap();
    replace(&keys.file, &entry);
    let mut setup = Setup {
        keys: Some(opened),
        ..Setup::tiny()
    };
    setup.serve.reload_interval = Duration::from_secs(3600);
    let server = setup.start().await;
    let status = async |key: &str| {
        server
            .get("/v1/models")
            .bearer_auth(key)
            .send()
            .await
            .unwrap()
            .status()
    };
    until(async || status(&secret).await == 200).await;
    assert_eq!(status(&keys.read).await, 401, "it is revoked");
    server.stopped().await;
}

/// Makes a key, starts the server with its file, and finds no secret in the log.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_by_command_and_appear_in_no_log() {
    let file = scratch("keys").join("keys.toml");
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_dinoserve"))
        .args([
            "keys",
            "new",
            "--name",
            "shop",
            "--role",
            "write",
            "--requests-per-minute",
            "600",
        ])
        .output()
        .unwrap();
    assert!(made.status.success());
    std::fs::write(&file, &made.stdout).unwrap();
    let printed = String::from_utf8(made.stderr).unwrap();
    let secret = printed
        .split_whitespace()
        .find(|word| word.starts_with("ds_"))
        .expect("the key")
        .to_owned();
    assert!(!String::from_utf8_lossy(&made.stdout).contains(&secret));

    let mut process = Process::start(&["--api-keys", file.to_str().unwrap()]);
    let client = crate::support::client::client();
    let ask = |key: &str| {
        client
            .get(format!("{}/v1/models", process.url))
            .bearer_auth(key.to_owned())
            .send()
    };
    assert_eq!(ask(&secret).await.unwrap().status(), 200);
    assert_eq!(ask("ds_guessed").await.unwrap().status(), 401);
    let models = ok_json(
        client
            .get(format!("{}/v1/models", process.url))
            .bearer_auth(&secret),
    )
    .await;
    assert_eq!(models["data"][0]["id"], "tiny-reg");
    // SIGHUP reads a new file at once.
    let entry = NewKey::random("other", Role::Read, None, None).unwrap();
    replace(&file, &entry.entry);
    process.signal("HUP");
    until(async || ask(&secret).await.unwrap().status() == 401).await;
    assert_eq!(ask(&entry.secret).await.unwrap().status(), 200);
    process.signal("TERM");
    assert!(process.wait(Duration::from_secs(10)).success());
    let log = process.log();
    assert!(log.contains("\"key\":\"shop\""), "{log}");
    assert!(
        !log.contains(&secret) && !log.contains(&entry.secret) && !log.contains("ds_guessed"),
        "{log}"
    );
}
