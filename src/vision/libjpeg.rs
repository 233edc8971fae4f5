//! libjpeg-turbo, the library that Pillow decodes JPEG with, so that pixels agree to the bit.

use std::borrow::Cow;

use turbojpeg::{DecompressHeader, Decompressor, Image, PixelFormat};

use super::jpeg_head::Head;
use crate::error::{Error, Result, ResultExt};

/// Number of scans beyond which a progressive file can only be an attack on the decoder's time.
const MAX_SCANS: u32 = 100;

/// Makes the error of the file that the JPEG is or is in, with the reason.
pub(super) type Reject = fn(&str) -> Error;

/// A JPEG whose header was read.
pub(super) struct Jpeg<'a> {
    bytes: Cow<'a, [u8]>,
    pub(super) decoder: Decompressor,
    /// What is decoded, which may be fewer pixels than the file has.
    pub(super) header: DecompressHeader,
    reject: Reject,
}

impl<'a> Jpeg<'a> {
    /// Reads the header. The binding takes a warning of libjpeg in a header for an error; a file
    /// with one is read without the segments that cause warnings.
    pub(super) fn read(bytes: &'a [u8], head: &Head<'_>, reject: Reject) -> Result<Self> {
        let new_decoder = || -> Result<Decompressor> {
            let mut decoder = Decompressor::new().internal("libjpeg-turbo")?;
            let limited = decoder.set_scan_limit(MAX_SCANS);
            limited.map_err(|error| reject(reason(&error.to_string())))?;
            Ok(decoder)
        };
        let mut decoder = new_decoder()?;
        if let Ok(header) = decoder.read_header(bytes) {
            return Ok(Self {
                bytes: Cow::Borrowed(bytes),
                decoder,
                header,
                reject,
            });
        }
        let Some(bytes) = head.without_warnings() else {
            return Err(reject(
                "it ends in its header, before any pixels; send the whole file",
            ));
        };
        let mut decoder = new_decoder()?;
        let header = decoder.read_header(&bytes);
        let header = header.map_err(|error| reject(reason(&error.to_string())))?;
        Ok(Self {
            bytes: Cow::Owned(bytes),
            decoder,
            header,
            reject,
        })
    }

    /// Decodes the pixels, row by row.
    pub(super) fn decompress(&mut self, format: PixelFormat) -> Result<Vec<u8>> {
        let DecompressHeader { width, height, .. } = self.header;
        let pitch = width * format.size();
        let mut pixels = vec![0; pitch * height];
        let image = Image {
            pixels: pixels.as_mut_slice(),
            width,
            pitch,
            height,
            format,
        };
        match self.decoder.decompress(&self.bytes, image) {
            Ok(()) => Ok(pixels),
            Err(error) => match reason(&error.to_string()) {
                warning if is_harmless(warning, &self.bytes) => Ok(pixels),
                reason => Err((self.reject)(reason)),
            },
        }
    }
}

/// Whether a message is one of libjpeg's warnings, after which decoding goes on and Pillow shows
/// the image. Pillow rejects only files that end early, and so does this function.
fn is_harmless(message: &str, bytes: &[u8]) -> bool {
    const WARNINGS: [&str; 5] = [
        "Corrupt JPEG data: ",
        "Inconsistent progression sequence",
        "Invalid SOS parameters for sequential JPEG",
        "Unknown Adobe color transform code",
        "Warning: unknown JFIF revision number",
    ];
    let ends_with_marker = || {
        let content = bytes
            .iter()
            .rposition(|&byte| !matches!(byte, 0 | b'\r' | b'\n' | b' '));
        content.is_some_and(|last| bytes[..=last].ends_with(&[0xFF, 0xD9]))
    };
    // Only the last of several warnings is reported, so a file that ends early may come with any.
    WARNINGS.iter().any(|warning| message.starts_with(warning))
        && (!message.contains("premature") || ends_with_marker())
}

/// Returns libjpeg-turbo's message without the prefix of the binding.
fn reason(message: &str) -> &str {
    message.strip_prefix("TurboJPEG error: ").unwrap_or(message)
}
