//! Galleries and documents: creating, renaming and removing them.

use bytes::Bytes;
use dinoserve::{
    error::Kind,
    features::pool::Pooling,
    gallery::{BasisName, Binding, DocumentKey, DocumentKind, Parts, ProbeName, Search},
    model::ModelId,
    vision::{Background, Levels, Preprocessing, ResampleFilter, ResizeMode},
};

use super::{Place, Random, binding, created, id, ids, name, over_both_stores, plain, read_all};

over_both_stores!(
    galleries_are_listed_by_name,
    missing_galleries_and_items_are_named,
    a_gallery_rejects_vectors_of_another_binding,
    vectors_of_another_width_are_rejected,
    a_renamed_gallery_may_replace_another,
    a_removed_gallery_can_be_created_again,
    documents_are_kept_by_kind_and_name,
    of_documents_changed_at_once_no_change_is_lost,
);

async fn galleries_are_listed_by_name(place: &Place) {
    let store = place.open().await;
    assert!(store.galleries().await.unwrap().is_empty());
    let mut random = Random(20);
    for gallery in ["b", "a-1", "a", "z_9"] {
        store.create(&name(gallery), &binding(4)).await.unwrap();
    }
    store
        .put(
            &name("b"),
            &binding(4),
            vec![plain("x", random.direction(4))],
        )
        .await
        .unwrap();
    // Storing no items creates the gallery, too.
    assert!(
        store
            .put(&name("c"), &binding(5), Vec::new())
            .await
            .unwrap()
            .is_empty()
    );
    let list = store.galleries().await.unwrap();
    let listed: Vec<_> = list
        .iter()
        .map(|info| (info.name.as_str(), info.items, info.binding.dim))
        .collect();
    assert_eq!(
        listed,
        [
            ("a", 0, 4),
            ("a-1", 0, 4),
            ("b", 1, 4),
            ("c", 0, 5),
            ("z_9", 0, 4)
        ]
    );
    assert_eq!(store.require_gallery(&name("b")).await.unwrap(), list[2]);
    assert_ne!(list[1].number, list[2].number);
    // Returns the existing gallery.
    let found = store.create(&name("b"), &binding(4)).await.unwrap();
    assert_eq!(found.items, 1);
}

async fn missing_galleries_and_items_are_named(place: &Place) {
    let store = place.open().await;
    let nowhere = name("nowhere");
    let search = Search::new(vec![1.0; 4], 1);
    let errors = [
        store.require_gallery(&nowhere).await.unwrap_err(),
        store.rename(&nowhere, &name("b")).await.unwrap_err(),
        store.rename(&nowhere, &nowhere).await.unwrap_err(),
        store.delete(&nowhere, vec![id("a")]).await.unwrap_err(),
        store
            .require_item(&nowhere, &id("a"), Parts::ALL)
            .await
            .unwrap_err(),
        store.page(&nowhere, 0, 5, None).await.unwrap_err(),
        store.search(&nowhere, search).await.unwrap_err(),
        store.read(&nowhere, Parts::NONE).await.err().unwrap(),
        store.check(&nowhere).await.unwrap_err(),
        store
            .require_document((&probe("nowhere")).into())
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        assert!(error.detail().contains("nowhere"), "{error}");
    }
    assert!(store.gallery(&nowhere).await.unwrap().is_none());
    assert!(!store.remove(&nowhere).await.unwrap());
    let basis = basis("nowhere");
    assert_eq!(store.document((&basis).into()).await.unwrap(), None);
    assert!(!store.remove_document((&basis).into()).await.unwrap());
    assert!(store.galleries().await.unwrap().is_empty());
}

