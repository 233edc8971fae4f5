//! A PNG file as the decoder needs it.
//!
//! Pillow and browsers read files with defects that the decoder (png 0.18) rejects: a wrong
//! checksum of pixel data, a missing end, odd chunks. They also see an orientation behind the
//! pixels, and in text. So a file is taken apart here, and the decoder gets only the chunks that
//! decide on pixels.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, Read},
};

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

use super::{DecodeLimits, Size, exif::orientation_of, undecodable::undecodable};
use crate::error::{Error, Result};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Maximum length of an unpacked text, as in Pillow.
const MAX_TEXT: u64 = 1 << 20;
const INDEXED: u8 = 3;

/// A file that was taken apart.
#[derive(Default)]
pub(super) struct Png<'a> {
    header: &'a [u8],
    palette: Option<&'a [u8]>,
    transparency: Option<&'a [u8]>,
    pixels: Vec<&'a [u8]>,
    /// Whether a checksum of the pixel data is wrong.
    is_damaged: bool,
    exif: Option<&'a [u8]>,
    /// Text chunks: an EXIF block in hexadecimal digits, and XMP.
    raw_profile: Option<Text<'a>>,
    xmp: Option<Text<'a>>,
}

#[derive(Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
    is_compressed: bool,
}

struct Chunk<'a> {
    kind: [u8; 4],
    /// Shorter than stated if the file ends early.
    data: &'a [u8],
    is_whole: bool,
    has_right_checksum: bool,
}

impl<'a> Png<'a> {
    /// Takes a file apart.
    ///
    /// # Errors
    /// `Kind::UndecodableImage` for damage that matters, `Kind::TooLarge` above a limit.
    pub(super) fn read(bytes: &'a [u8], limits: DecodeLimits) -> Result<Self> {
        let mut png = Self::default();
        let mut chunks = chunks(bytes.get(SIGNATURE.len()..).unwrap_or_default()).peekable();
        let mut is_animated = false;
        while let Some(chunk) = chunks.next_if(|chunk| &chunk.kind != b"IDAT") {
            let name = String::from_utf8_lossy(&chunk.kind);
            let has_name = chunk
                .kind
                .iter()
                .all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !has_name || !chunk.is_whole {
                return Err(damaged("it is damaged in front of its pixels"));
            }
            let is_critical = matches!(&chunk.kind, b"IHDR" | b"PLTE");
            if !chunk.has_right_checksum && is_critical {
                return Err(damaged(format!("the checksum of its {name} is wrong")));
            }
            match &chunk.kind {
                b"IHDR" => png.header = chunk.data,
                b"PLTE" => png.palette = Some(chunk.data),
                b"IEND" => break,
                _ if !chunk.has_right_checksum => {}
                b"tRNS" => png.transparency = Some(chunk.data),
                b"acTL" => is_animated = true,
                _ => png.add_metadata(&chunk),
            }
        }
        // Pillow ignores checksums from here on.
        while let Some(chunk) = chunks.next_if(|chunk| &chunk.kind == b"IDAT") {
            png.is_damaged |= chunk.is_whole && !chunk.has_right_checksum;
            png.pixels.push(chunk.data);
        }
        for chunk in chunks {
            match &chunk.kind {
                b"IEND" => break,
                // Metadata behind the second frame belong to it.
                b"fcTL" if is_animated => break,
                _ if !chunk.is_whole => break,
                _ => png.add_metadata(&chunk),
            }
        }
        png.check(limits)?;
        Ok(png)
    }

    /// Keeps a chunk that can state the orientation. The last of a kind counts.
    fn add_metadata(&mut self, chunk: &Chunk<'a>) {
        let text = match &chunk.kind {
            b"eXIf" => {
                self.exif = Some(chunk.data);
                return;
            }
            b"tEXt" => plain_text(chunk.data),
            b"zTXt" => compressed_text(chunk.data),
            b"iTXt" => international_text(chunk.data),
            _ => None,
        };
        match text {
            Some((b"Raw profile type exif", text)) => self.raw_profile = Some(text),
            Some((b"XML:com.adobe.xmp", text)) => self.xmp = Some(text),
            _ => {}
        }
    }

    /// Rejects what the decoder takes for something else or panics on (png 0.18).
    fn check(&self, limits: DecodeLimits) -> Result<()> {
        let Some(&[a, b, c, d, e, f, g, h, depth, color, ..]) = self.header.first_chunk::<13>()
        else {
            return Err(damaged("it has no whole header (IHDR)"));
        };
        let [width, height] = [[a, b, c, d], [e, f, g, h]].map(u32::from_be_bytes);
        let size = Size::new(width as usize, height as usize);
        limits.check(size)?;
        if let (INDEXED, Some(palette)) = (color, self.palette)
            && !palette.len().is_multiple_of(3)
        {
            return Err(damaged(format!(
                "its palette has {} bytes, no multiple of 3",
                palette.len()
            )));
        }
        if self.pixels.is_empty() {
            return Err(damaged("it has no pixels (IDAT)"));
        }
        if self.is_damaged && !self.has_intact_pixels(size, depth, color) {
            return Err(damaged("its pixels are damaged: their checksum is wrong"));
        }
        Ok(())
    }

