//! Raw files of cameras that have the form of a TIFF.
//!
//! Their first image is a thumbnail, or samples that are not colors yet: to decode them as a TIFF
//! would give a wrong picture.

use super::tags::Order;

/// Tags of the first image that tell raw files from TIFFs.
#[derive(Debug, Default)]
struct Tags<'a> {
    make: &'a [u8],
    is_reduced: bool,
    has_more_images: bool,
    is_dng: bool,
}

/// Returns whether a file begins as a TIFF or a BigTIFF.
pub(super) fn is_tiff(head: &[u8]) -> bool {
    [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"].contains(&head.first_chunk().unwrap_or(b"    "))
}

/// Names the raw format of a file that begins as a TIFF.
pub(super) fn kind(head: &[u8]) -> Option<&'static str> {
    const MAKES: [(&[u8], &str); 7] = [
        (b"NIKON", "Nikon NEF"),
        (b"SONY", "Sony ARW"),
        (b"PENTAX", "Pentax PEF"),
        (b"RICOH", "Pentax PEF"),
        (b"SAMSUNG", "Samsung SRW"),
        (b"Hasselblad", "Hasselblad 3FR"),
        (b"Kodak", "Kodak DCR"),
    ];
    // No camera writes a BigTIFF.
    if !head.starts_with(b"II*\0") && !head.starts_with(b"MM\0*") {
        return None;
    }
    if head.get(8..10) == Some(b"CR") {
        return Some("Canon CR2");
    }
    let tags = read_tags(head)?;
    if tags.is_dng {
        return Some("DNG");
    }
    // An editor's TIFF also has the make, but its first image is the whole one.
    let is_raw = tags.is_reduced && tags.has_more_images;
    let of_make = |(make, _): &&(&[u8], &str)| tags.make.starts_with(make);
    let (_, name) = MAKES.iter().find(of_make).filter(|_| is_raw)?;
    Some(name)
}

/// Reads the tags of the first directory, if it is in the first bytes of the file.
fn read_tags(head: &[u8]) -> Option<Tags<'_>> {
    let order = Order::stated(head)?;
    let u16_at = |at: usize| Some(order.u16(*head.get(at..)?.first_chunk()?));
    let u32_at = |at: usize| Some(order.u32(*head.get(at..)?.first_chunk()?) as usize);
    let directory = u32_at(4)?;
    let mut tags = Tags::default();
    for entry in 0..usize::from(u16_at(directory)?) {
        let at = directory.checked_add(2 + 12 * entry)?;
        let Some(tag) = u16_at(at) else { break };
        match tag {
            // NewSubfileType, of type LONG
            254 => tags.is_reduced = u32_at(at + 8).is_some_and(|kind| kind & 1 == 1),
            // Make
            271 => {
                let text = u32_at(at + 8).and_then(|offset| head.get(offset..));
                tags.make = text.unwrap_or_default();
            }
            // SubIFDs
            330 => tags.has_more_images = true,
            // DNGVersion
            50706 => tags.is_dng = true,
            _ => {}
        }
    }
    Some(tags)
}
