//! Search, compared with an exhaustive search in the test.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use dinoserve::{
    error::Kind,
    gallery::{
        Binding, Bound, Condition, Gallery, GalleryConfig, GalleryName, ItemFilter, Metadata,
        Neighbor, NewItem, Query, Scalar, Search, VectorFormat,
    },
    model::ModelId,
};
use serde_json::{Value, json};

use super::{Place, Random, binding, full, id, ids, name, over_both_stores, plain};

over_both_stores!(
    the_nearest_are_found,
    equal_scores_come_in_the_order_of_places,
    filters_find_what_matches,
    a_filter_may_list_many_values,
    a_search_may_return_fewer_than_k,
    an_emptied_gallery_is_searched_after_a_restart,
    searches_reject_vectors_of_another_binding,
    a_large_gallery_is_searched_by_an_index_that_lacks_nothing,
    wide_vectors_are_searched,
    a_search_for_an_item_sees_one_moment,
);

fn search(vector: &[f32], k: usize) -> Search {
    Search::new(vector.to_vec(), k)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

fn vector_of(search: &Search) -> &[f32] {
    match &search.query {
        Query::Vector(vector) => vector,
        Query::Item(id) => panic!("{id} is no vector"),
    }
}

/// Returns the best `k` of the items that pass, by falling score.
fn reference<'a>(items: &'a [NewItem], search: &Search) -> Vec<(&'a NewItem, f64)> {
    let passes = |item: &&NewItem| {
        search
            .filter
            .as_ref()
            .is_none_or(|filter| filter.matches(item.label.as_ref(), &item.metadata))
            && search.except.as_ref() != Some(&item.id)
    };
    let mut scored: Vec<_> = items
        .iter()
        .filter(passes)
        .map(|item| (item, dot(&item.vector, vector_of(search))))
        .collect();
    // Stable: items with equal scores stay in their order.
    scored.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    scored.truncate(search.k);
    scored
}

/// Checks that these are the nearest, in order. Items whose scores differ by less than rounding may
/// come in either order.
#[track_caller]
fn assert_nearest(found: &[Neighbor], items: &[NewItem], search: &Search) {
    let expected = reference(items, search);
    assert_eq!(found.len(), expected.len(), "{search:?}");
    for (found, (item, score)) in found.iter().zip(&expected) {
        assert!(
            (f64::from(found.score) - score).abs() < 2e-6,
            "{} and not {score}",
            found.score
        );
        let of_found = items
            .iter()
            .find(|item| item.id == found.item.id)
            .expect("an item that was stored");
        assert!(
            (dot(&of_found.vector, vector_of(search)) - score).abs() < 2e-6,
            "{} and not {}",
            found.item.id,
            item.id
        );
        assert_eq!(
            (&found.item.label, &found.item.metadata),
            (&of_found.label, &of_found.metadata)
        );
    }
    assert!(found.is_sorted_by(|a, b| a.score >= b.score));
}

async fn the_nearest_are_found(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(24);
    let mut random = Random(40);
    let mut items: Vec<_> = (0..600)
        .map(|n| plain(n.to_string(), random.direction(24)))
        .collect();
    store.put(&gallery, &binding, items.clone()).await.unwrap();
    // Some are replaced, some deleted.
    for n in (0..600).step_by(7) {
        items[n].vector = random.direction(24);
        store
            .put(&gallery, &binding, vec![items[n].clone()])
            .await
            .unwrap();
    }
    let gone: Vec<_> = (0..600).step_by(11).map(|n| items[n].id.clone()).collect();
    store.delete(&gallery, gone.clone()).await.unwrap();
    items.retain(|item| !gone.contains(&item.id));
    for round in 0..60 {
        let mut query = search(&random.direction(24), [1, 10, 50][round % 3]);
        query.exact = round % 2 == 0;
        if round % 5 == 0 {
            let of = random.of(&items);
            query.query = Query::Vector(of.vector.clone());
            query.except = (round % 10 == 0).then(|| of.id.clone());
        }
        let found = store.search(&gallery, query.clone()).await.unwrap();
        assert_nearest(&found, &items, &query);
    }
}

