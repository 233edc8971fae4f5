//! Kinds of files that people send and that cannot be decoded: they are named, with what to do.

use super::signature::{
    Signature,
    Signature::{At, Brand, Riff, Text},
};

/// A known kind of file that cannot be decoded.
#[derive(Debug)]
pub struct Foreign {
    /// Name in messages.
    pub name: &'static str,
    /// What to do with such a file, as an imperative.
    pub advice: &'static str,
    /// Whether a file of this kind is or holds an image.
    pub(super) holds_image: bool,
    pub(super) signatures: &'static [Signature],
}

const fn kind(
    name: &'static str,
    advice: &'static str,
    signatures: &'static [Signature],
) -> Foreign {
    Foreign {
        name,
        advice,
        holds_image: true,
        signatures,
    }
}

/// A kind of file that neither is nor holds an image.
const fn other(name: &'static str, signatures: &'static [Signature]) -> Foreign {
    Foreign {
        holds_image: false,
        ..kind(name, "send the image itself", signatures)
    }
}

const HEIC: &str = "convert it to JPEG (an iPhone takes JPEG with Settings, Camera, Formats, Most \
                    Compatible)";
const CONVERT: &str = "convert it to PNG or JPEG";
const DEVELOP: &str = "develop it to TIFF or JPEG, or send the JPEG that the camera stores with it";
const RENDER: &str = "render it to PNG or JPEG";
const FRAMES: &str = "send single frames as JPEG or PNG";
const UNPACK: &str = "unpack it and send the images in it";
const DECODE: &str = "decode it and send the image's bytes";

/// Brands of files with frames of HEVC. The feature `heic` decodes them.
pub(super) const HEIC_BRANDS: &[&[u8; 4]] = &[
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs",
];
/// Brands of files with frames of any kind.
pub(super) const HEIF_BRANDS: &[&[u8; 4]] = &[b"mif1", b"msf1", b"mif2", b"miaf"];

