//! Items: their content, their order, and their deletion.

use std::collections::HashSet;

use dinoserve::{
    error::Kind,
    gallery::{ItemChange, ItemFilter, Label, Metadata, Parts, Search},
};

use super::{
    Place, Random, binding, created, full, id, ids, kept, name, over_both_stores, plain, read_all,
    replaced,
};

over_both_stores!(
    an_item_is_returned_as_it_was_stored,
    ids_may_be_any_text,
    a_replaced_item_keeps_its_place,
    the_last_of_several_items_with_one_id_is_kept,
    put_new_keeps_stored_items,
    an_update_changes_only_what_it_states,
    concurrent_updates_of_an_item_are_all_kept,
    of_many_writers_of_a_new_item_one_creates_it,
    deleted_items_are_gone_and_their_places_are_not_reused,
    pages_list_each_item_once_during_writes,
    stored_items_survive_reopening,
    a_full_read_is_consistent_under_writes,
    large_items_and_large_batches_are_stored,
    a_check_of_undamaged_items_is_clean,
);

/// Members that are out of order, numbers of all forms, and texts that need escapes.
const METADATA: &str = r#"{"z":1,"a":1.0,"z2":-0.0,"big":18446744073709551615,
    "low":-9223372036854775808,"e":1e300,"tiny":5e-324,"third":0.3333333333333333,
    "text":"\"ÄÖ€😀\\\n\u0001",
    "list":[1,"a",null,true,{"x":[]}],"null":null,"deep":{"a":{"b":[[]]}},"":""}"#;

async fn an_item_is_returned_as_it_was_stored(place: &Place) {
    let store = place.open().await;
    let gallery = name("things");
    let binding = binding(8);
    let before = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    let given = full("a/b", "Äpfel & Birnen", METADATA, Random(1).direction(8));
    assert_eq!(
        store
            .put(&gallery, &binding, vec![given.clone()])
            .await
            .unwrap(),
        [created(1)]
    );

    let found = store
        .require_item(&gallery, &given.id, Parts::ALL)
        .await
        .unwrap();
    assert_eq!(found.item.id, given.id);
    assert_eq!(found.item.place, 1);
    assert_eq!(found.item.label, given.label);
    // As text, to compare the order of members and the form of numbers, too.
    let text = |metadata: &Metadata| serde_json::to_string(metadata).unwrap();
    assert_eq!(text(&found.item.metadata), text(&given.metadata));
    assert!(
        (before..before + 60_000).contains(&found.item.stored_ms),
        "{} after {before}",
        found.item.stored_ms
    );
    assert_eq!(found.vector, given.vector);
    assert_eq!(found.thumbnail, given.thumbnail);
    // Features may be kept in half precision.
    let features = found.features.clone().unwrap();
    let expected = given.features.unwrap();
    assert_eq!(features.len(), expected.len());
    assert!(
        features
            .iter()
            .zip(&expected)
            .all(|(a, b)| (a - b).abs() <= 1e-3 * b.abs().max(0.1)),
        "{features:?}"
    );

    let bare = store
        .require_item(&gallery, &given.id, Parts::NONE)
        .await
        .unwrap();
    assert_eq!(bare.item, found.item);
    assert!(
        bare.vector.is_empty() && bare.features.is_none() && bare.thumbnail.is_none(),
        "{bare:?}"
    );

    // Without optional parts, and with them removed again.
    let poor = plain("a/b", Random(2).direction(8));
    assert_eq!(
        store
            .put(&gallery, &binding, vec![poor.clone()])
            .await
            .unwrap(),
        [replaced(1)]
    );
    let found = store
        .require_item(&gallery, &poor.id, Parts::ALL)
        .await
        .unwrap();
    assert_eq!(
        (found.item.label, found.features, found.thumbnail),
        (None, None, None)
    );
    assert!(found.item.metadata.is_empty());
    assert_eq!(found.vector, poor.vector);
}