async fn equal_scores_come_in_the_order_of_places(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(8);
    let mut random = Random(41);
    let near = random.direction(8);
    let far = random.direction(8);
    let items = (0..200)
        .map(|n| {
            plain(
                n.to_string(),
                if n % 3 == 0 {
                    near.clone()
                } else {
                    far.clone()
                },
            )
        })
        .collect();
    store.put(&gallery, &binding, items).await.unwrap();
    // Storing them again does not move them to the end.
    let again = (0..200).rev().step_by(2).map(|n| {
        plain(
            n.to_string(),
            if n % 3 == 0 {
                near.clone()
            } else {
                far.clone()
            },
        )
    });
    store
        .put(&gallery, &binding, again.collect())
        .await
        .unwrap();
    let found = store.search(&gallery, search(&near, 100)).await.unwrap();
    let expected: Vec<String> = (0..200)
        .filter(|n| n % 3 == 0)
        .chain((0..200).filter(|n| n % 3 != 0))
        .take(100)
        .map(|n| n.to_string())
        .collect();
    assert_eq!(ids(found.iter().map(|found| &found.item)), expected);
    assert!(
        found
            .iter()
            .all(|found| (-1.0..=1.0).contains(&found.score))
    );
}

/// Returns values that differ in type only, that are close to each other, or that are special.
fn values() -> Vec<Value> {
    let texts = [
        "", "a", "A", "b", "ab", "a b", "é", "😀", "1", "true", "null", "%", "\\", "\"", "a\u{1}",
    ];
    let numbers = [
        json!(0),
        json!(-0.0),
        json!(1),
        json!(1.0),
        json!(-1),
        json!(1.5),
        json!(0.1),
        json!(0.30000000000000004),
        json!(9007199254740993u64),
        json!(9007199254740992u64),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(5e-324),
    ];
    texts
        .iter()
        .map(|text| json!(text))
        .chain(numbers)
        .chain([json!(true), json!(false)])
        .collect()
}

const MEMBERS: [&str; 5] = ["m", "M", "", "a.b", "😀"];
const LABELS: [&str; 5] = ["a", "A", "b", "é", "1"];

fn random_metadata(random: &mut Random, values: &[Value]) -> Metadata {
    let mut object = serde_json::Map::new();
    for _ in 0..random.below(4) {
        let value = match random.below(10) {
            0 => json!(null),
            1 => json!({"m": random.of(values)}),
            2 => json!([]),
            3 | 4 => json!([
                random.of(values),
                random.of(values),
                null,
                [random.of(values)]
            ]),
            _ => random.of(values).clone(),
        };
        object.insert((*random.of(&MEMBERS)).to_owned(), value);
    }
    Metadata::new(object).unwrap()
}

fn random_condition(random: &mut Random, values: &[Value]) -> Condition {
    let scalar = |random: &mut Random| {
        let scalar = Scalar::of(random.of(values)).unwrap();
        // Stored texts have no NUL; filters may have one.
        match scalar {
            Scalar::Text(text) if random.below(8) == 0 => Scalar::Text(format!("{text}\0{text}")),
            scalar => scalar,
        }
    };
    match random.below(2) {
        0 => Condition::AnyOf((0..random.below(4)).map(|_| scalar(random)).collect()),
        _ => {
            let bound = |random: &mut Random| {
                (random.below(3) > 0).then(|| Bound {
                    value: scalar(random),
                    inclusive: random.below(2) == 0,
                })
            };
            let low = bound(random);
            let high = bound(random);
            Condition::Range { low, high }
        }
    }
}

async fn filters_find_what_matches(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let mut random = Random(42);
    let values = values();
    let items: Vec<_> = (0..400)
        .map(|n| {
            let label = *random.of(&LABELS);
            let mut item = full(&n.to_string(), label, "{}", random.direction(4));
            item.label = item.label.filter(|_| n % 4 != 0);
            item.metadata = random_metadata(&mut random, &values);
            item
        })
        .collect();
    store.put(&gallery, &binding, items.clone()).await.unwrap();
    let mut some = 0;
    let mut none = 0;
    for round in 0..400 {
        let mut filter = ItemFilter::default();
        if round % 3 == 0 {
            let labels: Vec<Value> = LABELS
                .iter()
                .map(|label| json!(label))
                .chain([json!(1)])
                .collect();
            filter.label = Some(random_condition(&mut random, &labels));
        }
        for _ in 0..random.below(3) {
            let member = if random.below(30) == 0 {
                "m\0"
            } else {
                *random.of(&MEMBERS)
            };
            filter
                .metadata
                .push((member.to_owned(), random_condition(&mut random, &values)));
        }
        let matching: Vec<_> = items
            .iter()
            .filter(|item| filter.matches(item.label.as_ref(), &item.metadata))
            .collect();
        if matching.is_empty() {
            none += 1;
        } else {
            some += 1;
        }
        let expected: Vec<String> = matching
            .iter()
            .map(|item| item.id.as_str().to_owned())
            .collect();
        let page = store.page(&gallery, 0, 1000, Some(&filter)).await.unwrap();
        assert_eq!(ids(&page), expected, "{filter:?}");
        let query = Search {
            filter: Some(filter),
            ..search(&random.direction(4), 7)
        };
        assert_nearest(
            &store.search(&gallery, query.clone()).await.unwrap(),
            &items,
            &query,
        );
    }
    assert!(
        some > 100 && none > 50,
        "{some} filters find something, and {none} nothing"
    );
}

