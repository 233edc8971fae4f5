//! `/v1/embeddings`: the response that OpenAI's clients expect, checked by hand and with their
//! Python package.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dinoserve::{
    http::HttpConfig,
    model::{Source, SourceFormat},
};
use serde_json::json;

use crate::support::{
    focus,
    python::Python,
    read_golden,
    server::{Server, floats, ok_json, problem},
    tiny,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";

#[tokio::test]
async fn embeddings_are_those_of_embed() {
    let server = Server::tiny().await;
    let file = BASE64_STANDARD.encode(read_golden(CHELSEA));
    let own =
        floats(&ok_json(server.post_file("/v1/embed", CHELSEA)).await["data"][0]["embedding"]);
    let model = server.engine().spec().name.clone();
    let post = |body| server.post("/v1/embeddings").json(&body);

    let answer = ok_json(post(
        json!({"model": model, "input": format!("data:image/png;base64,{file}")}),
    ))
    .await;
    assert_eq!(
        (answer["object"].as_str(), answer["model"].as_str()),
        (Some("list"), Some(model.as_str()))
    );
    let entry = &answer["data"][0];
    assert_eq!(
        (entry["object"].as_str(), entry["index"].as_u64()),
        (Some("embedding"), Some(0))
    );
    assert_eq!(floats(&entry["embedding"]), own);
    // 16 by 16 patches, CLS and the registers.
    let tokens = 257 + server.engine().spec().architecture.registers;
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": tokens, "total_tokens": tokens})
    );

    let several =
        json!({"input": [file, file], "encoding_format": "base64", "user": "me", "dimensions": 64});
    let answer = ok_json(post(several)).await;
    let bytes = BASE64_STANDARD
        .decode(answer["data"][1]["embedding"].as_str().unwrap())
        .unwrap();
    let found: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!((found, &answer["data"][1]["index"]), (own, &json!(1)));
    // The options of `/v1/embed` apply, too.
    let answer = ok_json(post(
        json!({"input": file, "pooling": "cls_mean", "size": 112}),
    ))
    .await;
    assert_eq!(floats(&answer["data"][0]["embedding"]).len(), 128);

    for (body, status, detail) in [
        (
            json!({"input": file, "model": "gpt-4"}),
            404,
            "unknown model \"gpt-4\"; this server runs",
        ),
        (
            json!({"input": file, "dimensions": 32}),
            422,
            "option `dimensions`: embeddings cannot be shortened; they have 64",
        ),
        (
            json!({"input": file, "tokens": true}),
            422,
            "option `tokens`",
        ),
        (
            json!({"input": "a sentence about a cat"}),
            400,
            "`input` is not an image: \"a sentence about a cat\"; this model embeds images, not \
             text",
        ),
        // Both words are valid base64.
        (
            json!({"input": [file, "nice text"]}),
            400,
            "`input[1]` is not an image: \"nice text\"; this model embeds images, not text; \
             send a data: URI",
        ),
        (
            json!({"input": [file, {"type": "text", "text": "a cat"}]}),
            400,
            "`input[1].text` is not an image; this model embeds images, not text",
        ),
        (
            json!({"input": [[15339, 1917]]}),
            400,
            "`input[0]` must be a base64 string or data: URI; this model embeds images, not tokens",
        ),
        (
            json!({"input": [15339, 1917]}),
            400,
            "`input[0]` must be a base64 string or data: URI; this model embeds images, not tokens",
        ),
        (
            json!({"input": [{"image": file, "image_url": file}]}),
            400,
            "`input[0]` has both `image` and `image_url`; leave one of them out",
        ),
        (
            json!({"input": [{"image": {"url": {"image": {"url": {"url": file}}}}}]}),
            400,
            "`input[0].image.url.image.url` is nested deeper than 4 objects",
        ),
        (
            json!({"input": [{"image_url": {"url": "https://example.org/cat.png"}}]}),
            400,
            "`input[0].image_url.url`: URLs are not fetched",
        ),
        (
            json!({"input": file, "messages": [{"role": "user", "content": file}]}),
            400,
            "the request has both `input` and `messages`",
        ),
        (
            json!({"messages": [{"role": "system", "content": "Represent the image."}]}),
            400,
            "`messages[0].content` is not an image: \"Represent the image.\"",
        ),
        (
            json!({"messages": [
                {"role": "system", "content": "Represent the image."},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": file}}]},
            ]}),
            400,
            "`messages` must hold exactly one image, not several entries",
        ),
        (
            json!({"input": [file, 7]}),
            400,
            "`input[1]` must be a base64 string or data: URI; this model embeds images, not tokens",
        ),
        (json!({"input": []}), 400, "`input` contains no image"),
        (json!({"input": {}}), 400, "`input` must be a base64 string"),
        (json!({"model": model}), 400, "`input` contains no image"),
        (
            json!({"input": [file, data_uri("no image")]}),
            422,
            "input 1: ",
        ),
        (
            json!({"input": [file, BASE64_STANDARD.encode("no image")]}),
            400,
            "`input[1]` is not an image: \"bm8gaW1hZ2U=\"",
        ),
    ] {
        let (found, answer) = problem(post(body.clone())).await;
        assert_eq!(found, status, "{answer}");
        assert!(
            answer["detail"].as_str().unwrap().starts_with(detail),
            "{answer}"
        );
        assert_eq!(
            (&answer["error"]["message"], &answer["error"]["code"]),
            (&answer["detail"], &answer["code"])
        );
    }
    let (status, _) = problem(server.post_file("/v1/embeddings", CHELSEA)).await;
    assert_eq!(status, 415);
    let config = HttpConfig {
        max_images: 1,
        ..HttpConfig::default()
    };
    let small = Server::start(tiny("tiny-reg", "model.safetensors"), config).await;
    let (status, answer) = problem(
        small
            .post("/v1/embeddings")
            .json(&json!({"input": [file, file]})),
    )
    .await;
    assert_eq!(
        (status, answer["limit"]["flag"].as_str()),
        (413, Some("--max-images"))
    );
}

