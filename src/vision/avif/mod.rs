//! AVIF: an AV1 frame, or several as tiles, in a container of the ISO base media family.
//!
//! The container is read here, the frames are decoded by libaom, and colors are converted as
//! libavif and libyuv do it, which Pillow uses.

mod boxes;
mod color;
mod header;
mod locations;
mod planes;

use std::collections::HashSet;

use image::metadata::Orientation;
use mp4_atom::FourCC;

use self::{
    boxes::{Items, Property},
    planes::Planes,
};
use super::{DecodeLimits, Size, opened::Samples, undecodable::undecodable};
use crate::error::Result;

/// Reads what an AVIF file says of its still image, which is decoded to 8 bits a sample.
pub(super) fn open(bytes: &[u8], limits: DecodeLimits) -> Result<Samples<'_>> {
    let items = Items::read(bytes)?;
    let primary = items.primary;
    let coded = Coded::read(&items, primary, limits)?;
    let alpha = find_alpha(&items, &[primary].into());
    let coded_alpha = match alpha {
        Some(item) => Some(Coded::read(&items, item, limits)?),
        None if coded.has_alpha_in_tiles(&items) => {
            return Err(undecodable(
                "AVIF",
                "its tiles have alpha of their own, which is not supported",
            ));
        }
        None => None,
    };
    if coded_alpha
        .as_ref()
        .is_some_and(|alpha| alpha.size != coded.size)
    {
        return Err(undecodable(
            "AVIF",
            "its alpha has another size than its colors",
        ));
    }
    let properties = items.properties(primary)?;
    let stated = properties.iter().find_map(|property| match property {
        Property::Color(color) => Some(*color),
        _ => None,
    });
    let orientation = orientation(&properties);
    let premultiplied = items.references_of(primary, b"prem");
    let premultiplied = alpha.is_some_and(|alpha| premultiplied.contains(&alpha));
    let pixels = coded.size.pixels();
    Ok(Samples {
        full_size: coded.size,
        orientation,
        decoded_bytes: pixels * if alpha.is_some() { 4 } else { 3 },
        working_bytes: working_bytes(&coded, coded_alpha.as_ref()),
        read: Box::new(move || {
            let image = coded.decode(&items)?;
            let alpha = coded_alpha.map(|alpha| alpha.decode(&items)).transpose()?;
            let stated = stated.unwrap_or(image.color);
            color::convert(&image, alpha, premultiplied, stated)
        }),
    })
}

/// Returns the memory of decoding in addition to the result, in bytes: the planes of colors, of
/// alpha, and what the decoder keeps.
fn working_bytes(coded: &Coded, alpha: Option<&Coded>) -> u64 {
    let alpha_bytes = alpha.map_or(0, |alpha| alpha.planes_bytes() + alpha.decoder_bytes());
    coded.planes_bytes() + alpha_bytes.max(coded.decoder_bytes())
}

/// Bytes of the samples of a pixel: three of two bytes.
const SAMPLE_BYTES: u64 = 6;

/// An image in the file: a frame, or tiles that form a grid.
struct Coded {
    size: Size,
    tile: Size,
    columns: usize,
    /// Items of the frames, row by row.
    tiles: Vec<u32>,
    /// Largest number of frames that a tile has.
    frames: usize,
}

impl Coded {
    fn read(items: &Items<'_>, item: u32, limits: DecodeLimits) -> Result<Self> {
        let kind = items.kind(item);
        let size = size_of(items, item)?;
        limits.check(size)?;
        if kind == Some(FourCC::new(b"av01")) {
            return Self {
                size,
                tile: size,
                columns: 1,
                tiles: vec![item],
                frames: 0,
            }
            .checked(items);
        }
        if kind != Some(FourCC::new(b"grid")) {
            let kind = kind.map_or_else(|| "none".to_owned(), |kind| kind.to_string());
            return Err(undecodable(
                "AVIF",
                format!("its image is an item of type {kind}, which is not supported"),
            ));
        }
        let (columns, rows, output) = read_grid(&items.content(item)?)
            .ok_or_else(|| undecodable("AVIF", "its grid is cut off"))?;
        let tiles = items.references_of(item, b"dimg");
        let tile = size_of(
            items,
            *tiles
                .first()
                .ok_or_else(|| undecodable("AVIF", "its grid is empty"))?,
        )?;
        limits.check(tile)?;
        let covers = |count: usize, tile: usize, side: usize| {
            count * tile >= side && (count - 1) * tile < side && (count == 1 || tile >= MIN_TILE)
        };
        if output != size
            || tiles.len() != columns * rows
            || !covers(columns, tile.width, size.width)
            || !covers(rows, tile.height, size.height)
        {
            return Err(undecodable(
                "AVIF",
                format!(
                    "its grid of {columns}×{rows} tiles of {}×{} does not make an image of {}×{}",
                    tile.width, tile.height, size.width, size.height
                ),
            ));
        }
        Self {
            size,
            tile,
            columns,
            tiles,
            frames: 0,
        }
        .checked(items)
    }

    /// Checks the tiles, and counts their frames.
    fn checked(mut self, items: &Items<'_>) -> Result<Self> {
        items.check_overlap(&self.tiles)?;
        let mut seen = HashSet::new();
        for &item in self.tiles.iter().filter(|&&item| seen.insert(item)) {
            if items.kind(item) != Some(FourCC::new(b"av01")) || size_of(items, item)? != self.tile
            {
                return Err(undecodable("AVIF", "its tiles are of several kinds"));
            }
            let frames = header::check(&items.content(item)?, self.tile)?;
            self.frames = self.frames.max(frames);
        }
        Ok(self)
    }

