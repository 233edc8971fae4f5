//! Stored PCA bases over HTTP.

use std::path::Path;

use dinoserve::{
    features::pool::Pooling,
    gallery::{
        Binding, Gallery, GalleryConfig, GalleryName, ItemId, Metadata, NewItem, OpenMode, open,
    },
    http::HttpConfig,
    model::ModelId,
    vision::{Preprocessing, ResizeMode},
};
use reqwest::{
    RequestBuilder, StatusCode,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::support::{
    difference, focus, read_golden, scratch,
    server::{BadRequest, Server, assert_problem, floats, new_gallery, npy, ok, ok_bytes, ok_json},
    tiny,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";
const COFFEE: &str = "dinov2-small-focus/coffee.png";
const ROCKET: &str = "dinov2-small-focus/rocket.jpg";

async fn store(folder: &Path) -> Gallery {
    open(
        folder.to_str().unwrap(),
        &GalleryConfig::default(),
        OpenMode::Serve,
    )
    .await
    .expect("a store")
}

fn images(files: &[&str]) -> Form {
    let part = |file: &&str| Part::bytes(read_golden(file)).file_name((*file).to_owned());
    files
        .iter()
        .fold(Form::new(), |form, file| form.part("image", part(file)))
}

fn put(server: &Server, path: &str, files: &[&str]) -> RequestBuilder {
    server.put(path).multipart(images(files))
}

fn post(server: &Server, path: &str, files: &[&str]) -> RequestBuilder {
    server.post(path).multipart(images(files))
}

/// The PCA map of each image.
async fn maps(server: &Server, options: &str, files: &[&str]) -> Vec<Vec<f32>> {
    let request =
        post(server, &format!("/v1/pca?{options}"), files).header("accept", "application/json");
    ok_json(request).await["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| floats(&image["map"]))
        .collect()
}

/// Compares two bases. Ranges come from tokens that were rounded to f16.
#[track_caller]
fn assert_same_basis(a: &Value, b: &Value) {
    for (member, most) in [
        ("mean", 1e-5),
        ("components", 1e-4),
        ("explained", 1e-5),
        ("ranges", 2e-3),
    ] {
        let (largest, _) = difference(&floats(&a[member]), &floats(&b[member]));
        assert!(largest <= most, "{member}: {largest}");
    }
}

#[tokio::test]
async fn an_image_has_the_same_colors_in_any_batch() {
    let server = Server::tiny_with_gallery().await;
    ok(put(
        &server,
        "/v1/bases/photos?size=224&components=5",
        &[CHELSEA, COFFEE],
    ))
    .await;
    let alone = maps(&server, "size=112&basis=photos", &[CHELSEA]).await;
    let batched = maps(&server, "size=112&basis=photos", &[ROCKET, CHELSEA]).await;
    assert!(difference(&alone[0], &batched[1]).0 < 1e-4);
    // Without the basis they would differ.
    let own = maps(&server, "size=112", &[CHELSEA]).await;
    let joint = maps(&server, "size=112", &[ROCKET, CHELSEA]).await;
    assert!(difference(&own[0], &joint[1]).0 > 0.05);

    // The rendering shows the first three components.
    let request = post(
        &server,
        "/v1/pca?size=112&basis=photos&output=patch",
        &[CHELSEA],
    );
    let rendering = image::load_from_memory(&ok_bytes(request).await)
        .unwrap()
        .into_rgb8();
    let expected: Vec<f32> = alone[0].iter().map(|value| value * 255.0).collect();
    let found: Vec<f32> = rendering
        .as_raw()
        .iter()
        .map(|&value| f32::from(value))
        .collect();
    assert!(difference(&found, &expected).0 <= 0.51);

    // The map has as many components as the basis.
    let five = maps(&server, "size=112&basis=photos&components=5", &[CHELSEA]).await;
    let three: Vec<f32> = five[0]
        .chunks(5)
        .flat_map(|values| values[..3].to_vec())
        .collect();
    assert!(difference(&three, &alone[0]).0 < 1e-5);

    // The foreground keeps its colors; the rest is black.
    let request = post(
        &server,
        "/v1/pca?size=112&basis=photos&foreground=auto",
        &[CHELSEA],
    );
    let answer = ok_json(request.header("accept", "application/json")).await;
    let shown: Vec<bool> = answer["data"][0]["foreground"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|v| v == true)
        .collect();
    assert!(shown.contains(&true) && shown.contains(&false));
    let map = floats(&answer["data"][0]["map"]);
    for ((color, whole), shown) in map.chunks(3).zip(alone[0].chunks(3)).zip(shown) {
        assert!(difference(color, if shown { whole } else { &[0.0; 3] }).0 < 1e-4);
    }
}

#[tokio::test]
async fn a_basis_of_two_images_equals_their_joint_basis_with_narrower_ranges() {
    let server =
        Server::start_on(new_gallery().await, focus().clone(), HttpConfig::default()).await;
    let options = "size=224&resize=fit";
    let joint = ok_json(
        post(&server, &format!("/v1/pca?{options}"), &[CHELSEA, COFFEE])
            .header("accept", "application/json"),
    )
    .await;
    let response = ok(put(
        &server,
        &format!("/v1/bases/two?{options}"),
        &[CHELSEA, COFFEE],
    ))
    .await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert!(
        response.headers()["server-timing"]
            .to_str()
            .unwrap()
            .contains("inference;dur=")
    );
    let kept: Value = response.json().await.unwrap();
    assert!(difference(&floats(&kept["explained"]), &floats(&joint["explained"])).0 < 1e-5);
    assert_eq!(
        (
            kept["images"].as_u64(),
            kept["size"].as_u64(),
            kept["resize"].as_str()
        ),
        (Some(2), Some(224), Some("fit"))
    );
    assert_eq!(kept["patches"].as_u64(), Some(2 * 16 * 24));

    // Joint maps are scaled from the least to the largest coordinate, maps by a basis from the
    // first to the last percentile. So the latter equal the joint maps stretched by percentiles.
    let joint: Vec<Vec<f32>> = joint["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| floats(&image["map"]))
        .collect();
    let found = maps(&server, &format!("{options}&basis=two"), &[CHELSEA, COFFEE]).await;
    for component in 0..3 {
        let of = |maps: &[Vec<f32>]| -> Vec<f32> {
            maps.concat()
                .chunks(3)
                .map(|values| values[component])
                .collect()
        };
        let joint = of(&joint);
        let found = of(&found);
        let mut sorted = joint.clone();
        sorted.sort_by(f32::total_cmp);
        let percentile = |share: f64| {
            let place = share * (sorted.len() - 1) as f64;
            let below = place as usize;
            let part = place.fract() as f32;
            sorted[below] + (sorted[below + 1] - sorted[below]) * part
        };
        let low = percentile(0.01);
        let high = percentile(0.99);
        let expected: Vec<f32> = joint
            .iter()
            .map(|value| ((value - low) / (high - low)).clamp(0.0, 1.0))
            .collect();
        assert!(difference(&found, &expected).0 < 1.0 / 255.0);
    }

    // The basis as JSON and as an array.
    let json = ok_json(server.get("/v1/bases/two")).await;
    let components = npy(&ok_bytes(
        server
            .get("/v1/bases/two")
            .header("accept", "application/x-npy"),
    )
    .await);
    assert_eq!(components.shape(), [3, 384]);
    assert_eq!(
        components.iter().copied().collect::<Vec<_>>(),
        floats(&json["components"])
    );
    assert_eq!(json["fingerprint"], focus().fingerprint);
    let components = components.into_dimensionality::<ndarray::Ix2>().unwrap();
    assert!(difference(&components.dot(&components.t()), &ndarray::Array2::eye(3)).0 < 1e-5);
}

#[tokio::test]
async fn servers_that_add_images_at_once_lose_none() {
    let store = new_gallery().await;
    let server = || {
        let model = tiny("tiny-reg", "model.safetensors");
        Server::start_on(store.clone(), model, HttpConfig::default())
    };
    let servers = [server().await, server().await];
    let path = "/v1/bases/shared";
    ok(put(
        &servers[0],
        &format!("{path}?size=112&resize=crop"),
        &[CHELSEA],
    ))
    .await;
    let requests = (0..24).map(|n| ok_json(post(&servers[n % 2], path, &[COFFEE])));
    futures_util::future::join_all(requests).await;
    let shared = ok_json(servers[1].get(path)).await;
    assert_eq!(
        (&shared["images"], &shared["patches"]),
        (&json!(25), &json!(25 * 64))
    );
}

#[tokio::test]
async fn adding_images_equals_fitting_all_at_once() {
    let server = Server::tiny_with_gallery().await;
    ok(put(
        &server,
        "/v1/bases/once?size=112&resize=crop",
        &[CHELSEA, COFFEE, ROCKET],
    ))
    .await;
    let response = ok(put(
        &server,
        "/v1/bases/bit-by-bit?size=112&resize=crop",
        &[COFFEE],
    ))
    .await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let added = ok_json(post(&server, "/v1/bases/bit-by-bit", &[CHELSEA, ROCKET])).await;
    assert_eq!(
        (added["images"].as_u64(), added["patches"].as_u64()),
        (Some(3), Some(3 * 64))
    );
    let once = ok_json(server.get("/v1/bases/once")).await;
    let bit_by_bit = ok_json(server.get("/v1/bases/bit-by-bit")).await;
    assert_same_basis(&once, &bit_by_bit);

    // Concurrent additions wait for each other; no images are lost.
    let requests = (0..8).map(|_| ok_json(post(&server, "/v1/bases/bit-by-bit", &[CHELSEA])));
    futures_util::future::join_all(requests).await;
    assert_eq!(
        ok_json(server.get("/v1/bases/bit-by-bit")).await["images"],
        11
    );

    let response = ok(put(&server, "/v1/bases/once?size=112", &[ROCKET])).await;
    assert_eq!(response.status(), StatusCode::OK, "replaced");
    let names = |list: &Value| -> Vec<String> {
        list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|basis| basis["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        names(&ok_json(server.get("/v1/bases")).await),
        ["bit-by-bit", "once"]
    );
    assert_eq!(ok_json(server.get("/v1/bases/once")).await["images"], 1);
    let response = ok(server.delete("/v1/bases/bit-by-bit")).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(names(&ok_json(server.get("/v1/bases")).await), ["once"]);
}

#[tokio::test]
async fn bases_survive_a_restart_and_belong_to_a_model() {
    let folder = scratch("bases");
    let start = async |model: &str| {
        Server::start_on(
            store(&folder).await,
            tiny(model, "model.safetensors"),
            HttpConfig::default(),
        )
        .await
    };
    let server = start("tiny-reg").await;
    ok(put(
        &server,
        "/v1/bases/lasting?size=112",
        &[CHELSEA, COFFEE],
    ))
    .await;
    let rendering = async |server: &Server| {
        ok_bytes(post(server, "/v1/pca?size=112&basis=lasting", &[ROCKET])).await
    };
    let basis = ok_json(server.get("/v1/bases/lasting")).await;
    let drawn = rendering(&server).await;
    server.stopped().await;

    let server = start("tiny-reg").await;
    assert_eq!(ok_json(server.get("/v1/bases/lasting")).await, basis);
    assert_eq!(rendering(&server).await, drawn);
    server.stopped().await;

    // Another model's tokens cannot be projected on it.
    let server = start("tiny").await;
    let wanted = "the basis `lasting` is fitted on features of tiny-reg (fingerprint ";
    for path in ["/v1/pca?basis=lasting", "/v1/bases/lasting"] {
        let request = post(&server, path, &[ROCKET]);
        assert_problem((path, request, 409, "conflict", wanted)).await;
    }
    assert_eq!(ok_json(server.get("/v1/bases/lasting")).await, basis);
    ok(put(&server, "/v1/bases/lasting?size=112", &[CHELSEA])).await;
    rendering(&server).await;
}

#[tokio::test]
async fn a_basis_can_be_fitted_on_the_thumbnails_of_a_gallery() {
    let store = new_gallery().await;
    let binding = Binding {
        model: ModelId {
            name: "any".to_owned(),
            fingerprint: ("any".to_owned()).into(),
        },
        dim: 2,
        pooling: Pooling::Cls,
        layers: 1,
        preprocessing: Preprocessing::new(ResizeMode::Crop, 224),
    };
    let item = |id: &str, file: Option<&str>| NewItem {
        id: ItemId::new(id).unwrap(),
        label: None,
        metadata: Metadata::default(),
        vector: vec![1.0, 0.0],
        features: None,
        thumbnail: file.map(|file| read_golden(file).into()),
    };
    let mut items = vec![item("cat", Some(CHELSEA)), item("cup", Some(COFFEE))];
    items.extend((0..20).map(|number| item(&format!("vector {number}"), None)));
    let pictures = GalleryName::new("pictures").unwrap();
    let bare = GalleryName::new("bare").unwrap();
    store.put(&pictures, &binding, items).await.unwrap();
    store
        .put(&bare, &binding, vec![item("vector", None)])
        .await
        .unwrap();

    let server = Server::start_on(
        store,
        tiny("tiny-reg", "model.safetensors"),
        HttpConfig::default(),
    )
    .await;
    let put_empty = |path: &str| server.put(path);
    let kept = ok_json(put_empty("/v1/bases/sampled?gallery=pictures&size=112")).await;
    assert_eq!(
        (kept["images"].as_u64(), kept["size"].as_u64()),
        (Some(2), Some(112))
    );
    ok(put(
        &server,
        "/v1/bases/uploaded?size=112",
        &[CHELSEA, COFFEE],
    ))
    .await;
    let sampled = ok_json(server.get("/v1/bases/sampled")).await;
    let uploaded = ok_json(server.get("/v1/bases/uploaded")).await;
    assert_same_basis(&sampled, &uploaded);
    let kept = ok_json(put_empty(
        "/v1/bases/one?gallery=pictures&size=112&sample=1",
    ))
    .await;
    assert_eq!(
        kept["images"].as_u64(),
        Some(1),
        "items without a thumbnail are no part of the sample"
    );
    let kept = ok_json(put_empty(
        "/v1/bases/default-size?gallery=pictures&sample=3",
    ))
    .await;
    assert_eq!(kept["size"].as_u64(), Some(224));
    let more = ok_json(server.post("/v1/bases/uploaded?gallery=pictures")).await;
    assert_eq!(more["images"].as_u64(), Some(4));

    let put_to = |options: &str| put_empty(&format!("/v1/bases/new?{options}"));
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("items without thumbnails", put_to("gallery=bare"),
         422, "invalid_option", "`bare` has no items with images"),
        ("missing gallery", put_to("gallery=missing"), 404, "not_found", "missing"),
        ("sample of none", put_to("gallery=pictures&sample=0"),
         422, "invalid_option", "it must be 1 to 1000"),
        ("gallery and files", put(&server, "/v1/bases/new?gallery=pictures", &[CHELSEA]),
         422, "invalid_option", "cannot be combined with images"),
        ("gallery in a form", put_to("").multipart(images(&[CHELSEA]).text("gallery", "pictures")),
         422, "invalid_option", "cannot be combined with images"),
        ("sample of files", put(&server, "/v1/bases/new?sample=5", &[CHELSEA]),
         422, "invalid_option", "requires `gallery`"),
    ];
    for case in cases {
        assert_problem(case).await;
    }
}

#[tokio::test]
async fn bad_requests_about_bases_are_rejected_and_change_nothing() {
    let server = Server::tiny_with_gallery().await;
    ok(put(&server, "/v1/bases/good?size=112", &[CHELSEA])).await;
    let before = ok_json(server.get("/v1/bases/good")).await;
    let pca = |options: &str| post(&server, &format!("/v1/pca?{options}"), &[CHELSEA]);
    let fit = |options: &str| put(&server, &format!("/v1/bases/good?{options}"), &[CHELSEA]);
    let with_damage = |request: RequestBuilder| {
        let damaged = Part::bytes(b"no rendering".to_vec()).file_name("x.png");
        request.multipart(images(&[CHELSEA]).part("image", damaged))
    };
    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("map by a missing basis", pca("basis=missing"), 404, "not_found", "missing"),
        ("missing basis", server.get("/v1/bases/missing"), 404, "not_found", "missing"),
        ("images for a missing basis", post(&server, "/v1/bases/missing", &[CHELSEA]),
         404, "not_found", "missing"),
        ("deletion of a missing basis", server.delete("/v1/bases/missing"),
         404, "not_found", "missing"),
        ("bad name", server.get("/v1/bases/Not%2FGood"),
         422, "invalid_option", "\"Not/Good\" is no name"),
        ("bad name for a new basis", put(&server, "/v1/bases/Not%2FGood", &[CHELSEA]),
         422, "invalid_option", "\"Not/Good\" is no name"),
        ("map by a bad name", pca("basis=Not%2FGood"),
         422, "invalid_option", "\"Not/Good\" is no name"),
        ("name not UTF-8", server.get("/v1/bases/%FF"), 400, "malformed_request", "path"),
        ("map of more components", pca("basis=good&components=4"),
         422, "invalid_option", "it must be 1 to 3, as many as the basis has"),
        ("map of no components", pca("basis=good&components=0"),
         422, "invalid_option", "it must be 1 to 3, as many as the basis has"),
        ("no components", fit("components=0"), 422, "invalid_option", "it must be 1 to 64"),
        ("65 components", fit("components=65"), 422, "invalid_option", "it must be 1 to 64"),
        ("too few patches", fit("size=14&components=5"),
         422, "invalid_option", "5 components cannot be fitted on"),
        ("unknown option", fit("foreground=auto"),
         422, "invalid_option", "unknown; expected one of"),
        ("size odd", fit("size=113&resize=crop"),
         422, "invalid_option", "multiple of the patch size"),
        ("size of added images", post(&server, "/v1/bases/good?size=112", &[CHELSEA]),
         422, "invalid_option", "unknown; expected one of model, gallery, sample"),
        ("damaged image", with_damage(server.put("/v1/bases/good")),
         422, "undecodable_image", "image 1: the 12 bytes"),
        ("damaged image added", with_damage(server.post("/v1/bases/good")),
         422, "undecodable_image", "image 1: the 12 bytes"),
        ("no image", server.put("/v1/bases/good").json(&json!({"size": 112})),
         400, "malformed_request", "no image"),
        ("option of a list", server.get("/v1/bases?size=1"),
         422, "invalid_option", "unknown; expected one of model"),
        ("nothing acceptable", server.get("/v1/bases/good").header("accept", "text/html"),
         406, "not_acceptable", "application/x-npy"),
    ];
    for case in cases {
        assert_problem(case).await;
    }
    assert_eq!(ok_json(server.get("/v1/bases/good")).await, before);
}

#[tokio::test]
async fn a_server_without_a_gallery_keeps_no_bases() {
    let server = Server::tiny().await;
    let wanted = "this server keeps no gallery; start it with --gallery";
    for (name, request) in [
        ("list", server.get("/v1/bases")),
        ("new", put(&server, "/v1/bases/new", &[CHELSEA])),
        ("map", post(&server, "/v1/pca?basis=new", &[CHELSEA])),
    ] {
        assert_problem((name, request, 404, "not_found", wanted)).await;
    }
}