#[tokio::test]
async fn texts_are_named_as_texts() {
    let server = Server::tiny().await;
    let post = |body| server.post("/v1/embeddings").json(&body);
    for text in [
        "",
        " ",
        "cat",
        "nice text",
        "aGVsbG8gd29ybGQ=",
        "hello, world; how are you?",
        "look at https://example.com please",
        "https://example.com is a page",
        "see http://a and http://b",
        "(https://example.com)",
        "://",
        "data: the numbers",
        "data: one, two and three",
        "data:numbers",
        "data%3A the numbers, all of them",
        "database; the, list",
        "/home/me/cat.png",
        "C:\\cat.png",
        "www.example.com/cat.png",
        "12",
        "-1.5e3",
        "true",
        "\u{1f431}\u{1f600}",
        "\u{e4}\u{f6}\u{fc}\n\t",
        "query: what is a cat?",
        "100 %2C %3A",
    ] {
        for (body, name) in [
            (json!({"input": text}), "input"),
            (json!({"input": [text]}), "input[0]"),
            (
                json!({"messages": [{"role": "user", "content": text}]}),
                "messages[0].content",
            ),
        ] {
            let (status, answer) = problem(post(body)).await;
            let detail = answer["detail"].as_str().unwrap();
            let begins = detail.starts_with(&format!("`{name}` is not an image: "));
            let ends = detail.ends_with("this model embeds images, not text; send a data: URI");
            assert!(status == 400 && begins && ends, "{text:?}: {detail}");
        }
    }
    for text in [
        "https://example.com/a.png",
        "S3://bucket/a",
        "git+ssh://a/b",
        "file:///a.png",
    ] {
        let (status, answer) = problem(post(json!({"input": text}))).await;
        let detail = answer["detail"].as_str().unwrap();
        assert!(
            status == 400 && detail.contains("URLs are not fetched"),
            "{text}: {detail}"
        );
    }
    // Of a list that must have one entry, no more than two are read.
    let many = vec![1; 1_000_000];
    for (body, name) in [
        (json!({"messages": many}), "messages"),
        (json!({"input": {"content": many}}), "input.content"),
        (
            json!({"messages": [{"content": many}]}),
            "messages[0].content",
        ),
    ] {
        let (status, answer) = problem(post(body)).await;
        let expected = format!("`{name}` must hold exactly one image, not several entries");
        assert_eq!((status, &answer["detail"]), (400, &json!(expected)));
    }
}

fn data_uri(bytes: impl AsRef<[u8]>) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes))
}

