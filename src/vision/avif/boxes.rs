//! The item of an AVIF file to show, and where its parts are.
//!
//! Boxes are walked here, and only their contents are read by the library: its readers of whole
//! files call themselves for boxes in boxes, to any depth that a file states.

use std::collections::HashMap;

use mp4_atom::{
    Atom, Auxc, Colr, DecodeMaybe, FourCC, Header, Iloc, Imir, Ipma, Iref, Irot, Ispe, Pitm,
};

use super::failure::damaged;
use crate::{error::Result, vision::Size};

/// What a file says of its items.
pub(super) struct Items<'a> {
    file: &'a [u8],
    /// Contents that are stored inside the description.
    inline: &'a [u8],
    pub(super) primary: u32,
    kinds: HashMap<u32, FourCC>,
    locations: Iloc,
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
            damaged("it has no still image; send single frames of an image sequence")
        })?;
        // The box begins with its version.
        let meta = meta.get(4..).unwrap_or_default();
        let references = match find(meta, b"iref") {
            Some(body) => read::<Iref>(body)?.references,
            None => Vec::new(),
        };
        let description = required(meta, b"iprp")?;
        let mut associations = HashMap::new();
        for body in children(description).filter(|child| child.kind == FourCC::new(b"ipma")) {
            let all: Ipma = read(body.content)?;
            for item in all.item_properties {
                associations.insert(item.item_id, item.associations);
            }
        }
        Ok(Self {
            file,
            inline: find(meta, b"idat").unwrap_or_default(),
            primary: read::<Pitm>(required(meta, b"pitm")?)?.item_id,
            kinds: item_kinds(required(meta, b"iinf")?),
            locations: read(required(meta, b"iloc")?)?,
            references,
            properties: children(required(description, b"ipco")?)
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
                .ok_or_else(|| damaged("an item names a property that is not there"))?;
            match property {
                Property::Other(kind) if association.essential && !is_known(*kind) => {
                    let detail = format!("its property `{kind}` is not supported");
                    return Err(damaged(detail));
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

    /// Returns the items that refer to `item`.
    pub(super) fn references_to(&self, item: u32, kind: &[u8; 4]) -> Vec<u32> {
        let kind = FourCC::new(kind);
        let to_item = |one: &&mp4_atom::Reference| {
            one.reference_type == kind && one.to_item_ids.contains(&item)
        };
        let found = self.references.iter().filter(to_item);
        found.map(|one| one.from_item_id).collect()
    }

    /// Returns the bytes of an item.
    pub(super) fn content(&self, item: u32) -> Result<Vec<u8>> {
        let location = self.locations.item_locations.iter();
        let location = location
            .rev()
            .find(|location| location.item_id == item)
            .ok_or_else(|| damaged("an item has no location"))?;
        let source = match location.construction_method {
            0 => self.file,
            1 => self.inline,
            _ => {
                return Err(damaged(
                    "an item is made of other items, which is not supported",
                ));
            }
        };
        let mut content = Vec::new();
        for extent in &location.extents {
            let start = location.base_offset.checked_add(extent.offset);
            let start = start.and_then(|start| usize::try_from(start).ok());
            let rest = start.and_then(|start| source.get(start..));
            let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
            let part = match (rest, length) {
                // No length stands for all that is left.
                (Some(rest), 0) => Some(rest),
                (Some(rest), length) => rest.get(..length),
                (None, _) => None,
            };
            let part = part.ok_or_else(|| damaged("it ends early"))?;
            // Parts that overlap could add up to any size.
            if content.len() + part.len() > self.file.len() {
                return Err(damaged("an item is longer than the file"));
            }
            content.extend_from_slice(part);
        }
        Ok(content)
    }
}

/// Reads the types of all items. Their names, which follow, do not matter.
fn item_kinds(body: &[u8]) -> HashMap<u32, FourCC> {
    let count_length = if body.first() == Some(&0) { 2 } else { 4 };
    let entries = body.get(4 + count_length..).unwrap_or_default();
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
    children(entries).filter_map(kind).collect()
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
        damaged(format!("the box `{kind}` is missing"))
    })
}

fn read<T: Atom>(mut body: &[u8]) -> Result<T> {
    T::decode_body(&mut body).map_err(|error| {
        let kind = T::KIND;
        damaged(format!("the box `{kind}` cannot be read: {error}"))
    })
}
