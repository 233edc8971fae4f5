//! Bad requests about galleries: each gets its status and a problem that names the fault, and
//! nothing is stored.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dinoserve::http::HttpConfig;
use reqwest::{
    RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::support::{
    read_golden,
    server::{BadRequest, Server, assert_problem, new_gallery, ok, ok_json, problem},
    tiny,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";

/// A server whose gallery has one item, and requests to it.
struct Fixture {
    server: Server,
    /// A vector that the gallery takes.
    good: Vec<f32>,
}

impl Fixture {
    async fn start() -> Self {
        let config = HttpConfig {
            max_images: 3,
            ..HttpConfig::default()
        };
        let model = tiny("tiny-reg", "model.safetensors");
        let server = Server::start_on(new_gallery().await, model, config).await;
        let good: Vec<f32> = (0..64).map(|n| n as f32).collect();
        ok(server.put("/v1/gallery/one").json(&json!({"vector": good}))).await;
        Self { server, good }
    }

    /// Sends the requests. Each is rejected as its row says, and nothing is stored.
    async fn assert_rejected(&self, cases: Vec<BadRequest>) {
        let items = ok_json(self.get("/v1/gallery?limit=50")).await;
        for case in cases {
            assert_problem(case).await;
        }
        assert_eq!(ok_json(self.get("/v1/gallery?limit=50")).await, items);
        let galleries = ok_json(self.get("/v1/galleries")).await;
        assert_eq!(galleries["data"].as_array().unwrap().len(), 1);
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.server.get(path)
    }

    fn put(&self, body: Value) -> RequestBuilder {
        self.server.put("/v1/gallery/x").json(&body)
    }

    fn put_text(&self, body: &str) -> RequestBuilder {
        let request = self.server.put("/v1/gallery/x");
        request
            .header("content-type", "application/json")
            .body(body.to_owned())
    }

    fn vector(&self, vector: Value) -> RequestBuilder {
        self.put(json!({"vector": vector}))
    }

    /// The good vector with one value replaced.
    fn with(&self, at: usize, value: Value) -> Value {
        let mut vector = json!(self.good);
        vector[at] = value;
        vector
    }

    fn knn(&self, body: Value) -> RequestBuilder {
        self.server.post("/v1/knn").json(&body)
    }

    fn filter(&self, filter: &str) -> RequestBuilder {
        self.get("/v1/gallery").query(&[("where", filter)])
    }

    fn image(&self, path: &str) -> RequestBuilder {
        self.server.post_file(path, CHELSEA)
    }

    fn item(&self, id: &str) -> Value {
        json!({"id": id, "vector": self.good})
    }

    fn items(&self, items: Value) -> RequestBuilder {
        self.server
            .post("/v1/gallery")
            .json(&json!({"items": items}))
    }

    /// A form with one file for each name.
    fn files(&self, names: &[&str]) -> RequestBuilder {
        let form = names
            .iter()
            .fold(Form::new(), |form, name| form.part("image", file(name)));
        self.server.post("/v1/gallery").multipart(form)
    }

    /// A form with one file and a list of items.
    fn listed(&self, items: &str) -> RequestBuilder {
        let form = Form::new()
            .part("image", file("a"))
            .text("items", items.to_owned());
        self.server.post("/v1/gallery").multipart(form)
    }
}

fn file(name: &str) -> Part {
    Part::bytes(read_golden(CHELSEA)).file_name(name.to_owned())
}

#[tokio::test]
async fn bad_vectors_are_rejected() {
    let t = Fixture::start().await;
    let encoded = BASE64_STANDARD.encode(read_golden(CHELSEA));
    let nan = format!("{{\"vector\": [NaN{}]}}", ", 0".repeat(63));
    let overflow = format!("{{\"vector\": [1e999{}]}}", ", 0".repeat(63));
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("wrong dimension", t.vector(json!([1, 2, 3])),
         422, "invalid_option",
         "option `vector`: has 3 values; the vectors of this gallery have 64"),
        ("empty vector", t.vector(json!([])),
         422, "invalid_option", "option `vector`: has 0 values"),
        ("null in a vector", t.vector(t.with(1, Value::Null)),
         422, "invalid_option", "option `vector`: not a list of numbers: invalid type: null"),
        ("text in a vector", t.vector(t.with(1, json!("1"))),
         422, "invalid_option",
         "option `vector`: not a list of numbers: invalid type: string \"1\""),
        ("vector no list", t.vector(json!("abc")),
         422, "invalid_option", "option `vector`: not a list of numbers"),
        ("infinite in single precision", t.vector(t.with(5, json!(1e39))),
         422, "invalid_option", "option `vector`: not a list of numbers: number out of range"),
        ("infinite", t.put_text(&overflow),
         422, "invalid_option", "option `vector`: not a list of numbers: number out of range"),
        ("NaN", t.put_text(&nan),
         400, "malformed_request", "JSON has no NaN and no Infinity"),
        ("zero vector", t.vector(json!(vec![0; 64])),
         422, "invalid_option", "option `vector`: all values are 0, so it has no direction"),
        ("vector twice", t.put_text(r#"{"vector": [1], "vector": [1]}"#),
         422, "invalid_option", "option `vector`: given twice"),
        ("vector and image", t.put(json!({"vector": t.good, "image": encoded})),
         400, "malformed_request", "both an image and a `vector`; send one of them"),
        ("two images for an item", t.put(json!({"images": [encoded, encoded]})),
         400, "malformed_request", "an item has one image, not 2"),
        ("neither", t.put(json!({"label": "x"})),
         400, "malformed_request", "the request contains neither an image nor a `vector`"),
        ("undecodable", t.put(json!({"image": BASE64_STANDARD.encode("no")})),
         422, "undecodable_image", "are not an image"),
    ];
    t.assert_rejected(cases).await;
}

#[tokio::test]
async fn what_does_not_fit_the_gallery_is_rejected() {
    let t = Fixture::start().await;
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("unknown fingerprint", t.put(json!({"vector": t.good, "fingerprint": "abc"})),
         409, "conflict", "and these are of another model (abc)"),
        ("fingerprint for a new gallery",
         t.put(json!({"vector": t.good, "fingerprint": "abc", "gallery": "new"})),
         409, "conflict",
         "there is no gallery `new` yet, and this request can make one for features of"),
        ("size for a new gallery", t.put(json!({"vector": t.good, "size": 225, "gallery": "new"})),
         422, "invalid_option", "option `size`: 225 is not a multiple of the patch size 14"),
        ("layers for a new gallery",
         t.put(json!({"vector": t.good, "layers": 3, "gallery": "new"})),
         422, "invalid_option", "option `layers`: 3 is out of range; it must be 1 to 2"),
    ];
    t.assert_rejected(cases).await;
}

#[tokio::test]
async fn bad_metadata_labels_and_ids_are_rejected() {
    let t = Fixture::start().await;
    let metadata = |metadata: Value| t.put(json!({"vector": t.good, "metadata": metadata}));
    let deep = (0..200).fold(json!(1), |inner, _| json!({"a": inner}));
    let long = "a".repeat(513);
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("oversize metadata", metadata(json!({"a": "x".repeat(16 << 10)})),
         413, "too_large", "the metadata takes 16392 bytes of JSON, more than the limit of 16384"),
        ("enormous metadata", metadata(json!({"a": "x".repeat(1 << 20)})),
         413, "too_large",
         "option `metadata` is 1048584 bytes long, over the limit of 131072"),
        ("enormous metadata as text", metadata(json!("x".repeat(1 << 20))),
         413, "too_large", "option `metadata` is"),
        ("metadata no object", metadata(json!(5)),
         422, "invalid_option", "option `metadata`: must be a JSON object"),
        ("metadata no JSON", metadata(json!("{year}")),
         422, "invalid_option", "option `metadata`: not valid JSON"),
        ("metadata too deep", metadata(deep),
         422, "invalid_option", "option `metadata`: recursion limit exceeded"),
        ("NUL in metadata", metadata(json!({"a": "\0"})),
         422, "invalid_option", "option `metadata`: holds a NUL character"),
        ("long label", t.put(json!({"vector": t.good, "label": "a".repeat(257)})),
         422, "invalid_option", "option `label`: 257 bytes long; a label has 1 to 256"),
        ("empty label", t.put(json!({"vector": t.good, "label": ""})),
         422, "invalid_option", "option `label`: empty"),
        ("long id", t.server.put(&format!("/v1/gallery/{long}")).json(&json!({"vector": t.good})),
         422, "invalid_option", "option `id`: 513 bytes long; an id has 1 to 512 bytes"),
        ("id not UTF-8", t.get("/v1/gallery/%FF"),
         400, "malformed_request", "the path is not valid"),
        ("id not UTF-8 in a query", t.get("/v1/knn?id=%FF"),
         400, "malformed_request", "the query is not valid"),
        ("no id", t.server.put("/v1/gallery/").json(&json!({"vector": t.good})),
         404, "not_found", "unknown path /v1/gallery/"),
        ("bad gallery name", t.get("/v1/gallery?gallery=No"),
         422, "invalid_option", "option `gallery`: \"No\" is no name; names have 1 to 64 of a-z"),
        ("bad gallery name in a path", t.get("/v1/galleries/No"),
         422, "invalid_option", "\"No\" is no name"),
        ("unknown option", t.put(json!({"vector": t.good, "lable": "x"})),
         422, "invalid_option",
         "option `lable`: unknown; expected one of gallery, model, on_conflict, label, metadata"),
        ("option of a list", t.get("/v1/galleries?k=1"),
         422, "invalid_option", "option `k`: unknown; expected one of model"),
    ];
    t.assert_rejected(cases).await;
}