#[tokio::test]
async fn the_shapes_of_other_apis_are_accepted() {
    let server = Server::tiny().await;
    let file = BASE64_STANDARD.encode(read_golden(CHELSEA));
    let uri = data_uri(read_golden(CHELSEA));
    let own =
        floats(&ok_json(server.post_file("/v1/embed", CHELSEA)).await["data"][0]["embedding"]);
    let part = json!({"type": "image_url", "image_url": {"url": uri, "detail": "low"}});
    for body in [
        json!({"input": uri, "encoding_format": null, "dimensions": null, "user": null}),
        json!({"input": {"image": file}}),
        json!({"input": [{"image": file}, {"image": uri}], "normalized": true}),
        json!({"input": [{"text": null, "image": {"url": uri}}], "embedding_type": "float"}),
        json!({"input": part}),
        json!({"input": [part, {"type": "input_image", "image_url": uri}]}),
        json!({"input": [{"content": [part]}, {"content": [part]}]}),
        json!({"messages": [{"role": "user", "content": [part]}]}),
        json!({"messages": [{"role": "user", "content": uri}], "input": null}),
        json!({"input": [{"type": "image_base64", "image_base64": uri}], "dimensions": 64}),
        json!({"input": [{"bytes": file}, file, part]}),
    ] {
        let answer = ok_json(server.post("/v1/embeddings").json(&body)).await;
        let expected = body["input"].as_array().map_or(1, Vec::len);
        let data = answer["data"].as_array().unwrap();
        assert_eq!(data.len(), expected, "{body}");
        for entry in data {
            assert_eq!(floats(&entry["embedding"]), own);
        }
    }
    let plain = json!({"input": file, "normalized": false});
    let answer = ok_json(server.post("/v1/embeddings").json(&plain)).await;
    let raw = ok_json(server.post_file("/v1/embed?normalize=false", CHELSEA)).await;
    assert_eq!(answer["data"][0]["embedding"], raw["data"][0]["embedding"]);
    let text = json!({"input": file, "embedding_type": "base64"});
    let answer = ok_json(server.post("/v1/embeddings").json(&text)).await;
    assert!(answer["data"][0]["embedding"].is_string());
}

#[tokio::test]
async fn models_are_listed_and_found_by_their_names() {
    let mut model = tiny("tiny-reg", "model.safetensors");
    model.spec.sources = vec![
        Source {
            format: SourceFormat::Safetensors,
            file: "model.safetensors".to_owned(),
            url: Some("{hub}/owner/tiny/resolve/main/model.safetensors".to_owned()),
            package: None,
            sha256: None,
        },
        Source {
            format: SourceFormat::Torch,
            file: "tiny_vitx14_pretrain.pth".to_owned(),
            url: None,
            package: None,
            sha256: None,
        },
    ];
    let server = Server::start(model, HttpConfig::default()).await;
    let list = ok_json(server.get("/v1/models")).await;
    assert_eq!(list["object"], "list");
    let listed = &list["data"][0];
    assert_eq!(
        (&listed["id"], &listed["object"]),
        (&json!("tiny-reg"), &json!("model"))
    );
    assert_eq!(listed["owned_by"], "dinoserve");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let created = listed["created"].as_u64().unwrap();
    assert!((now - 300..=now).contains(&created), "{created}");

    let file = BASE64_STANDARD.encode(read_golden(CHELSEA));
    for name in ["tiny-reg", "owner%2Ftiny", "owner/tiny", "tiny_vitx14"] {
        let model = ok_json(server.get(&format!("/v1/models/{name}"))).await;
        assert_eq!(&model, listed, "{name}");
        let body = json!({"input": file, "model": name.replace("%2F", "/")});
        let answer = ok_json(server.post("/v1/embeddings").json(&body)).await;
        assert_eq!(answer["model"], "tiny-reg");
    }
    for name in ["%ff", "owner/%ff"] {
        let (status, answer) = problem(server.get(&format!("/v1/models/{name}"))).await;
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!("malformed_request"))
        );
    }
    for name in [
        "gpt-4",
        "facebook%2Fdinov2-small",
        "facebook/dinov2-small",
        "owner",
        "tiny",
    ] {
        let (status, answer) = problem(server.get(&format!("/v1/models/{name}"))).await;
        let shown = name.replace("%2F", "/");
        let detail = format!("unknown model {shown:?}; this server runs \"tiny-reg\"");
        let found = answer["detail"].as_str().unwrap();
        assert!(status == 404 && found.starts_with(&detail), "{found}");
        assert_eq!(answer["error"]["message"], answer["detail"]);
        let body = json!({"input": file, "model": shown});
        let (status, answer) = problem(server.post("/v1/embeddings").json(&body)).await;
        let found = answer["detail"].as_str().unwrap();
        assert!(status == 404 && found.starts_with(&detail), "{found}");
    }
}

#[tokio::test]
async fn python_clients_of_openai_work() {
    let Some(python) = Python::find("openai::python_clients_of_openai_work") else {
        return;
    };
    let server = Server::start(focus().clone(), HttpConfig::default()).await;
    let image = crate::support::golden(CHELSEA)
        .to_string_lossy()
        .into_owned();
    let script = "tests/clients/openai_clients.py";
    let output = python.run(&[script, &server.url("/v1"), &image]).await;
    let vectors: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&output).unwrap();
    let own =
        floats(&ok_json(server.post_file("/v1/embed", CHELSEA)).await["data"][0]["embedding"]);
    assert_eq!(vectors.len(), 12);
    for (client, vector) in vectors {
        let found: Vec<f32> = floats(&vector);
        assert_eq!(found, own, "{client}");
    }
}
