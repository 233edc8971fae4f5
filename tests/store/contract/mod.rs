//! One suite over both stores: the contract of [`dinoserve::gallery::GalleryStore`].

mod database;
mod database_at_size;
mod galleries;
mod items;
mod restores;
mod search;
mod soak;
mod standbys;

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use dinoserve::{
    error::Kind,
    features::pool::Pooling,
    gallery::{
        self, Binding, Gallery, GalleryConfig, GalleryName, Item, ItemId, Label, Metadata, NewItem,
        OpenMode, Parts, StoredItem, VectorFormat, Written,
    },
    model::ModelId,
    vision::{Preprocessing, ResizeMode},
};
use futures_util::TryStreamExt;

use crate::support::{postgres::Postgres, scratch};

/// Makes one test per store of each function; each starts with an empty store. Both stores are also
/// tested with vectors in one bit, and the database with items in partitions.
macro_rules! over_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            use crate::store::contract::Place;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(&Place::folder(stringify!($test))).await;
            })+
        }

        mod embedded_bits {
            use crate::store::contract::Place;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let place = Place::folder(concat!(stringify!($test), "-b1"));
                super::$test(&place.in_bits()).await;
            })+
        }

        mod postgres {
            use crate::store::contract::Place;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                if let Some(place) = Place::database(stringify!($test)) {
                    super::$test(&place).await;
                }
            })+
        }

        mod postgres_partitions {
            use crate::store::contract::Place;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                if let Some(place) = Place::database(stringify!($test)) {
                    super::$test(&place.in_bits().in_partitions(3)).await;
                }
            })+
        }
    };
}
use over_both_stores;

/// The location of a store, which can be opened several times, and how it is opened.
pub struct Place {
    pub site: Site,
    pub config: GalleryConfig,
}

pub enum Site {
    Folder(PathBuf),
    Database(Postgres),
}

impl Place {
    fn new(site: Site) -> Self {
        let config = GalleryConfig::default();
        Self { site, config }
    }

    pub fn folder(name: &str) -> Self {
        Self::new(Site::Folder(scratch(name)))
    }

    /// Starts PostgreSQL. Returns `None` and reports the test as skipped where it cannot run.
    pub fn database(name: &str) -> Option<Self> {
        Postgres::start(name).map(|server| Self::new(Site::Database(server)))
    }

    pub fn with_vectors(mut self, vectors: VectorFormat) -> Self {
        self.config.vectors = vectors;
        self
    }

    pub fn in_bits(self) -> Self {
        self.with_vectors(VectorFormat::B1)
    }

    pub fn in_partitions(mut self, partitions: usize) -> Self {
        self.config.partitions = partitions;
        self
    }

    pub fn is_folder(&self) -> bool {
        matches!(self.site, Site::Folder(_))
    }

    pub fn server(&self) -> &Postgres {
        match &self.site {
            Site::Folder(_) => panic!("a folder has no server"),
            Site::Database(server) => server,
        }
    }

    pub fn location(&self) -> String {
        match &self.site {
            Site::Folder(folder) => folder.to_str().expect("a path in UTF-8").to_owned(),
            Site::Database(server) => server.url(),
        }
    }

    /// Replaces a text in the descriptions of galleries by another of the same length. The store
    /// must be closed.
    pub async fn edit_descriptions(&self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len());
        match &self.site {
            Site::Folder(folder) => {
                let path = folder.join("data.mdb");
                let mut bytes = std::fs::read(&path).expect("the database");
                let found: Vec<usize> = bytes
                    .windows(from.len())
                    .enumerate()
                    .filter(|(_, text)| *text == from.as_bytes())
                    .map(|(at, _)| at)
                    .collect();
                assert!(!found.is_empty(), "no {from}");
                for at in found {
                    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
                }
                std::fs::write(&path, bytes).expect("a changed database");
            }
            Site::Database(server) => {
                const EDIT: &str =
                    "UPDATE dinoserve.galleries SET binding = replace(binding, $1, $2)";
                let client = server.connect().await;
                client.execute(EDIT, &[&from, &to]).await.expect("an edit");
            }
        }
    }

    pub async fn open(&self) -> Gallery {
        self.open_with(&self.config).await
    }

    /// Opens the store. Waits for a folder until the threads of its last store have ended.
    pub async fn open_with(&self, config: &GalleryConfig) -> Gallery {
        let location = self.location();
        let mut waited = 0;
        loop {
            match gallery::open(&location, config, OpenMode::Serve).await {
                Err(error) if error.kind() == Kind::Unavailable && waited < 100 => {
                    waited += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                opened => return opened.expect("the store opens"),
            }
        }
    }
}

pub fn name(name: &str) -> GalleryName {
    GalleryName::new(name).unwrap()
}

pub fn id(id: impl Into<String>) -> ItemId {
    ItemId::new(id).unwrap()
}

pub fn binding(dim: usize) -> Binding {
    Binding {
        model: ModelId {
            name: "dinov2-small".to_owned(),
            fingerprint: ("0123456789abcdef".repeat(4)).into(),
        },
        dim,
        pooling: Pooling::Cls,
        layers: 1,
        preprocessing: Preprocessing::new(ResizeMode::Crop, 224),
    }
}

/// Returns an item with only a vector.
pub fn plain(id: impl Into<String>, vector: Vec<f32>) -> NewItem {
    let id = ItemId::new(id).unwrap();
    NewItem {
        id,
        label: None,
        metadata: Metadata::default(),
        vector,
        features: None,
        thumbnail: None,
    }
}

/// Returns an item with all parts.
pub fn full(id: &str, label: &str, metadata: &str, vector: Vec<f32>) -> NewItem {
    NewItem {
        id: ItemId::new(id).unwrap(),
        label: Some(Label::new(label).unwrap()),
        metadata: Metadata::parse(metadata).unwrap(),
        features: Some(
            vector
                .iter()
                .flat_map(|value| [*value, value * 0.5])
                .collect(),
        ),
        thumbnail: Some(Bytes::from(id.as_bytes().repeat(7))),
        vector,
    }
}

pub fn created(place: u64) -> Written {
    Written::Created { place }
}

pub fn replaced(place: u64) -> Written {
    Written::Replaced { place }
}

pub fn kept(place: u64) -> Written {
    Written::Kept { place }
}

pub fn ids<'a>(items: impl IntoIterator<Item = &'a Item>) -> Vec<String> {
    items
        .into_iter()
        .map(|item| item.id.as_str().to_owned())
        .collect()
}

pub async fn read_all(store: &Gallery, name: &GalleryName, parts: Parts) -> Vec<StoredItem> {
    store
        .read(name, parts)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap()
}

/// Random numbers that are the same in every run (splitmix64, Steele et al., 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len())]
    }

    /// Uniform from -1 to 1.
    fn even(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Returns a vector of length 1.
    pub fn direction(&mut self, dim: usize) -> Vec<f32> {
        // Sums of uniform numbers are close enough to normal ones to spread directions evenly.
        let raw: Vec<f64> = (0..dim)
            .map(|_| self.even() + self.even() + self.even())
            .collect();
        unit(&raw)
    }
}

pub fn unit(raw: &[f64]) -> Vec<f32> {
    let length = raw.iter().map(|value| value * value).sum::<f64>().sqrt();
    raw.iter().map(|value| (value / length) as f32).collect()
}