async fn ids_may_be_any_text(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let unusual: Vec<String> = [
        "a",
        "A",
        "a ",
        " a",
        "...",
        "../../etc/passwd",
        "a/b/c",
        "/",
        "%2F",
        "a\0b",
        "a\0",
        "\0",
        "é",
        "e\u{301}",
        "😀",
        "\u{feff}",
        "\n",
        "'; DROP TABLE galleries; --",
        "\\",
        "\"",
        "$1",
        "{}",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        "x".repeat(512),
        "x".repeat(511),
        "€".repeat(170),
        "\0".repeat(512),
    ])
    .collect();
    let mut random = Random(3);
    let items = unusual
        .iter()
        .map(|id| plain(id, random.direction(4)))
        .collect::<Vec<_>>();
    assert_eq!(
        store.put(&gallery, &binding, items.clone()).await.unwrap(),
        (1..=items.len() as u64).map(created).collect::<Vec<_>>()
    );
    for item in &items {
        let found = store
            .require_item(&gallery, &item.id, Parts::ALL)
            .await
            .unwrap();
        assert_eq!((&found.item.id, &found.vector), (&item.id, &item.vector));
    }
    assert_eq!(
        ids(&store.page(&gallery, 0, 100, None).await.unwrap()),
        unusual
    );
    for (at, item) in items.iter().enumerate() {
        assert_eq!(
            store.delete(&gallery, vec![item.id.clone()]).await.unwrap(),
            [true],
            "{:?}",
            item.id
        );
        assert_eq!(
            store.require_gallery(&gallery).await.unwrap().items as usize,
            items.len() - at - 1
        );
    }
}