async fn a_gallery_rejects_vectors_of_another_binding(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let ours = binding(4);
    let mut random = Random(21);
    store
        .put(&gallery, &ours, vec![plain("a", random.direction(4))])
        .await
        .unwrap();
    let others = [
        (
            "dinov2-large",
            Binding {
                model: ModelId {
                    name: "dinov2-large".to_owned(),
                    fingerprint: "f".repeat(64).into(),
                },
                ..ours.clone()
            },
        ),
        (
            "dim=5",
            Binding {
                dim: 5,
                ..ours.clone()
            },
        ),
        (
            "pooling=mean",
            Binding {
                pooling: Pooling::Mean,
                ..ours.clone()
            },
        ),
        (
            "layers=4",
            Binding {
                layers: 4,
                ..ours.clone()
            },
        ),
        (
            "size=518",
            Binding {
                preprocessing: Preprocessing {
                    size: 518,
                    ..ours.preprocessing
                },
                ..ours.clone()
            },
        ),
        (
            "resize=squash",
            Binding {
                preprocessing: Preprocessing {
                    resize: ResizeMode::Squash,
                    ..ours.preprocessing
                },
                ..ours.clone()
            },
        ),
        (
            "filter=bilinear",
            Binding {
                preprocessing: Preprocessing {
                    filter: ResampleFilter::Bilinear,
                    ..ours.preprocessing
                },
                ..ours.clone()
            },
        ),
        (
            "exif=false",
            Binding {
                preprocessing: Preprocessing {
                    exif: false,
                    ..ours.preprocessing
                },
                ..ours.clone()
            },
        ),
        (
            "background=black",
            Binding {
                preprocessing: Preprocessing {
                    background: Background::Black,
                    ..ours.preprocessing
                },
                ..ours.clone()
            },
        ),
        (
            "levels=data",
            Binding {
                preprocessing: Preprocessing {
                    levels: Levels::Data,
                    ..ours.preprocessing
                },
                ..ours.clone()
            },
        ),
    ];
    for (named, other) in others {
        let item = plain("b", random.direction(other.dim));
        for error in [
            store.put(&gallery, &other, vec![item]).await.unwrap_err(),
            store.create(&gallery, &other).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Conflict, "{error}");
            assert!(
                error.detail().contains(named) && error.detail().contains("`g`"),
                "{named} in {error}"
            );
        }
    }
    // The model's name is not compared.
    let renamed = Binding {
        model: ModelId {
            name: "mine".to_owned(),
            ..ours.model.clone()
        },
        ..ours.clone()
    };
    assert_eq!(
        store
            .put(&gallery, &renamed, vec![plain("b", random.direction(4))])
            .await
            .unwrap(),
        [created(2)]
    );
    assert_eq!(store.require_gallery(&gallery).await.unwrap().binding, ours);
    assert_eq!(
        ids(&store.page(&gallery, 0, 9, None).await.unwrap()),
        ["a", "b"]
    );
}

async fn vectors_of_another_width_are_rejected(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let binding = binding(4);
    let mut random = Random(22);
    let items = vec![
        plain("a", random.direction(4)),
        plain("b", random.direction(3)),
    ];
    assert_eq!(
        store
            .put(&gallery, &binding, items)
            .await
            .unwrap_err()
            .kind(),
        Kind::InvalidOption
    );
    assert!(
        store.galleries().await.unwrap().is_empty(),
        "nothing was stored"
    );
}

async fn a_renamed_gallery_may_replace_another(place: &Place) {
    let store = place.open().await;
    let mut random = Random(23);
    let old = name("old");
    let new = name("new");
    let other = name("other");
    store
        .put(&old, &binding(4), vec![plain("o", random.direction(4))])
        .await
        .unwrap();
    let items = vec![
        plain("n1", random.direction(6)),
        plain("n2", random.direction(6)),
    ];
    store.put(&new, &binding(6), items).await.unwrap();
    let before = read_all(&store, &new, Parts::ALL).await;

    let taken = store.rename(&new, &old).await.unwrap_err();
    assert_eq!(taken.kind(), Kind::Conflict);
    assert_eq!(
        ids(&store.page(&old, 0, 9, None).await.unwrap()),
        ["o"],
        "both stay"
    );
    let report = bytes::Bytes::from_static(b"of new");
    for gallery in [&old, &new] {
        let document = format!("of {gallery}").into();
        store
            .put_document(DocumentKey::of_audit(gallery), document)
            .await
            .unwrap();
    }
    store.replace(&old, &new).await.unwrap();
    // The report of an audit goes with its gallery.
    assert_eq!(
        store.document(DocumentKey::of_audit(&old)).await.unwrap(),
        Some(report)
    );
    assert_eq!(
        store.document(DocumentKey::of_audit(&new)).await.unwrap(),
        None
    );
    assert_eq!(read_all(&store, &old, Parts::ALL).await, before);
    assert_eq!(
        store.require_gallery(&new).await.unwrap_err().kind(),
        Kind::NotFound
    );
    assert_eq!(store.galleries().await.unwrap().len(), 1);
    let search = Search::new(before[1].vector.clone(), 9);
    let found = store.search(&old, search).await.unwrap();
    assert_eq!((found.len(), found[0].item.id.as_str()), (2, "n2"));

    store.rename(&old, &other).await.unwrap();
    store.replace(&other, &other).await.unwrap();
    assert_eq!(
        store.rename(&other, &other).await.unwrap_err().kind(),
        Kind::Conflict
    );
    assert!(
        store
            .document(DocumentKey::of_audit(&old))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        store
            .document(DocumentKey::of_audit(&other))
            .await
            .unwrap()
            .is_some()
    );
    store.put(&old, &binding(3), vec![]).await.unwrap();
    assert!(store.remove(&old).await.unwrap());
    assert_eq!(read_all(&store, &other, Parts::ALL).await, before);
    // Both names are free again.
    store
        .put(&old, &binding(3), vec![plain("x", random.direction(3))])
        .await
        .unwrap();
    store
        .put(&new, &binding(2), vec![plain("y", random.direction(2))])
        .await
        .unwrap();
    assert_eq!(store.galleries().await.unwrap().len(), 3);
    assert_eq!(
        ids(&store.page(&other, 0, 9, None).await.unwrap()),
        ["n1", "n2"]
    );
}

