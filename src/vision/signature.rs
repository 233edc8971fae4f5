//! The bytes by which a kind of file is recognized.

use super::raw;

/// Number of first bytes of a file that tell its kind.
pub const HEAD_LENGTH: usize = 4096;

/// One way to recognize a kind of file.
#[derive(Debug)]
pub(super) enum Signature {
    /// Bytes at an offset.
    At(usize, &'static [u8]),
    /// A RIFF file with this form.
    Riff(&'static [u8; 4]),
    /// A file of the ISO base media family (HEIF, MP4, …) with one of these brands.
    Brand(&'static [&'static [u8; 4]]),
    /// Such a file with a brand that no other row names.
    AnyBrand,
    /// A TIFF or BigTIFF that is not a camera's raw file.
    Tiff,
    /// A camera's raw file in a TIFF, by the name that [`raw::kind`] returns.
    Raw(&'static str),
    /// Text that begins so, in any case, after white space and a byte order mark.
    Text(&'static str),
    /// XML that has this element in its first bytes.
    Xml(&'static str),
    /// A JSON object or array.
    Json,
    /// A portable map of any of its kinds (PBM, PGM, PPM, PAM).
    Pnm,
}

impl Signature {
    pub(super) fn matches(&self, head: &[u8]) -> bool {
        match self {
            Self::At(offset, bytes) => starts_with_at(head, *offset, bytes),
            Self::Riff(form) => starts_with_at(head, 0, b"RIFF") && starts_with_at(head, 8, *form),
            Self::Brand(brands) => has_brand(head, brands),
            Self::AnyBrand => starts_with_at(head, 4, b"ftyp"),
            Self::Tiff => raw::is_tiff(head) && raw::kind(head).is_none(),
            Self::Raw(name) => raw::kind(head) == Some(name),
            Self::Text(start) => begins(text(head), start),
            Self::Xml(element) => {
                let text = text(head);
                let element = format!("<{element}");
                let is_markup = ["<?xml", "<!--", "<!doctype", &element];
                is_markup.iter().any(|start| begins(text, start)) && contains(text, &element)
            }
            Self::Json => is_json(text(head)),
            Self::Pnm => matches!(
                head,
                [b'P', b'1'..=b'7', b' ' | b'\t' | b'\r' | b'\n' | b'#', ..]
            ),
        }
    }
}

fn starts_with_at(head: &[u8], offset: usize, bytes: &[u8]) -> bool {
    head.get(offset..)
        .is_some_and(|rest| rest.starts_with(bytes))
}

/// Whether the major brand is one of `brands`; or, if the major brand only names the container, a
/// compatible one.
fn has_brand(head: &[u8], brands: &[&[u8; 4]]) -> bool {
    const CONTAINERS: [&[u8; 4]; 4] = [b"mif1", b"msf1", b"mif2", b"miaf"];
    let Some((&[a, b, c, d, b'f', b't', b'y', b'p'], _)) = head.split_first_chunk::<8>() else {
        return false;
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let box_ = &head[8..length.clamp(8, head.len())];
    let (all, _) = box_.as_chunks::<4>();
    let Some((major, rest)) = all.split_first() else {
        return false;
    };
    // The minor version is between the major brand and the compatible ones.
    let compatible = rest.get(1..).unwrap_or_default();
    brands.contains(&major)
        || CONTAINERS.contains(&major) && compatible.iter().any(|brand| brands.contains(&brand))
}

/// The file without a byte order mark and white space at its beginning.
fn text(head: &[u8]) -> &[u8] {
    head.strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start()
}

fn begins(text: &[u8], start: &str) -> bool {
    text.get(..start.len())
        .is_some_and(|text| text.eq_ignore_ascii_case(start.as_bytes()))
}

fn contains(text: &[u8], part: &str) -> bool {
    let head = &text[..text.len().min(HEAD_LENGTH)];
    head.windows(part.len())
        .any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}

fn is_json(text: &[u8]) -> bool {
    let next = |text: &[u8]| text.trim_ascii_start().first().copied();
    match text.split_first() {
        Some((b'{', rest)) => matches!(next(rest), Some(b'"' | b'}')),
        Some((b'[', rest)) => {
            matches!(
                next(rest),
                Some(b'{' | b'[' | b'"' | b']' | b'-' | b'0'..=b'9')
            )
        }
        _ => false,
    }
}
