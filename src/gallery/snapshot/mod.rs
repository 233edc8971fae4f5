//! Snapshots: one gallery as one file with a checksum, for any backend.
//!
//! ```text
//! "DINOGLRY"  version u32
//! length u32  header: JSON {"binding": …}
//! length u32  record: protobuf message            once per item, in the order of the gallery
//! 0 u32       items u64    SHA-256 of everything before it
//! ```
//!
//! Numbers are little-endian. A record is never empty, so a length of 0 ends the records. Files are
//! written and read sequentially, in constant memory. The time at which an item was stored is not
//! kept: a restored item has the time of the restore.
//!
//! A file is restored into a gallery named `restoring--…`. That gallery replaces the old one only
//! after the whole file was read and its checksum verified. Names of this form are reserved:
//! clients can neither list nor use them.

mod format;
mod reader;
mod restore;
mod staging;
mod write;

pub(super) use self::staging::remove_interrupted_restores;
pub use self::{
    format::SnapshotSummary,
    reader::verify_snapshot,
    restore::{restore_checked_snapshot, restore_snapshot},
    write::{GalleryReader, write_snapshot},
};
