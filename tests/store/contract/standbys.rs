//! Searches and pages from standbys of a database.

use std::time::Duration;

use dinoserve::{
    error::Kind,
    gallery::{self, Gallery, GalleryConfig, OpenMode, Search},
};

use super::{Place, Random, binding, ids, name, plain, soak::soak};
use crate::support::postgres::Postgres;

/// Opens a database whose searches are answered by standbys.
async fn open(primary: &Postgres, standbys: &[&Postgres]) -> Gallery {
    let config = GalleryConfig {
        standbys: standbys.iter().map(|standby| standby.url()).collect(),
        // Long enough for a busy machine: a standby that runs is never behind for longer.
        standby_wait: Duration::from_secs(5),
        ..GalleryConfig::default()
    };
    gallery::open(&primary.url(), &config, OpenMode::Serve)
        .await
        .unwrap()
}

fn search_of(vector: &[f32]) -> Search {
    Search::new(vector.to_vec(), 1)
}

/// The soak fails if a search lacks a write that any of the servers has acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_lacks_no_acknowledged_write() {
    let Some(place) = Place::database("a_standby_lacks_no_acknowledged_write") else {
        return;
    };
    let standby = place.server().start_standby();
    let with_standby = open(place.server(), &[&standby]).await;
    let before = scans(&standby).await;
    soak(vec![place.open().await, with_standby.clone()]).await;
    assert_is_read(&standby, before).await;
}

/// Returns how often the tables of items were read on a server. Statistics of a connection are
/// published up to ten seconds later.
async fn scans(server: &Postgres) -> i64 {
    const SCANS: &str = "SELECT coalesce(sum(seq_scan + coalesce(idx_scan, 0)), 0)::bigint
                         FROM pg_stat_user_tables WHERE relname LIKE 'items\\_%'";
    let client = server.connect().await;
    client.query_one(SCANS, &[]).await.unwrap().get(0)
}

/// Waits until the statistics of a standby have more reads than `before`: a table of items is read
/// only if its gallery has all writes.
async fn assert_is_read(standby: &Postgres, before: i64) {
    for _ in 0..200 {
        if scans(standby).await > before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the standby is not read");
}

struct Searches {
    store: Gallery,
    vectors: Vec<Vec<f32>>,
}

impl Searches {
    async fn put(&self, n: usize) {
        let item = plain(n.to_string(), self.vectors[n].clone());
        let (gallery, binding) = (name("g"), binding(8));
        self.store
            .put(&gallery, &binding, vec![item])
            .await
            .unwrap();
    }

    /// Searches and pages find the last item, `n`.
    async fn assert_found(&self, n: usize, why: &str) {
        for _ in 0..20 {
            let search = search_of(&self.vectors[n]);
            let found = self.store.search(&name("g"), search).await.unwrap();
            assert_eq!(found[0].item.id.as_str(), n.to_string(), "{why}");
            let page = self.store.page(&name("g"), 0, 10, None).await.unwrap();
            assert_eq!(ids(&page).len(), n + 1, "{why}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_answers_while_standbys_cannot() {
    let Some(mut primary) = Postgres::start("the_primary_answers_while_standbys_cannot") else {
        return;
    };
    let mut standby = primary.start_standby();
    let mut random = Random(91);
    let mut searches = Searches {
        // One that cannot have the tables yet.
        store: open(&primary, &[&standby]).await,
        vectors: (0..4).map(|_| random.direction(8)).collect(),
    };
    searches.put(0).await;
    // Until it is tried again.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before = scans(&standby).await;
    searches.assert_found(0, "replicated").await;
    assert_is_read(&standby, before).await;

    // A standby that is behind for long.
    searches.store.close().await;
    let config = GalleryConfig {
        standbys: vec![standby.url()],
        ..GalleryConfig::default()
    };
    let open = async || gallery::open(&primary.url(), &config, OpenMode::Serve).await;
    searches.store = open().await.unwrap();
    let client = standby.connect().await;
    let pause = "SELECT pg_wal_replay_pause()";
    client.batch_execute(pause).await.unwrap();
    let state = "SELECT pg_get_wal_replay_pause_state()";
    while client
        .query_one(state, &[])
        .await
        .unwrap()
        .get::<_, &str>(0)
        != "paused"
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    searches.put(1).await;
    searches.assert_found(1, "behind").await;
    let resume = "SELECT pg_wal_replay_resume()";
    client.batch_execute(resume).await.unwrap();
    drop(client);

    // One that is gone, and comes back.
    standby.crash();
    searches.put(2).await;
    searches.assert_found(2, "gone").await;
    standby.resume();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let before = scans(&standby).await;
    searches.assert_found(2, "back").await;
    assert_is_read(&standby, before).await;

    // One that is gone at the start.
    standby.crash();
    searches.store.close().await;
    searches.store = open().await.unwrap();
    searches.put(3).await;
    searches.assert_found(3, "gone at the start").await;

    // Without the primary it is not known what a standby lacks.
    standby.resume();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let before = scans(&standby).await;
    searches.assert_found(3, "back again").await;
    assert_is_read(&standby, before).await;
    primary.crash();
    let search = search_of(&searches.vectors[0]);
    let error = searches.store.search(&name("g"), search).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_no_standby_is_refused_by_name() {
    let test = "a_database_that_is_no_standby_is_refused_by_name";
    let (Some(primary), Some(other)) = (Postgres::start(test), Postgres::start(test)) else {
        return;
    };
    let default = GalleryConfig::default();
    let opened = gallery::open(&other.url(), &default, OpenMode::Serve).await;
    opened.unwrap().close().await;
    let folder = crate::support::scratch("no_standby");
    for (location, standby, expected) in [
        (primary.url(), other.url(), "not a standby"),
        (
            primary.url(),
            "postgres://".to_owned(),
            "the URL of a database",
        ),
        (folder.to_str().unwrap().to_owned(), other.url(), "folder"),
    ] {
        let config = GalleryConfig {
            standbys: vec![standby],
            ..GalleryConfig::default()
        };
        let error = gallery::open(&location, &config, OpenMode::Serve).await;
        let error = error.expect_err("an error");
        assert_eq!(error.kind(), Kind::InvalidOption, "{error}");
        assert!(error.detail().contains("gallery-read"), "{error}");
        assert!(error.detail().contains(expected), "{error}");
    }
}