#[tokio::test]
async fn unknown_items_and_galleries_are_not_found() {
    let t = Fixture::start().await;
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("unknown item", t.get("/v1/gallery/nothing"), 404, "not_found", "nothing"),
        ("unknown item's thumbnail", t.get("/v1/gallery/nothing/thumbnail"),
         404, "not_found", "nothing"),
        ("unknown item's deletion", t.server.delete("/v1/gallery/nothing"),
         404, "not_found", "the gallery `default` has no item \"nothing\""),
        ("unknown item's neighbors", t.get("/v1/knn?id=nothing"), 404, "not_found", "nothing"),
        ("unknown gallery", t.get("/v1/gallery?gallery=none"), 404, "not_found", "none"),
        ("item of an unknown gallery", t.get("/v1/gallery/one?gallery=none"),
         404, "not_found", "none"),
        ("deletion from an unknown gallery", t.server.delete("/v1/gallery/one?gallery=none"),
         404, "not_found", "none"),
        ("neighbors in an unknown gallery", t.get("/v1/knn?id=one&gallery=none"),
         404, "not_found", "none"),
        ("image in an unknown gallery", t.image("/v1/knn?gallery=none"), 404, "not_found", "none"),
        ("class in an unknown gallery", t.image("/v1/classify?gallery=none"),
         404, "not_found", "none"),
        ("deletion of an unknown gallery", t.server.delete("/v1/galleries/none"),
         404, "not_found", "none"),
        ("snapshot of an unknown gallery", t.get("/v1/galleries/none/snapshot"),
         404, "not_found", "none"),
    ];
    t.assert_rejected(cases).await;
}

