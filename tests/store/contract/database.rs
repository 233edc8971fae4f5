//! Properties of the PostgreSQL store only: several servers, restarts, migrations, damage.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use dinoserve::{
    error::Kind,
    gallery::{
        self, Gallery, GalleryConfig, GalleryName, OpenMode, Parts, Search, restore_snapshot,
        write_snapshot,
    },
};

use super::{Place, Random, binding, full, id, name, plain, soak::soak};
use crate::support::postgres::{PASSWORD, Postgres, UNPRIVILEGED};

async fn open(server: &Postgres) -> Gallery {
    gallery::open(&server.url(), &GalleryConfig::default(), OpenMode::Serve)
        .await
        .unwrap()
}

fn unused(server: &Postgres) -> String {
    server.url().replace(&format!(":{}/", server.port()), ":1/")
}

#[tokio::test(flavor = "multi_thread")]
async fn several_servers_work_on_one_database() {
    let Some(place) = Place::database("several_servers_work_on_one_database") else {
        return;
    };
    let stores = vec![place.open().await, place.open().await, place.open().await];
    soak(stores).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_create_a_gallery_at_once_create_one() {
    let Some(server) = Postgres::start("servers_that_create_a_gallery_at_once_create_one") else {
        return;
    };
    let server = Arc::new(server);
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let store = open(&server).await;
                let mut random = Random(n);
                store.create(&name("g"), &binding(4)).await.unwrap();
                store
                    .put(
                        &name("h"),
                        &binding(4),
                        vec![plain(n.to_string(), random.direction(4))],
                    )
                    .await
                    .unwrap()
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap()[0].is_created());
    }
    let store = open(&server).await;
    let counts: Vec<_> = store
        .galleries()
        .await
        .unwrap()
        .iter()
        .map(|info| info.items)
        .collect();
    assert_eq!(counts, [0, 8]);
    let places: Vec<_> = store
        .page(&name("h"), 0, 9, None)
        .await
        .unwrap()
        .iter()
        .map(|item| item.place)
        .collect();
    assert_eq!(places, [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// Servers know of each other's restores only by the locks of the database.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_restore_a_gallery_at_once_leave_a_whole_one() {
    let test = "servers_that_restore_a_gallery_at_once_leave_a_whole_one";
    let Some(server) = Postgres::start(test) else {
        return;
    };
    let stores = [open(&server).await, open(&server).await];
    let target = name("target");
    // A snapshot for each server, so that a mixture of both would be seen.
    let mut files = Vec::new();
    for (label, count) in [("one", 700), ("two", 900)] {
        let mut random = Random(count);
        let items = (0..count).map(|n| full(&n.to_string(), label, "{}", random.direction(4)));
        let source = name(label);
        let items = items.collect();
        stores[0].put(&source, &binding(4), items).await.unwrap();
        let mut file = Vec::new();
        write_snapshot(&stores[0], &source, &mut file)
            .await
            .unwrap();
        files.push(file);
    }
    restore_snapshot(&stores[0], &target, &*files[0])
        .await
        .unwrap();

    let (mut restored, mut refused) = (0, 0);
    for _ in 0..20 {
        let tasks: Vec<_> = stores
            .iter()
            .zip(&files)
            .map(|(store, file)| {
                let (store, file, target) = (Arc::clone(store), file.clone(), target.clone());
                tokio::spawn(async move { restore_snapshot(&store, &target, &*file).await })
            })
            .collect();
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => restored += 1,
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Conflict, "{error}");
                    refused += 1;
                }
            }
        }
        for store in &stores {
            let items = super::read_all(store, &target, Parts::NONE).await;
            let label = items[0].item.label.clone();
            let whole = if items.len() == 700 { "one" } else { "two" };
            assert!(
                items.len() == 700 || items.len() == 900,
                "{} items",
                items.len()
            );
            assert!(
                items.iter().all(|stored| stored.item.label == label),
                "a mixture"
            );
            assert_eq!(label.unwrap().as_str(), whole);
            let galleries = store.galleries().await.unwrap();
            let names: Vec<_> = galleries.iter().map(|info| info.name.as_str()).collect();
            assert_eq!(names, ["one", "target", "two"]);
            assert!(store.staging_galleries().await.unwrap().is_empty());
        }
    }
    assert!(restored >= 20, "{restored} restored, {refused} refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gallery_is_always_readable_while_it_is_replaced() {
    let Some(server) = Postgres::start("a_gallery_is_always_readable_while_it_is_replaced") else {
        return;
    };
    let one = open(&server).await;
    let other = open(&server).await;
    let gallery = name("g");
    let next = name("next");
    let make = async |store: &Gallery, name: &GalleryName, round: u64| {
        let mut random = Random(round);
        let items = (0..5).map(|n| {
            full(
                &n.to_string(),
                &format!("round {round}"),
                "{}",
                random.direction(4),
            )
        });
        store.put(name, &binding(4), items.collect()).await.unwrap();
    };
    make(&one, &gallery, 0).await;
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|n| {
            let store = Arc::clone(&other);
            let over = Arc::clone(&over);
            let gallery = gallery.clone();
            tokio::spawn(async move {
                let mut reads = 0;
                while !over.load(SeqCst) {
                    let search = Search::new(vec![0.5; 4], 9);
                    let labels: Vec<_> = match n {
                        0 => super::read_all(&store, &gallery, Parts::ALL)
                            .await
                            .into_iter()
                            .map(|s| s.item.label)
                            .collect(),
                        1 => store
                            .page(&gallery, 0, 9, None)
                            .await
                            .unwrap()
                            .into_iter()
                            .map(|item| item.label)
                            .collect(),
                        _ => store
                            .search(&gallery, search)
                            .await
                            .unwrap()
                            .into_iter()
                            .map(|n| n.item.label)
                            .collect(),
                    };
                    assert_eq!(labels.len(), 5);
                    assert!(labels.iter().all(|label| *label == labels[0]), "{labels:?}");
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for round in 1..60 {
        make(&one, &next, round).await;
        one.replace(&gallery, &next).await.unwrap();
    }
    over.store(true, SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 10);
    }
    // Tables of replaced galleries are dropped, the last ones when a server starts.
    one.close().await;
    let store = open(&server).await;
    let client = server.connect().await;
    let mut tables = 0i64;
    for _ in 0..100 {
        const COUNT: &str = "SELECT count(*) FROM pg_tables \
                             WHERE schemaname = 'dinoserve' AND tablename LIKE 'items_%'";
        tables = client.query_one(COUNT, &[]).await.unwrap().get(0);
        if tables == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(tables, 1);
    assert_eq!(store.require_gallery(&gallery).await.unwrap().items, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_database_the_next_call_works() {
    let Some(mut server) = Postgres::start("after_a_restart_of_the_database_the_next_call_works")
    else {
        return;
    };
    let store = open(&server).await;
    let gallery = name("g");
    let binding = binding(4);
    let mut random = Random(81);
    store
        .put(&gallery, &binding, vec![plain("a", random.direction(4))])
        .await
        .unwrap();
    for round in 0..3 {
        server.crash();
        let error = store
            .require_item(&gallery, &id("a"), Parts::ALL)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        let put = store
            .put(&gallery, &binding, vec![plain("b", random.direction(4))])
            .await
            .unwrap_err();
        assert_eq!(put.kind(), Kind::Unavailable, "{put}");
        server.resume();
        assert_eq!(
            store
                .require_item(&gallery, &id("a"), Parts::ALL)
                .await
                .unwrap()
                .item
                .place,
            1
        );
        let item = plain(format!("{round}"), random.direction(4));
        let written = store.put(&gallery, &binding, vec![item]).await.unwrap();
        assert!(written[0].is_created());
        // Restarted while the store is open.
        server.crash();
        server.resume();
        assert_eq!(
            store.require_gallery(&gallery).await.unwrap().items,
            round + 2
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_crash_keeps_exactly_the_acknowledged_writes() {
    let test = "a_database_crash_keeps_exactly_the_acknowledged_writes";
    let Some(mut server) = Postgres::start(test) else {
        return;
    };
    let store = open(&server).await;
    let gallery = name("g");
    store.create(&gallery, &binding(4)).await.unwrap();
    let mut stored = Vec::new();
    let mut rejected = Vec::new();
    let mut unknown = Vec::new();
    for round in 0..6 {
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (store, gallery, over) =
                    (Arc::clone(&store), gallery.clone(), Arc::clone(&over));
                tokio::spawn(async move {
                    let mut random = Random(writer);
                    let (mut stored, mut rejected, mut unknown) =
                        (Vec::new(), Vec::new(), Vec::new());
                    for n in 0.. {
                        if over.load(SeqCst) {
                            break;
                        }
                        let own = id(format!("{round}/{writer}/{n}"));
                        match store
                            .put(
                                &gallery,
                                &binding(4),
                                vec![plain(own.as_str(), random.direction(4))],
                            )
                            .await
                        {
                            Ok(_) => stored.push(own),
                            Err(error) => {
                                assert_eq!(error.kind(), Kind::Unavailable, "{error}");
                                // The connection broke between the commit and its response.
                                let open = error.detail().contains("is not known");
                                if open {
                                    unknown.push(own);
                                } else {
                                    rejected.push(own);
                                }
                                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                            }
                        }
                    }
                    (stored, rejected, unknown)
                })
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_millis(150 + 37 * round)).await;
        server.crash();
        // Long enough for a connection to notice.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        server.resume();
        over.store(true, SeqCst);
        for writer in writers {
            let (more, gone, open) = writer.await.unwrap();
            stored.extend(more);
            rejected.extend(gone);
            unknown.extend(open);
        }
    }
    let failed = rejected.len() + unknown.len();
    assert!(
        stored.len() > 50 && failed > 0,
        "{} stored, {failed} not",
        stored.len()
    );
    for own in &stored {
        store
            .require_item(&gallery, own, Parts::NONE)
            .await
            .unwrap();
    }
    for own in &rejected {
        assert_eq!(
            store
                .require_item(&gallery, own, Parts::NONE)
                .await
                .unwrap_err()
                .kind(),
            Kind::NotFound
        );
    }
    let mut count = stored.len() as u64;
    for own in &unknown {
        count += u64::from(store.require_item(&gallery, own, Parts::NONE).await.is_ok());
    }
    let report = store.check(&gallery).await.unwrap();
    assert_eq!((report.items, report.damage), (count, Vec::<String>::new()));
}

#[tokio::test]
async fn connection_errors_have_a_reason_and_no_password() {
    let Some(server) = Postgres::start("connection_errors_have_a_reason_and_no_password") else {
        return;
    };
    let place = format!("127.0.0.1:{}/postgres", server.port());
    let store = open(&server).await;
    assert_eq!(store.describe(), format!("PostgreSQL at {place}"));
    assert!(!format!("{store:?}").contains("geheim"), "{store:?}");
    let cases = [
        (
            server.url_with("wrong-secret"),
            Kind::Unavailable,
            vec!["password authentication failed", &place],
        ),
        (
            unused(&server),
            Kind::Unavailable,
            vec!["cannot be reached", "127.0.0.1:1/postgres"],
        ),
        (
            server.url().replace("/postgres", "/nowhere"),
            Kind::Unavailable,
            vec!["\"nowhere\" does not exist"],
        ),
        (
            format!("{}?sslmode=require", server.url()),
            Kind::Unavailable,
            vec!["TLS"],
        ),
        (
            format!("{}?sslmode=sometimes", server.url()),
            Kind::InvalidOption,
            vec!["sslmode is disable, prefer or require"],
        ),
        (
            "postgres://user:wrong-secret@host:port/db".to_owned(),
            Kind::InvalidOption,
            vec!["postgres://user:password@host"],
        ),
        (
            "postgresql:///db?password=wrong-secret".to_owned(),
            Kind::InvalidOption,
            vec!["postgres://user:password@host"],
        ),
    ];
    for (url, kind, expected) in cases {
        let error = gallery::open(&url, &GalleryConfig::default(), OpenMode::Serve)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{url}: {error}");
        for text in expected {
            assert!(error.detail().contains(text), "{text} in {error}");
        }
        let all = format!("{error} {error:?}");
        assert!(
            !all.contains("wrong-secret") && !all.contains(PASSWORD) && !all.contains("geheim"),
            "{all}"
        );
    }
}

#[tokio::test]
async fn tables_are_created_by_servers_only() {
    let Some(server) = Postgres::start("tables_are_created_by_servers_only") else {
        return;
    };
    let config = GalleryConfig::default();
    let client = server.connect().await;
    let error = gallery::open(&server.url(), &config, OpenMode::Read)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let made: i64 = client
        .query_one(
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'dinoserve'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(made, 0);

    let store = open(&server).await;
    store
        .put(
            &name("g"),
            &binding(3),
            vec![plain("a", vec![1.0, 0.0, 0.0])],
        )
        .await
        .unwrap();
    let reader = gallery::open(&server.url(), &config, OpenMode::Read)
        .await
        .unwrap();
    assert_eq!(reader.require_gallery(&name("g")).await.unwrap().items, 1);

    client
        .execute("INSERT INTO dinoserve.schema VALUES (99, now())", &[])
        .await
        .unwrap();
    for mode in [OpenMode::Serve, OpenMode::Read] {
        let error = gallery::open(&server.url(), &config, mode)
            .await
            .unwrap_err();
        assert!(
            error.detail().contains("version 99") && error.detail().contains("newer dinoserve"),
            "{error}"
        );
    }
    client
        .execute("DELETE FROM dinoserve.schema WHERE version = 99", &[])
        .await
        .unwrap();
    assert_eq!(
        open(&server)
            .await
            .require_gallery(&name("g"))
            .await
            .unwrap()
            .items,
        1
    );
}

#[tokio::test]
async fn without_pgvector_the_error_says_what_to_install() {
    let Some(server) = Postgres::start("without_pgvector_the_error_says_what_to_install") else {
        return;
    };
    server.remove_extension();
    let error = gallery::open(&server.url(), &GalleryConfig::default(), OpenMode::Serve)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(
        error.detail().contains("pgvector") && error.detail().contains("CREATE EXTENSION vector"),
        "{error}"
    );
}

#[tokio::test]
async fn an_extension_in_another_schema_is_found() {
    let Some(server) = Postgres::start("an_extension_in_another_schema_is_found") else {
        return;
    };
    let client = server.connect().await;
    client
        .batch_execute(
            "CREATE SCHEMA \"Some where\"; CREATE EXTENSION vector SCHEMA \"Some where\"",
        )
        .await
        .unwrap();
    let store = open(&server).await;
    store
        .put(
            &name("g"),
            &binding(3),
            vec![plain("a", vec![1.0, 0.0, 0.0])],
        )
        .await
        .unwrap();
    let search = Search::new(vec![1.0, 0.0, 0.0], 1);
    assert_eq!(
        store.search(&name("g"), search).await.unwrap()[0]
            .item
            .id
            .as_str(),
        "a"
    );
}

#[tokio::test]
async fn a_check_finds_every_change() {
    let Some(server) = Postgres::start("a_check_finds_every_change") else {
        return;
    };
    let store = open(&server).await;
    let client = server.connect().await;
    let mut random = Random(82);
    let changes = [
        ("id = id || '\\x01'", "the checksum of"),
        ("label = 'other'", "the checksum of"),
        ("label = NULL", "the checksum of"),
        ("metadata = replace(metadata, '1', '2')", "the checksum of"),
        ("stored_ms = stored_ms + 1", "the checksum of"),
        (
            "vector = ((vector::real[])[1:7] || '{0.5}'::real[])::dinoserve.vector",
            "the checksum of",
        ),
        (
            "features = set_byte(features, 2, get_byte(features, 2) # 1)",
            "the checksum of",
        ),
        (
            "thumbnail = set_byte(thumbnail, 0, get_byte(thumbnail, 0) # 128)",
            "the checksum of",
        ),
        ("thumbnail = NULL", "the checksum of"),
        ("checksum = checksum # 4", "the checksum of"),
        ("terms = '{\"n\": [7]}'", "differ from its metadata"),
    ];
    for (at, (change, expected)) in changes.into_iter().enumerate() {
        let gallery = name(&format!("g{at}"));
        let items = ["a", "b", "c"].map(|id| full(id, "label", r#"{"n":1}"#, random.direction(8)));
        store
            .put(&gallery, &binding(8), items.into())
            .await
            .unwrap();
        let number: i64 = client
            .query_one(
                "SELECT number FROM dinoserve.galleries WHERE name = $1",
                &[&gallery.as_str()],
            )
            .await
            .unwrap()
            .get(0);
        let changed = client
            .execute(
                &format!("UPDATE dinoserve.items_{number} SET {change} WHERE place = 2"),
                &[],
            )
            .await;
        assert_eq!(changed.unwrap(), 1, "{change}");
        let report = store.check(&gallery).await.unwrap();
        assert_eq!(
            (report.items, report.damage.len()),
            (3, 1),
            "{change}: {report:?}"
        );
        assert!(
            report.damage[0].contains("place 2") && report.damage[0].contains(expected),
            "{change}: {report:?}"
        );
        client
            .execute(
                &format!("DELETE FROM dinoserve.items_{number} WHERE place = 2"),
                &[],
            )
            .await
            .unwrap();
        let report = store.check(&gallery).await.unwrap();
        assert!(
            report.damage.len() == 1 && report.damage[0].contains("counts 3 items and has 2"),
            "{report:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_of_a_gallery_that_leave_no_room_are_damage() {
    let Some(server) = Postgres::start("counts_of_a_gallery_that_leave_no_room_are_damage") else {
        return;
    };
    let store = open(&server).await;
    let client = server.connect().await;
    let gallery = name("g");
    let mut random = Random(83);
    let mut item = |id| full(id, "label", r#"{"n":1}"#, random.direction(8));
    let items = vec![item("a")];
    store.put(&gallery, &binding(8), items).await.unwrap();
    let [last, items] = [item("b"), item("c")];
    for (counts, expected) in [
        (format!("last_place = {}", 1i64 << 62), "no numbers left"),
        (format!("last_place = {}", i64::MAX), "last place is out of"),
        (
            "last_place = 2, items = -1".to_owned(),
            "items is out of range",
        ),
        (
            "last_place = 2, items = 3".to_owned(),
            "items is out of range",
        ),
    ] {
        let change = format!("UPDATE dinoserve.galleries SET {counts}");
        client.execute(&change, &[]).await.unwrap();
        let put = store.put(&gallery, &binding(8), vec![last.clone()]).await;
        let error = put.unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{counts}: {error}");
        assert!(error.detail().contains(expected), "{counts}: {error}");
    }
    let change = "UPDATE dinoserve.galleries SET last_place = 1, items = 1";
    client.execute(change, &[]).await.unwrap();
    store.put(&gallery, &binding(8), vec![items]).await.unwrap();
}

#[tokio::test]
async fn too_few_connections_are_refused_by_name() {
    let config = GalleryConfig {
        connections: 5,
        ..GalleryConfig::default()
    };
    let opened = gallery::open("postgres://localhost/none", &config, OpenMode::Serve).await;
    let error = opened.expect_err("an error");
    assert!(error.to_string().contains("gallery-connections"), "{error}");
    assert!(error.to_string().contains("6 or more"), "{error}");
}

/// A small disk in memory; root can mount one where containers allow it.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let size = format!("size={megabytes}m,uid={UNPRIVILEGED},gid={UNPRIVILEGED}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(&self.0)
            .status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_and_nothing_is_lost() {
    let test = "a_full_disk_is_reported_and_nothing_is_lost";
    let Some(server) = Postgres::start(test) else {
        return;
    };
    let folder = server.folder().join("small");
    let Some(_disk) = SmallDisk::mount(&folder, 16) else {
        crate::support::skip(&format!(
            "{test}: no small disk can be mounted (that takes root)"
        ));
        return;
    };
    let client = server.connect().await;
    client
        .batch_execute(&format!(
            "CREATE TABLESPACE small LOCATION '{}'",
            folder.display()
        ))
        .await
        .unwrap();
    client
        .batch_execute("ALTER DATABASE postgres SET default_tablespace = small")
        .await
        .unwrap();
    let store = open(&server).await;
    let gallery = name("g");
    let binding = binding(384);
    let mut random = Random(83);
    let mut batch = |round: usize| {
        (0..50)
            .map(|n| plain(format!("{round}/{n}"), random.direction(384)))
            .collect::<Vec<_>>()
    };
    let mut stored = 0;
    let error = loop {
        match store.put(&gallery, &binding, batch(stored)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::StorageFull, "{error}");
    assert!(stored > 10 && error.detail().contains("full"), "{error}");
    let report = store.check(&gallery).await.unwrap();
    assert_eq!(
        (report.items, report.damage),
        (50 * stored as u64, Vec::<String>::new())
    );
    assert_eq!(
        store
            .require_item(&gallery, &id(format!("{stored}/0")), Parts::NONE)
            .await
            .unwrap_err()
            .kind(),
        Kind::NotFound
    );
    let search = Search::new(random.direction(384), 5);
    assert_eq!(store.search(&gallery, search).await.unwrap().len(), 5);
    // Writes go on with free space.
    store
        .create(&name("other"), &super::binding(4))
        .await
        .unwrap_err();
    store.remove(&gallery).await.unwrap();
    for _ in 0..100 {
        if store
            .put(&gallery, &binding, vec![plain("a", random.direction(384))])
            .await
            .is_ok()
        {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the disk stays full");
}
