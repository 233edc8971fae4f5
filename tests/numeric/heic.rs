//! HEIC, compared with pillow-heif.

use dinoserve::{
    error::Kind,
    vision::{DecodeLimits, DecodeOptions, decode},
};

use super::avif::DecodedCase;
use crate::support::{read_golden, sha256};

fn decode_golden(name: &str, limits: DecodeLimits) -> dinoserve::error::Result<image::RgbImage> {
    let bytes = read_golden(&format!("formats/heic/{name}"));
    decode(&bytes, DecodeOptions::default(), limits)
}

#[test]
fn heic_decodes_as_in_pillow_heif() {
    let cases: Vec<DecodedCase> =
        serde_json::from_slice(&read_golden("formats/heic/expected.json")).expect("JSON");
    assert!(cases.len() >= 12, "{} files", cases.len());
    for case in cases {
        let image = decode_golden(&case.name, DecodeLimits::default())
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let size = (case.width, case.height);
        assert_eq!(image.dimensions(), size, "{}", case.name);
        assert_eq!(sha256(image.as_raw()), case.sha256, "{}", case.name);
    }
}

#[test]
fn the_photograph_of_a_phone_is_decoded() {
    let bytes = read_golden("cases/cat.heic");
    let image = decode(&bytes, DecodeOptions::default(), DecodeLimits::default()).expect("HEIC");
    assert_eq!(image.dimensions(), (451, 300));
}

#[test]
fn a_heic_is_turned_even_without_exif() {
    let bytes = read_golden("formats/heic/exif6.heic");
    let options = DecodeOptions {
        exif: false,
        ..DecodeOptions::default()
    };
    let image = decode(&bytes, options, DecodeLimits::default()).expect("a HEIC");
    assert_eq!(image.dimensions(), (54, 96));
}

#[test]
fn a_heic_above_a_limit_or_damaged_is_rejected() {
    let limits = DecodeLimits {
        max_pixels: 97 * 55 - 1,
        ..DecodeLimits::default()
    };
    let error = decode_golden("rgb420.heic", limits).expect_err("too large");
    assert_eq!(error.kind(), Kind::TooLarge, "{error}");
    assert!(error.detail().contains("97×55"), "{error}");
    let bytes = read_golden("formats/heic/rgb420.heic");
    let rejected = |bytes: &[u8]| {
        let error = decode(bytes, DecodeOptions::default(), DecodeLimits::default())
            .expect_err("a damaged file");
        assert_eq!(error.kind(), Kind::UndecodableImage, "{error}");
        error.detail().to_owned()
    };
    for length in [12, 100, 300, bytes.len() - 1] {
        let detail = rejected(&bytes[..length]);
        assert!(
            detail.starts_with("the HEIC cannot be decoded: "),
            "{length}: {detail}"
        );
    }
    // The size in the container is made smaller than that of the frame, and larger.
    let size = bytes
        .windows(4)
        .position(|kind| kind == b"ispe")
        .expect("a size")
        + 8;
    for side in [16_u32, 4000] {
        let mut lie = bytes.clone();
        lie[size..size + 4].copy_from_slice(&side.to_be_bytes());
        lie[size + 4..size + 8].copy_from_slice(&side.to_be_bytes());
        rejected(&lie);
    }
}
