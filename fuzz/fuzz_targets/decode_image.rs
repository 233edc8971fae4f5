//! Any bytes as an image file: decoded whole and reduced, resized to a model's grid, and made a
//! thumbnail.
//!
//! An input is the plain file, so that any image can be a seed. The options follow from its length.
//!
//! The service treats a panic in a decoder's crate as a damaged file, and so does this target. A
//! panic in our code is a failure, as are memory errors, hangs and excessive allocations anywhere.

#![no_main]

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use dinoserve::vision::{
    Background, DecodeLimits, DecodeOptions, Levels, PatchSize, ResampleFilter, ResizeMode, Size,
    Transform, decode_fast, decode_whole, decoding_bytes, thumbnail,
};
use libfuzzer_sys::fuzz_target;

/// Small, so that runs are short and the limits are reached.
const LIMITS: DecodeLimits = DecodeLimits {
    max_pixels: 1 << 20,
    max_side: 4096,
};

const PATCH: PatchSize = PatchSize::new(14);

static HOOK: Once = Once::new();

fuzz_target!(|file: &[u8]| {
    HOOK.call_once(ignore_decoder_panics);
    let backgrounds = [Background::White, Background::Black, Background::Ignore];
    let modes = [ResizeMode::Crop, ResizeMode::Fit, ResizeMode::Squash];
    let filters = [ResampleFilter::Bicubic, ResampleFilter::Bilinear];
    let options = DecodeOptions {
        exif: !file.len().is_multiple_of(5),
        background: backgrounds[file.len() % 3],
        levels: if file.len().is_multiple_of(7) {
            Levels::Data
        } else {
            Levels::Type
        },
    };
    let transform = Transform {
        mode: modes[file.len() / 3 % 3],
        size: 56,
        filter: filters[file.len() / 9 % 2],
        patch: PATCH,
        max_patches: 1024,
        shrinks: file.len().is_multiple_of(2),
    };

    let decoded = panic::catch_unwind(AssertUnwindSafe(|| {
        (
            decode_whole(file, options, LIMITS),
            decode_fast(file, options, LIMITS, &transform),
        )
    }));
    let Ok(decoded) = decoded else { return };
    let (whole, reduced) = match decoded {
        (Ok(whole), Ok(reduced)) => (whole, reduced),
        (Err(_), Err(_)) => return,
        (whole, fast) => panic!(
            "only one of both ways decodes the file: {:?} {:?}",
            whole.err(),
            fast.err()
        ),
    };

    let size = whole.full_size;
    LIMITS
        .check(size)
        .expect("files above the limits are rejected");
    assert_eq!(reduced.full_size, size);
    let memory = decoding_bytes(file, options, LIMITS, &transform, false).expect("it is decoded");
    assert!(memory >= 3 * (size.width * size.height) as u64);

    let planned = transform.plan(size).ok();
    let as_stored = transform.apply_to_decoded(&whole);
    let fast = transform.apply_to_decoded(&reduced);
    let whole = whole.into_upright();
    let reduced = reduced.into_upright();
    assert_eq!(Size::of(&whole), size);
    assert!(reduced.width() <= whole.width() && reduced.height() <= whole.height());
    let upright = transform.apply(&whole);
    if let (Ok((as_stored, _)), Ok((upright, _))) = (&as_stored, &upright) {
        assert!(as_stored == upright, "a turned copy gives other pixels");
    }
    for applied in [upright, as_stored, fast] {
        assert_eq!(
            applied.as_ref().ok().map(|(_, grid)| *grid),
            planned.map(|plan| plan.grid)
        );
        let Ok((pixels, grid)) = applied else {
            continue;
        };
        assert_eq!(Size::of(&pixels), grid.pixels(PATCH));
    }
    thumbnail(&whole, 32).expect("every image has a thumbnail");
});

/// Puts a hook before the fuzzer's, which would end the process at any panic.
fn ignore_decoder_panics() {
    const DECODERS: [&str; 12] = [
        "/aom-decode-",
        "/fax-",
        "/fdeflate-",
        "/flate2-",
        "/gif-",
        "/image-",
        "/miniz_oxide-",
        "/mp4-atom-",
        "/png-",
        "/qoi-",
        "/weezl-",
        "/zune-jpeg-",
    ];
    let abort = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let ignored = info
            .location()
            .is_some_and(|at| DECODERS.iter().any(|name| at.file().contains(name)));
        if !ignored {
            abort(info);
        }
    }));
}