async fn a_filter_may_list_many_values(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let mut random = Random(43);
    let item = |n: usize, random: &mut Random| {
        full(
            &n.to_string(),
            &format!("l{n}"),
            &json!({"n": n, "t": [format!("t{n}"), n]}).to_string(),
            random.direction(4),
        )
    };
    let items: Vec<_> = (0..100).map(|n| item(n, &mut random)).collect();
    store.put(&gallery, &binding, items.clone()).await.unwrap();
    let numbers: Vec<usize> = (0..5000).map(|n| n * 3).collect();
    let texts: Vec<String> = numbers.iter().map(|n| format!("t{n}")).collect();
    let labels: Vec<String> = numbers.iter().map(|n| format!("l{n}")).collect();
    let expected: Vec<String> = (0..100).step_by(3).map(|n| n.to_string()).collect();
    for filter in [
        json!({"metadata": {"n": {"any": numbers}}}),
        json!({"metadata": {"t": {"any": texts}}}),
        json!({"label": {"any": labels}}),
        json!({
            "label": {"any": labels},
            "metadata": {"n": {"any": numbers}, "t": {"any": numbers}},
        }),
    ] {
        let filter = ItemFilter::parse(&filter).unwrap();
        assert_eq!(
            ids(&store.page(&gallery, 0, 1000, Some(&filter)).await.unwrap()),
            expected
        );
    }
}

async fn a_search_may_return_fewer_than_k(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let mut random = Random(44);
    store.create(&gallery, &binding).await.unwrap();
    assert!(
        store
            .search(&gallery, search(&random.direction(4), 5))
            .await
            .unwrap()
            .is_empty()
    );
    let items: Vec<_> = (0..3)
        .map(|n| full(&n.to_string(), "l", "{}", random.direction(4)))
        .collect();
    store.put(&gallery, &binding, items.clone()).await.unwrap();
    for k in [0, 1, 2, 3, 4, 1_000_000] {
        let query = search(&random.direction(4), k);
        assert_nearest(
            &store.search(&gallery, query.clone()).await.unwrap(),
            &items,
            &query,
        );
    }
    let unknown = Search {
        except: Some(id("unknown")),
        ..search(&items[0].vector, 9)
    };
    assert_eq!(store.search(&gallery, unknown).await.unwrap().len(), 3);
    let none = Search {
        filter: Some(ItemFilter::of_label("x")),
        ..search(&items[0].vector, 9)
    };
    assert!(store.search(&gallery, none).await.unwrap().is_empty());
}

async fn an_emptied_gallery_is_searched_after_a_restart(place: &Place) {
    let gallery = name("g");
    let binding = binding(4);
    let item = full("a", "l", "{}", Random(50).direction(4));
    let store = place.open().await;
    store
        .put(&gallery, &binding, vec![item.clone()])
        .await
        .unwrap();
    store.delete(&gallery, vec![item.id.clone()]).await.unwrap();
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert!(
        store
            .search(&gallery, search(&item.vector, 5))
            .await
            .unwrap()
            .is_empty()
    );
    store
        .put(&gallery, &binding, vec![item.clone()])
        .await
        .unwrap();
    assert_eq!(
        store
            .search(&gallery, search(&item.vector, 5))
            .await
            .unwrap()
            .len(),
        1
    );
}

/// Another gallery may take the name while the vector of an image is computed.
async fn searches_reject_vectors_of_another_binding(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let item = full("a", "l", "{}", Random(51).direction(4));
    store
        .put(&gallery, &binding, vec![item.clone()])
        .await
        .unwrap();
    let of = |binding: Binding, dim: usize| Search {
        binding: Some(Binding { dim, ..binding }),
        ..search(&Random(52).direction(dim), 5)
    };
    assert_eq!(
        store
            .search(&gallery, of(binding.clone(), 4))
            .await
            .unwrap()
            .len(),
        1
    );
    for dim in [2, 8] {
        let rejected = store
            .search(&gallery, of(binding.clone(), dim))
            .await
            .unwrap_err();
        assert_eq!(rejected.kind(), Kind::Conflict, "{rejected}");
        let rejected = store
            .search(&gallery, search(&Random(53).direction(dim), 5))
            .await
            .unwrap_err();
        assert!(
            rejected.kind() == Kind::InvalidOption && rejected.detail().contains("have 4"),
            "{rejected}"
        );
    }
    let other = Binding {
        model: ModelId {
            fingerprint: "another".into(),
            ..binding.model.clone()
        },
        ..binding
    };
    let rejected = store.search(&gallery, of(other, 4)).await.unwrap_err();
    assert_eq!(rejected.kind(), Kind::Conflict, "{rejected}");
}

