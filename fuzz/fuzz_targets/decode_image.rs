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
    Background, DecodeLimits, DecodeOptions, ResampleFilter, ResizeMode, Transform, decode,
    decode_fast, thumbnail,
};
use libfuzzer_sys::fuzz_target;

/// Small, so that runs are short and the limits are reached.
const LIMITS: DecodeLimits = DecodeLimits {
    max_pixels: 1 << 20,
    max_side: 4096,
};

static HOOK: Once = Once::new();

fuzz_target!(|file: &[u8]| {
    HOOK.call_once(ignore_decoder_panics);
    let backgrounds = [Background::White, Background::Black, Background::Ignore];
    let modes = [ResizeMode::Crop, ResizeMode::Fit, ResizeMode::Squash];
    let filters = [ResampleFilter::Bicubic, ResampleFilter::Bilinear];
    let options = DecodeOptions {
        exif: file.len() % 5 != 0,
        background: backgrounds[file.len() % 3],
    };
    let (mode, filter) = (modes[file.len() / 3 % 3], filters[file.len() / 9 % 2]);
    let transform = Transform {
        mode,
        size: 56,
        filter,
        max_patches: 1024,
    };

    let decoded = panic::catch_unwind(AssertUnwindSafe(|| {
        (
            decode(file, options, LIMITS),
            decode_fast(file, options, LIMITS, &transform),
        )
    }));
    let Ok(decoded) = decoded else { return };
    let (whole, reduced, size) = match decoded {
        (Ok(whole), Ok((reduced, size))) => (whole, reduced, size),
        (Err(_), Err(_)) => return,
        (whole, fast) => panic!(
            "only one of both ways decodes the file: {:?} {:?}",
            whole.err(),
            fast.err()
        ),
    };

    let (width, height) = (u64::from(whole.width()), u64::from(whole.height()));
    LIMITS
        .check(width, height)
        .expect("files above the limits are rejected");
    assert_eq!((width as usize, height as usize), size);
    assert!(reduced.width() <= whole.width() && reduced.height() <= whole.height());

    let planned = transform.plan(size.0, size.1).ok();
    for applied in [
        transform.apply(&whole),
        transform.apply_to_reduced(&reduced, size),
    ] {
        assert_eq!(
            applied.as_ref().ok().map(|(_, grid)| *grid),
            planned.map(|plan| plan.grid)
        );
        let Ok((pixels, grid)) = applied else {
            continue;
        };
        assert_eq!(
            (pixels.height() as usize, pixels.width() as usize),
            grid.pixels()
        );
    }
    thumbnail(&whole, 32).expect("every image has a thumbnail");
});

/// Puts a hook before the fuzzer's, which would end the process at any panic.
fn ignore_decoder_panics() {
    const DECODERS: [&str; 9] = [
        "/fax-",
        "/fdeflate-",
        "/gif-",
        "/image-",
        "/miniz_oxide-",
        "/png-",
        "/tiff-",
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
