//! Models of other families over HTTP: other patches, positions and registers.

use dinoserve::{artifacts::ModelFile, http::HttpConfig, model::PositionRule, onnx::Precision};
use image::ImageFormat;
use ndarray::ArrayD;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::support::{
    Tensors, convert_file, difference, family_spec, golden, scratch,
    server::{Server, floats, new_gallery, npy, ok_bytes, ok_json, problem},
    wave,
};

pub(super) fn model(family: &str, file: &str) -> ModelFile {
    let to = scratch("family").join("model.onnx");
    let from = golden(&format!("{family}/{file}"));
    convert_file(&family_spec(family), &from, Precision::Fp32, &to).expect("conversion");
    ModelFile::open(&to, PositionRule::Hub).expect("a model")
}

fn png(height: usize, width: usize) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = wave(height, width);
    image.write_to(&mut bytes, ImageFormat::Png).expect("a PNG");
    bytes.into_inner()
}

/// References, a weight file in them, and the size of an image.
type Family = (&'static str, &'static str, (usize, usize));

/// With patch, heads and registers of the model.
const FAMILIES: [(Family, [usize; 3]); 4] = [
    (("tiny-dino1-p8", "model.safetensors", (72, 200)), [8, 2, 0]),
    (
        ("tiny-dino1", "full_checkpoint.pth", (112, 448)),
        [16, 2, 0],
    ),
    (
        ("tiny-vit", "timm/model.safetensors", (288, 160)),
        [16, 2, 0],
    ),
    (("tiny-dinov3", "hub_pretrain.pth", (256, 112)), [16, 3, 4]),
];

#[tokio::test]
async fn every_route_follows_the_patch_and_the_tokens_of_the_model() {
    for ((family, file, (height, width)), [patch, heads, registers]) in FAMILIES {
        let model = model(family, file);
        let server = Server::start_on(new_gallery().await, model, HttpConfig::default()).await;
        let models = ok_json(server.get("/v1/models")).await;
        let described = &models["data"][0];
        let expected = match family {
            "tiny-vit" => "vit",
            "tiny-dinov3" => "dinov3",
            _ => "dino",
        };
        assert_eq!(described["family"], expected);
        assert_eq!(described["patch"], patch);
        assert_eq!(described["registers"], registers);

        // Of the size of the reference, an image is not resized.
        let size = format!("size={}&resize=fit", height.min(width));
        let picture = png(height, width);
        let request = |path: &str| {
            let path = match path.contains('?') {
                true => format!("{path}&{size}"),
                false => format!("{path}?{size}"),
            };
            let request = server.post(&path).header("content-type", "image/png");
            request.body(picture.clone())
        };
        let grid = (height / patch, width / patch);
        let references = Tensors::read(&format!("{family}/expected_{height}x{width}.safetensors"));
        let embedding = ok_json(request("/v1/embed?normalize=false")).await;
        let embedding = floats(&embedding["data"][0]["embedding"]);
        let (largest, _) = difference(&embedding, references.get("cls"));
        assert!(largest <= 2e-4, "{family}: {largest}");

        let as_npy = |path: &str| request(path).header("accept", "application/x-npy");
        let attention = npy(&ok_bytes(as_npy("/v1/attention?head=all")).await);
        assert_eq!(attention.shape(), [heads, grid.0, grid.1], "{family}");
        let reference = references.get("attention");
        let of_patches: Vec<f32> = reference
            .outer_iter()
            .flat_map(|row| {
                row.iter()
                    .skip(1 + registers)
                    .copied()
                    .collect::<Vec<f32>>()
            })
            .collect();
        let of_patches = ArrayD::from_shape_vec(attention.shape(), of_patches).expect("the shape");
        let share = |map: &ArrayD<f32>| map / map.sum();
        let (largest, _) = difference(&share(&attention), &share(&of_patches));
        assert!(largest <= 1e-5, "{family}: {largest}");

        let map = image::load_from_memory(&ok_bytes(request("/v1/pca")).await).expect("a PNG");
        let expected = ((grid.1 * patch) as u32, (grid.0 * patch) as u32);
        assert_eq!((map.width(), map.height()), expected, "{family}");
        let similarity = npy(&ok_bytes(as_npy("/v1/similarity?patch=1,2")).await);
        assert_eq!(similarity.shape(), [grid.0, grid.1], "{family}");
        assert!((similarity[[1, 2]] - 1.0).abs() < 1e-5, "{family}");

        let uneven = server.post("/v1/embed?size=100&resize=squash");
        let uneven = uneven
            .header("content-type", "image/png")
            .body(picture.clone());
        let (status, body) = problem(uneven).await;
        let detail = body["detail"].as_str().unwrap_or_default();
        let expected = format!("100 is not a multiple of the patch size {patch}");
        assert!(
            status == 422 && detail.contains(&expected),
            "{family}: {body}"
        );
        let form = Form::new().part("image", Part::bytes(picture.clone()));
        let basis = server.put(&format!("/v1/bases/wave?components=3&{size}"));
        let basis = ok_json(basis.multipart(form)).await;
        assert_eq!(basis["patches"], json!(grid.0 * grid.1), "{family}");
    }
}
