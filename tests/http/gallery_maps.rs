//! Maps of galleries over HTTP: made, extended, kept with their gallery, and cancelled.

use dinoserve::gallery::{DocumentKind, GalleryName, ItemId, NewItem};
use serde_json::{Value, json};

use super::audits::{fill, item, items, server_on};
use crate::support::server::{Server, new_gallery, ok, ok_json, problem};

const PATH: &str = "/v1/galleries/g/map";

async fn make(server: &Server, query: &str) -> Value {
    ok_json(server.post(&format!("{PATH}?wait=true{query}"))).await
}

fn points(map: &Value) -> Vec<[f64; 2]> {
    serde_json::from_value(map["map"]["points"].clone()).unwrap()
}

/// Returns the share of the five nearest points of each that have its label.
fn purity(map: &Value) -> f64 {
    let points = points(map);
    let labels = map["map"]["label_of"].as_array().unwrap();
    let mut same = 0;
    for (row, at) in points.iter().enumerate() {
        let square = |to: &[f64; 2]| (at[0] - to[0]).powi(2) + (at[1] - to[1]).powi(2);
        let mut others: Vec<usize> = (0..points.len()).filter(|&other| other != row).collect();
        others.sort_by(|&a, &b| square(&points[a]).total_cmp(&square(&points[b])));
        same += others[..5]
            .iter()
            .filter(|&&other| labels[other] == labels[row])
            .count();
    }
    same as f64 / (5 * points.len()) as f64
}

#[tokio::test]
async fn similar_items_are_near_each_other_and_keep_their_places() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    fill(&store, &server, "g", items(180)).await;
    let (status, body) = problem(server.get(PATH)).await;
    assert_eq!(status, 404);
    let detail = body["detail"].as_str().unwrap();
    assert!(
        detail.contains("there is no map of the gallery `g`"),
        "{detail}"
    );

    let map = make(&server, "").await;
    assert_eq!(
        (&map["gallery"], &map["state"]),
        (&json!("g"), &json!("ready"))
    );
    assert_eq!(map["map"]["labels"], json!(["ant", "bee", "cat"]));
    let ids = map["map"]["ids"].as_array().unwrap();
    assert_eq!((ids.len(), &ids[17]), (180, &json!("item 17")));
    assert!(purity(&map) > 0.97, "{}", purity(&map));
    // It is kept in the store, so that other servers have it, too.
    assert_eq!(ok_json(server.get(PATH)).await, map);
    assert_eq!(ok_json(server_on(&store).await.get(PATH)).await, map);
    // The same vectors give the same map.
    let again = make(&server, "&again=true").await;
    assert_eq!(points(&again), points(&map));

    // New items, and those that are replaced, get places; others keep theirs.
    let new = (180..200).map(item).chain([NewItem {
        id: ItemId::new("item 3").unwrap(),
        ..item(190)
    }]);
    fill(&store, &server, "g", new.collect()).await;
    ok(server.delete("/v1/gallery/item%2040?gallery=g")).await;
    let now = ok_json(server.get(PATH)).await;
    assert_eq!(now["map"]["missing"], 20);
    assert_eq!(now["map"]["ids"].as_array().unwrap().len(), 179);
    let extended = make(&server, "").await;
    assert_eq!(extended["map"]["missing"], 0);
    let (before, after) = (points(&map), points(&extended));
    assert_eq!(after.len(), 199);
    assert!(purity(&extended) > 0.95, "{}", purity(&extended));
    for (place, at) in before.iter().enumerate() {
        match place {
            40 => {}
            3 => assert_ne!(after[3], *at, "it is another image"),
            _ => assert_eq!(
                after[if place > 40 { place - 1 } else { place }],
                *at,
                "{place}"
            ),
        }
    }
    // A new label changes no place.
    let label = json!({"label": "dog"});
    ok(server.patch("/v1/gallery/item%205?gallery=g").json(&label)).await;
    let labeled = ok_json(server.get(PATH)).await;
    assert_eq!(
        labeled["map"]["labels"],
        json!(["ant", "bee", "cat", "dog"])
    );
    assert_eq!(points(&make(&server, "").await), after);

    ok(server
        .patch("/v1/galleries/g")
        .json(&json!({"to": "photos"})))
    .await;
    let renamed = ok_json(server.get("/v1/galleries/photos/map")).await;
    assert_eq!(points(&renamed), after);
    ok(server.delete("/v1/galleries/photos")).await;
    assert_eq!(store.documents(DocumentKind::Map).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_map_is_watched_and_cancelled() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    fill(&store, &server, "g", items(6000)).await;
    let begun = ok(server.post(PATH)).await;
    assert_eq!(begun.status(), 202);
    assert_eq!(begun.headers()["location"], PATH);
    let (status, body) = problem(server.post("/v1/galleries/g/audit")).await;
    assert_eq!(status, 503);
    let detail = body["detail"].as_str().unwrap();
    assert!(
        detail.contains("the map of the gallery `g` is in progress"),
        "{detail}"
    );
    loop {
        let state = ok_json(server.get(PATH)).await;
        assert_eq!(
            (&state["state"], state.get("map")),
            (&json!("running"), None),
            "{state}"
        );
        if state["progress"]["stage"] == "placing" && state["progress"]["done"] != 0 {
            break;
        }
    }
    assert_eq!(ok(server.delete(PATH)).await.status(), 204);
    assert_eq!(problem(server.get(PATH)).await.0, 404);
    assert_eq!(store.documents(DocumentKind::Map).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn maps_of_few_items_and_maps_that_cannot_be_made() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    for count in [0, 1, 2, 5] {
        let name = format!("of-{count}");
        fill(&store, &server, &name, items(count)).await;
        let path = format!("/v1/galleries/{name}/map?wait=true");
        let map = ok_json(server.post(&path)).await;
        assert_eq!(points(&map).len(), count);
    }
    fill(&store, &server, "g", items(6001)).await;
    let (status, body) = problem(server.post(PATH)).await;
    assert_eq!(
        (status, &body["limit"]["name"]),
        (413, &json!("max_compared_items"))
    );
    assert_eq!(problem(server.post("/v1/galleries/none/map")).await.0, 404);
    assert_eq!(
        problem(server.post("/v1/galleries/of-1/map?new=true"))
            .await
            .0,
        422
    );

    // A damaged document is reported as such, and is made again.
    let name = GalleryName::new("of-5").unwrap();
    let key = dinoserve::gallery::DocumentKey::of_map(&name);
    let whole = store.document(key).await.unwrap().unwrap();
    for damaged in [
        whole.slice(..whole.len() - 8),
        whole.slice(40..),
        bytes::Bytes::new(),
    ] {
        store.put_document(key, damaged).await.unwrap();
        let (status, body) = problem(server.get("/v1/galleries/of-5/map")).await;
        assert_eq!(status, 422);
        assert!(
            body["detail"].as_str().unwrap().contains("damaged"),
            "{body}"
        );
    }
    let again = ok_json(server.post("/v1/galleries/of-5/map?wait=true")).await;
    assert_eq!(points(&again).len(), 5);
    // Two places say too little about where ten others belong.
    fill(&store, &server, "of-2", items(12)).await;
    let map = ok_json(server.post("/v1/galleries/of-2/map?wait=true")).await;
    let mut distinct = points(&map);
    distinct.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    distinct.dedup();
    assert_eq!(distinct.len(), 12, "{map}");
}
