//! Lookups within a transaction.

use std::ops::Bound;

use super::{
    codec::{self, GalleryRow, ItemRecord},
    environment::{Environment, ReadTransaction},
    tables::{Table, Tables},
};
use crate::{
    error::Result,
    gallery::{GalleryName, Item, ItemId, Parts, StoredItem, no_gallery},
};

/// Key and value of an entry.
type Entry<'t> = (&'t [u8], &'t [u8]);

/// The database as a transaction sees it.
#[derive(Clone, Copy)]
pub(super) struct View<'t> {
    environment: &'t Environment,
    txn: &'t ReadTransaction<'t>,
}

impl<'t> View<'t> {
    pub(super) fn new(environment: &'t Environment, txn: &'t ReadTransaction<'t>) -> Self {
        Self { environment, txn }
    }

    pub(super) fn tables(self) -> &'t Tables {
        &self.environment.tables
    }

    pub(super) fn get(self, table: Table, key: &[u8]) -> Result<Option<&'t [u8]>> {
        table
            .get(self.txn, key)
            .map_err(|error| self.environment.failed(error))
    }

    pub(super) fn entries(
        self,
        table: Table,
        prefix: &[u8],
    ) -> Result<impl Iterator<Item = Result<Entry<'t>>> + use<'t>> {
        let failed = |error| self.environment.failed(error);
        let entries = table.prefix_iter(self.txn, prefix).map_err(failed)?;
        Ok(entries.map(move |entry| entry.map_err(failed)))
    }

    /// Returns all galleries by name, those that are being restored, too. A damaged one has an
    /// error for its row, so that the others can be used.
    pub(super) fn galleries(self) -> Result<Vec<(GalleryName, Result<GalleryRow>)>> {
        let failed = |error| self.environment.failed(error);
        // LMDB rejects an empty prefix.
        let entries = self.tables().galleries.iter(self.txn).map_err(failed)?;
        entries
            .map(|entry| {
                let (key, value) = entry.map_err(failed)?;
                let name = GalleryName::stored(String::from_utf8_lossy(key))?;
                let row = GalleryRow::decode(&name, value);
                Ok((name, row))
            })
            .collect()
    }

    pub(super) fn gallery(self, name: &GalleryName) -> Result<Option<GalleryRow>> {
        self.get(self.tables().galleries, name.as_str().as_bytes())?
            .map(|bytes| GalleryRow::decode(name, bytes))
            .transpose()
    }

    pub(super) fn require_gallery(self, name: &GalleryName) -> Result<GalleryRow> {
        self.gallery(name)?.ok_or_else(|| no_gallery(name))
    }

    pub(super) fn place(self, gallery: u32, id: &ItemId) -> Result<Option<u64>> {
        let place = self.get(self.tables().ids, &codec::id_key(gallery, id))?;
        let place = place.and_then(|bytes| bytes.try_into().ok());
        Ok(place.map(u64::from_le_bytes))
    }

    pub(super) fn record(self, gallery: u32, place: u64) -> Result<Option<ItemRecord>> {
        self.get(self.tables().records, &codec::place_key(gallery, place))?
            .map(ItemRecord::decode)
            .transpose()
    }

    /// Reads a vector of `dim` values. A damaged or missing one has another width.
    pub(super) fn vector(self, gallery: u32, place: u64, dim: usize) -> Result<Vec<f32>> {
        let vector = self.get(self.tables().vectors, &codec::place_key(gallery, place))?;
        Ok(codec::decode_vector(vector.unwrap_or_default(), dim))
    }

    pub(super) fn find(self, gallery: u32, id: &ItemId) -> Result<Option<ItemRecord>> {
        match self.place(gallery, id)? {
            Some(place) => self.record(gallery, place),
            None => Ok(None),
        }
    }

    /// Iterates over the encoded records of a gallery after a place, with their places.
    pub(super) fn records(
        self,
        gallery: u32,
        after: u64,
    ) -> Result<impl Iterator<Item = Result<(u64, &'t [u8])>> + use<'t>> {
        let failed = |error| self.environment.failed(error);
        let from = codec::place_key(gallery, after);
        let to = codec::prefix(gallery + 1);
        let range = (Bound::Excluded(&from[..]), Bound::Excluded(&to[..]));
        let records = self.tables().records;
        let entries = records.range(self.txn, &range).map_err(failed)?;
        Ok(entries.map(move |entry| {
            let (key, value) = entry.map_err(failed)?;
            Ok((codec::place_of(key)?, value))
        }))
    }

    pub(super) fn with_parts(
        self,
        row: &GalleryRow,
        item: Item,
        parts: Parts,
    ) -> Result<StoredItem> {
        let [vector, features, thumbnail] = self.encoded_parts(row.number, item.place, parts)?;
        Ok(StoredItem {
            vector: codec::decode_vector(vector.unwrap_or_default(), row.binding.dim),
            features: features.map(codec::decode_halves),
            thumbnail: thumbnail.map(bytes::Bytes::copy_from_slice),
            item,
        })
    }

    pub(super) fn is_whole(self, gallery: u32, place: u64, record: &[u8]) -> Result<bool> {
        let parts = self.encoded_parts(gallery, place, Parts::ALL)?;
        let parts = parts.map(Option::unwrap_or_default);
        Ok(ItemRecord::is_whole(record, parts))
    }

    /// Returns the requested ones of vector, features and thumbnail.
    fn encoded_parts(
        self,
        gallery: u32,
        place: u64,
        parts: Parts,
    ) -> Result<[Option<&'t [u8]>; 3]> {
        let key = codec::place_key(gallery, place);
        let part = |requested: bool, table| match requested {
            true => self.get(table, &key),
            false => Ok(None),
        };
        let tables = self.tables();
        Ok([
            part(parts.vector, tables.vectors)?,
            part(parts.features, tables.features)?,
            part(parts.thumbnail, tables.thumbnails)?,
        ])
    }
}
