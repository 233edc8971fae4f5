//! Files with defects and odd metadata, compared with Pillow (`tests/golden/defects/make.py`).

use dinoserve::{
    error::Kind,
    vision::{Background, DecodeOptions, Levels, decode},
};
use serde::Deserialize;

use super::preprocess::{LIKE_PILLOW, LIMITS};
use crate::support::{read_golden, sha256};

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    refused: bool,
    #[serde(default)]
    rgb_sha256: String,
    #[serde(default)]
    upright_sha256: String,
}

/// Pillow refuses a file that ends in its metadata; browsers show it, and so does dinoserve.
const READ_IN_ADDITION: &str = "cut_metadata.png";

const UPRIGHT: DecodeOptions = DecodeOptions {
    exif: true,
    ..LIKE_PILLOW
};

fn file(name: &str) -> Vec<u8> {
    read_golden(&format!("defects/{name}"))
}

#[test]
fn files_with_defects_are_read_or_refused_as_in_pillow() {
    let cases: Vec<Case> = serde_json::from_slice(&file("expected.json")).expect("a list of cases");
    assert!(cases.len() > 80);
    let mut wrong = Vec::new();
    for case in cases {
        let bytes = file(&case.name);
        if case.name == READ_IN_ADDITION {
            decode(&bytes, UPRIGHT, LIMITS).expect("its pixels are whole");
            continue;
        }
        for (options, expected) in [
            (LIKE_PILLOW, &case.rgb_sha256),
            (UPRIGHT, &case.upright_sha256),
        ] {
            match (decode(&bytes, options, LIMITS), case.refused) {
                (Err(error), true) => assert_eq!(error.kind(), Kind::UndecodableImage),
                (Ok(image), false) if sha256(image.as_raw()) == *expected => {}
                (Ok(_), false) => wrong.push(format!("{}: other pixels", case.name)),
                (Ok(_), true) => wrong.push(format!("{}: Pillow refuses it", case.name)),
                (Err(error), false) => wrong.push(format!("{}: {error}", case.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Files that were once decoded wrongly or rejected (`tests/golden/cases/make.py`).
#[test]
fn files_that_once_failed_are_read_as_in_pillow() {
    let read = |name: &str| read_golden(&format!("cases/{name}"));
    let cases: Vec<Case> = serde_json::from_slice(&read("expected.json")).expect("cases");
    assert_eq!(cases.len(), 18);
    for case in cases {
        let name = &case.name;
        let found = |options| {
            let image = decode(&read(name), options, LIMITS);
            image.map(|image| sha256(image.as_raw()))
        };
        if name == "cat.heic" {
            assert!(case.refused);
            // Pillow reads HEIC with a plugin only, and dinoserve with the feature `heic` only.
            #[cfg(not(feature = "heic"))]
            assert_eq!(
                found(UPRIGHT).expect_err(name).detail(),
                "the file is HEIC, which cannot be read; convert it to JPEG (an iPhone takes JPEG \
                 with Settings, Camera, Formats, Most Compatible)"
            );
            continue;
        }
        assert!(!case.refused, "{name}");
        for (options, expected) in [
            (LIKE_PILLOW, &case.rgb_sha256),
            (UPRIGHT, &case.upright_sha256),
        ] {
            assert_eq!(found(options).as_ref().ok(), Some(expected), "{name}");
        }
    }
}

#[test]
fn data_of_12_bits_in_16_are_scaled_on_request() {
    let brightest = |levels| {
        let options = DecodeOptions { levels, ..UPRIGHT };
        let image = decode(&read_golden("cases/gray12in16.png"), options, LIMITS);
        image.expect("a PNG").into_raw().into_iter().max()
    };
    assert!(brightest(Levels::Type) < Some(16));
    assert!(brightest(Levels::Data) >= Some(128));
}

#[test]
fn errors_of_damaged_files_say_what_is_wrong() {
    for (name, detail) in [
        (
            "cut_at_50.jpg",
            "the JPEG cannot be decoded: it ends in its header, before any pixels; \
             send the whole file",
        ),
        (
            "without_scans.jpg",
            "the JPEG cannot be decoded: it ends in its header, before any pixels; \
             send the whole file",
        ),
        (
            "damaged_pixels.png",
            "the PNG cannot be decoded: its pixels are damaged: their checksum is wrong",
        ),
        (
            "wrong_checksum_of_header.png",
            "the PNG cannot be decoded: the checksum of its IHDR is wrong",
        ),
    ] {
        let error = decode(&file(name), UPRIGHT, LIMITS).expect_err(name);
        assert_eq!(error.detail(), detail, "{name}");
    }
    // A sample of 12 bits.
    let mut deep = file("without_jfif.jpg");
    let frame = deep
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC0])
        .expect("a frame");
    deep[frame + 4] = 12;
    let error = decode(&deep, UPRIGHT, LIMITS).expect_err("12 bits");
    assert!(error.detail().contains("12"), "{error}");
    // A lossless file with 4 bits would be nearly black.
    let mut shallow = file("lossless_grey.jpg");
    let frame = shallow
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC3])
        .expect("a frame");
    shallow[frame + 4] = 4;
    let error = decode(&shallow, UPRIGHT, LIMITS).expect_err("4 bits");
    assert!(
        error.detail().contains("its samples have 4 bits"),
        "{error}"
    );
}

#[test]
fn the_background_shows_where_transparency_stands_before_the_palette() {
    let bytes = file("transparency_before_palette.png");
    let over = |background| {
        let options = DecodeOptions {
            background,
            ..UPRIGHT
        };
        decode(&bytes, options, LIMITS).expect("decodes")
    };
    assert!(over(Background::White) != over(Background::Black));
}
