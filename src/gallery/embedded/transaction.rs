//! A write transaction: changes on disk, and the changes in memory that become visible with them.
//! Both are in one file, because each kind of write must make both.

use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::UNIX_EPOCH};

use heed::RwTxn;

use super::{
    codec::{self, GalleryRow, ItemRecord},
    environment::Environment,
    index,
    memory::{Galleries, LiveGallery, Memory},
    rows::NewRow,
    view::View,
};
use crate::{
    error::{Error, Result},
    gallery::{
        Binding, GalleryName, Item, ItemBatch, ItemId, NewItem, VectorFormat, Written,
        name_is_taken, no_gallery,
    },
};

/// Why an operation failed.
pub(super) enum WriteError {
    /// The operation itself is at fault and has written nothing.
    Operation(Error),
    /// The store failed, and the whole transaction has to be abandoned.
    Store(Error),
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

pub(super) type Outcome<T> = Result<T, WriteError>;

/// A transaction in progress, and the state of memory after it.
pub(super) struct WriteTransaction<'a> {
    environment: &'a Environment,
    memory: &'a Memory,
    txn: RwTxn<'a>,
    galleries: Galleries,
    /// Changes by gallery number.
    changes: BTreeMap<u32, Changes>,
    removed: Vec<Arc<LiveGallery>>,
    /// Precision of the vectors of new galleries.
    vectors: VectorFormat,
}

#[derive(Default)]
struct Changes {
    version: u64,
    added: Vec<NewRow>,
    dead: Vec<u64>,
}

struct Existing {
    place: u64,
    /// Serial of its live row, if it has one.
    serial: Option<u64>,
}

impl<'a> WriteTransaction<'a> {
    pub(super) fn begin(
        environment: &'a Environment,
        memory: &'a Memory,
        vectors: VectorFormat,
    ) -> Result<Self> {
        Ok(Self {
            environment,
            memory,
            txn: environment.write()?,
            galleries: Galleries::clone(&memory.galleries()),
            changes: BTreeMap::new(),
            removed: Vec::new(),
            vectors,
        })
    }

    pub(super) fn keep_room(&mut self) -> Result<()> {
        self.environment
            .keep_room(&mut self.txn)
            .map_err(|error| self.environment.failed(error))
    }

    /// Makes the changes durable, then visible to searches.
    pub(super) fn commit(self) -> Result<()> {
        self.txn
            .commit()
            .map_err(|error| self.environment.failed(error))?;
        for gallery in self.galleries.values() {
            if let Some(changes) = self.changes.get(&gallery.number) {
                let rows = gallery.rows.load();
                let rows = rows.after(changes.version, &changes.added, &changes.dead);
                gallery.rows.store(Arc::new(rows));
            }
        }
        self.memory.publish(self.galleries);
        for gallery in self.removed {
            gallery.remove();
            index::remove_files(&self.memory.index_folder, gallery.number, None);
        }
        Ok(())
    }

    pub(super) fn create(&mut self, name: &GalleryName, binding: &Binding) -> Outcome<()> {
        self.find_or_create(name, binding).map(drop)
    }

