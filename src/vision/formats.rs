//! The image formats that can be decoded.

use std::fmt;

use image::ImageFormat;

/// A format of image files.
#[derive(Debug)]
pub struct Format {
    /// Name in messages.
    pub name: &'static str,
    /// Endings of file names, in lower case.
    pub extensions: &'static [&'static str],
    pub(super) kind: ImageFormat,
}

/// All formats that can be decoded.
pub static FORMATS: [Format; 6] = [
    format("JPEG", &["jpg", "jpeg", "jfif"], ImageFormat::Jpeg),
    format("PNG", &["png"], ImageFormat::Png),
    format("WebP", &["webp"], ImageFormat::WebP),
    format("GIF", &["gif"], ImageFormat::Gif),
    format("BMP", &["bmp"], ImageFormat::Bmp),
    format("TIFF", &["tif", "tiff"], ImageFormat::Tiff),
];

const fn format(
    name: &'static str,
    extensions: &'static [&'static str],
    kind: ImageFormat,
) -> Format {
    Format {
        name,
        extensions,
        kind,
    }
}

impl Format {
    /// Detects the format of a file from its first bytes.
    pub(super) fn detect(bytes: &[u8]) -> Option<&'static Self> {
        let kind = match bytes {
            // BigTIFF.
            [b'I', b'I', 43, 0, ..] | [b'M', b'M', 0, 43, ..] => ImageFormat::Tiff,
            _ => image::guess_format(bytes).ok()?,
        };
        FORMATS.iter().find(|format| format.kind == kind)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
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
    let [names @ .., last] = FORMATS.each_ref().map(|format| format.name);
    format!("{} or {last}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_formats_are_listed_in_messages() {
        assert_eq!(names(), "JPEG, PNG, WebP, GIF, BMP or TIFF");
    }
}
