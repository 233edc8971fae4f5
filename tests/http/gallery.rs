//! The gallery over HTTP: items are stored and returned, and neighbors are found.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dinoserve::http::HttpConfig;
use reqwest::{
    RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::support::{
    SAMPLES, cosine, focus, golden_png, read_golden,
    server::{Server, floats, new_gallery, ok, ok_bytes, ok_json, problem},
    tiny,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";
const COFFEE: &str = "dinov2-small-focus/coffee.png";

/// Starts a server with the focus model and stores the four sample images.
async fn server_with_samples() -> Server {
    let server =
        Server::start_on(new_gallery().await, focus().clone(), HttpConfig::default()).await;
    for sample in SAMPLES {
        let put = server.put(&format!("/v1/gallery/{sample}?label=a{sample}"));
        ok(put
            .header("content-type", "image/*")
            .body(read_golden(&format!("dinov2-small-focus/{sample}"))))
        .await;
    }
    server
}

/// Returns a unit vector of the tiny model's width, at an angle between the first two axes.
fn at(degrees: f64) -> Vec<f64> {
    let radians = degrees.to_radians();
    let mut vector = vec![0.0; 64];
    (vector[0], vector[1]) = (radians.cos(), radians.sin());
    vector
}

fn put_vector(server: &Server, id: &str, degrees: f64, more: &Value) -> RequestBuilder {
    let mut body = json!({"vector": at(degrees)});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    server.put(&format!("/v1/gallery/{id}")).json(&body)
}

fn ids(answer: &Value) -> Vec<&str> {
    let list = answer.get("neighbors").unwrap_or_else(|| &answer["items"]);
    list.as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect()
}

fn close(a: &Value, b: f64) -> bool {
    (a.as_f64().unwrap() - b).abs() < 1e-5
}

#[tokio::test]
async fn an_image_is_found_by_itself_and_by_its_crops() {
    let server = server_with_samples().await;
    for sample in SAMPLES {
        let file = format!("dinov2-small-focus/{sample}");
        let answer = ok_json(server.post_file("/v1/knn?k=4", &file)).await;
        assert_eq!(ids(&answer)[0], sample);
        assert!(close(&answer["neighbors"][0]["score"], 1.0), "{answer}");
        assert_eq!(answer["neighbors"][0]["label"], format!("a{sample}"));
        assert_eq!(
            (answer["model"].as_str(), answer["gallery"].as_str()),
            (Some("dinov2-small-focus"), Some("default"))
        );
        assert_eq!(answer["fingerprint"], focus().fingerprint);

        let whole = image::load_from_memory(&read_golden(&file)).unwrap();
        let width = whole.width();
        let height = whole.height();
        let mut crop = std::io::Cursor::new(Vec::new());
        let part = whole.crop_imm(width / 16, height / 16, width * 7 / 8, height * 7 / 8);
        part.write_to(&mut crop, image::ImageFormat::Png).unwrap();
        let post = server
            .post("/v1/knn?k=4")
            .header("content-type", "image/png")
            .body(crop.into_inner());
        let answer = ok_json(post).await;
        let scores = floats(
            &answer["neighbors"]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n["score"].clone())
                .collect(),
        );
        assert!(
            ids(&answer)[0] == sample && scores[0] > scores[1] + 0.1,
            "{sample}: {answer}"
        );
    }
}

#[tokio::test]
async fn scores_are_cosines_of_embeddings_for_every_kind_of_query() {
    let server = server_with_samples().await;
    let mut embeddings = Vec::new();
    for sample in SAMPLES {
        let answer =
            ok_json(server.post_file("/v1/embed", &format!("dinov2-small-focus/{sample}"))).await;
        embeddings.push(floats(&answer["data"][0]["embedding"]));
    }
    let by_image = ok_json(server.post_file("/v1/knn", CHELSEA)).await;
    assert_eq!(by_image["neighbors"].as_array().unwrap().len(), 4);
    for neighbor in by_image["neighbors"].as_array().unwrap() {
        let index = SAMPLES
            .iter()
            .position(|name| neighbor["id"] == *name)
            .unwrap();
        let expected = cosine(
            embeddings[1].iter().copied(),
            embeddings[index].iter().copied(),
        );
        assert!(
            close(&neighbor["score"], expected),
            "{neighbor}: {expected}"
        );
    }
    let scores = floats(
        &by_image["neighbors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["score"].clone())
            .collect(),
    );
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");

    let by_id = ok_json(server.get("/v1/knn?id=chelsea.png&include_self=true")).await;
    assert_eq!(by_id["neighbors"], by_image["neighbors"]);
    assert_eq!(by_id["query"], json!({"id": "chelsea.png", "k": 20}));
    let without = ok_json(server.get("/v1/knn?id=chelsea.png&k=2")).await;
    assert_eq!(
        without["neighbors"].as_array().unwrap()[..],
        by_image["neighbors"].as_array().unwrap()[1..3]
    );

    // The length of a vector does not matter.
    let long: Vec<f32> = embeddings[1].iter().map(|value| value * 7e30).collect();
    let by_vector = ok_json(
        server
            .post("/v1/knn")
            .json(&json!({"vector": long, "exact": true})),
    )
    .await;
    assert_eq!(ids(&by_vector), ids(&by_image));
    for (a, b) in by_vector["neighbors"]
        .as_array()
        .unwrap()
        .iter()
        .zip(by_image["neighbors"].as_array().unwrap())
    {
        assert!(close(&a["score"], b["score"].as_f64().unwrap()), "{a} {b}");
    }

    let stored = ok_json(server.get("/v1/gallery/chelsea.png?vector=true")).await;
    assert!(cosine(floats(&stored["vector"]), embeddings[1].iter().copied()) > 0.999_999);
}

#[tokio::test]
async fn several_images_get_an_answer_each() {
    let server = server_with_samples().await;
    let encoded = |file: &str| BASE64_STANDARD.encode(read_golden(file));
    let images = [
        encoded(CHELSEA),
        BASE64_STANDARD.encode("no image"),
        encoded(COFFEE),
    ];
    for path in ["/v1/knn?k=1", "/v1/classify?k=1"] {
        let answer = ok_json(server.post(path).json(&json!({"images": images}))).await;
        assert_eq!(answer["data"].as_array().unwrap().len(), 3, "{answer}");
        assert_eq!(ids(&answer["data"][0]), ["chelsea.png"]);
        assert_eq!(
            (
                &answer["data"][1]["index"],
                &answer["data"][1]["error"]["code"]
            ),
            (&json!(1), &json!("undecodable_image"))
        );
        assert_eq!(ids(&answer["data"][2]), ["coffee.png"]);
    }
    let parts = [CHELSEA, COFFEE].map(|file| Part::bytes(read_golden(file)).file_name("x"));
    let form = parts
        .into_iter()
        .fold(Form::new().text("k", "1"), |form, part| {
            form.part("image", part)
        });
    let answer = ok_json(server.post("/v1/classify").multipart(form)).await;
    assert_eq!(answer["data"][1]["label"], "acoffee.png");
    assert_eq!(
        answer["data"][1]["probabilities"],
        json!([{"label": "acoffee.png", "probability": 1.0}])
    );
}

#[tokio::test]
async fn an_item_is_stored_replaced_and_deleted() {
    let server = Server::tiny_with_gallery().await;
    let metadata =
        json!({"year": 2024, "tags": ["cat", "red"], "deep": {"a": [null, 1.5]}, "ü": "é"});
    let image = BASE64_STANDARD.encode(read_golden(CHELSEA));
    let body = json!({"image": image, "label": "cat", "metadata": metadata});
    let response = ok(server.put("/v1/gallery/one").json(&body)).await;
    assert_eq!(response.status(), 201);
    assert!(
        response.headers()["server-timing"]
            .to_str()
            .unwrap()
            .contains("inference;dur=")
    );
    let stored: Value = response.json().await.unwrap();
    let expected = json!({
        "id": "one", "gallery": "default", "place": 1, "label": "cat", "metadata": metadata,
        "created": true, "status": "created", "dim": 64,
    });
    assert_eq!(stored, expected);
    assert_eq!(
        ok(put_vector(&server, "two", 30.0, &json!({})))
            .await
            .status(),
        201
    );

    let item = ok_json(server.get("/v1/gallery/one?vector=true")).await;
    assert_eq!(
        (&item["label"], &item["metadata"], &item["place"]),
        (&json!("cat"), &metadata, &json!(1))
    );
    let embedding = ok_json(server.post_file("/v1/embed", CHELSEA)).await;
    assert!(
        cosine(
            floats(&item["vector"]),
            floats(&embedding["data"][0]["embedding"])
        ) > 0.999_999
    );
    assert_eq!(
        ok_json(server.get("/v1/gallery/one")).await.get("vector"),
        None
    );

    let response = ok(put_vector(&server, "one", 10.0, &json!({"metadata": {}}))).await;
    assert_eq!(response.status(), 200);
    let replaced = ok_json(server.get("/v1/gallery/one?vector=true")).await;
    assert_eq!(
        (
            &replaced["label"],
            &replaced["metadata"],
            &replaced["place"]
        ),
        (&Value::Null, &json!({}), &json!(1))
    );
    assert!(
        cosine(
            floats(&replaced["vector"]),
            at(10.0).iter().map(|&v| v as f32)
        ) > 0.999_999
    );
    assert!(replaced["stored_ms"].as_u64().unwrap() >= item["stored_ms"].as_u64().unwrap());

    let response = ok(server.delete("/v1/gallery/one")).await;
    assert_eq!(
        (
            response.status().as_u16(),
            response.bytes().await.unwrap().len()
        ),
        (204, 0)
    );
    assert_eq!(problem(server.get("/v1/gallery/one")).await.0, 404);
    assert_eq!(ids(&ok_json(server.get("/v1/gallery")).await), ["two"]);
}

#[tokio::test]
async fn label_and_metadata_are_changed_without_the_image() {
    let server = server_with_samples().await;
    let path = "/v1/gallery/chelsea.png";
    let vector =
        async || ok_json(server.get(&format!("{path}?vector=true"))).await["vector"].clone();
    let before = vector().await;
    let patch = |body: Value| server.client.patch(server.url(path)).json(&body);
    let changed = ok_json(patch(json!({"metadata": {"year": 2024}}))).await;
    assert_eq!(
        (
            &changed["id"],
            &changed["label"],
            &changed["metadata"],
            &changed["gallery"]
        ),
        (
            &json!("chelsea.png"),
            &json!("achelsea.png"),
            &json!({"year": 2024}),
            &json!("default")
        )
    );
    // Null counts as absent, and an empty label removes the label.
    let changed = ok_json(patch(json!({"label": "", "metadata": null}))).await;
    assert_eq!(
        (&changed["label"], &changed["metadata"]),
        (&Value::Null, &json!({"year": 2024}))
    );
    let changed = ok_json(patch(json!({"label": "cat", "metadata": {}}))).await;
    assert_eq!(
        (&changed["label"], &changed["metadata"]),
        (&json!("cat"), &json!({}))
    );
    assert_eq!(vector().await, before);
    ok(server.get(&format!("{path}/thumbnail"))).await;
    let found = ok_json(server.get("/v1/gallery?label=cat")).await;
    assert_eq!(ids(&found), ["chelsea.png"]);

    let missing = server.client.patch(server.url("/v1/gallery/none"));
    assert_eq!(problem(missing.json(&json!({"label": "x"}))).await.0, 404);
    for (body, detail) in [
        (
            json!({}),
            "option `label`: missing; send `label`, `metadata` or both",
        ),
        (json!({"label": "x".repeat(257)}), "option `label`"),
        (json!({"metadata": [1]}), "must be a JSON object"),
        (json!({"lable": "x"}), "did you mean `label`?"),
        (json!({"label": "x", "vector": [1.0]}), "vector"),
    ] {
        let (status, problem) = problem(patch(body)).await;
        let found = problem["detail"].as_str().unwrap();
        assert!(status == 422 || status == 400, "{problem}");
        assert!(found.contains(detail), "{found}");
    }
    assert_eq!(
        ids(&ok_json(server.get("/v1/gallery?label=cat")).await),
        ["chelsea.png"]
    );
}

#[tokio::test]
async fn any_text_can_be_an_id() {
    let server = Server::tiny_with_gallery().await;
    let longest = "é".repeat(256);
    let names = [
        "cats/chelsea one.jpg",
        "ü+?&=#%2F%",
        "\u{1F431}/\n\0",
        "thumbnail",
        "a/thumbnail",
        "-",
        longest.as_str(),
    ];
    for (index, id) in names.into_iter().enumerate() {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let stored = ok_json(put_vector(&server, &encoded, index as f64, &json!({}))).await;
        assert_eq!(stored["id"], id);
        assert_eq!(
            ok_json(server.get(&format!("/v1/gallery/{encoded}"))).await["id"],
            id
        );
        let found =
            ok_json(server.get(&format!("/v1/knn?k=1&include_self=true&id={encoded}"))).await;
        assert_eq!(ids(&found), [id]);
    }
    assert_eq!(
        ids(&ok_json(server.get("/v1/gallery?limit=50")).await),
        names
    );
    ok(server.delete("/v1/gallery/cats%2fchelsea%20one.jpg")).await;
    assert_eq!(
        problem(server.get("/v1/gallery/cats%2Fchelsea%20one.jpg"))
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn every_body_form_stores_the_same() {
    let server = Server::tiny_with_gallery().await;
    let file = read_golden(CHELSEA);
    let options = "pooling=mean&size=112&label=cat&metadata=%7B%22year%22%3A2024%7D";
    let part = || Part::bytes(file.clone()).file_name("cat.png");
    let form = || {
        Form::new()
            .text("pooling", "mean")
            .text("size", "112")
            .text("label", "cat")
            .text("metadata", r#"{"year":2024}"#)
    };
    let json = json!({
        "image": BASE64_STANDARD.encode(&file), "pooling": "mean", "size": 112, "label": "cat",
        "metadata": {"year": 2024},
    });
    let mut in_text = json.clone();
    in_text["size"] = json!("112");
    in_text["metadata"] = json!("{\"year\":2024}");
    let requests = [
        server
            .put(&format!("/v1/gallery/a?{options}"))
            .header("content-type", "image/png")
            .body(file.clone()),
        server
            .put(&format!("/v1/gallery/b?{options}"))
            .multipart(Form::new().part("image", part())),
        server
            .put("/v1/gallery/c")
            .multipart(form().part("anything", part())),
        server.put("/v1/gallery/d").json(&json),
        server.put("/v1/gallery/e").json(&in_text),
    ];
    for request in requests {
        assert_eq!(ok(request).await.status(), 201);
    }
    let mut items = Vec::new();
    for id in ["a", "b", "c", "d", "e"] {
        let mut item = ok_json(server.get(&format!("/v1/gallery/{id}?vector=true"))).await;
        ["id", "place", "stored_ms"]
            .into_iter()
            .for_each(|name| drop(item.as_object_mut().unwrap().remove(name)));
        items.push(item);
    }
    items.iter().for_each(|item| assert_eq!(item, &items[0]));
    assert_eq!(items[0]["metadata"], json!({"year": 2024}));
    let embedding = ok_json(server.post_file("/v1/embed?pooling=mean&size=112", CHELSEA)).await;
    assert!(
        cosine(
            floats(&items[0]["vector"]),
            floats(&embedding["data"][0]["embedding"])
        ) > 0.999_999
    );
}

#[tokio::test]
async fn a_batch_stores_good_items_and_reports_the_others() {
    let server = Server::tiny_with_gallery().await;
    ok(put_vector(&server, "old", 0.0, &json!({}))).await;
    let image = BASE64_STANDARD.encode(read_golden(CHELSEA));
    let items = json!([
        {"id": "cat", "image": image, "label": "cat", "metadata": {"n": 1}},
        {"id": "old", "vector": at(5.0)},
        {"id": "bad", "image": BASE64_STANDARD.encode("no image")},
        {"image": image},
        {"id": "short", "vector": [1.0, 2.0]},
        {"id": "both", "vector": at(1.0), "image": image},
        {"id": "typo", "vector": at(1.0), "lable": "x"},
        {"image": "??", "id": 7},
        5,
    ]);
    let answer = ok_json(
        server
            .post("/v1/gallery")
            .json(&json!({"items": items, "gallery": "default"})),
    )
    .await;
    let outcomes: Vec<_> = answer["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let text = |name: &str| item[name].as_str().unwrap_or("-").to_owned();
            (
                text("id"),
                text("status"),
                item["error"]["detail"].as_str().unwrap_or("-").to_owned(),
            )
        })
        .collect();
    let expected = [
        ("cat", "created", "-"),
        ("old", "replaced", "-"),
        ("bad", "failed", "are not an image"),
        ("-", "failed", "option `id`: missing"),
        (
            "short",
            "failed",
            "option `vector`: has 2 values; the vectors of this gallery have 64",
        ),
        ("both", "failed", "both an image and a `vector`"),
        (
            "typo",
            "failed",
            "option `lable`: unknown; expected one of id, label, metadata",
        ),
        ("7", "failed", "`image`: not base64"),
        ("-", "failed", "expected an object"),
    ];
    assert_eq!(outcomes.len(), expected.len(), "{answer}");
    for (index, (outcome, expected)) in outcomes.iter().zip(expected).enumerate() {
        assert_eq!(answer["data"][index]["index"], index);
        assert_eq!(
            (outcome.0.as_str(), outcome.1.as_str()),
            (expected.0, expected.1),
            "{answer}"
        );
        assert!(outcome.2.contains(expected.2), "{outcome:?}");
    }
    assert_eq!(
        ids(&ok_json(server.get("/v1/gallery")).await),
        ["old", "cat"]
    );
    assert_eq!(
        ok_json(server.get("/v1/gallery/cat")).await["metadata"],
        json!({"n": 1})
    );
}

#[tokio::test]
async fn files_of_a_form_are_items() {
    let server = Server::tiny_with_gallery().await;
    let part = |file: &str, name: &str| Part::bytes(read_golden(file)).file_name(name.to_owned());
    let form = Form::new()
        .part("files", part(CHELSEA, "cats/chelsea.png"))
        .part("files", part(COFFEE, "coffee"));
    let answer = ok_json(server.post("/v1/gallery?gallery=forms").multipart(form)).await;
    assert_eq!(
        (&answer["gallery"], &answer["dim"], &answer["data"][1]["id"]),
        (&json!("forms"), &json!(64), &json!("coffee"))
    );
    assert_eq!(
        ids(&ok_json(server.get("/v1/gallery?gallery=forms")).await),
        ["cats/chelsea.png", "coffee"]
    );

    let listing = r#"[{"label": "cat", "metadata": {"n": 1}}, {"id": "cup", "label": "drink"}]"#;
    let form = Form::new()
        .text("gallery", "forms")
        .part("a", part(CHELSEA, "new"))
        .part("b", part(COFFEE, "ignored"));
    // The list as a text part or as a file.
    let form = form.part("items", Part::text(listing).file_name("items.json"));
    ok(server.post("/v1/gallery").multipart(form)).await;
    assert_eq!(
        ids(&ok_json(server.get("/v1/gallery?gallery=forms")).await)[2..],
        ["new", "cup"]
    );
    let item = ok_json(server.get("/v1/gallery/new?gallery=forms")).await;
    assert_eq!(
        (&item["label"], &item["metadata"]),
        (&json!("cat"), &json!({"n": 1}))
    );
    assert_eq!(
        ok_json(server.get("/v1/gallery/cup?gallery=forms")).await["label"],
        "drink"
    );
    let neighbors = ok_json(server.get("/v1/knn?id=new&gallery=forms")).await;
    assert_eq!(ids(&neighbors)[0], "cats/chelsea.png");
    assert!(close(&neighbors["neighbors"][0]["score"], 1.0));
}

#[tokio::test]
async fn pages_stay_stable_while_items_come_and_go() {
    let server = Server::tiny_with_gallery().await;
    let items: Vec<Value> = (0..23)
        .map(|n| json!({"id": format!("i{n:02}"), "vector": at(f64::from(n))}))
        .collect();
    ok(server.post("/v1/gallery").json(&json!({"items": items}))).await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    let mut sizes = Vec::new();
    loop {
        let page = ok_json(server.get(&format!("/v1/gallery?limit=10{cursor}"))).await;
        sizes.push(ids(&page).len());
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        // Deletes a listed and an unlisted item, replaces one, and adds one.
        ok(server.delete(&format!("/v1/gallery/i{:02}", seen.len() - 1))).await;
        if sizes.len() == 1 {
            ok(server.delete("/v1/gallery/i15")).await;
            ok(put_vector(&server, "i03", 3.5, &json!({}))).await;
            ok(put_vector(&server, "new", 1.0, &json!({}))).await;
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let mut expected: Vec<String> = (0..23)
        .filter(|n| *n != 15)
        .map(|n| format!("i{n:02}"))
        .collect();
    expected.push("new".to_owned());
    assert_eq!((seen, sizes), (expected, vec![10, 10, 3]));
    // A page that ends with the last item has no successor.
    let page = ok_json(server.get("/v1/gallery?limit=20")).await;
    assert_eq!((ids(&page).len(), &page["next"]), (20, &Value::Null));
}

#[tokio::test]
async fn filters_choose_which_items_are_found() {
    let server = Server::tiny_with_gallery().await;
    for (id, degrees, facts) in [
        (
            "a",
            0.0,
            json!({"label": "cat", "metadata": {"year": 2020, "tags": ["red"]}}),
        ),
        (
            "b",
            10.0,
            json!({"label": "dog", "metadata": {"year": 2021, "tags": ["red", "blue"]}}),
        ),
        (
            "c",
            20.0,
            json!({"label": "cat", "metadata": {"year": 2022}}),
        ),
        ("d", 30.0, json!({"metadata": {"year": "2023"}})),
    ] {
        ok(put_vector(&server, id, degrees, &facts)).await;
    }
    let cases: [(&str, Value, &[&str]); 6] = [
        ("&label=cat", json!({}), &["a", "c"]),
        (
            "",
            json!({"label": {"any": ["cat", "dog"]}}),
            &["a", "b", "c"],
        ),
        (
            "",
            json!({"metadata": {"year": {"gte": 2021}}}),
            &["b", "c"],
        ),
        (
            "&label=cat",
            json!({"metadata": {"year": {"lt": 2022}}}),
            &["a"],
        ),
        (
            "",
            json!({"metadata": {"tags": "red", "year": {"gt": 2000}}}),
            &["a", "b"],
        ),
        ("", json!({"metadata": {"absent": true}}), &[]),
    ];
    for (label, filter, expected) in cases {
        let encoded: String = filter
            .to_string()
            .bytes()
            .map(|byte| format!("%{byte:02x}"))
            .collect();
        let list = ok_json(server.get(&format!("/v1/gallery?where={encoded}{label}"))).await;
        assert_eq!(ids(&list), expected, "{filter}");
        let by_id = ok_json(server.get(&format!(
            "/v1/knn?id=a&include_self=true&where={encoded}{label}"
        )))
        .await;
        assert_eq!(ids(&by_id), expected, "{filter}");
        let post = server
            .post(&format!("/v1/knn?k=10{label}"))
            .json(&json!({"vector": at(0.0), "where": filter}));
        assert_eq!(ids(&ok_json(post).await), expected, "{filter}");
    }
}

#[tokio::test]
async fn neighbors_vote_by_their_score() {
    let server = Server::tiny_with_gallery().await;
    let facts = |label: &str| {
        if label.is_empty() {
            json!({})
        } else {
            json!({"label": label})
        }
    };
    for (id, degrees, label) in [
        ("a1", 40.0, "ant"),
        ("a2", 50.0, "ant"),
        ("b1", 20.0, "bee"),
        ("c1", 60.0, "cow"),
        ("c2", 70.0, "cow"),
        ("x", 5.0, ""),
    ] {
        ok(put_vector(&server, id, degrees, &facts(label))).await;
    }
    let ask = async |options: &str| {
        ok_json(
            server
                .post(&format!("/v1/classify?{options}"))
                .json(&json!({"vector": at(0.0)})),
        )
        .await
    };
    let shares = |answer: &Value| -> Vec<(String, f64)> {
        let list = answer["probabilities"].as_array().unwrap().iter();
        list.map(|p| {
            (
                p["label"].as_str().unwrap().to_owned(),
                p["probability"].as_f64().unwrap(),
            )
        })
        .collect()
    };
    // The nearest has no label: it has no vote and does not count among the k.
    let answer = ask("k=5").await;
    assert_eq!(answer["label"], "bee");
    assert_eq!(ids(&answer), ["b1", "a1", "a2", "c1", "c2"]);
    let weight = |degrees: f64| (degrees.to_radians().cos() / 0.07).exp();
    let total: f64 = [20.0, 40.0, 50.0, 60.0, 70.0].map(weight).iter().sum();
    let expected = [
        ("bee", weight(20.0)),
        ("ant", weight(40.0) + weight(50.0)),
        ("cow", weight(60.0) + weight(70.0)),
    ];
    for ((label, share), (class, weight)) in shares(&answer).into_iter().zip(expected) {
        assert!(
            label == class && (share - weight / total).abs() < 1e-4,
            "{label} {share} {}",
            weight / total
        );
    }
    // A high temperature flattens the weights; a majority vote has none.
    assert_eq!(ask("k=5&temperature=100").await["label"], "ant");
    let majority = ask("k=5&vote=majority").await;
    assert_eq!(
        majority["label"], "ant",
        "of equal shares the first by name"
    );
    let expected = [("ant", 0.4), ("cow", 0.4), ("bee", 0.2)];
    for ((label, share), expected) in shares(&majority).into_iter().zip(expected) {
        assert!(label == expected.0 && (share - expected.1).abs() < 1e-6);
    }
    assert_eq!(ask("k=1&vote=majority").await["label"], "bee");

    let sure = ask(&format!(
        "k=5&vote=majority&min_score={}",
        45f64.to_radians().cos()
    ))
    .await;
    assert_eq!(
        (ids(&sure), &sure["label"]),
        (vec!["b1", "a1"], &json!("ant"))
    );
    let unknown = ask("k=5&min_score=0.99").await;
    assert_eq!(
        (
            &unknown["label"],
            &unknown["probabilities"],
            &unknown["neighbors"]
        ),
        (&Value::Null, &json!([]), &json!([]))
    );
    let only = ask("k=5&where=%7B%22label%22%3A%7B%22any%22%3A%5B%22cow%22%5D%7D%7D").await;
    assert_eq!(
        (ids(&only), &only["label"]),
        (vec!["c1", "c2"], &json!("cow"))
    );
    assert!(
        ok(server
            .post("/v1/classify")
            .json(&json!({"vector": at(0.0)})))
        .await
        .headers()["server-timing"]
            .to_str()
            .unwrap()
            .contains("search;dur=")
    );
}

#[tokio::test]
async fn an_image_is_classified_by_similar_images() {
    let server = server_with_samples().await;
    let answer = ok_json(server.post_file("/v1/classify?k=3", COFFEE)).await;
    assert_eq!(
        (&answer["label"], &answer["model"]),
        (&json!("acoffee.png"), &json!("dinov2-small-focus"))
    );
    assert!(
        answer["probabilities"][0]["probability"].as_f64().unwrap() > 0.9,
        "{answer}"
    );
}

#[tokio::test]
async fn a_gallery_rejects_features_of_another_model_or_preprocessing() {
    let store = new_gallery().await;
    let tiny_server = Server::start_on(
        store.clone(),
        tiny("tiny-reg", "model.safetensors"),
        HttpConfig::default(),
    )
    .await;
    let put = |query: &str| {
        let put = tiny_server.put(&format!("/v1/gallery/cat?{query}"));
        put.header("content-type", "image/png")
            .body(read_golden(CHELSEA))
    };
    let options = "pooling=cls_mean&layers=2&size=112&resize=squash&filter=bilinear&exif=false\
                   &background=black";
    ok(put(options)).await;
    let made = ok_json(tiny_server.get("/v1/galleries/default")).await;
    let expected = json!({
        "name": "default", "items": 1, "indexed": 0,
        "model": "tiny-reg", "fingerprint": made["fingerprint"], "takes_images": true,
        "dim": 256, "pooling": "cls_mean", "layers": 2,
        "size": 112, "resize": "squash", "filter": "bilinear", "exif": false, "background": "black",
        "levels": "type",
    });
    assert_eq!(made, expected);

    // Omitted options are the gallery's; repeated ones must agree with it.
    ok(put("")).await;
    ok(put("size=112&pooling=cls_mean&exif=false&decode=fast")).await;
    let embedding = ok_json(tiny_server.post_file(&format!("/v1/embed?{options}"), CHELSEA)).await;
    let found = ok_json(tiny_server.post_file("/v1/knn", CHELSEA)).await;
    assert!(close(&found["neighbors"][0]["score"], 1.0));
    let vector =
        json!({"vector": embedding["data"][0]["embedding"], "fingerprint": made["fingerprint"]});
    assert!(close(
        &ok_json(tiny_server.post("/v1/knn").json(&vector)).await["neighbors"][0]["score"],
        1.0
    ));

    for (query, wants) in [
        ("pooling=cls", "pooling=cls_mean and not pooling=cls"),
        ("layers=1", "layers=2 and not layers=1"),
        ("size=224", "size=112 and not size=224"),
        ("resize=crop", "resize=squash and not resize=crop"),
        ("filter=bicubic", "filter=bilinear and not filter=bicubic"),
        ("exif=true", "exif=false and not exif=true"),
        (
            "background=white",
            "background=black and not background=white",
        ),
        (
            "size=98&exif=true",
            "size=112 and not size=98, exif=false and not exif=true",
        ),
    ] {
        let ask = |path: &str| tiny_server.post_file(&format!("{path}?{query}"), CHELSEA);
        let mut requests = vec![put(query), ask("/v1/knn"), ask("/v1/classify")];
        requests.push(
            tiny_server
                .post(&format!("/v1/gallery?{query}"))
                .json(&json!({"items": [{"id": "v", "vector": [0]}]})),
        );
        for request in requests {
            let (status, body) = problem(request).await;
            assert_eq!(
                (status, body["code"].as_str()),
                (409, Some("conflict")),
                "{query}: {body}"
            );
            let detail = body["detail"].as_str().unwrap();
            assert!(
                detail.contains(&format!("was made with {wants}; leave the options out")),
                "{query}: {detail}"
            );
        }
    }

    // A server with another model rejects images, but accepts vectors and ids.
    let server = Server::start_on(store, focus().clone(), HttpConfig::default()).await;
    let other = read_golden(CHELSEA);
    let put = server
        .put("/v1/gallery/x")
        .header("content-type", "image/png")
        .body(other);
    let mut foreign = vector.clone();
    foreign["fingerprint"] = json!(focus().fingerprint);
    for request in [
        put,
        server.post_file("/v1/knn", CHELSEA),
        server.post_file("/v1/classify", CHELSEA),
        server.post("/v1/gallery").json(
            &json!({"items": [{"id": "x", "image": BASE64_STANDARD.encode(read_golden(CHELSEA))}]}),
        ),
        server.post("/v1/knn").json(&foreign),
    ] {
        let (status, body) = problem(request).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (409, Some("conflict")),
            "{body}"
        );
        let wants = format!(
            "holds features of tiny-reg (fingerprint {}",
            &made["fingerprint"].as_str().unwrap()[..12]
        );
        assert!(body["detail"].as_str().unwrap().contains(&wants), "{body}");
    }
    assert_eq!(
        ok_json(server.get("/v1/galleries")).await["data"][0]["takes_images"],
        false
    );
    assert_eq!(
        ids(&ok_json(server.post("/v1/knn").json(&vector)).await),
        ["cat"]
    );
    assert_eq!(
        ids(&ok_json(server.get("/v1/knn?id=cat&include_self=true")).await),
        ["cat"]
    );
}

#[tokio::test]
async fn thumbnails_show_the_whole_image() {
    let server = Server::tiny_with_gallery().await;
    let put = |gallery: &str, options: &str| {
        let put = server.put(&format!("/v1/gallery/a%2Fb?gallery={gallery}&{options}"));
        put.header("content-type", "image/png")
            .body(read_golden(CHELSEA))
    };
    // Also if the model sees only its middle.
    for (gallery, options) in [("crop", "size=224"), ("fit", "resize=fit&size=448")] {
        let size = (160, 106);
        ok(put(gallery, options)).await;
        let path = format!("/v1/gallery/a%2Fb/thumbnail?gallery={gallery}");
        let response = ok(server.get(&path)).await;
        assert_eq!(response.headers()["content-type"], "image/jpeg");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        let bytes = response.bytes().await.unwrap();
        assert_eq!(
            image::guess_format(&bytes).unwrap(),
            image::ImageFormat::Jpeg
        );
        let thumbnail = image::load_from_memory(&bytes).unwrap().into_rgb8();
        assert_eq!(thumbnail.dimensions(), size, "{gallery}");
        let small = image::imageops::resize(
            &golden_png(CHELSEA),
            size.0,
            size.1,
            image::imageops::FilterType::CatmullRom,
        );
        let off: u64 = thumbnail
            .iter()
            .zip(small.iter())
            .map(|(&a, &b)| u64::from(a.abs_diff(b)))
            .sum();
        let mean = off as f64 / small.len() as f64;
        assert!(mean < 4.0, "{gallery}: {mean} levels from the image");

        let again = server
            .get(&path)
            .header("if-none-match", format!("\"x\", W/{tag}"))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                again.status().as_u16(),
                again.headers()["etag"].to_str().unwrap()
            ),
            (304, tag.as_str())
        );
        assert_eq!(
            ok_bytes(server.get(&path).header("if-none-match", "\"x\"")).await,
            bytes
        );
    }
    // Small images are not enlarged.
    let mut small = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(28, 14)
        .write_to(&mut small, image::ImageFormat::Png)
        .unwrap();
    let put = server
        .put("/v1/gallery/small")
        .header("content-type", "image/png");
    ok(put.body(small.into_inner())).await;
    let bytes = ok_bytes(server.get("/v1/gallery/small/thumbnail")).await;
    let thumbnail = image::load_from_memory(&bytes).unwrap();
    assert_eq!((thumbnail.width(), thumbnail.height()), (28, 14));

    ok(put_vector(&server, "v", 0.0, &json!({}))).await;
    let (status, body) = problem(server.get("/v1/gallery/v/thumbnail")).await;
    assert_eq!(
        (status, body["detail"].as_str()),
        (
            404,
            Some("\"v\" has no thumbnail: it was stored as a vector")
        )
    );
}

#[tokio::test]
async fn galleries_are_listed_measured_and_deleted() {
    let server = Server::tiny_with_gallery().await;
    assert_eq!(
        ok_json(server.get("/v1/galleries")).await,
        json!({"data": []})
    );
    for (gallery, id) in [("plants", "a"), ("animals", "a"), ("animals", "b")] {
        ok(put_vector(&server, id, 0.0, &json!({"gallery": gallery}))).await;
    }
    let list = ok_json(server.get("/v1/galleries")).await;
    let listed: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| (g["name"].as_str().unwrap(), g["items"].as_u64().unwrap()))
        .collect();
    assert_eq!(listed, [("animals", 2), ("plants", 1)]);
    assert_eq!(
        ids(&ok_json(server.get("/v1/knn?id=a&gallery=animals")).await),
        ["b"],
        "galleries are apart"
    );
    let metrics = ok(server.get("/metrics")).await.text().await.unwrap();
    assert!(
        metrics.contains("dinoserve_gallery_items{gallery=\"animals\"} 2\n"),
        "{metrics}"
    );
    let searches = metrics
        .lines()
        .find_map(|line| line.strip_prefix("dinoserve_gallery_search_duration_seconds_count "));
    assert!(searches.unwrap().parse::<f64>().unwrap() >= 1.0);

    assert_eq!(
        ok(server.delete("/v1/galleries/animals")).await.status(),
        204
    );
    assert_eq!(problem(server.get("/v1/galleries/animals")).await.0, 404);
    assert_eq!(
        problem(server.get("/v1/gallery/a?gallery=animals")).await.0,
        404
    );
    ok(server.get("/v1/gallery/a?gallery=plants")).await;
    let metrics = ok(server.get("/metrics")).await.text().await.unwrap();
    assert!(!metrics.contains("gallery=\"animals\""), "{metrics}");
}

#[tokio::test]
async fn a_write_is_visible_to_every_later_request() {
    let server = Server::tiny_with_gallery().await;
    let write = async |writer: usize| {
        for n in 0..12 {
            let id = format!("w{writer}-{n}");
            ok(put_vector(
                &server,
                &id,
                (writer * 12 + n) as f64,
                &json!({"label": id.clone()}),
            ))
            .await;
            let found =
                ok_json(server.get(&format!("/v1/knn?id={id}&include_self=true&k=1"))).await;
            assert_eq!(ids(&found), [id.as_str()]);
            if n % 3 == 0 {
                ok(server.delete(&format!("/v1/gallery/{id}"))).await;
                assert_eq!(
                    problem(server.get(&format!("/v1/knn?id={id}"))).await.0,
                    404
                );
            }
        }
    };
    futures_util::future::join_all((0..8).map(write)).await;
    let info = ok_json(server.get("/v1/galleries/default")).await;
    assert_eq!(info["items"], 8 * 8);
}
