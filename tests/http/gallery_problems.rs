//! Bad requests about galleries: each gets the right status and a body that names what is wrong,
//! and nothing is stored.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dinoserve::http::HttpConfig;
use reqwest::{
    RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::support::{
    read_golden,
    server::{Server, new_gallery, ok, ok_json, problem},
    tiny,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";

#[tokio::test]
async fn each_bad_request_is_told_what_is_wrong_and_nothing_is_stored() {
    let config = HttpConfig {
        max_images: 3,
        ..HttpConfig::default()
    };
    let server = Server::start_on(
        new_gallery().await,
        tiny("tiny-reg", "model.safetensors"),
        config,
    )
    .await;
    let good: Vec<f32> = (0..64).map(|n| n as f32).collect();
    ok(server.put("/v1/gallery/one").json(&json!({"vector": good}))).await;
    let before = ok_json(server.get("/v1/gallery?limit=50")).await;

    let put = |body: Value| server.put("/v1/gallery/x").json(&body);
    let vector = |vector: Value| put(json!({"vector": vector}));
    let text = |method: RequestBuilder, body: &str| {
        method
            .header("content-type", "application/json")
            .body(body.to_owned())
    };
    let knn = |body: Value| server.post("/v1/knn").json(&body);
    let get = |path: &str| server.get(path);
    let query = |name: &str, value: &str| {
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        server.get(&format!("/v1/gallery?{name}={encoded}"))
    };
    let image = |path: &str| server.post_file(path, CHELSEA);
    let items = |items: Value| server.post("/v1/gallery").json(&json!({"items": items}));
    let item = |id: &str| json!({"id": id, "vector": good});
    let part = |name: &str| Part::bytes(read_golden(CHELSEA)).file_name(name.to_owned());
    let form = |listing: &str| {
        server.post("/v1/gallery").multipart(
            Form::new()
                .part("a", part("a"))
                .text("items", listing.to_owned()),
        )
    };
    let encoded = BASE64_STANDARD.encode(read_golden(CHELSEA));
    let with = |at: usize, value: Value| {
        let mut vector: Vec<Value> = good.iter().map(|&v| json!(v)).collect();
        vector[at] = value;
        Value::Array(vector)
    };
    let nan = format!("{{\"vector\": [NaN{}]}}", ", 0".repeat(63));
    let overflow = format!("{{\"vector\": [1e999{}]}}", ", 0".repeat(63));
    let long = "a".repeat(513);

    #[rustfmt::skip]
    let cases: Vec<(&str, RequestBuilder, u16, &str, &str)> = vec![
        ("wrong dimension", vector(json!([1, 2, 3])), 422, "invalid_option", "option `vector`: has 3 values; the vectors of this gallery have 64"),
        ("empty vector", vector(json!([])), 422, "invalid_option", "option `vector`: has 0 values"),
        ("null in a vector", vector(with(1, Value::Null)), 422, "invalid_option", "option `vector`: no list of numbers: invalid type: null"),
        ("text in a vector", vector(with(1, json!("1"))), 422, "invalid_option", "option `vector`: no list of numbers: invalid type: string \"1\""),
        ("vector no list", vector(json!("abc")), 422, "invalid_option", "option `vector`: no list of numbers"),
        ("infinite in single precision", vector(with(5, json!(1e39))), 422, "invalid_option", "option `vector`: no list of numbers: number out of range"),
        ("infinite", text(server.put("/v1/gallery/x"), &overflow), 422, "invalid_option", "option `vector`: no list of numbers: number out of range"),
        ("NaN", text(server.put("/v1/gallery/x"), &nan), 400, "malformed_request", "NaN and Infinity are no JSON"),
        ("zero vector", vector(json!(vec![0; 64])), 422, "invalid_option", "option `vector`: all values are 0, so it has no direction"),
        ("vector twice", text(server.put("/v1/gallery/x"), r#"{"vector": [1], "vector": [1]}"#), 422, "invalid_option", "option `vector`: given twice"),
        ("vector and image", put(json!({"vector": good, "image": encoded})), 400, "malformed_request", "an image and a `vector`; send one of the two"),
        ("two images for an item", put(json!({"images": [encoded, encoded]})), 400, "malformed_request", "an item has one image, not 2"),
        ("neither", put(json!({"label": "x"})), 400, "malformed_request", "the request holds neither an image nor a `vector`"),
        ("undecodable", put(json!({"image": BASE64_STANDARD.encode("no")})), 422, "undecodable_image", "are not an image"),
        ("unknown fingerprint", put(json!({"vector": good, "fingerprint": "abc"})), 409, "conflict", "and these are of another model (abc)"),
        ("fingerprint for a new gallery", put(json!({"vector": good, "fingerprint": "abc", "gallery": "new"})), 409, "conflict", "there is no gallery `new` yet, and this server makes galleries for features of tiny-reg"),
        ("size for a new gallery", put(json!({"vector": good, "size": 225, "gallery": "new"})), 422, "invalid_option", "option `size`: 225 is not a multiple of the patch size 14"),
        ("layers for a new gallery", put(json!({"vector": good, "layers": 3, "gallery": "new"})), 422, "invalid_option", "option `layers`: 3 is out of range; it must be 1 to 2"),
        ("oversize metadata", put(json!({"vector": good, "metadata": {"a": "x".repeat(16 << 10)}})), 413, "too_large", "the metadata takes 16392 bytes of JSON, more than the limit of 16384"),
        ("enormous metadata", put(json!({"vector": good, "metadata": {"a": "x".repeat(1 << 20)}})), 413, "too_large", "option `metadata` is 1048584 bytes long, more than the limit of 131072"),
        ("enormous metadata as text", put(json!({"vector": good, "metadata": "x".repeat(1 << 20)})), 413, "too_large", "option `metadata` is"),
        ("metadata no object", put(json!({"vector": good, "metadata": 5})), 422, "invalid_option", "option `metadata`: must be a JSON object"),
        ("metadata no JSON", put(json!({"vector": good, "metadata": "{year}"})), 422, "invalid_option", "option `metadata`: no JSON"),
        ("metadata too deep", put(json!({"vector": good, "metadata": (0..200).fold(json!(1), |inner, _| json!({"a": inner}))})), 422, "invalid_option", "option `metadata`: recursion limit exceeded"),
        ("NUL in metadata", put(json!({"vector": good, "metadata": {"a": "\0"}})), 422, "invalid_option", "option `metadata`: holds a NUL character"),
        ("long label", put(json!({"vector": good, "label": "a".repeat(257)})), 422, "invalid_option", "option `label`: 257 bytes long; a label has 1 to 256"),
        ("empty label", put(json!({"vector": good, "label": ""})), 422, "invalid_option", "option `label`: empty"),
        ("long id", server.put(&format!("/v1/gallery/{long}")).json(&json!({"vector": good})), 422, "invalid_option", "option `id`: 513 bytes long; an id has 1 to 512 bytes"),
        ("id not UTF-8", get("/v1/gallery/%FF"), 400, "malformed_request", "the path is not UTF-8"),
        ("id not UTF-8 in a query", get("/v1/knn?id=%FF"), 400, "malformed_request", "the query is not UTF-8"),
        ("no id", server.put("/v1/gallery/").json(&json!({"vector": good})), 404, "not_found", "there is no /v1/gallery/"),
        ("bad gallery name", get("/v1/gallery?gallery=No"), 422, "invalid_option", "option `gallery`: \"No\" is no name; names have 1 to 64 of a-z"),
        ("bad gallery name in a path", get("/v1/galleries/No"), 422, "invalid_option", "\"No\" is no name"),
        ("unknown option", put(json!({"vector": good, "lable": "x"})), 422, "invalid_option", "option `lable`: there is no such option here; there are gallery, label, metadata"),
        ("option where there is none", get("/v1/galleries?k=1"), 422, "invalid_option", "option `k`: there are no options here"),

        ("unknown item", get("/v1/gallery/nobody"), 404, "not_found", "nobody"),
        ("unknown item's thumbnail", get("/v1/gallery/nobody/thumbnail"), 404, "not_found", "nobody"),
        ("unknown item's deletion", server.delete("/v1/gallery/nobody"), 404, "not_found", "the gallery `default` has no item \"nobody\""),
        ("unknown item's neighbors", get("/v1/knn?id=nobody"), 404, "not_found", "nobody"),
        ("unknown gallery", get("/v1/gallery?gallery=none"), 404, "not_found", "none"),
        ("item of an unknown gallery", get("/v1/gallery/one?gallery=none"), 404, "not_found", "none"),
        ("deletion from an unknown gallery", server.delete("/v1/gallery/one?gallery=none"), 404, "not_found", "none"),
        ("neighbors in an unknown gallery", get("/v1/knn?id=one&gallery=none"), 404, "not_found", "none"),
        ("image in an unknown gallery", image("/v1/knn?gallery=none"), 404, "not_found", "none"),
        ("class in an unknown gallery", image("/v1/classify?gallery=none"), 404, "not_found", "none"),
        ("deletion of an unknown gallery", server.delete("/v1/galleries/none"), 404, "not_found", "none"),
        ("snapshot of an unknown gallery", get("/v1/galleries/none/snapshot"), 404, "not_found", "none"),

        ("no id to ask about", get("/v1/knn"), 422, "invalid_option", "option `id`: there is none; name the item"),
        ("empty id", get("/v1/knn?id="), 422, "invalid_option", "option `id`: empty"),
        ("k is 0", get("/v1/knn?id=one&k=0"), 422, "invalid_option", "option `k`: 0 is out of range; it must be 1 to 100"),
        ("k too large", get("/v1/knn?id=one&k=101"), 422, "limit_exceeded", "option `k`: 101 is out of range; it must be 1 to 100"),
        ("k is 0 for an image", image("/v1/knn?k=0"), 422, "invalid_option", "option `k`: 0 is out of range; it must be 1 to 100"),
        ("k too large for a vote", image("/v1/classify?k=9999999999"), 422, "limit_exceeded", "option `k`: 9999999999 is out of range"),
        ("k no number", get("/v1/knn?id=one&k=many"), 422, "invalid_option", "option `k`: invalid type: string \"many\""),
        ("query of a wrong dimension", knn(json!({"vector": [1, 2]})), 422, "invalid_option", "option `vector`: has 2 values; the vectors of this gallery have 64"),
        ("query of zeros", knn(json!({"vector": vec![0; 64]})), 422, "invalid_option", "all values are 0"),
        ("query of nothing", knn(json!({})), 400, "malformed_request", "neither an image nor a `vector`"),
        ("bad images only", knn(json!({"images": ["bm8=", "bm8="]})), 422, "undecodable_image", "image 0: "),
        ("option of another route", image("/v1/knn?vote=majority"), 422, "invalid_option", "option `vote`: there is no such option here"),
        ("bad vote", image("/v1/classify?vote=all"), 422, "invalid_option", "option `vote`: unknown variant `all`, expected `weighted` or `majority`"),
        ("temperature 0", image("/v1/classify?temperature=0"), 422, "invalid_option", "option `temperature`: 0 is not above 0"),
        ("min_score above 1", image("/v1/classify?min_score=1.5"), 422, "invalid_option", "option `min_score`: 1.5 is out of range; it must be -1 to 1"),

        ("limit 0", get("/v1/gallery?limit=0"), 422, "invalid_option", "option `limit`: 0 is out of range; it must be 1 to 100"),
        ("limit too large", get("/v1/gallery?limit=101"), 422, "limit_exceeded", "option `limit`: 101 is out of range; it must be 1 to 100"),
        ("bad cursor", get("/v1/gallery?cursor=abc"), 422, "invalid_option", "option `cursor`: not one of ours"),
        ("bad cursor of the right length", get("/v1/gallery?cursor=AgAAAAAAAAAR"), 422, "invalid_option", "option `cursor`: not one of ours"),
        ("empty cursor", get("/v1/gallery?cursor="), 422, "invalid_option", "option `cursor`: not one of ours"),
        ("filter no JSON", query("where", "{label}"), 422, "invalid_option", "option `where`: no JSON"),
        ("filter no object", query("where", "[1]"), 422, "invalid_option", "option `where`: a filter is {\"label\": …, \"metadata\": {\"member\": …}}"),
        ("filter by what is not there", query("where", r#"{"place": 1}"#), 422, "invalid_option", "option `where`: \"place\" is not as it should be"),
        ("filter with a bad operator", query("where", r#"{"metadata": {"year": {"above": 1}}}"#), 422, "invalid_option", "\"above\" is no operator"),
        ("filter in JSON", knn(json!({"vector": good, "where": {"metadata": 5}})), 422, "invalid_option", "option `where`: \"metadata\" is not as it should be"),
        ("label twice", get("/v1/gallery?label=a&where=%7B%22label%22%3A%22b%22%7D"), 422, "invalid_option", "option `label`: stands in `where`, too"),

        ("duplicate ids", items(json!([item("a"), item("b"), item("a")])), 422, "invalid_option", "option `id`: \"a\" stands at items 0 and 2"),
        ("duplicate file names", server.post("/v1/gallery").multipart(Form::new().part("a", part("x")).part("b", part("x"))), 422, "invalid_option", "option `id`: \"x\" stands at items 0 and 1"),
        ("too many items", items(json!([item("a"), item("b"), item("c"), item("d")])), 413, "too_large", "more than 3 items"),
        ("too many files", server.post("/v1/gallery").multipart((0..4).fold(Form::new(), |form, n| form.part("a", part(&n.to_string())))), 413, "too_large", "more than 3 images"),
        ("no items", items(json!([])), 400, "malformed_request", "the request holds no item"),
        ("items no list", items(json!({})), 400, "malformed_request", "a list of objects in `items`"),
        ("items as text", items(json!("a")), 400, "malformed_request", "a list of objects in `items`"),
        ("raw batch", image("/v1/gallery"), 415, "unsupported_media_type", "several items do not fit a raw body"),
        ("listing of another length", form("[{}, {}]"), 422, "invalid_option", "option `items`: lists more items than there are files, which are 1"),
        ("listing no list", form("{}"), 422, "invalid_option", "option `items`: no JSON list"),
        ("batch of another kind", server.post("/v1/gallery?pooling=mean").json(&json!({"items": [item("a")]})), 409, "conflict", "was made with pooling=cls and not pooling=mean"),
        ("wrong method", server.put("/v1/gallery"), 405, "method_not_allowed", "/v1/gallery does not take PUT"),
        ("no snapshot", server.put("/v1/galleries/default/snapshot").body("hello, this is no snapshot at all"), 400, "malformed_request", "this is no snapshot of a gallery"),
    ];
    for (name, request, status, code, detail) in cases {
        let (found, body) = problem(request).await;
        assert_eq!(
            (found, body["code"].as_str()),
            (status, Some(code)),
            "{name}: {body}"
        );
        assert!(
            body["detail"].as_str().expect("a detail").contains(detail),
            "{name}: {body}"
        );
    }
    assert_eq!(ok_json(server.get("/v1/gallery?limit=50")).await, before);
    assert_eq!(
        ok_json(server.get("/v1/galleries")).await["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let (_, body) = problem(get("/v1/knn?id=one&k=0")).await;
    assert_eq!(
        body["limit"],
        json!({"name": "max_neighbors", "value": 100, "flag": "--max-neighbors"})
    );
    let (_, body) = problem(get("/v1/gallery?limit=101")).await;
    assert_eq!(
        body["limit"],
        json!({"name": "max_page_items", "value": 100, "flag": "--max-page-items"})
    );
}

#[tokio::test]
async fn an_empty_gallery_has_no_neighbors() {
    let server = Server::tiny_with_gallery().await;
    ok(server
        .put("/v1/gallery/one")
        .json(&json!({"vector": vec![1; 64]})))
    .await;
    ok(server.delete("/v1/gallery/one")).await;
    let answer = ok_json(server.post_file("/v1/knn", CHELSEA)).await;
    assert_eq!(answer["neighbors"], json!([]));
    let answer = ok_json(server.post_file("/v1/classify", CHELSEA)).await;
    assert_eq!(
        (&answer["label"], &answer["probabilities"]),
        (&Value::Null, &json!([]))
    );
    assert_eq!(
        ok_json(server.get("/v1/gallery")).await,
        json!({"items": [], "next": null})
    );
}

#[tokio::test]
async fn a_server_without_a_gallery_says_how_to_get_one() {
    let server = Server::tiny().await;
    for request in [
        server.get("/v1/gallery"),
        server.get("/v1/galleries"),
        server.get("/v1/gallery/x"),
        server.get("/v1/knn?id=x"),
        server.post_file("/v1/knn", CHELSEA),
        server.post_file("/v1/classify", CHELSEA),
        server.put("/v1/gallery/x").json(&json!({"vector": [1]})),
        server.get("/v1/galleries/default/snapshot"),
    ] {
        let (status, body) = problem(request).await;
        assert_eq!(status, 404, "{body}");
        assert!(
            body["detail"]
                .as_str()
                .unwrap()
                .contains("start it with --gallery DIR"),
            "{body}"
        );
    }
}
