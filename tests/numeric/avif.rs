//! AVIF, compared with Pillow, and files that are recognized but not decoded.

use dinoserve::{
    error::Kind,
    vision::{DecodeLimits, DecodeOptions, Identified, decode, identify},
};
use serde::Deserialize;

use crate::support::{read_golden, sha256};

/// A file with the size and the SHA-256 of its decoded pixels.
#[derive(Deserialize)]
pub struct DecodedCase {
    pub name: String,
    pub width: u32,
    pub height: u32,
    pub sha256: String,
}

fn avif_cases() -> Vec<DecodedCase> {
    serde_json::from_slice(&read_golden("formats/avif/expected.json")).expect("JSON")
}

#[test]
fn avif_decodes_as_in_pillow() {
    let cases = avif_cases();
    assert!(cases.len() >= 80, "{} files", cases.len());
    for case in cases {
        let bytes = read_golden(&format!("formats/avif/{}", case.name));
        let image = decode(&bytes, DecodeOptions::default(), DecodeLimits::default())
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!(
            image.dimensions(),
            (case.width, case.height),
            "{}",
            case.name
        );
        assert_eq!(sha256(image.as_raw()), case.sha256, "{}", case.name);
    }
}

#[test]
fn an_avif_is_rejected_from_its_header() {
    let limits = DecodeLimits {
        max_pixels: 97 * 55 - 1,
        ..DecodeLimits::default()
    };
    let bytes = read_golden("formats/avif/pillow.avif");
    let error = decode(&bytes, DecodeOptions::default(), limits).expect_err("too large");
    assert_eq!(error.kind(), Kind::TooLarge, "{error}");
    assert!(error.detail().contains("97×55"), "{error}");
    // The size in the container is made smaller than that of the frame.
    let mut lie = bytes.clone();
    let size = lie.windows(4).position(|kind| kind == b"ispe").unwrap() + 8;
    lie[size..size + 8].copy_from_slice(&[0, 0, 0, 16, 0, 0, 0, 16]);
    let error = decode(&lie, DecodeOptions::default(), limits).expect_err("a lie");
    assert!(
        error
            .detail()
            .contains("its image is 97×55, and its item 16×16"),
        "{error}"
    );
    for length in [12, 100, 250, bytes.len() - 1] {
        let error = decode(
            &bytes[..length],
            DecodeOptions::default(),
            DecodeLimits::default(),
        )
        .expect_err("cut");
        assert!(
            error.detail().starts_with("the AVIF cannot be decoded: "),
            "{length}: {error}"
        );
    }
}

#[test]
fn a_known_file_is_named_with_what_to_do() {
    for (head, name, advice) in [
        #[cfg(not(feature = "heic"))]
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".as_slice(),
            "HEIC",
            "convert it to JPEG",
        ),
        (
            b"\xff\x0a\xff\x07".as_slice(),
            "JPEG XL",
            "convert it to PNG or JPEG",
        ),
        (b"8BPS\0\x01", "Photoshop PSD", "convert it to PNG or JPEG"),
        (b"%PDF-1.7\n", "PDF", "send its pages as images"),
        (b"<svg xmlns='x'/>", "SVG", "render it to PNG or JPEG"),
        (b"FUJIFILMCCD-RAW ", "Fujifilm RAF", "develop it"),
        (
            b"\0\0\0\x14ftypqt  ",
            "QuickTime video",
            "send single frames",
        ),
        (b"PK\x03\x04", "ZIP", "unpack it"),
        (b"\x1f\x8b\x08", "gzip", "unpack it"),
        (b"{\"image\": \"\"}", "JSON", "send the image itself"),
    ] {
        let Identified::Known(kind) = identify(head) else {
            panic!("{name} is not known");
        };
        assert_eq!(kind.name, name);
        let error = decode(head, DecodeOptions::default(), DecodeLimits::default())
            .expect_err("not decoded");
        assert_eq!(error.kind(), Kind::UndecodableImage);
        let expected = format!("the file is {name}, which cannot be read; {advice}");
        assert!(error.detail().starts_with(&expected), "{error}");
    }
}