    fn has_alpha_in_tiles(&self, items: &Items<'_>) -> bool {
        let tiles = self.tiles.iter().copied().collect();
        find_alpha(items, &tiles).is_some()
    }

    /// Whether the image is one tile.
    fn is_single(&self) -> bool {
        self.tiles.len() == 1 && self.tile == self.size
    }

    fn planes_bytes(&self) -> u64 {
        SAMPLE_BYTES * self.size.pixels()
    }

    /// Returns the memory of decoding a tile, in bytes: all frames of its stream, and its planes if
    /// they are copied to those of the image.
    fn decoder_bytes(&self) -> u64 {
        let planes = u64::from(!self.is_single());
        SAMPLE_BYTES * self.tile.pixels() * (self.frames as u64 + planes)
    }

    fn decode(&self, items: &Items<'_>) -> Result<Planes> {
        let mut canvas: Option<Planes> = None;
        for (number, &item) in self.tiles.iter().enumerate() {
            let tile = Planes::decode(&items.content(item)?, self.tile)?;
            if self.is_single() {
                return Ok(tile);
            }
            let x = number % self.columns * self.tile.width;
            let y = number / self.columns * self.tile.height;
            canvas
                .get_or_insert_with(|| Planes::canvas(self.size, &tile))
                .place(&tile, x, y)?;
        }
        canvas.ok_or_else(|| undecodable("AVIF", "it has no frame"))
    }
}

/// Smallest side of a tile of several, in pixels (MIAF, 7.3.11.4.2).
const MIN_TILE: usize = 64;

fn read_grid(content: &[u8]) -> Option<(usize, usize, Size)> {
    let (&[0, flags, rows, columns], rest) = content.split_first_chunk::<4>()? else {
        return None;
    };
    let size = if flags & 1 == 0 {
        let &[a, b, c, d] = rest.first_chunk()?;
        Size::new(
            usize::from(u16::from_be_bytes([a, b])),
            usize::from(u16::from_be_bytes([c, d])),
        )
    } else {
        let &[a, b, c, d, e, f, g, h] = rest.first_chunk()?;
        Size::new(
            u32::from_be_bytes([a, b, c, d]) as usize,
            u32::from_be_bytes([e, f, g, h]) as usize,
        )
    };
    Some((usize::from(columns) + 1, usize::from(rows) + 1, size))
}

fn size_of(items: &Items<'_>, item: u32) -> Result<Size> {
    let properties = items.properties(item)?;
    let size = properties.iter().find_map(|property| match property {
        Property::Size(size) => Some(*size),
        _ => None,
    });
    size.ok_or_else(|| undecodable("AVIF", "an item has no size"))
}

/// Returns the item that is the alpha of one of `items`. An item with a property that is not
/// understood counts as none, as in libavif.
fn find_alpha(all: &Items<'_>, items: &HashSet<u32>) -> Option<u32> {
    const ALPHA: [&str; 2] = [
        "urn:mpeg:mpegB:cicp:systems:auxiliary:alpha",
        "urn:mpeg:hevc:2015:auxid:1",
    ];
    let is_alpha = |property: &&Property| match property {
        Property::Auxiliary(kind) => ALPHA.contains(&kind.as_str()),
        _ => false,
    };
    let mut references = all.references(b"auxl");
    let found = references.find(|(from, to)| {
        to.iter().any(|item| items.contains(item))
            && all
                .properties(*from)
                .is_ok_and(|properties| properties.iter().any(is_alpha))
    });
    found.map(|(from, _)| from)
}

/// Returns the orientation of an image that is first rotated and then mirrored.
fn orientation(properties: &[&Property]) -> Orientation {
    let mut quarters = 0;
    let mut axis = None;
    for property in properties {
        match property {
            Property::Rotation(angle) => quarters = *angle,
            Property::Mirror(value) => axis = Some(*value),
            _ => {}
        }
    }
    // Numbers of EXIF for each rotation: not mirrored, top with bottom, left with right.
    let number = match (quarters, axis) {
        (0, None) => 1,
        (0, Some(0)) | (2, Some(1)) => 4,
        (0, Some(_)) | (2, Some(0)) => 2,
        (1, None) => 8,
        (1, Some(0)) | (3, Some(1)) => 5,
        (1, Some(_)) | (3, Some(0)) => 7,
        (2, None) => 3,
        _ => 6,
    };
    Orientation::from_exif(number).unwrap_or(Orientation::NoTransforms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_frames_that_the_decoder_may_keep_are_counted() {
        let coded = |frames: usize, columns: usize| Coded {
            size: Size::new(100 * columns, 10),
            tile: Size::new(100, 10),
            columns,
            tiles: vec![1; columns],
            frames,
        };
        let bytes = |coded: &Coded, alpha| working_bytes(coded, alpha) / 1000;
        let (one, eight) = (coded(1, 1), coded(8, 1));
        assert_eq!(bytes(&one, None), 6 + 6);
        assert_eq!(bytes(&one, Some(&one)), 6 + 6 + 6);
        assert_eq!(bytes(&eight, None), 6 + 48);
        assert_eq!(bytes(&one, Some(&eight)), 6 + 6 + 48);
        // The planes of ten tiles, and the frames and planes of one.
        assert_eq!(bytes(&coded(2, 10), None), 60 + 12 + 6);
    }
}