/// Searches until the index exists; it is built in the background.
pub async fn wait_for_index(store: &Gallery, gallery: &GalleryName, query: &Search) {
    for _ in 0..600 {
        store.search(gallery, query.clone()).await.unwrap();
        if store.require_gallery(gallery).await.unwrap().indexed > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("there is no index after a minute");
}

/// Returns the share of the nearest items that is found.
pub fn recall(found: &[Neighbor], items: &[NewItem], query: &Search) -> f64 {
    let expected = reference(items, query);
    let hits = expected
        .iter()
        .filter(|(item, _)| found.iter().any(|found| found.item.id == item.id))
        .count();
    hits as f64 / expected.len() as f64
}

async fn a_large_gallery_is_searched_by_an_index_that_lacks_nothing(place: &Place) {
    let store = place
        .open_with(&GalleryConfig {
            exact_up_to: 500,
            ..place.config.clone()
        })
        .await;
    let gallery = name("g");
    let binding = binding(32);
    let mut random = Random(45);
    let mut items: Vec<_> = (0..4000)
        .map(|n| {
            let metadata = json!({"rare": n % 400 == 0, "n": n}).to_string();
            full(
                &n.to_string(),
                if n % 2 == 0 { "even" } else { "odd" },
                &metadata,
                random.direction(32),
            )
        })
        .collect();
    for items in items.chunks(500) {
        store.put(&gallery, &binding, items.to_vec()).await.unwrap();
    }
    assert_eq!(store.require_gallery(&gallery).await.unwrap().items, 4000);
    wait_for_index(&store, &gallery, &search(&items[0].vector, 1)).await;

    let filters = [
        None,
        Some(json!({"label": "even"})),
        Some(json!({"metadata": {"n": {"gte": 1000}}})),
    ];
    for filter in filters {
        let filter = filter.map(|filter| ItemFilter::parse(&filter).unwrap());
        let mut found_of_all = 0.0;
        for _ in 0..30 {
            let query = Search {
                filter: filter.clone(),
                ..search(&random.direction(32), 10)
            };
            let found = store.search(&gallery, query.clone()).await.unwrap();
            assert_eq!(found.len(), 10);
            found_of_all += recall(&found, &items, &query) / 30.0;
            let exact = Search {
                exact: true,
                ..query
            };
            assert_nearest(
                &store.search(&gallery, exact.clone()).await.unwrap(),
                &items,
                &exact,
            );
        }
        assert!(found_of_all > 0.9, "recall with {filter:?}: {found_of_all}");
    }
    // Few items pass: all of them are compared.
    let rare = ItemFilter::parse(&json!({"metadata": {"rare": true}})).unwrap();
    let few = Search {
        filter: Some(rare),
        ..search(&random.direction(32), 20)
    };
    assert_nearest(
        &store.search(&gallery, few.clone()).await.unwrap(),
        &items,
        &few,
    );
    let many = search(&random.direction(32), 3000);
    assert_eq!(store.search(&gallery, many).await.unwrap().len(), 3000);

    // Stored, replaced and deleted items count at once.
    for n in 0..40 {
        let new = random.direction(32);
        let at = random.below(items.len());
        items[at].vector = new.clone();
        store
            .put(&gallery, &binding, vec![items[at].clone()])
            .await
            .unwrap();
        let found = store.search(&gallery, search(&new, 1)).await.unwrap();
        assert_eq!(found[0].item.id, items[at].id, "{n}");
        let gone = items.swap_remove(at);
        store.delete(&gallery, vec![gone.id.clone()]).await.unwrap();
        let found = store.search(&gallery, search(&new, 5)).await.unwrap();
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|found| found.item.id != gone.id), "{n}");
    }
}

