//! Items whose id is stored already: `on_conflict`, `If-None-Match`, and ids made from the content.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{
    RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{
    read_golden,
    server::{Server, ok_json, problem},
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";
const COFFEE: &str = "dinov2-small-focus/coffee.png";
const ROCKET: &str = "dinov2-small-focus/rocket.jpg";

/// A form with files that have one name, as iOS names photographs.
fn form(files: &[&str]) -> Form {
    files.iter().fold(Form::new(), |form, file| {
        let part = Part::bytes(read_golden(file)).file_name("image.jpg");
        form.part("image", part)
    })
}

fn sha256(file: &str) -> String {
    let digest = Sha256::digest(read_golden(file));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn vector(server: &Server, path: &str, value: f32, label: &str) -> RequestBuilder {
    let mut vector = vec![1.0; 64];
    vector[0] = value;
    server
        .put(path)
        .json(&json!({"vector": vector, "label": label}))
}

/// The status and the id of each item of a batch's answer.
fn outcomes(answer: &Value) -> Vec<(&str, &str)> {
    let items = answer["data"].as_array().unwrap().iter();
    items
        .map(|item| {
            (
                item["status"].as_str().unwrap(),
                item["id"].as_str().unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn photographs_of_one_name_replace_each_other_only_by_default() {
    let server = Server::tiny_with_gallery().await;
    let send = |query: &str, files: &[&str]| {
        let request = server.post(&format!("/v1/gallery?{query}"));
        request.multipart(form(files))
    };
    let answer = ok_json(send("gallery=a", &[CHELSEA])).await;
    assert_eq!(outcomes(&answer), [("created", "image.jpg")]);
    let first = ok_json(server.get("/v1/gallery/image.jpg?gallery=a&vector=true")).await;

    let answer = ok_json(send("gallery=a&on_conflict=skip", &[COFFEE])).await;
    assert_eq!(outcomes(&answer), [("skipped", "image.jpg")]);
    let answer = ok_json(send("gallery=a&on_conflict=error", &[COFFEE])).await;
    assert_eq!(outcomes(&answer), [("failed", "image.jpg")]);
    let error = &answer["data"][0]["error"];
    assert_eq!(
        (&error["status"], &error["code"]),
        (&json!(409), &json!("conflict"))
    );
    let detail = error["detail"].as_str().unwrap();
    assert!(
        detail.contains("already has an item \"image.jpg\""),
        "{detail}"
    );
    // Neither changed anything.
    let same = ok_json(server.get("/v1/gallery/image.jpg?gallery=a&vector=true")).await;
    assert_eq!(same, first);
    let answer = ok_json(send("gallery=a&on_conflict=replace", &[COFFEE])).await;
    assert_eq!(outcomes(&answer), [("replaced", "image.jpg")]);

    // Within a request the first counts; without an order to rely on, it is rejected.
    let answer = ok_json(send("gallery=b&on_conflict=skip", &[CHELSEA, COFFEE])).await;
    let expected = [("created", "image.jpg"), ("skipped", "image.jpg")];
    assert_eq!(outcomes(&answer), expected);
    let stored = ok_json(server.get("/v1/gallery/image.jpg?gallery=b&vector=true")).await;
    assert_eq!(stored["vector"], first["vector"]);
    let answer = ok_json(send("gallery=c&on_conflict=error", &[CHELSEA, COFFEE])).await;
    assert_eq!(
        outcomes(&answer),
        [("created", "image.jpg"), ("failed", "image.jpg")]
    );
    assert_eq!(problem(send("gallery=d", &[CHELSEA, COFFEE])).await.0, 422);

    let (status, body) = problem(send("on_conflict=merge", &[CHELSEA])).await;
    let detail = body["detail"].as_str().unwrap();
    assert!(
        status == 422 && detail.contains("`replace`, `skip`, `error`"),
        "{detail}"
    );
}

#[tokio::test]
async fn ids_are_made_from_the_content() {
    let server = Server::tiny_with_gallery().await;
    let (chelsea, coffee) = (sha256(CHELSEA), sha256(COFFEE));
    let request = server.post("/v1/gallery?id=sha256");
    let answer = ok_json(request.multipart(form(&[CHELSEA, COFFEE]))).await;
    assert_eq!(
        outcomes(&answer),
        [("created", &*chelsea), ("created", &*coffee)]
    );

    // The same photograph again, in JSON; an id that an item states stays.
    let encoded = |file| BASE64_STANDARD.encode(read_golden(file));
    let body = json!({
        "id": "sha256",
        "on_conflict": "skip",
        "items": [
            {"image": encoded(CHELSEA)},
            {"image": encoded(ROCKET)},
            {"image": encoded(ROCKET)},
            {"image": encoded(COFFEE), "id": "mine"},
        ],
    });
    let answer = ok_json(server.post("/v1/gallery").json(&body)).await;
    let rocket = sha256(ROCKET);
    let expected = [
        ("skipped", &*chelsea),
        ("created", &*rocket),
        ("skipped", &*rocket),
        ("created", "mine"),
    ];
    assert_eq!(outcomes(&answer), expected);
    // Some editors begin a file with a byte order mark.
    let form = form(&[COFFEE])
        .text("items", "\u{feff}[{\"id\": \"mine\"}]")
        .text("id", "sha256");
    let answer = ok_json(server.post("/v1/gallery").multipart(form)).await;
    assert_eq!(outcomes(&answer), [("replaced", "mine")]);

    // A vector has no file.
    let items = json!({"id": "sha256", "items": [{"vector": vec![1.0; 64]}]});
    let answer = ok_json(server.post("/v1/gallery").json(&items)).await;
    let error = &answer["data"][0]["error"]["detail"];
    assert!(
        error.as_str().unwrap().starts_with("option `id`: missing"),
        "{error}"
    );
}

#[tokio::test]
async fn an_item_is_put_only_if_it_is_new() {
    let server = Server::tiny_with_gallery().await;
    let put =
        |query: &str, label: &str| vector(&server, &format!("/v1/gallery/a{query}"), 7.0, label);
    let only_new = |label: &str| put("", label).header("if-none-match", "*");
    let response = only_new("first").send().await.unwrap();
    assert_eq!(response.status(), 201);
    let stored: Value = response.json().await.unwrap();
    assert_eq!(
        (&stored["status"], &stored["created"]),
        (&json!("created"), &json!(true))
    );

    let (status, body) = problem(only_new("second")).await;
    assert_eq!(
        (status, &body["code"]),
        (412, &json!("precondition_failed"))
    );
    let (status, body) = problem(put("?on_conflict=error", "second")).await;
    assert_eq!((status, &body["code"]), (409, &json!("conflict")));
    // The answer to a skipped item describes the stored one.
    let skipped = ok_json(put("?on_conflict=skip", "second")).await;
    let found = (
        &skipped["status"],
        &skipped["label"],
        &skipped["created"],
        &skipped["place"],
    );
    assert_eq!(
        found,
        (&json!("skipped"), &json!("first"), &json!(false), &json!(1))
    );
    assert_eq!(ok_json(server.get("/v1/gallery/a")).await["label"], "first");
    let replaced = ok_json(put("?on_conflict=replace", "second")).await;
    assert_eq!(
        (&replaced["status"], &replaced["label"]),
        (&json!("replaced"), &json!("second"))
    );

    let (status, body) = problem(put("", "x").header("if-none-match", "\"abc\"")).await;
    assert_eq!((status, &body["code"]), (400, &json!("malformed_request")));
    let both = put("?on_conflict=skip", "x").header("if-none-match", "*");
    let (status, body) = problem(both).await;
    let detail = body["detail"].as_str().unwrap();
    assert!(
        status == 422 && detail.contains("cannot be combined"),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_clients_one_creates_the_item() {
    let server = Server::tiny_with_gallery().await;
    for (turn, rest) in [(0, 412), (1, 409)] {
        let puts = (0..16).map(|client| {
            let label = format!("client-{client}");
            let path = format!("/v1/gallery/turn{turn}");
            let request = match turn {
                0 => vector(&server, &path, client as f32, &label).header("if-none-match", "*"),
                _ => {
                    let path = format!("{path}?on_conflict=error");
                    vector(&server, &path, client as f32, &label)
                }
            };
            async move { (label, request.send().await.unwrap().status().as_u16()) }
        });
        let answers = futures_util::future::join_all(puts).await;
        let created: Vec<_> = answers
            .iter()
            .filter(|(_, status)| *status == 201)
            .collect();
        assert_eq!(created.len(), 1, "{answers:?}");
        let others = answers.iter().filter(|(_, status)| *status == rest).count();
        assert_eq!(others, 15, "{answers:?}");
        let item = ok_json(server.get(&format!("/v1/gallery/turn{turn}"))).await;
        assert_eq!(
            item["label"], created[0].0,
            "the item is that of the client with 201"
        );
    }
}