/// All kinds that are recognized but not decoded, looked through after the
/// [`FORMATS`](super::FORMATS).
pub(super) static FOREIGN: &[Foreign] = &[
    // Images
    kind("HEIC", HEIC, &[Brand(HEIC_BRANDS)]),
    kind("Canon CR3", DEVELOP, &[Brand(&[b"crx "])]),
    kind("HEIF", CONVERT, &[Brand(HEIF_BRANDS)]),
    kind(
        "JPEG XL",
        CONVERT,
        &[At(0, b"\xff\x0a"), At(0, b"\0\0\0\x0cJXL \r\n\x87\n")],
    ),
    kind(
        "JPEG 2000",
        CONVERT,
        &[
            At(0, b"\0\0\0\x0cjP  \r\n\x87\n"),
            At(0, b"\xff\x4f\xff\x51"),
        ],
    ),
    kind(
        "JPEG XR",
        CONVERT,
        &[At(0, b"II\xbc\x01"), At(0, b"WMPHOTO")],
    ),
    kind(
        "Photoshop PSD",
        CONVERT,
        &[At(0, b"8BPS\0\x01"), At(0, b"8BPS\0\x02")],
    ),
    kind("GIMP XCF", CONVERT, &[At(0, b"gimp xcf ")]),
    kind("Canon CR2", DEVELOP, &[Signature::Raw("Canon CR2")]),
    kind("Nikon NEF", DEVELOP, &[Signature::Raw("Nikon NEF")]),
    kind("Sony ARW", DEVELOP, &[Signature::Raw("Sony ARW")]),
    kind("Pentax PEF", DEVELOP, &[Signature::Raw("Pentax PEF")]),
    kind("Samsung SRW", DEVELOP, &[Signature::Raw("Samsung SRW")]),
    kind(
        "Hasselblad 3FR",
        DEVELOP,
        &[Signature::Raw("Hasselblad 3FR")],
    ),
    kind("Kodak DCR", DEVELOP, &[Signature::Raw("Kodak DCR")]),
    kind("DNG", DEVELOP, &[Signature::Raw("DNG")]),
    kind("Fujifilm RAF", DEVELOP, &[At(0, b"FUJIFILMCCD-RAW")]),
    kind(
        "Olympus ORF",
        DEVELOP,
        &[At(0, b"IIRO"), At(0, b"IIRS"), At(0, b"MMOR")],
    ),
    kind("Panasonic RW2", DEVELOP, &[At(0, b"IIU\0")]),
    kind("Minolta MRW", DEVELOP, &[At(0, b"\0MRM")]),
    kind("Sigma X3F", DEVELOP, &[At(0, b"FOVb")]),
    kind(
        "ICO",
        CONVERT,
        &[At(0, b"\0\0\x01\0"), At(0, b"\0\0\x02\0")],
    ),
    kind("ICNS", CONVERT, &[At(0, b"icns")]),
    kind("OpenEXR", CONVERT, &[At(0, b"v/1\x01")]),
    kind(
        "Radiance HDR",
        CONVERT,
        &[At(0, b"#?RADIANCE"), At(0, b"#?RGBE")],
    ),
    kind("DDS", CONVERT, &[At(0, b"DDS ")]),
    kind("farbfeld", CONVERT, &[At(0, b"farbfeld")]),
    kind("BPG", CONVERT, &[At(0, b"BPG\xfb")]),
    kind("FLIF", CONVERT, &[At(0, b"FLIF")]),
    kind(
        "SGI",
        CONVERT,
        &[At(0, b"\x01\xda\0"), At(0, b"\x01\xda\x01")],
    ),
    kind("WMF", RENDER, &[At(0, b"\xd7\xcd\xc6\x9a")]),
    kind("DICOM", CONVERT, &[At(128, b"DICM")]),
    kind("FITS", CONVERT, &[At(0, b"SIMPLE  =")]),
    kind("NumPy", CONVERT, &[At(0, b"\x93NUMPY")]),
    kind("HDF5", CONVERT, &[At(0, b"\x89HDF\r\n\x1a\n")]),
    // Documents and drawings
    kind("PDF", "send its pages as images", &[At(0, b"%PDF-")]),
    kind(
        "PostScript",
        RENDER,
        &[At(0, b"%!PS"), At(0, b"\xc5\xd0\xd3\xc6")],
    ),
    kind("SVG", RENDER, &[Signature::Xml("svg")]),
    other("HTML", &[Text("<!doctype html"), Signature::Xml("html")]),
    other("XML", &[Text("<?xml")]),
    other("JSON", &[Signature::Json]),
    kind(
        "a Git LFS pointer",
        "fetch the file itself with `git lfs pull`",
        &[At(0, b"version https://git-lfs.github.com/spec")],
    ),
    kind(
        "an image in base64",
        DECODE,
        &[
            Text("data:image/"),
            At(0, b"/9j/"),
            At(0, b"iVBORw0KGgo"),
            At(0, b"R0lGODdh"),
            At(0, b"R0lGODlh"),
            At(0, b"UklGR"),
        ],
    ),
    kind(
        "an AppleDouble file",
        "send the file of the same name without `._`",
        &[At(0, b"\0\x05\x16\x07"), At(0, b"\0\x05\x16\0")],
    ),
    // Video and sound
    kind(
        "QuickTime video",
        FRAMES,
        &[
            Brand(&[b"qt  "]),
            At(4, b"moov"),
            At(4, b"mdat"),
            At(4, b"wide"),
        ],
    ),
    kind("MP4 video", FRAMES, &[Signature::AnyBrand]),
    kind("Matroska or WebM video", FRAMES, &[At(0, b"\x1aE\xdf\xa3")]),
    kind("AVI video", FRAMES, &[Riff(b"AVI ")]),
    kind(
        "MPEG video",
        FRAMES,
        &[At(0, b"\0\0\x01\xba"), At(0, b"\0\0\x01\xb3")],
    ),
    kind("Flash video", FRAMES, &[At(0, b"FLV\x01")]),
    other("WAVE sound", &[Riff(b"WAVE")]),
    other("MP3 sound", &[At(0, b"ID3")]),
    other("Ogg", &[At(0, b"OggS")]),
    // Archives and compressed files
    kind("ZIP", UNPACK, &[At(0, b"PK\x03\x04"), At(0, b"PK\x05\x06")]),
    kind("gzip", UNPACK, &[At(0, b"\x1f\x8b")]),
    kind("Zstandard", UNPACK, &[At(0, b"\x28\xb5\x2f\xfd")]),
    kind("bzip2", UNPACK, &[At(0, b"BZh")]),
    kind("xz", UNPACK, &[At(0, b"\xfd7zXZ\0")]),
    kind("7z", UNPACK, &[At(0, b"7z\xbc\xaf\x27\x1c")]),
    kind("RAR", UNPACK, &[At(0, b"Rar!\x1a\x07")]),
    kind("tar", UNPACK, &[At(257, b"ustar")]),
];

#[cfg(test)]
mod tests {
    use super::super::{Identified, identify};

    /// Returns the beginning of a file of the ISO base media family.
    fn media(brands: &[&[u8; 4]]) -> Vec<u8> {
        let mut file = (12 + 4 * brands.len() as u32).to_be_bytes().to_vec();
        file.extend(b"ftyp");
        for (number, brand) in brands.iter().enumerate() {
            file.extend(*brand);
            // The minor version follows the major brand.
            file.extend([0; 4].iter().take(if number == 0 { 4 } else { 0 }));
        }
        file
    }

