//! Maps of galleries: a position in the plane for each item, where similar ones are near each
//! other.

mod stored;

use std::{collections::HashMap, sync::Arc};

use futures_util::TryStreamExt;
use ndarray::{ArrayView2, Axis};

use self::stored::{MapEntry, StoredMap};
use super::{
    gallery_documents::{GalleryDocuments, Making, read_vectors},
    jobs::{Job, JobState, job_threads, now_ms},
};
use crate::{
    error::{Result, ResultExt},
    features::{
        layout::{Point, lay_out, place},
        progress::Watch,
    },
    gallery::{GalleryName, Item, ItemId, Label, Parts},
};

/// The maps of a store's galleries. Clones share them and the one in progress.
#[derive(Debug, Clone)]
pub struct GalleryMaps(pub(super) GalleryDocuments);

/// A map of a gallery.
#[derive(Debug, Clone, PartialEq)]
pub struct GalleryMap {
    /// Time when items were last placed, in milliseconds since 1970.
    pub made_ms: u64,
    /// The items that have a place.
    pub items: Vec<MappedItem>,
    /// Number of items that were stored later. One whose image was replaced has its old place
    /// until then.
    pub missing: u64,
}

/// An item on a map.
#[derive(Debug, Clone, PartialEq)]
pub struct MappedItem {
    /// Its id.
    pub id: ItemId,
    /// Its label.
    pub label: Option<Label>,
    /// Its position.
    pub point: Point,
}

/// Items to map.
#[derive(Default)]
struct Vectors {
    entries: Vec<MapEntry>,
    /// Vectors of length 1, one after the other.
    values: Vec<f32>,
}

impl GalleryMaps {
    /// Starts to map a gallery, and returns a handle to the job. Items that have a place keep it,
    /// unless most items are new or the map is to be made `again`.
    ///
    /// # Errors
    /// [`Kind::Overloaded`](crate::error::Kind::Overloaded) during another job;
    /// [`Kind::TooLarge`](crate::error::Kind::TooLarge) for a gallery of more items than the limit.
    pub async fn start(&self, name: &GalleryName, again: bool) -> Result<Arc<Job>> {
        let work = |making, job| map(making, again, job);
        self.0.start::<StoredMap, _>(name, work).await
    }

    /// Returns the state of a gallery's map, and the map if none is being made.
    ///
    /// # Errors
    /// [`Kind::NotFound`](crate::error::Kind::NotFound) for a gallery that does not exist or has no
    /// map.
    pub async fn get(&self, name: &GalleryName) -> Result<(JobState, Option<GalleryMap>)> {
        let (state, stored) = self.0.get::<StoredMap>(name).await?;
        let map = match stored {
            Some(stored) => Some(self.with_items(name, stored).await?),
            None => None,
        };
        Ok((state, map))
    }

    /// Cancels the making of a gallery's map, if it is in progress. Deletes the map otherwise.
    pub async fn remove(&self, name: &GalleryName) -> Result<()> {
        self.0.remove::<StoredMap>(name).await
    }

    /// Adds the items to a stored map, as they are now.
    async fn with_items(&self, name: &GalleryName, stored: StoredMap) -> Result<GalleryMap> {
        let points: HashMap<u64, Point> = stored
            .entries
            .iter()
            .map(|entry| entry.place)
            .zip(stored.points)
            .collect();
        let mut map = GalleryMap {
            made_ms: stored.made_ms,
            items: Vec::with_capacity(points.len()),
            missing: 0,
        };
        let mut items = self.0.store().read(name, Parts::NONE).await?;
        while let Some(stored) = items.try_next().await? {
            let item = stored.item;
            match points.get(&item.place) {
                Some(&point) => map.items.push(MappedItem {
                    id: item.id,
                    label: item.label,
                    point,
                }),
                None => map.missing += 1,
            }
        }
        Ok(map)
    }
}

/// Maps a gallery, and stores the map.
async fn map(making: Making, again: bool, job: Arc<Job>) -> Result<()> {
    let before = match again {
        true => None,
        false => making.last::<StoredMap>().await,
    };
    let mut vectors = Vectors::default();
    let add = |item: Item, vector: &[f32]| {
        vectors.entries.push(MapEntry::new(item.place, vector));
        vectors.values.extend_from_slice(vector);
        Ok(())
    };
    let watch = |progress| job.advance(progress);
    let max = Some(making.max);
    if !read_vectors(&making.store, &making.name, max, &watch, add).await? {
        return Err(job.cancelled());
    }
    let observer = Arc::clone(&job);
    let gallery = making.info.number;
    let work = move || {
        let watch = &mut |progress| observer.advance(progress);
        let points = points_of(&vectors, before, watch)?;
        let stored = points.map(|points| StoredMap {
            gallery,
            made_ms: now_ms(),
            entries: vectors.entries,
            points,
        });
        stored.map(|stored| stored.encode()).transpose()
    };
    making.make::<StoredMap>(&job, work).await
}

/// Returns the point of each item: that of the map `before` for the same vector, and others near
/// their nearest; or new points for all, if most are new. `None` if `watch` ends it.
fn points_of(
    vectors: &Vectors,
    before: Option<StoredMap>,
    watch: Watch<'_>,
) -> Result<Option<Vec<Point>>> {
    let rows = vectors.entries.len();
    let dim = vectors.values.len() / rows.max(1);
    let whole = ArrayView2::from_shape((rows, dim), &vectors.values);
    let whole = whole.internal("the vectors of a map")?;
    let known: HashMap<MapEntry, Point> = before
        .map(|map| map.entries.into_iter().zip(map.points).collect())
        .unwrap_or_default();
    let (mut placed, mut new) = (Vec::new(), Vec::new());
    let mut points = Vec::new();
    for (row, entry) in vectors.entries.iter().enumerate() {
        match known.get(entry) {
            Some(&point) => {
                placed.push(row);
                points.push(point);
            }
            None => new.push(row),
        }
    }
    // A few points say too little about where many others belong.
    if placed.is_empty() || placed.len() < new.len() {
        return lay_out(whole, job_threads(), watch);
    }
    let of = |rows: &[usize]| whole.select(Axis(0), rows);
    let (of_new, of_placed) = (of(&new), of(&placed));
    let found = place(
        of_new.view(),
        of_placed.view(),
        &points,
        job_threads(),
        watch,
    )?;
    let all = found.map(|found| {
        let mut all = vec![Point::default(); rows];
        for (row, point) in placed
            .into_iter()
            .chain(new)
            .zip(points.into_iter().chain(found))
        {
            all[row] = point;
        }
        all
    });
    Ok(all)
}
