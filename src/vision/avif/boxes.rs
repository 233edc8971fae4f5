//! The item of an AVIF file to show, and where its parts are.
//!
//! Boxes are walked here, and only their contents are read by the library: its readers of whole
//! files call themselves for boxes in boxes, to any depth that a file states.

use std::{borrow::Cow, collections::HashMap};

use mp4_atom::{Atom, Auxc, Colr, DecodeMaybe, FourCC, Header, Imir, Ipma, Iref, Irot, Ispe, Pitm};

use super::{
    super::{Size, undecodable::undecodable},
    locations::{Extent, Locations, MAX_ITEMS, Source},
};
use crate::error::Result;

/// What a file says of its items.
pub(super) struct Items<'a> {
    file: &'a [u8],
    /// Contents that are stored inside the description.
    inline: &'a [u8],
    pub(super) primary: u32,
    kinds: HashMap<u32, FourCC>,
    locations: Locations<'a>,
    references: Vec<mp4_atom::Reference>,
    properties: Vec<Property>,
    associations: HashMap<u32, Vec<mp4_atom::PropertyAssociation>>,
}

/// A property of an item.
#[derive(Debug, Clone)]
pub(super) enum Property {
    Size(Size),
    /// Purpose of an auxiliary item.
    Auxiliary(String),
    /// Quarter turns against the clock.
    Rotation(u8),
    /// Axis of a mirror image.
    Mirror(u8),
    Color(Color),
    /// A property without influence on the pixels, or one that is not known.
    Other(FourCC),
}

/// How samples become colors, by the numbers of ITU-T H.273.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Color {
    pub(super) primaries: u16,
    pub(super) matrix: u16,
    pub(super) is_full_range: bool,
}

impl<'a> Items<'a> {
    pub(super) fn read(file: &'a [u8]) -> Result<Self> {
        let meta = find(file, b"meta").ok_or_else(|| {
            undecodable(
                "AVIF",
                "it has no still image; send single frames of an image sequence",
            )
        })?;
        // The box begins with its version.
        let meta = meta.get(4..).unwrap_or_default();
        let references = match find(meta, b"iref") {
            Some(body) => {
                check_count(children(body.get(4..).unwrap_or_default()).count())?;
                read::<Iref>(body)?.references
            }
            None => Vec::new(),
        };
        let description = required(meta, b"iprp")?;
        let mut associations = HashMap::new();
        for body in children(description).filter(|child| child.kind == FourCC::new(b"ipma")) {
            let count = body.content.get(4..8).and_then(<[u8]>::first_chunk);
            check_count(count.map_or(0, |count| u32::from_be_bytes(*count) as usize))?;
            let all: Ipma = read(body.content)?;
            for item in all.item_properties {
                associations.insert(item.item_id, item.associations);
            }
            check_count(associations.len())?;
        }
        let properties = required(description, b"ipco")?;
        check_count(children(properties).count())?;
        Ok(Self {
            file,
            inline: find(meta, b"idat").unwrap_or_default(),
            primary: read::<Pitm>(required(meta, b"pitm")?)?.item_id,
            kinds: item_kinds(required(meta, b"iinf")?)?,
            locations: Locations::read(required(meta, b"iloc")?)?,
            references,
            properties: children(properties)
                .map(Property::read)
                .collect::<Result<_>>()?,
            associations,
        })
    }

    pub(super) fn kind(&self, item: u32) -> Option<FourCC> {
        self.kinds.get(&item).copied()
    }

    /// Returns the properties of an item. A property that must be understood, and is not, is an
    /// error.
    pub(super) fn properties(&self, item: u32) -> Result<Vec<&Property>> {
        let associations = self.associations.get(&item);
        let mut found = Vec::new();
        for association in associations.into_iter().flatten() {
            let index = usize::from(association.property_index);
            // Number 0 stands for no property.
            let Some(index) = index.checked_sub(1) else {
                continue;
            };
            let property = self
                .properties
                .get(index)
                .ok_or_else(|| undecodable("AVIF", "an item names a property that is not there"))?;
            match property {
                Property::Other(kind) if association.essential && !is_known(*kind) => {
                    let detail = format!("its property `{kind}` is not supported");
                    return Err(undecodable("AVIF", detail));
                }
                _ => found.push(property),
            }
        }
        Ok(found)
    }

