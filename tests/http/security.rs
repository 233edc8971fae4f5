//! Requests that try to harm the server or other clients.

use std::time::Duration;

use dinoserve::{
    gallery::{BasisName, GalleryConfig, ProbeName},
    http::{HttpConfig, access::ApiKeys},
    service::CacheBytes,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    read_golden, scratch,
    server::{Server, Setup, assert_problem, new_gallery, ok, ok_json, problem},
    sha256,
};

/// Sends bytes, and returns the answer until the connection is closed.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    timeout(Duration::from_secs(20), read)
        .await
        .expect("an answer")
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_head_has_one_host_and_whole_line_ends() {
    let server = Server::tiny().await;
    let end = "connection: close\r\n\r\n";
    for (head, status) in [
        (format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{end}"), "200"),
        (format!("GET /healthz HTTP/1.0\r\n{end}"), "200"),
        (format!("GET /healthz HTTP/1.1\r\n{end}"), "400"),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: x\r\nHost: x\r\n{end}"),
            "400",
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: x\r\nHost: y\r\n{end}"),
            "400",
        ),
        (format!("GET /healthz HTTP/1.1\r\nhost:\r\n{end}"), "400"),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: a b\r\n{end}"),
            "400",
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: a, b\r\n{end}"),
            "400",
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: a/b\r\n{end}"),
            "400",
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: u@b\r\n{end}"),
            "400",
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: b\u{fc}\r\n{end}"),
            "400",
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: [::1\r\n{end}"),
            "400",
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: a:b\r\n{end}"),
            "400",
        ),
        (
            format!("GET /healthz HTTP/1.0\r\nhost: a b\r\n{end}"),
            "400",
        ),
        (
            format!("GET http://u@b/healthz HTTP/1.1\r\nhost: b\r\n{end}"),
            "400",
        ),
        (
            format!("GET http://b/healthz HTTP/1.1\r\nhost: b\r\n{end}"),
            "200",
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: [::1]:80\r\n{end}"),
            "200",
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: a_b.example:\r\n{end}"),
            "200",
        ),
        (format!("GET /healthz HTTP/1.1\nhost: x\r\n{end}"), "400"),
        (format!("GET /healthz HTTP/1.1\r\nhost: x\n{end}"), "400"),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\n".to_owned(),
            "400",
        ),
        (
            format!("\nGET /healthz HTTP/1.1\r\nhost: x\r\n{end}"),
            "400",
        ),
    ] {
        let answer = raw(&server, head.as_bytes()).await;
        let found = answer.split(' ').nth(1);
        assert_eq!(found, Some(status), "{head:?}: {answer}");
    }
    // The second request of a connection, after a body with line feeds, in one piece and chunked.
    for body in [
        "content-length: 4\r\n\r\n\n\n\n\n",
        "transfer-encoding: chunked\r\n\r\n2\r\n\n\n\r\n0\r\n\r\n",
    ] {
        let first =
            format!("POST /v1/embed HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n{body}");
        for (second, status) in [("\r\n", "200"), ("\n", "400")] {
            let second = format!("GET /healthz HTTP/1.1\r\nhost: x{second}{end}");
            let answer = raw(&server, format!("{first}{second}").as_bytes()).await;
            let statuses: Vec<&str> = answer
                .match_indices("HTTP/1.1 ")
                .map(|(at, text)| &answer[at + text.len()..at + text.len() + 3])
                .collect();
            assert!(statuses[0].starts_with('4'), "{answer}");
            assert_eq!(statuses[1..], [status], "{body:?} {second:?}: {answer}");
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn browsers_must_not_guess_the_type_of_any_response() {
    let server = Server::tiny_with_gallery().await;
    let paths = [
        "/v1/models",
        "/v1/galleries",
        "/metrics",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/docs/",
        "/",
        "/gallery",
        "/assets/style.css",
        "/assets/none",
        "/v1/unknown",
        "/v1/gallery/none",
        "/v1/embed",
    ];
    for path in paths {
        let response = server.get(path).send().await.unwrap();
        let sniff = response.headers().get("x-content-type-options");
        assert_eq!(
            sniff.map(reqwest::header::HeaderValue::as_bytes),
            Some(&b"nosniff"[..]),
            "{path}"
        );
    }
    let embed = server.post_file("/v1/embed", "dinov2-small-focus/coffee.png");
    assert_eq!(
        ok(embed).await.headers()["x-content-type-options"],
        "nosniff"
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_long_accept_header_is_not_repeated_whole() {
    let server = Server::tiny().await;
    let accept = "text/html, ".repeat(2000);
    let request = server
        .post_file("/v1/embed", "dinov2-small-focus/coffee.png")
        .header("accept", accept);
    let (status, body) = problem(request).await;
    let detail = body["detail"].as_str().unwrap();
    assert!(
        status == 406 && detail.len() < 300 && detail.contains('…'),
        "{body}"
    );
    server.stopped().await;
}

/// Whatever a request says, a message repeats no more than a part of it.
#[tokio::test]
async fn no_message_repeats_a_long_input() {
    let server = Server::tiny_with_gallery().await;
    let coffee = "dinov2-small-focus/coffee.png";
    let long = "a".repeat(4000);
    let spaced = "a b, ".repeat(800);
    let image = |path: String| server.post_file(&path, coffee);
    let json = |path: &str, body: Value| server.post(path).json(&body);
    let typed = |kind: &str| {
        server
            .post("/v1/embed")
            .header("content-type", kind)
            .body("x")
    };
    let method = reqwest::Method::from_bytes(&b"A".repeat(2000)).unwrap();
    let form = |name: &str, text: &str| {
        let form = reqwest::multipart::Form::new().text(name.to_owned(), text.to_owned());
        server.post("/v1/embed").multipart(form)
    };
    let requests = vec![
        server.get(&format!("/{long}")),
        server.get(&format!("/assets/{long}")),
        server.get(&format!("/v1/models/{long}")),
        server.get(&format!("/v1/models/{long}/{long}")),
        server.get(&format!("/v1/gallery/{long}")),
        server.get(&format!("/v1/gallery/{}", &long[..500])),
        server.get(&format!("/v1/gallery/a?gallery={long}")),
        server.get(&format!("/v1/galleries/{long}")),
        server.get(&format!("/v1/probes/{long}")),
        server.get(&format!("/v1/bases/{long}")),
        server.get(&format!("/v1/knn/{long}")),
        server.get(&format!("/v1/gallery?where={long}")),
        server.get(&format!("/v1/gallery?where={{\"{long}\":1}}")),
        server.get(&format!(
            "/v1/gallery?where={{\"metadata\":{{\"{long}\":[]}}}}"
        )),
        server.get(&format!("/v1/gallery?where={{\"label\":{{\"{long}\":1}}}}")),
        server.get(&format!("/v1/gallery?limit={long}")),
        server.post(&format!("/healthz?{long}")),
        server.post(&format!("/v1/gallery/{long}/thumbnail")),
        server.client.request(method, server.url("/v1/embed")),
        typed(&format!("text/{long}")),
        typed(&long),
        typed(&format!("multipart/{long}")),
        server
            .post("/v1/embed")
            .header("content-encoding", &spaced)
            .body("x"),
        image("/v1/embed".to_owned()).header("accept", "text/html, ".repeat(400)),
        image(format!("/v1/embed?{long}=1")),
        image(format!("/v1/embed?{long}=1&{long}=2")),
        image(format!("/v1/embed?size={long}")),
        image(format!("/v1/embed?size={}", spaced.replace(' ', "+"))),
        image(format!("/v1/embed?pooling={long}")),
        image(format!("/v1/embed?normalize={long}")),
        image(format!("/v1/attention?head={long}")),
        image(format!("/v1/similarity?patch={long}")),
        image(format!("/v1/pca?basis={long}")),
        image(format!("/v1/classify?probe={long}")),
        image(format!("/v1/knn?gallery={long}")),
        image(format!("/v1/knn?label={long}")),
        form(&long, "x"),
        form("size", &long),
        json("/v1/embed", json!({"image": long, (long.clone()): 1})),
        json("/v1/embed", json!({(long.clone()): [1]})),
        json("/v1/embed", json!({"pooling": long, "image": ""})),
        json("/v1/embed", json!({"image": {(long.clone()): "x"}})),
        json("/v1/embeddings", json!({"input": long})),
        json(
            "/v1/embeddings",
            json!({"input": format!("data:{long}/{long}"), "model": long}),
        ),
        json(
            "/v1/embeddings",
            json!({"input": format!("https://{long}")}),
        ),
        json(
            "/v1/embeddings",
            json!({"input": "data:,", "model": spaced}),
        ),
        json("/v1/probes", json!({"name": long})),
        json("/v1/probes", json!({"name": "p", "gallery": long})),
        json("/v1/models/load", json!({"model": long})),
        json("/v1/models/load", json!({"model": "x", "precision": long})),
        json(
            "/v1/models/load",
            json!({"model": "x", (long.clone()): long}),
        ),
    ];
    for (index, request) in requests.into_iter().enumerate() {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.text().await.unwrap();
        // With the members of OpenAI's shape, a message is there twice.
        assert!(
            status >= 400 && body.len() < 2000 && !body.contains(&long[..700]),
            "request {index}: {status} {} bytes: {}",
            body.len(),
            &body[..body.len().min(300)]
        );
    }
    // The items of a batch have messages and ids of their own.
    let good = item("good");
    let bad = json!({"id": "x", "image": "", (long.clone()): 1});
    let answer = ok_json(json("/v1/gallery", json!({"items": [good, bad]}))).await;
    assert_eq!(answer["data"][1]["status"], "failed", "{answer}");
    assert!(answer.to_string().len() < 2000, "{answer}");
    let file = reqwest::multipart::Part::bytes(read_golden(coffee));
    let form = reqwest::multipart::Form::new()
        .part("file", file.file_name(long))
        .part(
            "file",
            reqwest::multipart::Part::bytes(read_golden(coffee)).file_name("c"),
        );
    let answer = server.post("/v1/gallery?gallery=files").multipart(form);
    let answer = ok_json(answer).await;
    assert_eq!(answer["data"][0]["status"], "failed", "{answer}");
    assert_eq!(answer["data"][0]["id"], json!(null), "{answer}");
    assert!(answer.to_string().len() < 2000, "{answer}");
    server.stopped().await;
}

fn item(id: &str) -> Value {
    let vector: Vec<f32> = (0..64).map(|n| (n as f32).cos()).collect();
    json!({"id": id, "vector": vector})
}

#[tokio::test]
async fn ids_that_paths_cannot_name_are_refused() {
    let server = Server::tiny_with_gallery().await;
    let stored = ok_json(server.post("/v1/gallery").json(&json!({
        "items": [item("."), item("fine"), item(".."), item("..."), item("a/..")],
    })));
    let data = stored.await["data"].clone();
    for (index, status) in ["failed", "created", "failed", "created", "created"]
        .iter()
        .enumerate()
    {
        assert_eq!(data[index]["status"], *status, "{index}: {data}");
    }
    let detail = data[0]["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("cannot be part of a path"), "{detail}");
    let body = item("x").to_string().replace("\"id\":\"x\",", "");
    for id in [".", "..", "%2e", "%2E%2e", ".%2E"] {
        let length = body.len();
        let request = format!(
            "PUT /v1/gallery/{id} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let answer = raw(&server, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 422 "), "{id}: {answer}");
        for resource in ["bases", "probes", "galleries"] {
            let request = format!(
                "DELETE /v1/{resource}/{id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            );
            let answer = raw(&server, request.as_bytes()).await;
            assert!(
                answer.starts_with("HTTP/1.1 422 "),
                "{resource}/{id}: {answer}"
            );
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn galleries_that_are_being_restored_cannot_be_touched() {
    let server = Server::tiny_with_gallery().await;
    ok(server
        .post("/v1/gallery")
        .json(&json!({"items": [item("a")]})))
    .await;
    let name = "restoring--37a8eec1ce19687d-0123456789abcdef";
    let vector = item("a")["vector"].clone();
    let requests = [
        server.get(&format!("/v1/galleries/{name}")),
        server.delete(&format!("/v1/galleries/{name}")),
        server.get(&format!("/v1/galleries/{name}/snapshot")),
        server
            .put(&format!("/v1/galleries/{name}/snapshot"))
            .body("x"),
        server.get(&format!("/v1/gallery?gallery={name}")),
        server.get(&format!("/v1/gallery/a?gallery={name}")),
        server.delete(&format!("/v1/gallery/a?gallery={name}")),
        server
            .put(&format!("/v1/gallery/a?gallery={name}"))
            .json(&json!({"vector": vector})),
        server
            .post("/v1/gallery")
            .json(&json!({"items": [item("a")], "gallery": name})),
        server.get(&format!("/v1/knn?id=a&gallery={name}")),
        server
            .post("/v1/knn")
            .json(&json!({"vector": vector, "gallery": name})),
        server
            .post("/v1/classify")
            .json(&json!({"vector": vector, "gallery": name})),
        server
            .post("/v1/probes")
            .json(&json!({"name": "p", "gallery": name})),
    ];
    for request in requests {
        let (status, body) = problem(request).await;
        let detail = body["detail"].as_str().unwrap();
        assert!(status == 422 && detail.contains("is reserved"), "{body}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn the_size_of_a_filter_is_limited_on_every_route() {
    let server = Server::tiny_with_gallery().await;
    ok(server
        .post("/v1/gallery")
        .json(&json!({"items": [item("a")]})))
    .await;
    let vector = item("a")["vector"].clone();
    let values = json!({"metadata": {"n": {"any": (0..10_001).collect::<Vec<_>>()}}});
    let members = (0..65).map(|n| (n.to_string(), json!(1))).collect();
    let conditions = json!({"metadata": Value::Object(members)});
    let knn = |filter: &Value| {
        server
            .post("/v1/knn")
            .json(&json!({"vector": vector, "where": filter}))
    };
    let text = conditions.to_string();
    let get = |path: &str| server.get(path).query(&[("where", &text)]);
    let values_flag = "10001 values are more than the limit of 10000";
    let conditions_flag = "65 conditions are more than the limit of 64";
    for (name, request, detail) in [
        ("knn", knn(&values), values_flag),
        ("knn", knn(&conditions), conditions_flag),
        ("page", get("/v1/gallery"), conditions_flag),
        ("neighbors of an item", get("/v1/knn?id=a"), conditions_flag),
    ] {
        assert_problem((name, request, 422, "limit_exceeded", detail)).await;
    }
    let (status, body) = problem(knn(&values)).await;
    let limit =
        json!({"name": "max_filter_values", "value": 10_000, "flag": "--max-filter-values"});
    assert!(status == 422 && body["limit"] == limit, "{body}");
    for path in ["/v1/classify", "/v1/probes"] {
        let request = server.post(path).json(&json!(match path {
            "/v1/classify" => json!({"vector": vector, "where": conditions}),
            _ => json!({"name": "p", "where": conditions}),
        }));
        assert_problem((path, request, 422, "limit_exceeded", conditions_flag)).await;
    }
    let deepest = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    let body =
        format!("{{\"vector\": {vector}, \"where\": {{\"metadata\": {{\"n\": {deepest}}}}}}}");
    let request = server
        .post("/v1/knn")
        .header("content-type", "application/json")
        .body(body);
    let (status, body) = problem(request).await;
    assert!(status == 400 || status == 422, "{body}");
    server.stopped().await;
}

/// Expensive pages occupy permits of their own, so that all other requests are answered.
#[tokio::test(flavor = "multi_thread")]
async fn expensive_pages_leave_threads_to_other_requests() {
    let server = Server::tiny_with_gallery().await;
    let vector = item("a")["vector"].clone();
    let list: Vec<u32> = (100_000..102_000).collect();
    for batch in 0..10 {
        let items: Vec<Value> = (0..30)
            .map(|n| {
                json!({
                    "id": format!("{batch}/{n}"), "vector": vector, "metadata": {"n": list},
                })
            })
            .collect();
        ok(server.post("/v1/gallery").json(&json!({"items": items}))).await;
    }
    let filter = json!({"metadata": {"n": {"any": (1000..5000).collect::<Vec<_>>()}}}).to_string();
    let pages: Vec<_> = (0..300)
        .map(|_| {
            tokio::spawn(
                server
                    .get("/v1/gallery")
                    .query(&[("where", &filter)])
                    .send(),
            )
        })
        .collect();
    for _ in 0..5 {
        ok(server
            .put("/v1/gallery/new")
            .json(&json!({"vector": vector})))
        .await;
        ok(server.get("/v1/gallery/new")).await;
        ok(server.post_file("/v1/embed", "dinov2-small-focus/coffee.png")).await;
        ok(server.post("/v1/knn").json(&json!({"vector": vector}))).await;
    }
    for page in pages {
        let page = page.await.unwrap().unwrap();
        assert_eq!(page.status(), 200);
        assert_eq!(
            page.json::<Value>().await.unwrap(),
            json!({"items": [], "next": null})
        );
    }
    server.stopped().await;
}

fn keys(names: &[(&str, &str)]) -> std::sync::Arc<ApiKeys> {
    let path = scratch("keys").join("keys.toml");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let entry = |(name, role): &(&str, &str)| {
        let hash = sha256(name.as_bytes());
        format!("[[key]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{hash}\"\n")
    };
    std::fs::write(&path, names.iter().map(entry).collect::<String>()).unwrap();
    ApiKeys::open(&path).unwrap()
}

#[tokio::test]
async fn the_time_of_a_map_does_not_reveal_what_other_keys_send() {
    let setup = Setup {
        keys: Some(keys(&[("one", "read"), ("other", "read")])),
        cache: CacheBytes {
            all: 0,
            recent: 32 << 20,
        },
        ..Setup::tiny()
    };
    let server = setup.start().await;
    let is_cached = async |key: &str| {
        let request = server
            .post_file("/v1/pca?size=140", "dinov2-small-focus/chelsea.png")
            .bearer_auth(key);
        let response = ok(request).await;
        let timing = response.headers()["server-timing"].to_str().unwrap();
        timing.contains("inference;dur=0.00")
    };
    assert!(!is_cached("one").await);
    assert!(is_cached("one").await);
    assert!(
        !is_cached("other").await,
        "it has never sent the photograph"
    );
}

#[tokio::test]
async fn snapshots_are_limited_before_their_heads_are_sent() {
    let location = scratch("gallery").to_string_lossy().into_owned();
    let config = GalleryConfig {
        readers: 3,
        ..GalleryConfig::default()
    };
    let mode = dinoserve::gallery::OpenMode::Serve;
    let gallery = dinoserve::gallery::open(&location, &config, mode)
        .await
        .unwrap();
    let server = Setup {
        gallery: Some(gallery),
        keys: Some(keys(&[("one", "read"), ("other", "read"), ("w", "write")])),
        http: HttpConfig {
            max_key_snapshots: 2,
            ..HttpConfig::default()
        },
        ..Setup::tiny()
    }
    .start()
    .await;
    // More than the buffers of a connection hold, so that an unread snapshot stays in progress.
    let text = "x".repeat(15_000);
    for batch in 0..40 {
        let items: Vec<Value> = (0..60)
            .map(|n| {
                let mut item = item(&format!("{batch}/{n}"));
                item["metadata"] = json!({"text": text});
                item
            })
            .collect();
        let request = server.post("/v1/gallery").json(&json!({"items": items}));
        ok(request.bearer_auth("w")).await;
    }
    let get = |key: &str| {
        server
            .get("/v1/galleries/default/snapshot")
            .bearer_auth(key)
    };
    let first = ok(get("one")).await;
    let second = ok(get("one")).await;
    let assert_refused = async |key: &str, name: &str, value: u64, flag: &str| {
        let response = get(key).send().await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        let body: Value = response.json().await.unwrap();
        let limit = json!({"name": name, "value": value, "flag": flag});
        assert_eq!(
            (&body["code"], &body["limit"]),
            (&json!("overloaded"), &limit),
            "{body}"
        );
    };
    assert_refused("one", "max_key_snapshots", 2, "--max-key-snapshots").await;
    let third = ok(get("other")).await;
    assert_refused("other", "gallery_readers", 3, "--gallery-readers").await;
    // A snapshot that is received frees its place, and one that is abandoned, too.
    assert!(first.bytes().await.unwrap().len() > 2400 * 15_000);
    drop(second);
    for _ in 0..100 {
        if get("one").send().await.unwrap().status() == 200 {
            drop(third);
            return server.stopped().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no place became free");
}

#[tokio::test]
async fn a_snapshot_that_does_not_fit_the_served_model_is_refused() {
    let server = Server::tiny_with_gallery().await;
    let photo = || {
        server
            .put("/v1/gallery/photo")
            .header("content-type", "image/png")
            .body(read_golden("dinov2-small-focus/coffee.png"))
    };
    ok(photo()).await;
    let path = "/v1/galleries/default/snapshot";
    let snapshot = ok(server.get(path)).await.bytes().await.unwrap();
    let edited = |from: &str, to: &str| {
        let header_bytes = u32::from_le_bytes(*snapshot[12..].first_chunk().unwrap()) as usize;
        let header = String::from_utf8(snapshot[16..16 + header_bytes].to_vec()).unwrap();
        assert!(header.contains(from), "{header}");
        let header = header.replace(from, to);
        let mut file = snapshot[..12].to_vec();
        file.extend((header.len() as u32).to_le_bytes());
        file.extend(header.as_bytes());
        let rest = &snapshot[16 + header_bytes..snapshot.len() - 32];
        file.extend_from_slice(rest);
        let digest = <sha2::Sha256 as sha2::Digest>::digest(&file);
        file.extend_from_slice(&digest);
        file
    };
    for (from, to, status, reason) in [
        (
            "\"layers\":1",
            "\"layers\":1099511627776",
            400,
            "a model has 1 to 4",
        ),
        (
            "\"layers\":1",
            "\"layers\":2",
            422,
            "its vectors have 64 values, and the model makes 128",
        ),
        (
            "\"dim\":64",
            "\"dim\":1",
            422,
            "its vectors have 1 values, and the model makes 64",
        ),
        (
            "\"dim\":64",
            "\"dim\":4611686018427387904",
            400,
            "`dim` is 4611686018427387904",
        ),
        (
            "\"pooling\":\"cls\"",
            "\"pooling\":\"cls_mean\"",
            422,
            "the model makes 128",
        ),
        (
            "\"size\":",
            "\"size\":1",
            422,
            "is not a multiple of the patch size 14",
        ),
    ] {
        let (found, body) = problem(server.put(path).body(edited(from, to))).await;
        let detail = body["detail"].as_str().unwrap();
        assert!(found == status && detail.contains(reason), "{to}: {body}");
        ok(photo()).await;
    }
    let restored = ok_json(
        server
            .put(path)
            .body(edited("\"layers\":1", "\"layers\":1")),
    )
    .await;
    assert_eq!(restored["items"], 1);
    ok(photo()).await;
    server.stopped().await;
}

/// Documents that another program, a damaged disk or an attacker wrote.
#[tokio::test]
async fn damaged_documents_are_refused_with_the_reason() {
    let gallery = new_gallery().await;
    let probe = ProbeName::new("p").unwrap();
    let basis = BasisName::new("b").unwrap();
    let server = Setup {
        gallery: Some(gallery.clone()),
        ..Setup::tiny()
    }
    .start()
    .await;
    let image = || read_golden("dinov2-small-focus/coffee.png");
    let post = |path: &str| {
        server
            .post(path)
            .header("content-type", "image/png")
            .body(image())
    };
    let put = server
        .put("/v1/bases/b?components=3")
        .header("content-type", "image/png");
    ok(put.body(image())).await;
    let good = gallery.document((&basis).into()).await.unwrap().unwrap();
    let edited = |from: &str, to: &str| {
        let at = good
            .windows(from.len())
            .position(|text| text == from.as_bytes());
        let at = at.unwrap_or_else(|| panic!("no {from}"));
        let mut file = good.to_vec();
        file[at..at + to.len()].copy_from_slice(to.as_bytes());
        file
    };
    let mut infinite = good.to_vec();
    // The first tensor is the mean.
    let tensors = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    infinite[tensors..tensors + 8].fill(0xff);
    for (document, reason) in [
        (b"none".to_vec(), "a stored basis is damaged"),
        (good[..good.len() / 2].to_vec(), "a stored basis is damaged"),
        (edited("\"images\":\"1\"", "\"images\":\"x\""), ""),
        (infinite, "a value is not finite"),
    ] {
        gallery
            .put_document((&basis).into(), document.into())
            .await
            .unwrap();
        let requests = match reason {
            // Only what adds images reads the count.
            "" => vec![post("/v1/bases/b")],
            _ => vec![
                server.get("/v1/bases/b"),
                post("/v1/pca?basis=b"),
                post("/v1/bases/b"),
            ],
        };
        for request in requests {
            let (status, body) = problem(request).await;
            assert_eq!(
                (status, &body["code"]),
                (422, &json!("damaged_data")),
                "{body}"
            );
            assert!(body["detail"].as_str().unwrap().contains(reason), "{body}");
        }
        ok(server.get("/v1/bases")).await;
    }
    gallery
        .put_document((&probe).into(), b"none"[..].into())
        .await
        .unwrap();
    for request in [server.get("/v1/probes/p"), post("/v1/classify?probe=p")] {
        let (status, body) = problem(request).await;
        assert_eq!(
            (status, &body["code"]),
            (422, &json!("damaged_data")),
            "{body}"
        );
    }
    ok(server.get("/v1/probes")).await;
    ok(server.delete("/v1/probes/p")).await;
    ok(server.delete("/v1/bases/b")).await;
    server.stopped().await;
}
