//! Files of all formats, compared with Pillow (`tests/golden/formats`).

use dinoserve::{
    error::Kind,
    vision::{Background, DecodeLimits, DecodeOptions, Levels, decode},
};
use serde::Deserialize;

use crate::support::{read_golden, sha256};

const LIMITS: DecodeLimits = DecodeLimits {
    max_pixels: 50_000_000,
    max_side: 65_535,
};
const LIKE_PILLOW: DecodeOptions = DecodeOptions {
    exif: false,
    background: Background::Ignore,
    levels: Levels::Type,
};

#[derive(Deserialize)]
struct FormatCase {
    name: String,
    width: u32,
    height: u32,
    rgb_sha256: String,
    upright_sha256: String,
    white_sha256: Option<String>,
}

fn formats() -> Vec<FormatCase> {
    serde_json::from_slice(&read_golden("formats/expected.json")).expect("JSON")
}

#[test]
fn every_format_decodes_as_in_pillow() {
    let upright = DecodeOptions {
        exif: true,
        ..LIKE_PILLOW
    };
    let white = DecodeOptions {
        background: Background::White,
        ..LIKE_PILLOW
    };
    let cases = formats();
    assert!(cases.len() >= 90);
    for case in cases {
        let bytes = read_golden(&format!("formats/{}", case.name));
        let image = decode(&bytes, LIKE_PILLOW, LIMITS)
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!(
            image.dimensions(),
            (case.width, case.height),
            "{}",
            case.name
        );
        let check = |options, expected: &str, what: &str| {
            let found = decode(&bytes, options, LIMITS).expect("decodes twice");
            assert_eq!(sha256(found.as_raw()), expected, "{} {what}", case.name);
        };
        check(LIKE_PILLOW, &case.rgb_sha256, "as stored");
        check(upright, &case.upright_sha256, "upright");
        if let Some(expected) = &case.white_sha256 {
            check(white, expected, "on white");
        }
    }
}

#[derive(Deserialize)]
struct RefusedCase {
    name: String,
    reason: String,
}

#[test]
fn what_is_not_decoded_exactly_is_rejected_by_its_tag() {
    let cases: Vec<RefusedCase> =
        serde_json::from_slice(&read_golden("formats/refused.json")).expect("JSON");
    assert!(cases.len() >= 20);
    for RefusedCase { name, reason } in cases {
        let bytes = read_golden(&format!("formats/{name}"));
        let error = decode(&bytes, LIKE_PILLOW, LIMITS).expect_err(&name);
        assert_eq!(error.kind(), Kind::UndecodableImage, "{name}");
        let expected = format!("the TIFF cannot be decoded: its {reason}");
        assert!(error.detail().starts_with(&expected), "{name}: {error}");
    }
}