    pub(super) fn remove(&mut self, name: &GalleryName) -> Outcome<bool> {
        let tables = self.environment.tables;
        let key = name.as_str().as_bytes();
        self.remove_documents_of(name)?;
        let Some(row) = self.view().get(tables.galleries, key)? else {
            return Ok(false);
        };
        let number = GalleryRow::decode_number(row);
        self.write(|txn| tables.galleries.delete(txn, key))?;
        self.removed.extend(self.galleries.remove(name));
        let Some(number) = number else {
            return Ok(true);
        };
        let (from, to) = (codec::prefix(number), codec::prefix(number + 1));
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&from), Bound::Excluded(&to));
        self.write(|txn| tables.ids.delete_range(txn, &range))?;
        for table in tables.by_place() {
            self.write(|txn| table.delete_range(txn, &range))?;
        }
        self.changes.remove(&number);
        Ok(true)
    }

    /// Renames a gallery, and `replaces` the one that has the new name, or fails if there is one.
    pub(super) fn rename(
        &mut self,
        from: &GalleryName,
        to: &GalleryName,
        replaces: bool,
    ) -> Outcome<()> {
        let row = self.require_row(from)?;
        if !replaces && self.row(to)?.is_some() {
            return Err(WriteError::Operation(name_is_taken(to)));
        }
        if from != to {
            self.remove(to)?;
            self.rename_documents_of(from, to)?;
            let galleries = self.environment.tables.galleries;
            self.write(|txn| galleries.delete(txn, from.as_str().as_bytes()))?;
            self.put_row(to, &row)?;
            let renamed = self.galleries.remove(from).map(|live| (to.clone(), live));
            self.galleries.extend(renamed);
        }
        Ok(())
    }

    pub(super) fn put(&mut self, name: &GalleryName, batch: &ItemBatch) -> Outcome<Vec<Written>> {
        let mut row = self.find_or_create(name, &batch.binding)?;
        let room = row.check_room(name, batch.items.len());
        room.map_err(WriteError::Operation)?;
        let stored_ms = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as u64;
        let mut written = Vec::with_capacity(batch.items.len());
        for item in &batch.items {
            let kept = match batch.keeps_stored {
                true => self.view().place(row.number, &item.id)?,
                false => None,
            };
            written.push(match kept {
                Some(place) => Written::Kept { place },
                None => self.put_item(&mut row, item, stored_ms)?,
            });
        }
        self.put_changed_row(name, &row)?;
        Ok(written)
    }

    pub(super) fn delete(&mut self, name: &GalleryName, ids: &[ItemId]) -> Outcome<Vec<bool>> {
        let mut row = self.require_row(name)?;
        let mut deleted = Vec::with_capacity(ids.len());
        for id in ids {
            deleted.push(self.delete_item(&mut row, id)?);
        }
        self.put_changed_row(name, &row)?;
        Ok(deleted)
    }

    pub(super) fn write<T>(
        &mut self,
        write: impl FnOnce(&mut RwTxn<'_>) -> heed::Result<T>,
    ) -> Outcome<T> {
        write(&mut self.txn).map_err(|error| WriteError::Store(self.environment.failed(error)))
    }

    pub(super) fn view(&self) -> View<'_> {
        View::new(self.environment, &self.txn)
    }

    fn row(&self, name: &GalleryName) -> Outcome<Option<GalleryRow>> {
        Ok(self.view().gallery(name)?)
    }

    pub(super) fn require_row(&self, name: &GalleryName) -> Outcome<GalleryRow> {
        self.row(name)?
            .ok_or_else(|| WriteError::Operation(no_gallery(name)))
    }

    fn put_row(&mut self, name: &GalleryName, row: &GalleryRow) -> Outcome<()> {
        let galleries = self.environment.tables.galleries;
        let bytes = row.encode()?;
        self.write(|txn| galleries.put(txn, name.as_str().as_bytes(), &bytes))
    }

    pub(super) fn put_changed_row(&mut self, name: &GalleryName, row: &GalleryRow) -> Outcome<()> {
        self.changes_of(row).version = row.next_serial;
        self.put_row(name, row)
    }

    fn changes_of(&mut self, row: &GalleryRow) -> &mut Changes {
        self.changes.entry(row.number).or_default()
    }

    fn find_or_create(&mut self, name: &GalleryName, binding: &Binding) -> Outcome<GalleryRow> {
        const NEXT: &[u8] = b"next gallery";
        if let Some(row) = self.row(name)? {
            row.binding
                .check(name, binding)
                .map_err(WriteError::Operation)?;
            return Ok(row);
        }
        let about = self.environment.tables.about;
        let next = self.view().get(about, NEXT)?;
        let next = next.and_then(|bytes| bytes.try_into().ok());
        // A number that is in use would mix two galleries, whatever the table says.
        let in_use = self.galleries.values().map(|gallery| gallery.number).max();
        let number = next.map_or(1, u32::from_le_bytes);
        let number = number.max(in_use.map_or(1, |number| number + 1));
        let following = number.checked_add(1).filter(|next| *next < u32::MAX);
        let following = following.ok_or_else(|| {
            Error::damaged("the number of the next gallery is damaged: no number is left")
        })?;
        self.write(|txn| about.put(txn, NEXT, &following.to_le_bytes()))?;
        let row = GalleryRow {
            number,
            binding: binding.clone(),
            vectors: self.vectors,
            items: 0,
            next_place: 1,
            next_serial: 1,
        };
        self.put_row(name, &row)?;
        self.galleries
            .insert(name.clone(), Arc::new(LiveGallery::new(&row)));
        Ok(row)
    }

    pub(super) fn put_item(
        &mut self,
        row: &mut GalleryRow,
        new: &NewItem,
        stored_ms: u64,
    ) -> Outcome<Written> {
        let tables = self.environment.tables;
        let existing = self.find(row.number, &new.id)?;
        let serial = row.take_serial();
        let place = existing.as_ref().map_or(row.next_place, |item| item.place);
        let written = match existing {
            Some(_) => Written::Replaced { place },
            None => Written::Created { place },
        };
        let item = Item {
            id: new.id.clone(),
            place,
            label: new.label.clone(),
            metadata: new.metadata.clone(),
            stored_ms,
        };
        let vector = codec::encode_vector(&new.vector, row.vectors);
        let features = new.features.as_deref().unwrap_or_default();
        let features = codec::encode_halves(features);
        let thumbnail = new.thumbnail.as_deref().unwrap_or_default();
        let record = ItemRecord { item, serial }.encode([&vector, &features, thumbnail])?;
        let key = codec::place_key(row.number, place);
        self.write(|txn| tables.records.put(txn, &key, &record))?;
        self.write(|txn| tables.vectors.put(txn, &key, &vector))?;
        for (table, part) in [
            (tables.features, &*features),
            (tables.thumbnails, thumbnail),
        ] {
            if !part.is_empty() {
                self.write(|txn| table.put(txn, &key, part))?;
            } else if existing.is_some() {
                self.write(|txn| table.delete(txn, &key))?;
            }
        }
        match existing {
            Some(existing) => self.changes_of(row).dead.extend(existing.serial),
            None => {
                row.items += 1;
                row.next_place += 1;
                let id_key = codec::id_key(row.number, &new.id);
                self.write(|txn| tables.ids.put(txn, &id_key, &place.to_le_bytes()))?;
            }
        }
        let added = NewRow {
            serial,
            place,
            // Rounded to the precision on disk.
            vector: codec::decode_vector(&vector, row.binding.dim),
            label: new.label.clone(),
            metadata: new.metadata.clone(),
        };
        self.changes_of(row).added.push(added);
        Ok(written)
    }

    fn delete_item(&mut self, row: &mut GalleryRow, id: &ItemId) -> Outcome<bool> {
        let tables = self.environment.tables;
        let Some(Existing { place, serial }) = self.find(row.number, id)? else {
            return Ok(false);
        };
        let key = codec::place_key(row.number, place);
        for table in tables.by_place() {
            self.write(|txn| table.delete(txn, &key))?;
        }
        self.write(|txn| tables.ids.delete(txn, &codec::id_key(row.number, id)))?;
        // A damaged gallery may have counted fewer items; `check` reports that.
        row.items = row.items.saturating_sub(1);
        row.take_serial();
        self.changes_of(row).dead.extend(serial);
        Ok(true)
    }

    /// Looks up an id. An item with a damaged record can still be replaced and deleted.
    fn find(&self, gallery: u32, id: &ItemId) -> Outcome<Option<Existing>> {
        let Some(place) = self.view().place(gallery, id)? else {
            return Ok(None);
        };
        let serial = match self.view().record(gallery, place) {
            Ok(record) => record.map(|record| record.serial),
            Err(_) => {
                let mut galleries = self.galleries.values();
                let gallery = galleries.find(|known| known.number == gallery);
                gallery.and_then(|gallery| gallery.rows.load().serial_at(place))
            }
        };
        Ok(Some(Existing { place, serial }))
    }
}