#[tokio::test]
async fn bad_searches_are_rejected() {
    let t = Fixture::start().await;
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("no id to ask about", t.get("/v1/knn"),
         422, "invalid_option", "option `id`: required: the id of a stored item"),
        ("empty id", t.get("/v1/knn?id="), 422, "invalid_option", "option `id`: empty"),
        ("k is 0", t.get("/v1/knn?id=one&k=0"),
         422, "invalid_option", "option `k`: 0 is out of range; it must be 1 to 100"),
        ("k too large", t.get("/v1/knn?id=one&k=101"),
         422, "limit_exceeded", "option `k`: 101 is out of range; it must be 1 to 100"),
        ("k is 0 for an image", t.image("/v1/knn?k=0"),
         422, "invalid_option", "option `k`: 0 is out of range; it must be 1 to 100"),
        ("k too large for a vote", t.image("/v1/classify?k=9999999999"),
         422, "limit_exceeded", "option `k`: 9999999999 is out of range"),
        ("k no number", t.get("/v1/knn?id=one&k=many"),
         422, "invalid_option", "option `k`: invalid type: string \"many\""),
        ("query of a wrong dimension", t.knn(json!({"vector": [1, 2]})),
         422, "invalid_option",
         "option `vector`: has 2 values; the vectors of this gallery have 64"),
        ("query of zeros", t.knn(json!({"vector": vec![0; 64]})),
         422, "invalid_option", "all values are 0"),
        ("query of nothing", t.knn(json!({})),
         400, "malformed_request", "neither an image nor a `vector`"),
        ("bad images only", t.knn(json!({"images": ["bm8=", "bm8="]})),
         422, "undecodable_image", "image 0: "),
        ("option of another route", t.image("/v1/knn?vote=majority"),
         422, "invalid_option", "option `vote`: unknown; expected one of"),
        ("bad vote", t.image("/v1/classify?vote=all"),
         422, "invalid_option",
         "option `vote`: unknown variant `all`, expected `weighted` or `majority`"),
        ("temperature 0", t.image("/v1/classify?temperature=0"),
         422, "invalid_option", "option `temperature`: 0 is out of range; it must be above 0"),
        ("min_score above 1", t.image("/v1/classify?min_score=1.5"),
         422, "invalid_option", "option `min_score`: 1.5 is out of range; it must be -1 to 1"),
    ];
    t.assert_rejected(cases).await;
}