    /// Returns the items that `item` refers to.
    pub(super) fn references_of(&self, item: u32, kind: &[u8; 4]) -> Vec<u32> {
        let kind = FourCC::new(kind);
        let of_item =
            |one: &&mp4_atom::Reference| one.reference_type == kind && one.from_item_id == item;
        let found = self.references.iter().filter(of_item);
        found
            .flat_map(|one| one.to_item_ids.iter().copied())
            .collect()
    }

    /// Returns all references of a kind: an item, and the items that it refers to.
    pub(super) fn references(&self, kind: &[u8; 4]) -> impl Iterator<Item = (u32, &[u32])> {
        let kind = FourCC::new(kind);
        let of_kind = move |one: &&mp4_atom::Reference| one.reference_type == kind;
        let found = self.references.iter().filter(of_kind);
        found.map(|one| (one.from_item_id, one.to_item_ids.as_slice()))
    }

    /// Returns the bytes of an item.
    pub(super) fn content(&self, item: u32) -> Result<Cow<'a, [u8]>> {
        let (source, mut extents) = self.locations.of(item)?;
        let first = match extents.next() {
            Some(extent) => self.part(source, extent)?,
            None => &[],
        };
        let mut content = Cow::Borrowed(first);
        for extent in extents {
            let part = self.part(source, extent)?;
            // Parts that overlap could add up to any size.
            if content.len() + part.len() > self.file.len() {
                return Err(undecodable("AVIF", "an item is longer than the file"));
            }
            content.to_mut().extend_from_slice(part);
        }
        Ok(content)
    }

    /// Rejects items whose contents, with the descriptions of their extents, are together longer
    /// than `MAX_OVERLAP` times the file: each may cost the time that all its data take.
    pub(super) fn check_overlap(&self, items: &[u32]) -> Result<()> {
        let mut rest = MAX_OVERLAP * self.file.len();
        for &item in items {
            let (source, extents) = self.locations.of(item)?;
            for extent in extents {
                let part = self.part(source, extent)?;
                rest = rest
                    .checked_sub(part.len() + self.locations.description_bytes())
                    .ok_or_else(|| undecodable("AVIF", "its tiles are longer than the file"))?;
            }
        }
        Ok(())
    }

    fn part(&self, source: Source, extent: Extent) -> Result<&'a [u8]> {
        let source = match source {
            Source::File => self.file,
            Source::Inline => self.inline,
        };
        let start = extent.start.and_then(|start| usize::try_from(start).ok());
        let rest = start.and_then(|start| source.get(start..));
        let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
        let part = match (rest, length) {
            // No length stands for all that is left.
            (Some(rest), 0) => Some(rest),
            (Some(rest), length) => rest.get(..length),
            (None, _) => None,
        };
        part.ok_or_else(|| undecodable("AVIF", "it ends early"))
    }
}

/// Length of all tiles together, as a multiple of the file's, above which they overlap too much.
const MAX_OVERLAP: usize = 4;

fn check_count(count: usize) -> Result<()> {
    if count <= MAX_ITEMS {
        return Ok(());
    }
    let reason = format!("it has more than {MAX_ITEMS} items, properties or references");
    Err(undecodable("AVIF", reason))
}

/// Reads the types of all items. Their names, which follow, do not matter.
fn item_kinds(body: &[u8]) -> Result<HashMap<u32, FourCC>> {
    let count_length = if body.first() == Some(&0) { 2 } else { 4 };
    let entries = body.get(4 + count_length..).unwrap_or_default();
    check_count(children(entries).count())?;
    let kind = |child: Child<'_>| match child.content {
        [2, _, _, _, a, b, _, _, kind @ ..] => {
            let item = u32::from(u16::from_be_bytes([*a, *b]));
            Some((item, FourCC::from(*kind.first_chunk::<4>()?)))
        }
        [3, _, _, _, a, b, c, d, _, _, kind @ ..] => {
            let item = u32::from_be_bytes([*a, *b, *c, *d]);
            Some((item, FourCC::from(*kind.first_chunk::<4>()?)))
        }
        _ => None,
    };
    Ok(children(entries).filter_map(kind).collect())
}

/// Whether a property is understood. Pillow shows the whole image where a part of it is cut out.
fn is_known(kind: FourCC) -> bool {
    [
        b"pixi", b"av1C", b"colr", b"pasp", b"clap", b"clli", b"mdcv", b"a1lx",
    ]
    .into_iter()
    .any(|known| kind == FourCC::new(known))
}

