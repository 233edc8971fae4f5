//! State of disk and memory after the same commit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    environment::{Environment, ReadTransaction},
    index::ApproximateIndex,
    memory::{LiveGallery, Memory},
    readers::Caller,
    rows::Rows,
    view::View,
};
use crate::{
    error::{Error, Result},
    gallery::{Binding, GalleryName, no_gallery},
};

/// Timeout for the publication of a commit, which takes microseconds.
const PUBLICATION_TIMEOUT: Duration = Duration::from_secs(5);

/// State of a gallery on disk and in memory after the same commit.
pub(super) struct ConsistentState<'a> {
    pub(super) txn: ReadTransaction<'a>,
    pub(super) gallery: Arc<LiveGallery>,
    /// The index, and the serial up to which it holds every live row. The serial is read before
    /// the rows.
    pub(super) index: Option<(Arc<ApproximateIndex>, u64)>,
    pub(super) rows: Arc<Rows>,
    pub(super) binding: Binding,
}

impl<'a> ConsistentState<'a> {
    /// Takes a snapshot. Between a commit and its publication the disk is ahead of memory, so this
    /// waits for the publication.
    pub(super) fn take(
        environment: &'a Environment,
        memory: &Memory,
        name: &GalleryName,
        caller: Caller<'_>,
    ) -> Result<Self> {
        let deadline = Instant::now() + PUBLICATION_TIMEOUT;
        loop {
            caller.check()?;
            let publications = memory.publications();
            let gallery = memory.gallery(name);
            let state = gallery.map(|gallery| {
                let index = gallery.index.load_full().map(|index| {
                    let upto = index.upto();
                    (index, upto)
                });
                let rows = gallery.rows.load_full();
                (gallery, index, rows)
            });
            let txn = environment.read()?;
            // A damaged gallery is not in memory, and its row has the reason.
            let row = View::new(environment, &txn).gallery(name)?;
            let Some((gallery, index, rows)) = state else {
                return Err(no_gallery(name));
            };
            if let Some(row) = row
                && row.number == gallery.number
                && row.next_serial == rows.version
            {
                return Ok(Self {
                    txn,
                    gallery,
                    index,
                    rows,
                    binding: row.binding,
                });
            }
            drop(txn);
            if !memory.wait_for_publication(publications, deadline) {
                return Err(Error::internal(
                    "the gallery's thread has ended between a commit and its publication",
                ));
            }
        }
    }
}
