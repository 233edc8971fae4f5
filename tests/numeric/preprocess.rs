//! Decoding and resampling, compared with Pillow.

use dinoserve::vision::{
    Background, DecodeLimits, DecodeOptions, Levels, ResampleFilter, ResizeMode, RgbImage, Size,
    Transform, Window, decode, decode_fast, decoding_bytes, resample_rgb,
};
use serde::Deserialize;

use crate::support::{PATCH, SAMPLES, golden_png, read_golden, sha256, wave};

pub(super) const LIMITS: DecodeLimits = DecodeLimits {
    max_pixels: 50_000_000,
    max_side: 65_535,
};
pub(super) const LIKE_PILLOW: DecodeOptions = DecodeOptions {
    exif: false,
    background: Background::Ignore,
    levels: Levels::Type,
};

fn transform(mode: ResizeMode, size: usize, filter: ResampleFilter) -> Transform {
    Transform {
        mode,
        size,
        filter,
        patch: PATCH,
        max_patches: 4096,
        shrinks: false,
    }
}

#[test]
fn preprocessed_pixels_equal_the_reference() {
    let modes = [
        (
            "crop224",
            transform(ResizeMode::Crop, 224, ResampleFilter::Bicubic),
        ),
        (
            "squash518_bilinear",
            transform(ResizeMode::Squash, 518, ResampleFilter::Bilinear),
        ),
        (
            "fit448",
            transform(ResizeMode::Fit, 448, ResampleFilter::Bicubic),
        ),
    ];
    for sample in SAMPLES {
        let image = decode(
            &read_golden(&format!("dinov2-small-focus/{sample}")),
            LIKE_PILLOW,
            LIMITS,
        )
        .expect("decodes");
        for (name, transform) in modes {
            let (found, grid) = transform.apply(&image).expect("a valid transform");
            let stem = sample.split('.').next().unwrap();
            let expected = golden_png(&format!("dinov2-small-focus/{stem}_{name}_input.png"));
            assert_eq!(Size::of(&found), grid.pixels(PATCH));
            assert!(
                found == expected,
                "{sample} {name} differs from the reference"
            );
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
    filter: ResampleFilter,
    sha256: String,
}

/// Returns the noise of `formats/make.py`: the high byte of a linear congruential generator.
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
    let cases: Vec<ResampleCase> =
        serde_json::from_slice(&read_golden("formats/resample.json")).expect("JSON");
    assert!(cases.len() >= 60);
    for case in cases {
        let image = match case.pattern.as_str() {
            "wave" => wave(case.height as usize, case.width as usize),
            _ => noise(case.seed, case.width, case.height),
        };
        let size = Size {
            width: case.out_width,
            height: case.out_height,
        };
        let what = format!(
            "{} {}x{} to {}x{} {:?}",
            case.pattern, case.width, case.height, size.width, size.height, case.filter
        );
        let whole = resample_rgb(&image, size, case.filter, Window::whole(size));
        assert_eq!(sha256(whole.as_raw()), case.sha256, "{what}");

        // A window has the same pixels as the whole.
        let part = Window {
            x: size.width / 3,
            y: size.height / 4,
            width: size.width.div_ceil(2),
            height: size.height.div_ceil(2),
        };
        let cut = image::imageops::crop_imm(
            &whole,
            part.x as u32,
            part.y as u32,
            part.width as u32,
            part.height as u32,
        );
        assert!(
            resample_rgb(&image, size, case.filter, part) == cut.to_image(),
            "a window of {what}"
        );
    }
}

#[test]
fn an_excessive_size_is_rejected_from_the_header() {
    let limits = DecodeLimits {
        max_pixels: 97 * 55 - 1,
        ..LIMITS
    };
    for name in [
        "jpeg_420.jpg",
        "png_rgb8.png",
        "webp_lossy.webp",
        "gif_plain.gif",
        "bmp_24.bmp",
        "tiff_raw.tif",
    ] {
        let mut bytes = read_golden(&format!("formats/{name}"));
        // The file ends after the header.
        if !name.ends_with(".tif") {
            bytes.truncate(bytes.len() / 2);
        }
        let error = decode(&bytes, LIKE_PILLOW, limits).expect_err("too large");
        assert_eq!(
            error.kind(),
            dinoserve::error::Kind::TooLarge,
            "{name}: {error}"
        );
        assert!(error.detail().contains("97×55"), "{error}");
    }
}

#[test]
fn a_long_side_and_a_larger_frame_are_rejected() {
    let thin = image::GrayImage::new(70_000, 1);
    let mut file = std::io::Cursor::new(Vec::new());
    thin.write_to(&mut file, image::ImageFormat::Png).unwrap();
    let error = decode(file.get_ref(), LIKE_PILLOW, LIMITS).expect_err("too long");
    assert!(
        error
            .detail()
            .contains("70000×1, a side longer than the limit of 65535"),
        "{error}"
    );

    // A GIF of 1×1 with a frame of 13000×13000.
    let mut gif = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff\x2c\0\0\0\0".to_vec();
    gif.extend_from_slice(&13_000u16.to_le_bytes());
    gif.extend_from_slice(&13_000u16.to_le_bytes());
    gif.extend_from_slice(b"\0\x02\x02\x4c\x01\0\x3b");
    let error = decode(&gif, LIKE_PILLOW, LIMITS).expect_err("too large");
    assert!(
        error.detail().contains("13000×13000 = 169000000 pixels"),
        "{error}"
    );
}

#[test]
fn content_larger_than_announced_is_rejected_before_decoding() {
    let chunk =
        |kind: &[u8], data: &[u8]| [kind, &(data.len() as u32).to_le_bytes(), data].concat();
    let file = |chunks: &[u8]| {
        [
            b"RIFF",
            &(chunks.len() as u32 + 4).to_le_bytes()[..],
            b"WEBP",
            chunks,
        ]
        .concat()
    };
    let canvas = |flags: u8| chunk(b"VP8X", &[flags, 0, 0, 0, 15, 0, 0, 15, 0, 0]);
    let lossy = chunk(b"VP8 ", b"\x50\x25\0\x9d\x01\x2a\xff\x3f\xff\x3f\0\0");
    let lossless = chunk(b"VP8L", b"\x2f\xff\xff\xff\x0f\0");
    let frame = |picture: &[u8]| {
        let head = [0, 0, 0, 0, 0, 0, 15, 0, 0, 15, 0, 0, 100, 0, 0, 0];
        [
            chunk(b"ANIM", &[0; 6]),
            chunk(b"ANMF", &[&head, picture].concat()),
        ]
        .concat()
    };
    for (bytes, printed) in [
        (
            file(&[canvas(0), lossy.clone()].concat()),
            "its image is 16383×16383, and the canvas 16×16",
        ),
        (
            file(&[canvas(0), lossless].concat()),
            "its image is 16384×16384, and the canvas 16×16",
        ),
        (
            file(&[canvas(2), frame(&lossy)].concat()),
            "its image is 16383×16383, and the frame 16×16",
        ),
    ] {
        let error = decode(&bytes, LIKE_PILLOW, LIMITS).expect_err("a lie");
        assert!(error.detail().contains(printed), "{error}");
    }

    let deep = image::DynamicImage::new_rgba16(30, 30);
    let mut file = std::io::Cursor::new(Vec::new());
    deep.write_to(&mut file, image::ImageFormat::Png).unwrap();
    let limits = |max_pixels| DecodeLimits {
        max_pixels,
        ..LIMITS
    };
    decode(file.get_ref(), LIKE_PILLOW, limits(1800)).expect("as much memory as 1800 of 4 bytes");
    let error = decode(file.get_ref(), LIKE_PILLOW, limits(1799)).expect_err("more");
    assert_eq!(error.kind(), dinoserve::error::Kind::TooLarge);
    assert!(
        error
            .detail()
            .contains("900 pixels of 8 bytes, and the limit is 1799 of 4 bytes"),
        "{error}"
    );
}

#[test]
fn a_jpeg_with_a_harmless_defect_decodes_as_in_pillow() {
    let whole = read_golden("formats/jpeg_420.jpg");
    let expected = decode(&whole, LIKE_PILLOW, LIMITS).unwrap();
    // The scan header ends at coefficient 62; libjpeg warns and goes on.
    let mut odd = whole.clone();
    let scan = odd
        .windows(2)
        .position(|marker| marker == [0xFF, 0xDA])
        .unwrap();
    let length = usize::from(odd[scan + 3]);
    assert_eq!(odd[scan + length..scan + length + 2], [63, 0]);
    odd[scan + length] = 62;
    assert!(decode(&odd, LIKE_PILLOW, LIMITS).unwrap() == expected);
    // Bytes after the end are harmless; a missing end is an error.
    let mut longer = whole.clone();
    longer.extend_from_slice(b"\0\0\0\0");
    assert!(decode(&longer, LIKE_PILLOW, LIMITS).unwrap() == expected);
    let error = decode(&whole[..whole.len() - 200], LIKE_PILLOW, LIMITS).expect_err("cut off");
    assert!(
        error.detail().contains("the JPEG cannot be decoded"),
        "{error}"
    );
}

proptest::proptest! {
    /// No size panics, overflows or takes long; every plan is within the limit.
    #[test]
    fn any_size_is_planned_or_rejected(
        width in 1usize..70_000,
        height in 1usize..70_000,
        size: usize,
        small in 0usize..3000,
        mode in 0..3,
    ) {
        let mode = [ResizeMode::Crop, ResizeMode::Fit, ResizeMode::Squash][mode as usize];
        for size in [size, small] {
            let transform = transform(mode, size, ResampleFilter::Bicubic);
            if let Ok(plan) = transform.plan(Size { width, height }) {
                proptest::prop_assert!(plan.grid.patches() <= 4096 && plan.grid.patches() > 0);
                proptest::prop_assert!(plan.window.x + plan.window.width <= plan.resized.width);
                proptest::prop_assert!(plan.window.y + plan.window.height <= plan.resized.height);
            }
        }
    }
}

#[test]
fn a_jpeg_is_decoded_no_larger_than_a_shrunken_size_needs() {
    // 14×24 pixels are resized from a quarter of 97×55.
    let shrinking = Transform {
        max_patches: 4,
        shrinks: true,
        ..transform(ResizeMode::Fit, 518, ResampleFilter::Bicubic)
    };
    let bytes = read_golden("formats/jpeg_420.jpg");
    let image = decode_fast(&bytes, LIKE_PILLOW, LIMITS, &shrinking).expect("decodes");
    assert_eq!(Size::of(&image.into_upright()), Size::new(25, 14));
}

/// Returns the memory of decoding alone, in bytes: with a size below a patch nothing is resized.
fn bytes_to_decode(file: &[u8], limits: DecodeLimits) -> dinoserve::error::Result<u64> {
    let transform = transform(ResizeMode::Squash, 1, ResampleFilter::Bicubic);
    decoding_bytes(file, LIKE_PILLOW, limits, &transform, false)
}

#[test]
fn images_of_phones_pass_the_default_limits() {
    let limits = DecodeLimits::default();
    let jpeg = |width: u16, height: u16| {
        let mut file = read_golden("formats/jpeg_420.jpg");
        let frame = file.windows(2).position(|pair| pair == [0xFF, 0xC0]);
        let size = frame.expect("a frame header") + 5;
        file[size..size + 2].copy_from_slice(&height.to_be_bytes());
        file[size + 2..size + 4].copy_from_slice(&width.to_be_bytes());
        file
    };
    let qoi = |width: u16, height: u16| {
        let sides = [width, height].map(|side| u32::from(side).to_be_bytes());
        [b"qoif", sides.as_flattened(), &[3, 0]].concat()
    };
    for (width, height, pixels) in [(8160, 6144, 50_135_040), (12_000, 9_000, 108_000_000)] {
        let bytes = bytes_to_decode(&jpeg(width, height), limits).expect("a JPEG");
        assert_eq!(bytes, 3 * pixels);
        let file = qoi(width, height);
        let bytes = bytes_to_decode(&file, limits).expect("a QOI");
        assert_eq!(bytes, 3 * pixels + file.len() as u64);
    }
    for file in [jpeg(11_000, 11_000), qoi(11_000, 11_000)] {
        let error = bytes_to_decode(&file, limits).expect_err("121 megapixels");
        assert_eq!(error.kind(), dinoserve::error::Kind::TooLarge);
    }
}

/// The figures of `docs/tuning.md`.
#[test]
fn decoding_takes_the_documented_bytes_for_a_pixel() {
    for (name, expected) in [
        ("jpeg_420.jpg", 3),
        ("jpeg_420_progressive.jpg", 6),
        ("jpeg_cmyk.jpg", 7),
        ("webp_lossy.webp", 11),
        ("webp_lossy_alpha.webp", 12),
        ("gif_plain.gif", 5),
        ("gif_transparent.gif", 7),
        ("tiff_grey8.tif", 4),
        ("tiff_palette.tif", 4),
        ("tiff_palette_alpha.tif", 7),
        ("tiff_la.tif", 5),
        // Of one strip, which is unpacked whole.
        ("tiff_deflate.tif", 6),
        ("tiff_cmyk.tif", 8),
        ("tiff_rgba.tif", 8),
        ("avif/420_8_opaque_full.avif", 15),
        ("avif/444_12_alpha_full.avif", 22),
    ] {
        let file = read_golden(&format!("formats/{name}"));
        let size = Size::of(&decode(&file, LIKE_PILLOW, LIMITS).expect("decodes"));
        let bytes = bytes_to_decode(&file, LIMITS).expect("decodes");
        let pixels = (size.width * size.height) as u64;
        assert_eq!(
            bytes,
            expected * pixels,
            "{name}: {}",
            bytes as f64 / pixels as f64
        );
    }
    // A strip of JPEG data is a file, pixels and coefficients next to its samples.
    let file = read_golden("formats/tiff_jpeg_without_end.tif");
    let bytes = bytes_to_decode(&file, LIMITS).expect("a TIFF");
    assert_eq!(bytes, 33 * 20 * (3 + 4 * 3) + file.len() as u64);
}