async fn a_replaced_item_keeps_its_place(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let mut random = Random(4);
    let first: Vec<_> = ["a", "b", "c"]
        .map(|id| plain(id, random.direction(4)))
        .into();
    store.put(&gallery, &binding, first).await.unwrap();
    let again = full("b", "new", r#"{"n":2}"#, random.direction(4));
    let added = vec![again.clone(), plain("d", random.direction(4))];
    assert_eq!(
        store.put(&gallery, &binding, added).await.unwrap(),
        [replaced(2), created(4)]
    );
    let page = store.page(&gallery, 0, 10, None).await.unwrap();
    assert_eq!(ids(&page), ["a", "b", "c", "d"]);
    assert_eq!(
        page.iter().map(|item| item.place).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    assert_eq!(page[1].label, again.label);
    let search = Search {
        exact: true,
        ..Search::new(again.vector.clone(), 4)
    };
    let found = store.search(&gallery, search).await.unwrap();
    assert_eq!(found.len(), 4, "the replaced vector is found no more");
    assert_eq!(
        (found[0].item.id.as_str(), found[0].item.label.as_ref()),
        ("b", again.label.as_ref())
    );
    assert!(found[0].score > 0.9999);
}

async fn the_last_of_several_items_with_one_id_is_kept(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let mut random = Random(5);
    let items: Vec<_> = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("a", 5)]
        .map(|(id, n)| full(id, "l", &format!(r#"{{"n":{n}}}"#), random.direction(4)))
        .into();
    assert_eq!(
        store.put(&gallery, &binding, items.clone()).await.unwrap(),
        [created(1), created(2), replaced(1), created(3), replaced(1)]
    );
    let all = read_all(&store, &gallery, Parts::ALL).await;
    assert_eq!(ids(all.iter().map(|stored| &stored.item)), ["a", "b", "c"]);
    assert_eq!(all[0].item.metadata.object()["n"], 5);
    assert_eq!(all[0].vector, items[4].vector);
    assert_eq!(store.require_gallery(&gallery).await.unwrap().items, 3);
}

async fn put_new_keeps_stored_items(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let mut random = Random(11);
    let mut item =
        |id: &str, n: usize| full(id, "l", &format!(r#"{{"n":{n}}}"#), random.direction(4));
    let first = [item("a", 1), item("b", 2)];
    // The gallery is created as by `put`, and the first of several items with one id is stored.
    let batch = vec![first[0].clone(), first[1].clone(), item("a", 3)];
    assert_eq!(
        store.put_new(&gallery, &binding, batch).await.unwrap(),
        [created(1), created(2), kept(1)]
    );
    let before = read_all(&store, &gallery, Parts::ALL).await;
    assert_eq!(before[0].vector, first[0].vector);
    assert_eq!(before[0].item.metadata.object()["n"], 1);

    let batch = vec![item("b", 4), item("c", 5), item("c", 6), item("a", 7)];
    let added = batch[1].clone();
    assert_eq!(
        store.put_new(&gallery, &binding, batch).await.unwrap(),
        [kept(2), created(3), kept(3), kept(1)]
    );
    let after = read_all(&store, &gallery, Parts::ALL).await;
    assert_eq!(
        after[..2],
        before[..],
        "stored items are unchanged, also in their times"
    );
    assert_eq!(after[2].vector, added.vector);
    assert_eq!(
        (
            after.len(),
            store.require_gallery(&gallery).await.unwrap().items
        ),
        (3, 3)
    );

    // Nothing but kept items is a write like any other.
    let batch = vec![item("a", 8)];
    assert_eq!(
        store.put_new(&gallery, &binding, batch).await.unwrap(),
        [kept(1)]
    );
    let search = Search {
        exact: true,
        ..Search::new(first[0].vector.clone(), 9)
    };
    let found = store.search(&gallery, search).await.unwrap();
    assert_eq!(found.len(), 3, "a kept item has added no row");
    // After a deletion the id is new.
    store.delete(&gallery, vec![id("a")]).await.unwrap();
    let batch = vec![item("a", 9)];
    assert_eq!(
        store.put_new(&gallery, &binding, batch).await.unwrap(),
        [created(4)]
    );
    let other = super::binding(5);
    let wrong = store.put_new(&gallery, &other, vec![plain("z", random.direction(5))]);
    assert_eq!(wrong.await.unwrap_err().kind(), Kind::Conflict);
    assert!(store.check(&gallery).await.unwrap().damage.is_empty());
}

async fn of_many_writers_of_a_new_item_one_creates_it(place: &Place) {
    const WRITERS: usize = 8;
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    for round in 0..20 {
        let writers = (0..WRITERS).map(|writer| {
            let metadata = format!(r#"{{"writer":{writer}}}"#);
            let vector = Random((round * WRITERS + writer) as u64).direction(4);
            let item = full(&format!("item-{round}"), "l", &metadata, vector);
            let store = store.clone();
            let (gallery, binding) = (gallery.clone(), binding.clone());
            tokio::spawn(
                async move { store.put_new(&gallery, &binding, vec![item]).await.unwrap()[0] },
            )
        });
        let written: Vec<_> = futures_util::future::join_all(writers).await;
        let written: Vec<_> = written.into_iter().map(Result::unwrap).collect();
        let place = round as u64 + 1;
        let winners: Vec<usize> = (0..WRITERS)
            .filter(|writer| written[*writer] == created(place))
            .collect();
        assert_eq!(winners.len(), 1, "round {round}: {written:?}");
        let others = written
            .iter()
            .filter(|outcome| **outcome == kept(place))
            .count();
        assert_eq!(others, WRITERS - 1, "round {round}: {written:?}");
        let parts = Parts::NONE;
        let stored = store
            .require_item(&gallery, &id(format!("item-{round}")), parts)
            .await;
        let metadata = stored.unwrap().item.metadata;
        assert_eq!(metadata.object()["writer"], winners[0], "round {round}");
    }
}

async fn deleted_items_are_gone_and_their_places_are_not_reused(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let mut random = Random(6);
    let items: Vec<_> = ["a", "b", "c"]
        .map(|id| plain(id, random.direction(4)))
        .into();
    store.put(&gallery, &binding, items.clone()).await.unwrap();
    let deleted = store
        .delete(&gallery, ["c", "x", "c", "b"].map(id).into())
        .await
        .unwrap();
    assert_eq!(deleted, [true, false, false, true]);
    let error = store
        .require_item(&gallery, &id("c"), Parts::NONE)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(
        error.detail().contains('c') && error.detail().contains('g'),
        "{error}"
    );
    let search = Search::new(items[2].vector.clone(), 10);
    assert_eq!(
        ids(store
            .search(&gallery, search)
            .await
            .unwrap()
            .iter()
            .map(|found| &found.item)),
        ["a"]
    );
    assert_eq!(
        store
            .put(&gallery, &binding, vec![items[2].clone()])
            .await
            .unwrap(),
        [created(4)]
    );
    let page = store.page(&gallery, 0, 10, None).await.unwrap();
    assert_eq!(
        page.iter()
            .map(|item| (item.id.as_str(), item.place))
            .collect::<Vec<_>>(),
        [("a", 1), ("c", 4)]
    );
    assert_eq!(store.require_gallery(&gallery).await.unwrap().items, 2);
}

async fn pages_list_each_item_once_during_writes(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let mut random = Random(7);
    let items = |range: std::ops::Range<usize>, random: &mut Random| {
        range
            .map(|n| plain(format!("{n}"), random.direction(4)))
            .collect::<Vec<_>>()
    };
    let first = items(0..50, &mut random);
    store.put(&gallery, &binding, first.clone()).await.unwrap();
    let mut seen = Vec::new();
    let mut after = 0;
    let mut round = 50;
    loop {
        let page = store.page(&gallery, after, 7, None).await.unwrap();
        assert!(page.len() <= 7 && page.is_sorted_by(|a, b| a.place < b.place));
        let Some(last) = page.last() else { break };
        after = last.place;
        seen.extend(ids(&page));
        // Behind, before and at the current position; none are added near the end.
        store
            .delete(&gallery, vec![id(seen[0].clone()), id("49")])
            .await
            .unwrap();
        store
            .put(
                &gallery,
                &binding,
                vec![first[3].clone(), first[40].clone()],
            )
            .await
            .unwrap();
        if round < 60 {
            store
                .put(&gallery, &binding, items(round..round + 2, &mut random))
                .await
                .unwrap();
            round += 2;
        }
    }
    let unique: HashSet<&String> = seen.iter().collect();
    assert_eq!(
        unique.len(),
        seen.len(),
        "no item is listed twice: {seen:?}"
    );
    let expected: Vec<String> = (0..60)
        .filter(|n| *n != 49)
        .map(|n| n.to_string())
        .collect();
    assert_eq!(seen, expected);
    assert!(store.page(&gallery, 0, 0, None).await.unwrap().is_empty());
    assert!(
        store
            .page(&gallery, u64::MAX, 5, None)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn stored_items_survive_reopening(place: &Place) {
    let gallery = name("g");
    let binding = binding(384);
    let mut random = Random(8);
    let store = place.open().await;
    for n in 0..40 {
        let metadata = format!(r#"{{"n":{n}}}"#);
        let item = full(
            &format!("{n}"),
            if n % 2 == 0 { "even" } else { "odd" },
            &metadata,
            random.direction(384),
        );
        store.put(&gallery, &binding, vec![item]).await.unwrap();
    }
    store
        .delete(&gallery, (30..40).map(|n| id(n.to_string())).collect())
        .await
        .unwrap();
    let before = read_all(&store, &gallery, Parts::ALL).await;
    let query = Search::new(before[12].vector.clone(), 5);
    let found = store.search(&gallery, query.clone()).await.unwrap();
    store.close().await;
    drop(store);

    let store = place.open().await;
    // The first read of a new connection has more than it holds ahead.
    assert_eq!(read_all(&store, &gallery, Parts::ALL).await, before);
    assert_eq!(store.search(&gallery, query).await.unwrap(), found);
    let info = store.require_gallery(&gallery).await.unwrap();
    assert_eq!((info.items, &info.binding), (30, &binding));
    store
        .put(
            &gallery,
            &binding,
            vec![plain("new", random.direction(384))],
        )
        .await
        .unwrap();
    assert_eq!(
        store
            .require_item(&gallery, &id("new"), Parts::NONE)
            .await
            .unwrap()
            .item
            .place,
        41,
        "places go on"
    );
}

async fn a_full_read_is_consistent_under_writes(place: &Place) {
    use futures_util::TryStreamExt;
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let mut random = Random(9);
    let items: Vec<_> = (0..500)
        .map(|n| full(&n.to_string(), "old", "{}", random.direction(4)))
        .collect();
    store.put(&gallery, &binding, items.clone()).await.unwrap();
    let mut stream = store.read(&gallery, Parts::ALL).await.unwrap();
    let first = stream.try_next().await.unwrap().unwrap();
    assert_eq!(first.item.id.as_str(), "0");
    // All items change during the read, and at the end the gallery is removed.
    let changed = (250..750)
        .map(|n| full(&n.to_string(), "new", "{}", random.direction(4)))
        .collect();
    store.put(&gallery, &binding, changed).await.unwrap();
    store
        .delete(&gallery, (0..250).map(|n| id(n.to_string())).collect())
        .await
        .unwrap();
    store.remove(&gallery).await.unwrap();
    let rest: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!(rest.len(), 499);
    for (at, stored) in rest.iter().enumerate() {
        assert_eq!(stored.item.id.as_str(), (at + 1).to_string());
        assert_eq!(stored.item.label.as_ref().unwrap().as_str(), "old");
        assert_eq!(stored.vector, items[at + 1].vector);
    }
    // An unfinished read blocks nothing.
    store.put(&gallery, &binding, items).await.unwrap();
    for _ in 0..20 {
        let mut stream = store.read(&gallery, Parts::NONE).await.unwrap();
        assert!(stream.try_next().await.unwrap().is_some());
    }
    assert_eq!(store.require_gallery(&gallery).await.unwrap().items, 500);
}

async fn large_items_and_large_batches_are_stored(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4096);
    let mut random = Random(10);
    let filler = "x".repeat(Metadata::MAX_BYTES - 8);
    let mut large = full(
        &"i".repeat(512),
        &"l".repeat(256),
        &format!(r#"{{"m":"{filler}"}}"#),
        random.direction(4096),
    );
    let noise: Vec<u8> = (0..200_000).map(|_| random.next() as u8).collect();
    large.thumbnail = Some(noise.into());
    store
        .put(&gallery, &binding, vec![large.clone()])
        .await
        .unwrap();
    let found = store
        .require_item(&gallery, &large.id, Parts::ALL)
        .await
        .unwrap();
    assert_eq!(
        (found.item.metadata, found.vector, found.thumbnail),
        (large.metadata, large.vector, large.thumbnail)
    );

    let small = super::binding(3);
    let many: Vec<_> = (0..3000)
        .map(|n| plain(format!("{n}"), random.direction(3)))
        .collect();
    assert_eq!(
        store.put(&name("many"), &small, many).await.unwrap().len(),
        3000
    );
    let all = store
        .delete(
            &name("many"),
            (0..3000).map(|n| id(n.to_string())).collect(),
        )
        .await
        .unwrap();
    assert!(all.len() == 3000 && all.iter().all(|deleted| *deleted));
}

async fn a_check_of_undamaged_items_is_clean(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(12);
    let mut random = Random(11);
    for round in 0..3 {
        let items = (round * 30..round * 30 + 60).map(|n| match n % 3 {
            0 => plain(n.to_string(), random.direction(12)),
            _ => full(&n.to_string(), "l", METADATA, random.direction(12)),
        });
        let items = items.collect();
        store.put(&gallery, &binding, items).await.unwrap();
    }
    store
        .delete(&gallery, (0..20).map(|n| id(n.to_string())).collect())
        .await
        .unwrap();
    let report = store.check(&gallery).await.unwrap();
    assert_eq!((report.items, report.damage), (100, Vec::<String>::new()));
}

async fn an_update_changes_only_what_it_states(place: &Place) {
    let store = place.open().await;
    let gallery = name("things");
    let given = full("a/b", "pear", r#"{"year":2020}"#, Random(1).direction(8));
    let other = plain("c", Random(2).direction(8));
    let items = vec![given.clone(), other];
    store.put(&gallery, &binding(8), items).await.unwrap();
    let read = async || {
        let found = store.require_item(&gallery, &given.id, Parts::ALL).await;
        found.unwrap()
    };
    let before = read().await;
    let update = async |label: Option<Option<&str>>, metadata: Option<&str>| {
        let change = ItemChange {
            label: label.map(|label| label.map(|label| Label::new(label).unwrap())),
            metadata: metadata.map(|json| Metadata::parse(json).unwrap()),
        };
        let updated = store.update(&gallery, &given.id, change).await.unwrap();
        let after = read().await;
        assert_eq!(updated.as_ref(), Some(&after.item));
        assert_eq!(after.item.place, before.item.place);
        assert!(after.item.stored_ms >= before.item.stored_ms);
        assert_eq!(
            (&after.vector, &after.features, &after.thumbnail),
            (&before.vector, &before.features, &before.thumbnail)
        );
        let metadata = serde_json::to_string(&after.item.metadata).unwrap();
        (after.item.label.map(String::from), metadata)
    };
    let apple = Some("apple".to_owned());
    let before_year = r#"{"year":2020}"#.to_owned();
    assert_eq!(
        update(Some(Some("apple")), None).await,
        (apple.clone(), before_year)
    );
    let later = r#"{"year":2024}"#;
    assert_eq!(update(None, Some(later)).await, (apple, later.to_owned()));

    // Searches and pages see the change.
    let filter = r#"{"label": "apple", "metadata": {"year": {"gte": 2024}}}"#;
    let filter = ItemFilter::parse(&serde_json::from_str(filter).unwrap()).unwrap();
    let page = store.page(&gallery, 0, 10, Some(&filter)).await.unwrap();
    assert_eq!(ids(&page), ["a/b"]);
    let search = Search {
        filter: Some(filter),
        ..Search::new(given.vector.clone(), 10)
    };
    let found = store.search(&gallery, search).await.unwrap();
    assert_eq!(found.len(), 1);
    assert!((found[0].score - 1.0).abs() < 1e-3, "{found:?}");

    assert_eq!(
        update(Some(None), Some("{}")).await,
        (None, "{}".to_owned())
    );
    let missing = store
        .update(&gallery, &id("none"), ItemChange::default())
        .await;
    assert_eq!(missing.unwrap(), None);
    let failure = store
        .update(&name("none"), &given.id, ItemChange::default())
        .await
        .unwrap_err();
    assert_eq!(failure.kind(), Kind::NotFound);
    assert_eq!(store.require_gallery(&gallery).await.unwrap().items, 2);
    assert_eq!(store.check(&gallery).await.unwrap().damage, [""; 0]);

    store.close().await;
    drop(store);
    let store = place.open().await;
    let reopened = store.require_item(&gallery, &given.id, Parts::ALL).await;
    assert_eq!(reopened.unwrap().vector, before.vector);
}

/// Each changes another part, so none may undo what another has done.
async fn concurrent_updates_of_an_item_are_all_kept(place: &Place) {
    let store = place.open().await;
    let gallery = name("things");
    let given = plain("a", Random(1).direction(8));
    let id = given.id.clone();
    store.put(&gallery, &binding(8), vec![given]).await.unwrap();
    for round in 0..10 {
        let label = ItemChange {
            label: Some(Some(Label::new(format!("l{round}")).unwrap())),
            metadata: None,
        };
        let metadata = ItemChange {
            label: None,
            metadata: Some(Metadata::parse(&format!(r#"{{"round":{round}}}"#)).unwrap()),
        };
        let (one, other) = tokio::join!(
            store.update(&gallery, &id, label),
            store.update(&gallery, &id, metadata)
        );
        one.unwrap();
        other.unwrap();
        let found = store
            .require_item(&gallery, &id, Parts::NONE)
            .await
            .unwrap();
        assert_eq!(found.item.label.unwrap().as_str(), format!("l{round}"));
        assert_eq!(found.item.metadata.object()["round"], round);
    }
}
