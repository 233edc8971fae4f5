//! Decoding and resampling against Pillow.

use dinoserve::vision::{
    Background, DecodeLimits, DecodeOptions, Filter, ResizeMode, RgbImage, Transform, Window, decode, resample_rgb,
};
use serde::Deserialize;

use crate::support::{PHOTOGRAPHS, golden_png, read_golden, sha256, wave};

const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 50_000_000 };
const LIKE_PILLOW: DecodeOptions = DecodeOptions { exif: false, background: Background::Ignore };

fn transform(mode: ResizeMode, size: usize, filter: Filter) -> Transform {
    Transform { mode, size, filter, max_patches: 4096 }
}

#[test]
fn photographs_become_exactly_the_pixels_of_the_reference() {
    let modes = [
        ("crop224", transform(ResizeMode::Crop, 224, Filter::Bicubic)),
        ("squash518_bilinear", transform(ResizeMode::Squash, 518, Filter::Bilinear)),
        ("fit448", transform(ResizeMode::Fit, 448, Filter::Bicubic)),
    ];
    for photograph in PHOTOGRAPHS {
        let image =
            decode(&read_golden(&format!("dinov2-small-focus/{photograph}")), LIKE_PILLOW, LIMITS).expect("decodes");
        for (name, transform) in modes {
            let (found, grid) = transform.apply(&image).expect("a valid transform");
            let stem = photograph.split('.').next().unwrap();
            let expected = golden_png(&format!("dinov2-small-focus/{stem}_{name}_input.png"));
            assert_eq!((found.height() as usize, found.width() as usize), grid.pixels());
            assert!(found == expected, "{photograph} {name} differs from the reference");
        }
    }
}

#[derive(Deserialize)]
struct ResampleCase {
    pattern: String,
    seed: u32,
    width: u32,
    height: u32,
    out_width: usize,
    out_height: usize,
    filter: Filter,
    sha256: String,
}

/// The noise of `formats/make.py`: a linear congruential generator, its high byte.
fn noise(seed: u32, width: u32, height: u32) -> RgbImage {
    let mut state = seed;
    let bytes = (0..width * height * 3).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    RgbImage::from_raw(width, height, bytes.collect()).expect("three bytes a pixel")
}

#[test]
fn resampling_is_bit_equal_to_pillow() {
    let cases: Vec<ResampleCase> = serde_json::from_slice(&read_golden("formats/resample.json")).expect("JSON");
    assert!(cases.len() >= 60);
    for case in cases {
        let image = match case.pattern.as_str() {
            "wave" => wave(case.height as usize, case.width as usize),
            _ => noise(case.seed, case.width, case.height),
        };
        let size = (case.out_width, case.out_height);
        let all = Window { x: 0, y: 0, width: size.0, height: size.1 };
        let what =
            format!("{} {}x{} to {}x{} {:?}", case.pattern, case.width, case.height, size.0, size.1, case.filter);
        let whole = resample_rgb(&image, size, case.filter, all);
        assert_eq!(sha256(whole.as_raw()), case.sha256, "{what}");

        // A window is the same pixels, cut out.
        let part = Window { x: size.0 / 3, y: size.1 / 4, width: size.0.div_ceil(2), height: size.1.div_ceil(2) };
        let cut =
            image::imageops::crop_imm(&whole, part.x as u32, part.y as u32, part.width as u32, part.height as u32);
        assert!(resample_rgb(&image, size, case.filter, part) == cut.to_image(), "a window of {what}");
    }
}

#[derive(Deserialize)]
struct FormatCase {
    name: String,
    width: u32,
    height: u32,
    rgb_sha256: String,
    upright_sha256: String,
    white_sha256: Option<String>,
    exact: bool,
    expected_png: Option<String>,
}

fn formats() -> Vec<FormatCase> {
    serde_json::from_slice(&read_golden("formats/expected.json")).expect("JSON")
}

#[test]
fn every_format_decodes_as_in_pillow() {
    let upright = DecodeOptions { exif: true, ..LIKE_PILLOW };
    let white = DecodeOptions { background: Background::White, ..LIKE_PILLOW };
    let mut wrong = Vec::new();
    for case in formats() {
        let bytes = read_golden(&format!("formats/{}", case.name));
        let image = match decode(&bytes, LIKE_PILLOW, LIMITS) {
            Ok(image) => image,
            Err(error) => {
                wrong.push(format!("{}: {error}", case.name));
                continue;
            }
        };
        assert_eq!(image.dimensions(), (case.width, case.height), "{}", case.name);
        let mut check = |what: &str, options, expected: &str| {
            let found = decode(&bytes, options, LIMITS).expect("decodes twice");
            if sha256(found.as_raw()) != expected {
                let largest = case.expected_png.as_ref().map(|png| {
                    let expected = golden_png(&format!("formats/{png}"));
                    image.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).max()
                });
                wrong
                    .push(format!("{} {what} (exact in principle: {}): differs by {largest:?}", case.name, case.exact));
            }
        };
        check("as stored", LIKE_PILLOW, &case.rgb_sha256);
        check("upright", upright, &case.upright_sha256);
        if let Some(expected) = &case.white_sha256 {
            check("on white", white, expected);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