async fn wide_vectors_are_searched(place: &Place) {
    let store = place
        .open_with(&GalleryConfig {
            exact_up_to: 100,
            ..place.config.clone()
        })
        .await;
    // pgvector has an index for up to 2000 dimensions, another for up to 4000, and none above.
    for dim in [1536, 3072, 4608] {
        let gallery = name(&format!("g{dim}"));
        let binding = binding(dim);
        let mut random = Random(dim as u64);
        let items: Vec<_> = (0..300)
            .map(|n| plain(n.to_string(), random.direction(dim)))
            .collect();
        store.put(&gallery, &binding, items.clone()).await.unwrap();
        let has_index = dim <= 4000 || place.config.vectors == VectorFormat::B1;
        if has_index || place.is_folder() {
            wait_for_index(&store, &gallery, &search(&items[0].vector, 1)).await;
        }
        let mut found_of_all = 0.0;
        for _ in 0..5 {
            let query = search(&random.direction(dim), 5);
            let found = store.search(&gallery, query.clone()).await.unwrap();
            found_of_all += recall(&found, &items, &query) / 5.0;
            let exact = Search {
                exact: true,
                ..query
            };
            assert_nearest(
                &store.search(&gallery, exact.clone()).await.unwrap(),
                &items,
                &exact,
            );
        }
        assert!(found_of_all > 0.7, "{dim}: {found_of_all}");
        let own = store
            .search(&gallery, search(&items[7].vector, 1))
            .await
            .unwrap();
        assert_eq!(own[0].item.id.as_str(), "7");
        assert!((own[0].score - 1.0).abs() < 1e-5);
    }
}

/// Replaces an item and searches for its neighbors, each by many clients at the same time: the
/// vector of the query, the scores and the records are of one version.
async fn a_search_for_an_item_sees_one_moment(place: &Place) {
    const VERSIONS: usize = 16;
    const DIM: usize = 8;
    let store = place.open().await;
    let gallery = name("g");
    let mut random = Random(47);
    let versions: Vec<Vec<f32>> = (0..VERSIONS).map(|_| random.direction(DIM)).collect();
    let fixed: Vec<_> = (0..20)
        .map(|n| plain(format!("fixed {n}"), random.direction(DIM)))
        .collect();
    let of_version = |version: usize| {
        let metadata = json!({"version": version}).to_string();
        full("x", "l", &metadata, versions[version].clone())
    };
    store
        .put(&gallery, &binding(DIM), fixed.clone())
        .await
        .unwrap();
    store
        .put(&gallery, &binding(DIM), vec![of_version(0)])
        .await
        .unwrap();
    let stop = Arc::<AtomicBool>::default();
    let writers = (0..4).map(|writer| {
        let store = store.clone();
        let gallery = gallery.clone();
        let stop = Arc::clone(&stop);
        let items: Vec<_> = (0..VERSIONS).map(of_version).collect();
        tokio::spawn(async move {
            for write in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let item = items[(write * 5 + writer) % VERSIONS].clone();
                store
                    .put(&gallery, &binding(DIM), vec![item])
                    .await
                    .unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let began = Instant::now();
    let searchers = (0..4).map(|_| {
        let store = store.clone();
        let gallery = gallery.clone();
        let fixed = fixed.clone();
        let versions = versions.clone();
        tokio::spawn(async move {
            let mut seen = std::collections::BTreeSet::new();
            // On a busy machine many searches pass before the first write.
            for round in 0.. {
                let is_slow = began.elapsed() > Duration::from_secs(30);
                if round >= 60 && (seen.len() > 2 || is_slow) {
                    break;
                }
                let search = Search::of(Query::Item(id("x")), 30);
                let found = store.search(&gallery, search).await.unwrap();
                assert_eq!(found.len(), fixed.len() + 1);
                let own = found
                    .iter()
                    .find(|found| found.item.id.as_str() == "x")
                    .unwrap();
                let version = own.item.metadata.object()["version"].as_u64().unwrap() as usize;
                assert!(
                    (own.score - 1.0).abs() < 1e-5,
                    "{} of version {version}",
                    own.score
                );
                for other in &fixed {
                    let found = found
                        .iter()
                        .find(|found| found.item.id == other.id)
                        .unwrap();
                    let expected = dot(&versions[version], &other.vector);
                    let difference = (f64::from(found.score) - expected).abs();
                    assert!(
                        difference < 1e-5,
                        "{version}: {} and not {expected}",
                        found.score
                    );
                }
                seen.insert(version);
            }
            seen.len()
        })
    });
    let searchers: Vec<_> = searchers.collect();
    let mut most = 0;
    for searcher in searchers {
        most = most.max(searcher.await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(most > 2, "it was replaced meanwhile: {most}");
    let gone = Search::of(Query::Item(id("unknown")), 3);
    let error = store.search(&gallery, gone).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}