async fn a_removed_gallery_can_be_created_again(place: &Place) {
    let store = place.open().await;
    let gallery = name("g");
    let mut random = Random(24);
    for dim in [4, 7, 4] {
        let items = vec![
            plain("a", random.direction(dim)),
            plain("b", random.direction(dim)),
        ];
        store
            .put(&gallery, &binding(dim), items.clone())
            .await
            .unwrap();
        let page = store.page(&gallery, 0, 9, None).await.unwrap();
        assert_eq!(
            page.iter().map(|item| item.place).collect::<Vec<_>>(),
            [1, 2]
        );
        let search = Search::new(items[1].vector.clone(), 9);
        assert_eq!(
            store.search(&gallery, search).await.unwrap()[0]
                .item
                .id
                .as_str(),
            "b"
        );
        assert!(store.remove(&gallery).await.unwrap());
        assert_eq!(
            store.require_gallery(&gallery).await.unwrap_err().kind(),
            Kind::NotFound
        );
    }
    assert!(store.galleries().await.unwrap().is_empty());
}

async fn documents_are_kept_by_kind_and_name(place: &Place) {
    let store = place.open().await;
    let large = Bytes::from(
        (0..5_000_000u32)
            .map(|n| (n % 251) as u8)
            .collect::<Vec<_>>(),
    );
    let probe_a = probe("a");
    let probe_b = probe("b");
    let basis_b = basis("b");
    let empty = basis("empty");
    for (key, bytes) in [
        (DocumentKey::from(&probe_b), Bytes::from_static(b"first")),
        (DocumentKey::from(&probe_a), large.clone()),
        (DocumentKey::from(&basis_b), Bytes::from_static(b"\0\xff")),
        (DocumentKey::from(&probe_b), Bytes::from_static(b"second")),
        (DocumentKey::from(&empty), Bytes::new()),
    ] {
        store.put_document(key, bytes).await.unwrap();
    }
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert_eq!(
        store.documents(DocumentKind::Probe).await.unwrap(),
        ["a", "b"]
    );
    assert_eq!(
        store.documents(DocumentKind::Basis).await.unwrap(),
        ["b", "empty"]
    );
    for (key, bytes) in [
        (DocumentKey::from(&probe_a), &large[..]),
        (DocumentKey::from(&probe_b), b"second"),
        (DocumentKey::from(&basis_b), b"\0\xff"),
        (DocumentKey::from(&empty), b""),
    ] {
        assert_eq!(store.document(key).await.unwrap().unwrap(), bytes, "{key}");
    }
    assert!(store.remove_document((&probe_b).into()).await.unwrap());
    assert_eq!(store.document((&probe_b).into()).await.unwrap(), None);
    assert_eq!(store.documents(DocumentKind::Probe).await.unwrap(), ["a"]);
    assert_eq!(store.documents(DocumentKind::Basis).await.unwrap().len(), 2);
    assert!(store.galleries().await.unwrap().is_empty());
}

async fn of_documents_changed_at_once_no_change_is_lost(place: &Place) {
    let (first, missing) = (basis("first"), basis("missing"));
    let store = place.open().await;
    let key = DocumentKey::from(&missing);
    let (before, after) = (Bytes::new(), Bytes::from_static(b"x"));
    let replaced = store.replace_document(key, &before, after);
    assert!(!replaced.await.unwrap());
    assert_eq!(store.document(key).await.unwrap(), None);

    let key = DocumentKey::from(&first);
    store.put_document(key, Bytes::new()).await.unwrap();
    let writers: Vec<_> = (0..8u8)
        .map(|writer| {
            let (store, name) = (store.clone(), first.clone());
            tokio::spawn(async move {
                let key = DocumentKey::from(&name);
                let mut added = 0;
                while added < 5 {
                    let before = store.require_document(key).await.unwrap();
                    let document = [&before[..], &[writer]].concat().into();
                    let replaced = store.replace_document(key, &before, document);
                    added += u8::from(replaced.await.unwrap());
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut document = store.require_document(key).await.unwrap().to_vec();
    document.sort_unstable();
    let expected: Vec<u8> = (0..8).flat_map(|writer| [writer; 5]).collect();
    assert_eq!(document, expected);
}

fn probe(name: &str) -> ProbeName {
    ProbeName::new(name).unwrap()
}

fn basis(name: &str) -> BasisName {
    BasisName::new(name).unwrap()
}