#[tokio::test]
async fn bad_pages_and_filters_are_rejected() {
    let t = Fixture::start().await;
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("limit 0", t.get("/v1/gallery?limit=0"),
         422, "invalid_option", "option `limit`: 0 is out of range; it must be 1 to 100"),
        ("limit too large", t.get("/v1/gallery?limit=101"),
         422, "limit_exceeded", "option `limit`: 101 is out of range; it must be 1 to 100"),
        ("bad cursor", t.get("/v1/gallery?cursor=abc"),
         422, "invalid_option", "option `cursor`: not a cursor of this server"),
        ("bad cursor of the right length", t.get("/v1/gallery?cursor=AgAAAAAAAAAR"),
         422, "invalid_option", "option `cursor`: not a cursor of this server"),
        ("empty cursor", t.get("/v1/gallery?cursor="),
         422, "invalid_option", "option `cursor`: not a cursor of this server"),
        ("filter no JSON", t.filter("{label}"),
         422, "invalid_option", "option `where`: not valid JSON"),
        ("filter no object", t.filter("[1]"),
         422, "invalid_option",
         "option `where`: a filter is {\"label\": …, \"metadata\": {\"member\": …}}"),
        ("filter by what is not there", t.filter(r#"{"place": 1}"#),
         422, "invalid_option", "option `where`: \"place\" is not valid here"),
        ("filter with a bad operator", t.filter(r#"{"metadata": {"year": {"above": 1}}}"#),
         422, "invalid_option", "\"above\" is not an operator"),
        ("filter in JSON", t.knn(json!({"vector": t.good, "where": {"metadata": 5}})),
         422, "invalid_option", "option `where`: \"metadata\" is not valid here"),
        ("label twice", t.get("/v1/gallery?label=a&where=%7B%22label%22%3A%22b%22%7D"),
         422, "invalid_option", "option `label`: given in `where`, too"),
    ];
    t.assert_rejected(cases).await;
}

#[tokio::test]
async fn bad_batches_are_rejected() {
    let t = Fixture::start().await;
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("duplicate ids", t.items(json!([t.item("a"), t.item("b"), t.item("a")])),
         422, "invalid_option", "option `id`: \"a\" is the id of items 0 and 2"),
        ("duplicate file names", t.files(&["x", "x"]),
         422, "invalid_option", "option `id`: \"x\" is the id of items 0 and 1"),
        ("too many items", t.items(json!([t.item("a"), t.item("b"), t.item("c"), t.item("d")])),
         413, "too_large", "more than 3 items"),
        ("too many files", t.files(&["0", "1", "2", "3"]),
         413, "too_large", "more than 3 images"),
        ("no items", t.items(json!([])), 400, "malformed_request", "the request contains no item"),
        ("items no list", t.items(json!({})),
         400, "malformed_request", "a list of objects in `items`"),
        ("items as text", t.items(json!("a")),
         400, "malformed_request", "a list of objects in `items`"),
        ("raw batch", t.image("/v1/gallery"),
         415, "unsupported_media_type", "a raw body cannot hold several items"),
        ("listing of another length", t.listed("[{}, {}]"),
         422, "invalid_option",
         "option `items`: the list has more entries than the form has files (1)"),
        ("listing no list", t.listed("{}"),
         422, "invalid_option", "option `items`: not a JSON list"),
        ("batch of another kind",
         t.server.post("/v1/gallery?pooling=mean").json(&json!({"items": [t.item("a")]})),
         409, "conflict", "was made with pooling=cls and not pooling=mean"),
        ("wrong method", t.server.put("/v1/gallery"),
         405, "method_not_allowed", "/v1/gallery does not take PUT"),
        ("no snapshot",
         t.server.put("/v1/galleries/default/snapshot").body("hello, this is no snapshot at all"),
         400, "malformed_request", "this is not a snapshot of a gallery"),
    ];
    t.assert_rejected(cases).await;
}

#[tokio::test]
async fn a_limit_is_named_with_its_flag() {
    let t = Fixture::start().await;
    for (path, limit) in [
        (
            "/v1/knn?id=one&k=0",
            json!({"name": "max_neighbors", "value": 100, "flag": "--max-neighbors"}),
        ),
        (
            "/v1/gallery?limit=101",
            json!({"name": "max_page_items", "value": 100, "flag": "--max-page-items"}),
        ),
    ] {
        let (_, body) = problem(t.get(path)).await;
        assert_eq!(body["limit"], limit, "{path}");
    }
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