    /// Whether the pixel data unpack to their own checksum, which is another than that of chunks.
    fn has_intact_pixels(&self, size: Size, depth: u8, color: u8) -> bool {
        let channels = match color {
            2 => 3,
            4 => 2,
            6 => 4,
            _ => 1,
        };
        let row = (size.width as u64 * channels * u64::from(depth)).div_ceil(8);
        // Each row begins with a filter. The passes of an interlaced image have at most twice as
        // many rows, and are padded by a byte a row.
        let most = (row + 4) * 2 * size.height as u64;
        let stream = self.pixels.concat();
        let mut unpacked = ZlibDecoder::new(stream.as_slice()).take(most);
        match io::copy(&mut unpacked, &mut io::sink()) {
            Ok(_) => true,
            // The end may be missing; the decoder finds missing pixels.
            Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        }
    }

    /// Returns the orientation, where Pillow looks for it.
    pub(super) fn orientation(&self) -> Orientation {
        let raw_profile = || {
            self.raw_profile
                .and_then(Text::unpack)
                .and_then(|text| from_hex(&text))
        };
        let exif = self.exif.map(Cow::Borrowed);
        let exif = exif.or_else(|| raw_profile().map(Cow::Owned));
        let xmp = self.xmp.and_then(Text::unpack);
        orientation_of(exif.as_deref(), xmp.as_deref())
    }

    /// Writes a file with the chunks that decide on pixels.
    pub(super) fn with_pixels(&self) -> Vec<u8> {
        self.write(&self.pixels)
    }

    /// Writes the same file without pixels, which is enough to know what they take.
    pub(super) fn head(&self) -> Vec<u8> {
        self.write(&[&[]])
    }

    fn write(&self, pixels: &[&[u8]]) -> Vec<u8> {
        let length: usize = pixels.iter().map(|piece| piece.len() + 12).sum();
        let mut file = Vec::with_capacity(length + 2048);
        file.extend_from_slice(SIGNATURE);
        let mut add = |kind: &[u8; 4], data: &[u8]| {
            file.extend((data.len() as u32).to_be_bytes());
            let start = file.len();
            file.extend_from_slice(kind);
            file.extend_from_slice(data);
            file.extend(crc32fast::hash(&file[start..]).to_be_bytes());
        };
        add(b"IHDR", self.header.get(..13).unwrap_or_default());
        let color = self.header.get(9).copied();
        let palette = self.palette.filter(|_| color == Some(INDEXED));
        for (kind, data) in [(b"PLTE", palette), (b"tRNS", self.transparency)] {
            if let Some(data) = data {
                add(kind, data);
            }
        }
        for data in pixels {
            add(b"IDAT", data);
        }
        add(b"IEND", &[]);
        file
    }
}

impl<'a> Text<'a> {
    fn unpack(self) -> Option<Cow<'a, [u8]>> {
        if !self.is_compressed {
            return Some(Cow::Borrowed(self.bytes));
        }
        let mut text = Vec::new();
        let unpacking = ZlibDecoder::new(self.bytes)
            .take(MAX_TEXT)
            .read_to_end(&mut text);
        unpacking.ok().map(|_| Cow::Owned(text))
    }
}

/// Splits the keyword off.
fn plain_text(data: &[u8]) -> Option<(&[u8], Text<'_>)> {
    let (keyword, bytes) = split_at_zero(data)?;
    let text = Text {
        bytes,
        is_compressed: false,
    };
    Some((keyword, text))
}

fn compressed_text(data: &[u8]) -> Option<(&[u8], Text<'_>)> {
    let (keyword, rest) = split_at_zero(data)?;
    let [0, bytes @ ..] = rest else { return None };
    let text = Text {
        bytes,
        is_compressed: true,
    };
    Some((keyword, text))
}

fn international_text(data: &[u8]) -> Option<(&[u8], Text<'_>)> {
    let (keyword, rest) = split_at_zero(data)?;
    let [compressed, method, rest @ ..] = rest else {
        return None;
    };
    let (_language, rest) = split_at_zero(rest)?;
    let (_translated_keyword, bytes) = split_at_zero(rest)?;
    let is_compressed = *compressed != 0;
    let text = Text {
        bytes,
        is_compressed,
    };
    (!is_compressed || *method == 0).then_some((keyword, text))
}

fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let zero = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..zero], &bytes[zero + 1..]))
}

/// Reads a "raw profile", as ImageMagick writes it: an empty line, the kind, the length, and lines
/// of hexadecimal digits.
fn from_hex(profile: &[u8]) -> Option<Vec<u8>> {
    let lines = profile.splitn(4, |&byte| byte == b'\n');
    let digits = lines
        .skip(3)
        .flatten()
        .filter(|byte| !byte.is_ascii_whitespace());
    let digits = digits.map(|&byte| char::from(byte).to_digit(16).map(|digit| digit as u8));
    let digits: Vec<u8> = digits.collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn chunks(mut rest: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    std::iter::from_fn(move || {
        let (&[a, b, c, d, kind @ ..], tail) = rest.split_first_chunk::<8>()?;
        let named = &rest[4..];
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let is_whole = length <= tail.len();
        let length = length.min(tail.len());
        let (data, after) = tail.split_at(length);
        let checksum = after.first_chunk::<4>();
        rest = after.get(4..).unwrap_or_default();
        let has_right_checksum = checksum.is_some_and(|checksum| {
            crc32fast::hash(&named[..4 + length]) == u32::from_be_bytes(*checksum)
        });
        Some(Chunk {
            kind,
            data,
            is_whole,
            has_right_checksum,
        })
    })
}

fn damaged(reason: impl Display) -> Error {
    undecodable("PNG", reason)
}