impl Property {
    fn read(child: Child<'_>) -> Result<Self> {
        let body = child.content;
        Ok(match child.kind {
            Ispe::KIND => {
                let Ispe { width, height } = read(body)?;
                Self::Size(Size::new(width as usize, height as usize))
            }
            Auxc::KIND => {
                // The version, and a text that ends with a zero.
                let text = body.get(4..).unwrap_or_default();
                let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
                Self::Auxiliary(String::from_utf8_lossy(text).into_owned())
            }
            Irot::KIND => Self::Rotation(read::<Irot>(body)?.angle),
            Imir::KIND => Self::Mirror(read::<Imir>(body)?.axis & 1),
            Colr::KIND => match read(body) {
                Ok(Colr::Nclx {
                    colour_primaries,
                    matrix_coefficients,
                    full_range_flag,
                    ..
                }) => Self::Color(Color {
                    primaries: colour_primaries,
                    matrix: matrix_coefficients,
                    is_full_range: full_range_flag,
                }),
                // A color profile, which pixels do not depend on.
                _ => Self::Other(child.kind),
            },
            kind => Self::Other(kind),
        })
    }
}

/// A box in another one.
struct Child<'a> {
    kind: FourCC,
    content: &'a [u8],
}

fn children(mut rest: &[u8]) -> impl Iterator<Item = Child<'_>> {
    std::iter::from_fn(move || {
        let header = Header::decode_maybe(&mut rest).ok().flatten()?;
        let length = header.size.unwrap_or(rest.len()).min(rest.len());
        let (content, after) = rest.split_at(length);
        rest = after;
        Some(Child {
            kind: header.kind,
            content,
        })
    })
}

fn find<'a>(parent: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    children(parent)
        .find(|child| child.kind == FourCC::new(kind))
        .map(|child| child.content)
}

fn required<'a>(parent: &'a [u8], kind: &[u8; 4]) -> Result<&'a [u8]> {
    find(parent, kind).ok_or_else(|| {
        let kind = String::from_utf8_lossy(kind);
        undecodable("AVIF", format!("the box `{kind}` is missing"))
    })
}

fn read<T: Atom>(mut body: &[u8]) -> Result<T> {
    T::decode_body(&mut body).map_err(|error| {
        let kind = T::KIND;
        undecodable("AVIF", format!("the box `{kind}` cannot be read: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let length = (8 + content.len() as u32).to_be_bytes();
        [&length, kind.as_slice(), content].concat()
    }

    fn full(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        boxed(kind, &[&[0; 4], content].concat())
    }

    /// Makes a file of 400 bytes at least, whose item 7 is so many bytes from its beginning.
    fn file(length: u8, references: &[u8]) -> Vec<u8> {
        let location = [0x44, 0, 0, 1, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, length];
        let properties = [boxed(b"ipco", &[]), full(b"ipma", &[0; 4])].concat();
        let parts = [
            full(b"pitm", &[0, 7]),
            full(b"iinf", &[0, 0]),
            full(b"iloc", &location),
            boxed(b"iprp", &properties),
            full(b"iref", references),
            boxed(b"free", &[0; 300]),
        ];
        full(b"meta", &parts.concat())
    }

    #[test]
    fn tiles_are_at_most_four_times_as_long_as_the_file() {
        let file = file(200, &[]);
        let items = Items::read(&file).expect("a file");
        assert_eq!(items.content(7).expect("an item").as_ref(), &file[..200]);
        // The description of an extent takes 8 bytes.
        let most = 4 * file.len() / 208;
        items.check_overlap(&vec![7; most]).expect("little overlap");
        let error = items.check_overlap(&vec![7; most + 1]);
        let error = error.expect_err("much overlap");
        assert!(error.detail().contains("its tiles are longer"), "{error}");
    }

    #[test]
    fn references_are_bounded() {
        let reference = b"\0\0\0\x0cauxl\0\x09\0\0";
        Items::read(&file(1, &reference.repeat(MAX_ITEMS))).expect("many references");
        let file = file(1, &reference.repeat(MAX_ITEMS + 1));
        let error = Items::read(&file).err().expect("too many references");
        assert!(error.detail().contains("65536"), "{error}");
    }
}
