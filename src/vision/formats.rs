//! The image formats that can be decoded, and how files are recognized by their bytes.

use std::fmt;

use image::ImageFormat;

use super::{
    foreign::{FOREIGN, Foreign},
    signature::{Signature, Signature::At},
};

/// A format of image files.
#[derive(Debug)]
pub struct Format {
    /// Name in messages.
    pub name: &'static str,
    /// Endings of file names, in lower case.
    pub extensions: &'static [&'static str],
    pub(super) codec: Codec,
    signatures: &'static [Signature],
}

/// What decodes a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Jpeg,
    Gif,
    Tiff,
    Avif,
    #[cfg(feature = "heic")]
    Heic,
    /// The `image` crate.
    Image(ImageFormat),
}

/// All formats that can be decoded. Detection, messages, the endings of file names and the lists in
/// documents follow from this table.
pub static FORMATS: &[Format] = &[
    Format {
        name: "JPEG",
        extensions: &["jpg", "jpeg", "jpe", "jfif"],
        codec: Codec::Jpeg,
        signatures: &[At(0, b"\xff\xd8\xff")],
    },
    Format {
        name: "PNG",
        extensions: &["png"],
        codec: Codec::Image(ImageFormat::Png),
        signatures: &[At(0, b"\x89PNG\r\n\x1a\n")],
    },
    Format {
        name: "WebP",
        extensions: &["webp"],
        codec: Codec::Image(ImageFormat::WebP),
        signatures: &[Signature::Riff(b"WEBP")],
    },
    Format {
        name: "GIF",
        extensions: &["gif"],
        codec: Codec::Gif,
        signatures: &[At(0, b"GIF87a"), At(0, b"GIF89a")],
    },
    Format {
        name: "BMP",
        extensions: &["bmp"],
        codec: Codec::Image(ImageFormat::Bmp),
        signatures: &[At(0, b"BM")],
    },
    Format {
        name: "TIFF",
        extensions: &["tif", "tiff"],
        codec: Codec::Tiff,
        signatures: &[Signature::Tiff],
    },
    Format {
        name: "AVIF",
        extensions: &["avif"],
        codec: Codec::Avif,
        signatures: &[Signature::Brand(&[b"avif", b"avis"])],
    },
    #[cfg(feature = "heic")]
    Format {
        name: "HEIC",
        extensions: &["heic", "heif", "hif"],
        codec: Codec::Heic,
        signatures: &[
            Signature::Brand(super::foreign::HEIC_BRANDS),
            Signature::Brand(super::foreign::HEIF_BRANDS),
        ],
    },
    Format {
        name: "PNM",
        extensions: &["pnm", "pbm", "pgm", "ppm", "pam"],
        codec: Codec::Image(ImageFormat::Pnm),
        signatures: &[Signature::Pnm],
    },
    Format {
        name: "QOI",
        extensions: &["qoi"],
        codec: Codec::Image(ImageFormat::Qoi),
        signatures: &[At(0, b"qoif")],
    },
];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy)]
pub enum Identified {
    /// One of the [`FORMATS`], which can be decoded unless it is damaged.
    Readable(&'static Format),
    /// A known kind of file that cannot be decoded.
    Known(&'static Foreign),
    /// None of these.
    Unknown,
}

/// Identifies a file by its first [`HEAD_LENGTH`](super::HEAD_LENGTH) bytes, or by all of them.
pub fn identify(head: &[u8]) -> Identified {
    let matches = |signatures: &[Signature]| signatures.iter().any(|one| one.matches(head));
    if let Some(format) = FORMATS.iter().find(|format| matches(format.signatures)) {
        return Identified::Readable(format);
    }
    match FOREIGN.iter().find(|kind| matches(kind.signatures)) {
        Some(kind) => Identified::Known(kind),
        None => Identified::Unknown,
    }
}

/// Returns whether a file begins as an image, or as a known kind that is or holds one, even if it
/// cannot be decoded.
pub fn begins_as_image(head: &[u8]) -> bool {
    match identify(head) {
        Identified::Readable(_) => true,
        Identified::Known(kind) => kind.holds_image,
        Identified::Unknown => false,
    }
}

/// Returns the endings of the names of image files, in lower case.
pub fn image_extensions() -> Vec<&'static str> {
    FORMATS
        .iter()
        .flat_map(|format| format.extensions)
        .copied()
        .collect()
}

/// Lists the names of all formats: "JPEG, PNG, … or TIFF".
pub(super) fn names() -> String {
    list("or")
}

fn list(conjunction: &str) -> String {
    let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
    match names.as_slice() {
        [names @ .., last] => format!("{} {conjunction} {last}", names.join(", ")),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(feature = "heic"))]
    fn documents_and_pages_name_all_formats() {
        for (file, text) in [
            ("README.md", include_str!("../../README.md")),
            ("train/README.md", include_str!("../../train/README.md")),
            (
                "playground.js",
                include_str!("../http/page/assets/playground.js"),
            ),
        ] {
            let words: Vec<&str> = text.split_whitespace().collect();
            assert!(
                words.join(" ").contains(&list("and")),
                "{file} does not name {}",
                list("and")
            );
        }
    }

    #[test]
    fn no_ending_is_listed_twice() {
        let mut extensions = image_extensions();
        let count = extensions.len();
        extensions.sort_unstable();
        extensions.dedup();
        assert_eq!(extensions.len(), count);
    }
}
