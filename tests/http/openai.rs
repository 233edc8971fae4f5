//! `/v1/embeddings`: the response that OpenAI's clients expect, checked by hand and with their
//! Python package.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dinoserve::http::HttpConfig;
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
    let model = server.engine.spec().name.clone();
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
    let tokens = 257 + server.engine.spec().architecture.registers;
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
            "`input`: not base64",
        ),
        (
            json!({"input": [file, 7]}),
            400,
            "`input[1]` must be a base64 string or data: URI",
        ),
        (json!({"input": []}), 400, "`input` contains no image"),
        (json!({"input": {}}), 400, "`input` must be a base64 string"),
        (json!({"model": model}), 400, "`input` contains no image"),
        (
            json!({"input": [file, BASE64_STANDARD.encode("no image")]}),
            422,
            "input 1: ",
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
async fn the_official_python_client_works() {
    let Some(python) = Python::find("openai::the_official_python_client_works") else {
        return;
    };
    let server = Server::start(focus().clone(), HttpConfig::default()).await;
    let script = r#"
import base64, json, sys
from pathlib import Path
from openai import NotFoundError, OpenAI

client = OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
image = "data:image/png;base64," + base64.b64encode(Path(sys.argv[2]).read_bytes()).decode()
one = client.embeddings.create(model="dinov2-small-focus", input=image)
# The package requests base64 by default, and returns numbers either way.
two = client.embeddings.create(
    model="dinov2-small-focus", input=[image, image], encoding_format="float"
)
try:
    client.embeddings.create(model="text-embedding-3-small", input=image)
    sys.exit("a model that is not here was accepted")
except NotFoundError as error:
    assert "this server runs" in str(error), error
assert max(abs(a - b) for a, b in zip(one.data[0].embedding, two.data[1].embedding)) < 1e-6
models = [m.id for m in client.models.list()]
vector = two.data[0].embedding
print(json.dumps({"vector": vector, "tokens": one.usage.total_tokens, "models": models}))
"#;
    let image = crate::support::golden(CHELSEA)
        .to_string_lossy()
        .into_owned();
    let output = python.run(&["-c", script, &server.url(""), &image]).await;
    let answer: serde_json::Value = serde_json::from_str(&output).unwrap();
    let own =
        floats(&ok_json(server.post_file("/v1/embed", CHELSEA)).await["data"][0]["embedding"]);
    assert_eq!(floats(&answer["vector"]), own);
    assert_eq!(
        (&answer["tokens"], &answer["models"]),
        (&json!(257), &json!(["dinov2-small-focus"]))
    );
}
