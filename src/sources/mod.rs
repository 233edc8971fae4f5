//! Where images come from, and where results go: folders, lists, Parquet files, WebDataset's tar
//! files, on this machine or in an object store.
//!
//! Each kind of source is a [`Source`]: a stream of what it lists. [`Listing`] opens sources by
//! their names and reads one after the other. The id and the label of an image are derived here
//! and nowhere else.

pub mod blocking;
mod folder;
mod identity;
mod image;
mod list;
mod listing;
mod object_reader;
mod one;
mod place;
mod prefix;
mod shard;
mod skipped;
mod store;
mod table;
mod tar;

pub use folder::{path_segments, relative_path};
pub use identity::Identity;
pub use image::{Listed, SourceImage};
pub use list::image_of_line;
pub use listing::{ListedImages, Listing};
pub use place::Place;
pub use shard::Shard;
pub use skipped::SkippedFiles;
pub(crate) use store::ObjectPlace;

use futures_util::stream::BoxStream;

use crate::error::Result;

/// A kind of source.
trait Source: Send {
    /// Lists the images, and what cannot be read or is no image, always in the same order. An
    /// error ends the stream: without it images would be lost.
    fn list(self: Box<Self>) -> BoxStream<'static, Result<Listed>>;

    /// Whether it is a file of many images, which a shard can take as a whole.
    fn is_container(&self) -> bool {
        false
    }

    /// Whether it is listed in little time, once more if need be.
    fn is_quick(&self) -> bool {
        false
    }
}

/// A list from blocking work on another thread, which sends what it finds.
fn blocking_list(
    work: impl FnOnce(&mut dyn FnMut(Listed) -> bool) -> Result<()> + Send + 'static,
) -> BoxStream<'static, Result<Listed>> {
    use futures_util::StreamExt;

    // Bounds what is listed ahead; images of containers are in memory.
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        // The send fails if the list is read no further.
        let mut send = |listed| sender.blocking_send(Ok(listed)).is_ok();
        if let Err(error) = work(&mut send) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    futures_util::stream::unfold(receiver, async |mut receiver| {
        let listed = receiver.recv().await?;
        Some((listed, receiver))
    })
    .boxed()
}
