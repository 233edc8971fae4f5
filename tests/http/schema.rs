//! schemathesis against a live server: valid and invalid requests get responses that conform to the
//! OpenAPI document.

use dinoserve::http::HttpConfig;

use crate::support::{
    python::Python,
    scratch,
    server::{Server, new_gallery, ok},
    tiny,
};

/// Examples of each operation.
const EXAMPLES: &str = "100";

#[tokio::test(flavor = "multi_thread")]
async fn every_response_conforms_to_the_description() {
    let Some(python) = Python::find("schema::schemathesis") else {
        return;
    };
    let server = Server::start_on(
        new_gallery().await,
        tiny("tiny-reg", "model.safetensors"),
        HttpConfig::default(),
    )
    .await;
    for id in ["a", "b", "c"] {
        let file = "dinov2-small-focus/coffee.png";
        let put = server
            .put(&format!("/v1/gallery/{id}?label={id}"))
            .header("content-type", "image/png");
        ok(put.body(crate::support::read_golden(file))).await;
    }
    let arguments = [
        "run",
        &server.url("/openapi.json"),
        "--max-examples",
        EXAMPLES,
        // A schema cannot say that a base64 text is an image, so the server may reject texts that
        // fit the schema.
        "--exclude-checks",
        "positive_data_acceptance",
        "--continue-on-failure",
        "--generation-database",
        "none",
        "--seed",
        "1",
    ];
    // schemathesis writes files into its working directory.
    let folder = scratch("schemathesis");
    let settings = include_str!("schemathesis.toml");
    std::fs::write(folder.join("schemathesis.toml"), settings).unwrap();
    let python = python.in_folder(&folder);
    let printed = python.run_program("schemathesis", &arguments).await;
    let description = serde_json::to_value(dinoserve::http::description()).unwrap();
    let operations = description["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|path| path.as_object().unwrap().len());
    assert!(
        printed.contains(&format!("Tested: {}\n", operations.sum::<usize>())),
        "{printed}"
    );
    // The server still works.
    ok(server.post_file("/v1/embed", "dinov2-small-focus/coffee.png")).await;
    server.stopped().await;
}