    /// Returns a TIFF whose first directory has these tags, all of type LONG, and the make.
    fn tiff(make: &str, tags: &[(u16, u32)]) -> Vec<u8> {
        let mut file = b"II*\0\x08\0\0\0".to_vec();
        file.extend((tags.len() as u16 + 1).to_le_bytes());
        let end = 8 + 2 + 12 * (tags.len() as u32 + 1) + 4;
        for (tag, value) in tags.iter().chain([&(271, end)]) {
            file.extend(tag.to_le_bytes());
            file.extend([4, 0, 1, 0, 0, 0]);
            file.extend(value.to_le_bytes());
        }
        file.extend([0; 4]);
        file.extend(make.as_bytes());
        file
    }

    fn name(head: &[u8]) -> &'static str {
        match identify(head) {
            Identified::Readable(format) => format.name,
            Identified::Known(kind) => kind.name,
            Identified::Unknown => "unknown",
        }
    }

    #[test]
    fn files_are_named_by_their_bytes() {
        let preview = [(254, 1), (330, 500)];
        let tar = [vec![b'x'; 257], b"ustar\0".to_vec()].concat();
        let dicom = [vec![0; 128], b"DICM".to_vec()].concat();
        for (expected, head) in [
            ("HEIC", media(&[b"heic", b"mif1", b"heic"])),
            ("HEIC", media(&[b"mif1", b"miaf", b"heix"])),
            ("AVIF", media(&[b"avif", b"mif1", b"miaf"])),
            ("AVIF", media(&[b"mif1", b"avif"])),
            #[cfg(not(feature = "heic"))]
            ("HEIF", media(&[b"mif1", b"j2ki"])),
            ("Canon CR3", media(&[b"crx ", b"crx ", b"isom"])),
            ("QuickTime video", media(&[b"qt  "])),
            ("QuickTime video", b"\0\0\0\x08wide\0\0".to_vec()),
            ("MP4 video", media(&[b"isom", b"iso2", b"avc1", b"mp41"])),
            ("MP4 video", media(&[b"3gp5"])),
            ("Nikon NEF", tiff("NIKON CORPORATION\0", &preview)),
            ("Sony ARW", tiff("SONY\0", &preview)),
            ("DNG", tiff("Apple\0", &[(254, 1), (50706, 0x401)])),
            ("TIFF", tiff("NIKON CORPORATION\0", &[(254, 0), (330, 500)])),
            ("TIFF", tiff("Acme\0", &preview)),
            ("TIFF", b"II+\0\x08\0\0\0".to_vec()),
            ("TIFF", b"MM\0*".to_vec()),
            ("Canon CR2", b"II*\0\x10\0\0\0CR\x02\0".to_vec()),
            ("tar", tar),
            ("DICOM", dicom),
        ] {
            assert_eq!(
                name(&head),
                expected,
                "{:?}",
                String::from_utf8_lossy(&head)
            );
        }
        for (expected, head) in [
            ("SVG", "<svg xmlns='http://www.w3.org/2000/svg'>"),
            (
                "SVG",
                "\u{feff}<?xml version='1.0'?>\n<!-- by hand -->\n<svg>",
            ),
            (
                "SVG",
                "<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' ''>\n<SVG>",
            ),
            ("HTML", "\r\n<!DOCTYPE HTML>\n<html>"),
            ("HTML", "<html lang=en>"),
            ("XML", "<?xml version='1.0'?><feed/>"),
            ("JSON", "{\n  \"error\": 404}"),
            ("JSON", "[1, 2]"),
            ("unknown", "[Desktop Entry]"),
            ("unknown", "{not JSON}"),
            ("PDF", "%PDF-1.7"),
            ("PNM", "P6\n# by hand\n2 2 255\n"),
            ("unknown", "P6x"),
            ("an image in base64", "data:image/png;base64,iVBORw0KGgo="),
            ("an image in base64", "/9j/4AAQSkZJRgABAQ"),
            (
                "a Git LFS pointer",
                "version https://git-lfs.github.com/spec/v1\noid",
            ),
            ("unknown", "Hello"),
            ("unknown", ""),
        ] {
            assert_eq!(name(head.as_bytes()), expected, "{head:?}");
        }
    }

    #[test]
    fn a_cut_file_is_named_or_unknown() {
        let heads = [
            media(&[b"heic", b"mif1"]),
            tiff("SONY\0", &[(254, 1), (330, 9)]),
            b"RIFF\x24\0\0\0WEBP".to_vec(),
            b"<?xml version='1.0'?><svg/>".to_vec(),
        ];
        for head in heads {
            for length in 0..head.len() {
                name(&head[..length]);
            }
        }
        // A box that claims to be longer than the file, and one shorter than its head.
        assert_eq!(name(b"\xff\xff\xff\xffftypheic"), "HEIC");
        assert_eq!(name(b"\0\0\0\0ftypheic"), "MP4 video");
    }
}
