//! Micro-benchmarks of the stages before and after the model: `cargo bench -p dinoserve-loadtest`.

use dinoserve::{
    features::{
        anomaly::{Bank, Calibration, Detector, GoodImages},
        pca::{self, Foreground},
        render::{self, Colormap, Output, Style, Upscale},
    },
    gallery::{
        Binding, Gallery, GalleryConfig, GalleryName, ItemId, Metadata, NewItem, OpenMode, Search,
        open,
    },
    vision::{
        DecodeLimits, DecodeOptions, Grid, PatchSize, ResampleFilter, ResizeMode, RgbImage,
        Transform, decode, decode_fast,
    },
};
use divan::{Bencher, black_box};
use ndarray::Array2;

const ROCKET: &[u8] = include_bytes!("../../tests/golden/dinov2-small-focus/rocket.jpg");
const MAP: Grid = Grid {
    height: 37,
    width: 37,
};

fn main() {
    divan::main();
}

fn transform(size: usize) -> Transform {
    Transform {
        mode: ResizeMode::Crop,
        size,
        filter: ResampleFilter::Bicubic,
        patch: PatchSize::new(14),
        max_patches: 4096,
        shrinks: false,
    }
}

fn rocket() -> RgbImage {
    decode(ROCKET, DecodeOptions::default(), DecodeLimits::default())
        .expect("the test image decodes")
}

/// Makes a JPEG of 12 megapixels, the size of phone images.
fn large_jpeg() -> Vec<u8> {
    let large =
        image::imageops::resize(&rocket(), 4000, 3000, image::imageops::FilterType::Triangle);
    let mut file = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 90)
        .encode_image(&large)
        .expect("a JPEG");
    file
}

