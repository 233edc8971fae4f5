//! Changes of stored items that leave their vectors alone.

use std::time::UNIX_EPOCH;

use super::{
    codec,
    transaction::{Outcome, WriteError, WriteTransaction},
};
use crate::{
    error::Error,
    gallery::{GalleryName, Item, ItemChange, ItemId, Parts, StoredItem},
};

impl WriteTransaction<'_> {
    /// Changes an item; see [`crate::gallery::GalleryStore::update`].
    pub(super) fn update(
        &mut self,
        name: &GalleryName,
        id: &ItemId,
        change: &ItemChange,
    ) -> Outcome<Option<Item>> {
        let mut row = self.require_row(name)?;
        let Some(stored) = self.whole_item(&row, id).map_err(WriteError::Operation)? else {
            return Ok(None);
        };
        let new = change.applied_to(stored);
        row.check_room(name, 1).map_err(WriteError::Operation)?;
        let stored_ms = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as u64;
        let written = self.put_item(&mut row, &new, stored_ms)?;
        self.put_changed_row(name, &row)?;
        Ok(Some(new.stored_at(written.place(), stored_ms)))
    }

    /// Reads an item with all parts. A damaged one is an error, because a new checksum would hide
    /// the damage.
    fn whole_item(
        &self,
        row: &codec::GalleryRow,
        id: &ItemId,
    ) -> Result<Option<StoredItem>, Error> {
        let view = self.view();
        let Some(place) = view.place(row.number, id)? else {
            return Ok(None);
        };
        let key = codec::place_key(row.number, place);
        let Some(bytes) = view.get(view.tables().records, &key)? else {
            return Ok(None);
        };
        if !view.is_whole(row.number, place, bytes)? {
            let id = id.as_str();
            let detail = format!("the item {id:?} is damaged; store it again, or delete it");
            return Err(Error::damaged(detail));
        }
        let record = codec::ItemRecord::decode(bytes)?.check(row, place)?;
        view.with_parts(row, record.item, Parts::ALL).map(Some)
    }
}
