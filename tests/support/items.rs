//! Made-up items for galleries, each different from every other.

use bytes::Bytes;
use dinoserve::gallery::{
    Binding, Gallery, GalleryName, ItemId, Label, Metadata, NewItem, Parts, StoredItem,
};
use futures_util::TryStreamExt;

pub const DIM: usize = 32;

/// Reproducible pseudorandom numbers (Steele, Lea and Flood, 2014).
pub struct SplitMix(pub u64);

impl SplitMix {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

pub fn binding() -> Binding {
    let binding = serde_json::json!({
        "model": "none", "fingerprint": "random numbers", "dim": DIM, "pooling": "cls", "layers": 1,
        "size": 224, "resize": "crop", "filter": "bicubic", "exif": true, "background": "white",
    });
    serde_json::from_value(binding).unwrap()
}

/// Returns a version of an item; its content follows from its id and the version.
pub fn item(id: &str, version: u64) -> NewItem {
    let seed = id.bytes().fold(version, |seed, byte| {
        seed.wrapping_mul(131).wrapping_add(u64::from(byte))
    });
    let mut random = SplitMix(seed);
    let mut vector: Vec<f32> = (0..DIM)
        .map(|_| random.below(2001) as f32 - 1000.0)
        .collect();
    dinoserve::features::pool::normalize(&mut vector);
    // Values that are exact in half precision.
    let features = (0..2 * DIM)
        .map(|_| random.below(256) as f32 / 16.0)
        .collect();
    // From no bytes to several pages of the database.
    let length = random.below(3) * random.below(5000);
    let thumbnail = (0..length).map(|_| random.next() as u8).collect::<Bytes>();
    NewItem {
        id: ItemId::new(id).unwrap(),
        label: (!version.is_multiple_of(3))
            .then(|| Label::new(format!("label {}", version % 3)).unwrap()),
        metadata: Metadata::parse(&format!("{{\"version\": {version}}}")).unwrap(),
        vector,
        features: Some(features),
        thumbnail: Some(thumbnail).filter(|thumbnail| !thumbnail.is_empty()),
    }
}

pub fn version_of(stored: &StoredItem) -> u64 {
    stored.item.metadata.object()["version"].as_u64().unwrap()
}

#[track_caller]
pub fn assert_whole(stored: &StoredItem) {
    let expected = item(stored.item.id.as_str(), version_of(stored));
    assert_eq!(stored.item.label, expected.label, "{}", stored.item.id);
    assert_eq!(stored.vector, expected.vector, "{}", stored.item.id);
    assert_eq!(stored.features, expected.features, "{}", stored.item.id);
    assert_eq!(stored.thumbnail, expected.thumbnail, "{}", stored.item.id);
}

/// Reads all items in their order, and checks that [`item`] made each of them.
pub async fn read_all(store: &Gallery, name: &GalleryName) -> Vec<StoredItem> {
    let items = store.read(name, Parts::ALL).await.unwrap();
    let items: Vec<StoredItem> = items.try_collect().await.unwrap();
    items.iter().for_each(assert_whole);
    items
}
