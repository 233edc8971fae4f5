//! Galleries whose description and items a file or a database states, possible or not: restored or
//! opened, then used as requests use them. Whatever is accepted must work; sizes that no model has
//! must not be allocated.
//!
//! The first byte chooses the way in, the next ones the description, and the rest are items.

#![no_main]

mod database;

use std::sync::LazyLock;

use dinoserve::{
    features::{
        pca::document::Document,
        pool::{Pooling, normalize},
        probe::Probe,
    },
    gallery::{
        Binding, Gallery, GalleryName, ItemFilter, ItemId, NewItem, OpenMode, Parts, Query, Search,
        open, restore_snapshot, write_snapshot,
    },
    vision::{PatchSize, Size},
};
use futures_util::TryStreamExt;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::runtime::{Builder, Runtime};

use self::database::{FOLDER, config};

/// Numbers at and beyond the limits of what models have.
const NUMBERS: [u64; 16] = [
    1,
    2,
    3,
    4,
    8,
    0,
    5,
    12,
    224,
    65_536,
    65_537,
    524_288,
    1 << 32,
    1 << 40,
    1 << 62,
    u64::MAX,
];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime")
});
static STORE: LazyLock<Gallery> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    let location = folder.to_str().expect("a plain path");
    let opened = async { open(location, &config(), OpenMode::Serve).await };
    RUNTIME.block_on(opened).expect("an empty folder opens")
});

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, optional, tag = "2")]
    label: Option<String>,
    #[prost(string, tag = "3")]
    metadata: String,
    #[prost(float, repeated, tag = "4")]
    vector: Vec<f32>,
    #[prost(float, repeated, tag = "5")]
    features: Vec<f32>,
}

/// Bytes that end in zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    fn number(&mut self) -> u64 {
        NUMBERS[usize::from(self.byte()) % NUMBERS.len()]
    }

    fn binding(&mut self) -> Value {
        let pooling = ["cls", "mean", "cls_mean", "gem"];
        let resize = ["crop", "fit", "squash"];
        json!({
            "model": "m", "fingerprint": "ab", "dim": self.number(), "layers": self.number(),
            "pooling": pooling[usize::from(self.byte()) % 4],
            "size": self.number(), "resize": resize[usize::from(self.byte()) % 3],
            "filter": "bicubic", "exif": true, "background": "white",
        })
    }

    fn record(&mut self, dim: usize) -> Record {
        let choice = self.byte();
        let width = if choice % 8 == 0 {
            usize::from(self.byte())
        } else {
            dim.min(64)
        };
        let mut vector: Vec<f32> = (0..width).map(|_| f32::from(self.byte()) - 100.0).collect();
        if choice % 4 != 1 {
            normalize(&mut vector);
        }
        let features = if choice % 3 == 0 {
            usize::from(self.byte())
        } else {
            0
        };
        Record {
            id: ["a", "b", "c", "d", "e", "", ".", ".."][usize::from(self.byte()) % 8].to_owned(),
            label: (choice % 2 == 0).then(|| "l".to_owned()),
            metadata: r#"{"n": [1, 2]}"#.to_owned(),
            vector,
            features: vec![0.5; features],
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    match input.byte() % 4 {
        0 => {
            LazyLock::force(&STORE);
            RUNTIME.block_on(restore(&mut input));
        }
        1 => {
            if write_row(&mut input).is_ok() {
                RUNTIME.block_on(open_row());
            }
        }
        2 => use_probe(input.0),
        _ => use_basis(input.0),
    }
});

async fn restore(input: &mut Input<'_>) {
    let binding = input.binding();
    let dim = usize::try_from(binding["dim"].as_u64().unwrap_or(0)).unwrap_or(0);
    let mut file = b"DINOGLRY".to_vec();
    file.extend(1u32.to_le_bytes());
    let mut parts = vec![json!({"binding": binding}).to_string().into_bytes()];
    while !input.0.is_empty() && parts.len() < 20 {
        parts.push(input.record(dim).encode_to_vec());
    }
    for part in &parts {
        file.extend((part.len() as u32).to_le_bytes());
        file.extend(part);
    }
    file.extend(0u32.to_le_bytes());
    file.extend((parts.len() as u64 - 1).to_le_bytes());
    let digest = Sha256::digest(&file);
    file.extend_from_slice(&digest);
    let name = GalleryName::new("restored").expect("a name");
    if restore_snapshot(&STORE, &name, &*file).await.is_ok() {
        use_gallery(&STORE, &name).await;
    }
}