/// Makes reproducible tokens with a few strong directions, like patch tokens.
fn tokens(rows: usize) -> Array2<f32> {
    let mut state = 1u32;
    let mut noise = |rows, columns| {
        Array2::from_shape_simple_fn((rows, columns), || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
    };
    let strong = noise(rows, 12);
    let directions = noise(12, 384);
    let rest = noise(rows, 384);
    strong.dot(&(directions * 3.0)) + rest
}

#[divan::bench]
fn decode_640x427() -> RgbImage {
    rocket()
}

#[divan::bench]
fn decode_12_megapixels(bencher: Bencher<'_, '_>) {
    let file = large_jpeg();
    bencher.bench(|| {
        decode(
            black_box(&file),
            DecodeOptions::default(),
            DecodeLimits::default(),
        )
    });
}

#[divan::bench]
fn decode_12_megapixels_fast(bencher: Bencher<'_, '_>) {
    let file = large_jpeg();
    let transform = transform(224);
    bencher.bench(|| {
        decode_fast(
            black_box(&file),
            DecodeOptions::default(),
            DecodeLimits::default(),
            &transform,
        )
    });
}

#[divan::bench(args = [224, 518])]
fn resize_640x427(bencher: Bencher<'_, '_>, size: usize) {
    let image = rocket();
    bencher.bench(|| transform(size).apply(black_box(&image)));
}

#[divan::bench(args = [256, 1369, 4096])]
fn pca_of_patches(bencher: Bencher<'_, '_>, patches: usize) {
    let tokens = tokens(patches);
    bencher.bench(|| pca::maps(&[black_box(tokens.view())], &[], 3, Foreground::None));
}

/// Thresholds an attention map to the patches that carry a share of the mass.
#[divan::bench(args = [256, 1369, 4096])]
fn top_patches(bencher: Bencher<'_, '_>, patches: usize) {
    let tokens = tokens(patches);
    let map = tokens.column(0).mapv(f32::abs);
    bencher.with_inputs(|| map.clone()).bench_values(|mut map| {
        dinoserve::features::attention::keep_mass(map.view_mut(), 0.6);
        map
    });
}

/// Searches the ten nearest of `count` vectors of width 384 through the store.
#[divan::bench(args = [1_000, 10_000, 100_000])]
fn nearest_ten(bencher: Bencher<'_, '_>, count: usize) {
    let tokio = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let location = folder.path().to_string_lossy().into_owned();
    let gallery = tokio.block_on(gallery_of(&location, &tokens(count)));
    let search = Search {
        exact: true,
        ..Search::new(vec![384f32.sqrt().recip(); 384], 10)
    };
    bencher.bench(|| {
        tokio.block_on(gallery.search(&GalleryName::default(), black_box(search.clone())))
    });
}

async fn gallery_of(location: &str, vectors: &Array2<f32>) -> Gallery {
    let gallery = open(location, &GalleryConfig::default(), OpenMode::Serve)
        .await
        .expect("a gallery");
    let binding: Binding = serde_json::from_value(serde_json::json!({
        "model": "none", "fingerprint": "none", "dim": 384, "pooling": "cls", "layers": 1,
        "size": 224, "resize": "crop", "filter": "bicubic", "exif": true, "background": "white",
    }))
    .expect("a binding");
    let rows = vectors.rows().into_iter().enumerate();
    let items = rows
        .map(|(index, row)| NewItem {
            id: ItemId::new(index.to_string()).expect("an id"),
            label: None,
            metadata: Metadata::default(),
            vector: (&row / row.dot(&row).sqrt()).to_vec(),
            features: None,
            thumbnail: None,
        })
        .collect();
    gallery
        .put(&GalleryName::default(), &binding, items)
        .await
        .expect("the disk has room");
    gallery
}

#[divan::bench]
fn draw_518(bencher: Bencher<'_, '_>) {
    let (map, style, image) = pca_map();
    bencher.bench(|| render::draw(black_box(&map), 3, MAP, &image, style, Colormap::Gray));
}

#[divan::bench]
fn png_518(bencher: Bencher<'_, '_>) {
    let (map, style, image) = pca_map();
    let rendering = render::draw(&map, 3, MAP, &image, style, Colormap::Gray);
    bencher.bench(|| render::png(black_box(&rendering)));
}

/// Makes a PCA map, how to draw it, and the image below it.
fn pca_map() -> (Vec<f32>, Style, RgbImage) {
    let tokens = tokens(MAP.patches());
    let maps = pca::maps(&[tokens.view()], &[], 3, Foreground::None).expect("maps");
    let style = Style {
        output: Output::Input,
        upscale: Upscale::Nearest,
        overlay: 1.0,
    };
    (
        maps.maps[0].iter().copied().collect(),
        style,
        RgbImage::new(518, 518),
    )
}

/// Writes an embedding as the numbers of a JSON response.
#[divan::bench]
fn json_of_384_numbers(bencher: Bencher<'_, '_>) {
    let vector: Vec<f32> = tokens(1).row(0).to_vec();
    bencher.bench(|| serde_json::to_vec(black_box(&vector)));
}

/// Unit vectors of this many entries, as banks have them: an image is scored with a bank of these.
#[divan::bench(args = [3_422, 25_000, 100_000])]
fn score_with_a_bank(bencher: Bencher<'_, '_>, entries: usize) {
    let mut good = GoodImages::new(384);
    let all = tokens(entries + 1024);
    let (learned, image) = all.view().split_at(ndarray::Axis(0), entries);
    good.add(learned, 0, usize::MAX);
    let bank = Bank {
        good,
        chosen: (0..entries as u32).collect(),
        calibration: Calibration::default(),
    };
    let detector = Detector::new(&bank);
    bencher.bench_local(|| black_box(detector.distances(image)));
}

#[divan::bench(sample_count = 3)]
fn choose_a_tenth_of_100_000_patches(bencher: Bencher<'_, '_>) {
    let mut good = GoodImages::new(384);
    good.add(tokens(100_000).view(), 0, usize::MAX);
    bencher
        .with_inputs(|| good.clone())
        .bench_local_values(|good| black_box(Bank::learn(good, 0.1, &mut |_| true)));
}
