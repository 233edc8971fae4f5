//! Restores snapshots.

use prost::Message;
use tokio::io::AsyncRead;

use super::{
    format::{SnapshotRecord, SnapshotSummary, damaged},
    reader::SnapshotReader,
    staging::StagingGallery,
};
use crate::{
    error::Result,
    gallery::{Binding, Gallery, GalleryName, Written},
};

const BATCH_ITEMS: usize = 512;
/// Size of the records after which a batch ends, in bytes.
const BATCH_BYTES: usize = 8 << 20;

/// Reads a snapshot and replaces the gallery `name` with its content. A file that is damaged, ends
/// early or states what no model can have changes nothing.
///
/// # Errors
/// As [`restore_checked_snapshot`].
pub async fn restore_snapshot(
    store: &Gallery,
    name: &GalleryName,
    from: impl AsyncRead + Unpin + Send,
) -> Result<SnapshotSummary> {
    restore_checked_snapshot(store, name, from, |_| Ok(())).await
}

/// As [`restore_snapshot`], if `check` accepts the binding of the file.
///
/// # Errors
/// [`crate::error::Kind::Malformed`] if the file is not a snapshot or is damaged;
/// [`crate::error::Kind::Conflict`] during another restore of the gallery; an
/// [`crate::error::Error`] that reading `from` or `check` returned; as
/// [`crate::gallery::GalleryStore::put`].
pub async fn restore_checked_snapshot(
    store: &Gallery,
    name: &GalleryName,
    from: impl AsyncRead + Unpin + Send,
    check: impl FnOnce(&Binding) -> Result<()> + Send,
) -> Result<SnapshotSummary> {
    let mut file = SnapshotReader::new(from);
    let binding = file.header().await?;
    check(&binding)?;
    let mut staging = StagingGallery::create(store, name, &binding).await?;
    let restored = async {
        let summary = fill(&staging, &binding, &mut file).await?;
        store.replace(name, &staging.name).await?;
        Ok(summary)
    }
    .await;
    match restored.is_ok() {
        true => staging.keep(),
        false => staging.remove().await,
    }
    restored
}

/// Stores the items of the file.
async fn fill<R: AsyncRead + Unpin>(
    staging: &StagingGallery,
    binding: &Binding,
    file: &mut SnapshotReader<R>,
) -> Result<SnapshotSummary> {
    let mut items = 0u64;
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    loop {
        let record = file.part().await?;
        let is_last = record.is_none();
        if let Some(record) = record {
            batch_bytes += record.len();
            let item_damaged =
                |error: &dyn std::fmt::Display| damaged(format_args!("item {items}: {error}"));
            let record = SnapshotRecord::decode(record).map_err(|error| item_damaged(&error))?;
            let item = record.into_item(binding);
            batch.push(item.map_err(|error| item_damaged(&error))?);
            items += 1;
        }
        let is_full = batch.len() == BATCH_ITEMS || batch_bytes >= BATCH_BYTES;
        if !batch.is_empty() && (is_full || is_last) {
            let first = items - batch.len() as u64;
            let batch = std::mem::take(&mut batch);
            let written = staging.store.put(&staging.name, binding, batch).await?;
            let repeated = written
                .into_iter()
                .position(|item| !Written::is_created(item));
            if let Some(index) = repeated {
                let item = first + index as u64;
                return Err(damaged(format_args!(
                    "item {item} has the id of an earlier one"
                )));
            }
            batch_bytes = 0;
        }
        if is_last {
            return file.trailer(items).await;
        }
    }
}