/// Writes the row of a gallery into an empty database.
fn write_row(input: &mut Input<'_>) -> heed::Result<()> {
    let row = json!({
        "number": input.number(), "binding": input.binding(), "vectors": "f16",
        "items": input.number(), "next_place": input.number(), "next_serial": input.number(),
    });
    let row = row.to_string();
    database::write(|tables, txn| tables[1].put(txn, b"stored", row.as_bytes()))
}

async fn open_row() {
    let location = FOLDER.to_str().expect("a plain path");
    let store = open(location, &config(), OpenMode::Serve).await;
    let store = store.expect("a damaged row does not hide the others");
    let name = GalleryName::new("stored").expect("a name");
    if store
        .gallery(&name)
        .await
        .is_ok_and(|found| found.is_some())
    {
        use_gallery(&store, &name).await;
    }
    assert!(store.remove(&name).await.expect("it can be deleted"));
    store.close().await;
}

/// Stores, reads and searches as requests do.
async fn use_gallery(store: &Gallery, name: &GalleryName) {
    let info = store.require_gallery(name).await.expect("it is there");
    use_binding(&info.binding);
    let mut vector = vec![1.0; info.binding.dim];
    normalize(&mut vector);
    let item = NewItem {
        id: ItemId::new("new").expect("an id"),
        label: None,
        metadata: dinoserve::gallery::Metadata::parse(r#"{"n": 2}"#).expect("metadata"),
        vector,
        features: Some(vec![0.5; info.binding.features_width()]),
        thumbnail: None,
    };
    // Numbers of a database may be at their ends.
    if store
        .put(name, &info.binding, vec![item.clone()])
        .await
        .is_err()
    {
        return;
    }
    let filter = json!({"metadata": {"n": {"any": [2, 3, 4, 5]}}});
    let filter = ItemFilter::parse(&filter).expect("a filter");
    let page = store
        .page(name, 0, 10, Some(&filter))
        .await
        .expect("a page");
    assert!(!page.is_empty());
    let search = Search {
        filter: Some(filter),
        ..Search::of(Query::Item(item.id.clone()), 5)
    };
    let found = store.search(name, search).await.expect("neighbors");
    assert!(
        found
            .iter()
            .all(|found| (-1.0..=1.0).contains(&found.score))
    );
    let items = store.read(name, Parts::ALL).await.expect("a stream");
    let items: Vec<_> = items.try_collect().await.expect("whole items");
    assert!(
        items
            .iter()
            .all(|item| item.vector.len() == info.binding.dim)
    );
    let mut file = Vec::new();
    write_snapshot(store, name, &mut file)
        .await
        .expect("a snapshot");
    let again = restore_snapshot(store, name, &*file)
        .await
        .expect("a snapshot of ours");
    assert_eq!(again.items, items.len() as u64);
    assert_eq!(
        store.check(name).await.expect("a check").damage,
        Vec::<String>::new()
    );
}

/// Computes what the next image of the gallery would need.
fn use_binding(binding: &Binding) {
    let transform = binding.preprocessing.transform(PatchSize::new(14), 4096);
    let _ = transform.plan(Size::new(640, 480));
    let token = binding.features_width() / 2;
    let cls = ndarray::Array1::<f32>::ones(token);
    let patches = ndarray::Array2::<f32>::ones((2, token));
    let mut vector = Vec::with_capacity(binding.dim);
    for _ in 0..binding.layers {
        binding
            .pooling
            .pool(cls.view(), patches.view(), &mut vector);
    }
    assert_eq!(vector.len(), binding.dim);
    let mut features = Vec::new();
    Pooling::ClsMean.pool(cls.view(), patches.view(), &mut features);
    assert_eq!(features.len(), binding.features_width());
}

fn use_probe(file: &[u8]) {
    let Ok((probe, _)) = Probe::from_safetensors(file) else {
        return;
    };
    let shares = probe.probabilities(&vec![0.5; probe.width()]);
    assert_eq!(shares.expect("the right width").len(), probe.classes.len());
}

fn use_basis(file: &[u8]) {
    let Ok(document) = Document::read(file) else {
        return;
    };
    if let Ok(basis) = document.basis() {
        let patches = ndarray::Array2::<f32>::ones((3, basis.dim()));
        let projected = basis.pca().project(patches.view());
        assert_eq!(projected.nrows(), 3);
    }
    if let Ok(mut moments) = document.moments() {
        let added = ndarray::Array2::<f32>::ones((3, moments.dim()));
        moments.merge(dinoserve::features::pca::Moments::of(added.view()));
        let _ = moments.fit(1);
    }
}
