//! Segmenters over HTTP, compared with scikit-learn's; bad masks.

use dinoserve::{features::mask::LabelImage, vision::Size};
use dinoserve::{features::segmentation::Confusion, http::HttpConfig};
use ndarray::Axis;
use reqwest::{
    RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::support::{
    Tensors, focus, read_golden,
    server::{Server, new_gallery, npy, ok, ok_bytes, ok_json, problem},
};

const SIDE: usize = 224;

async fn focus_server() -> Server {
    Server::start_on(new_gallery().await, focus().clone(), HttpConfig::default()).await
}

/// Returns a picture of the golden and its mask.
fn picture(name: &str) -> (Vec<u8>, Vec<u8>) {
    let read = |extension| read_golden(&format!("segmenter/{name}.{extension}"));
    (read("jpg"), read("png"))
}

fn train(server: &Server, path: &str, pictures: &[(Vec<u8>, Vec<u8>)]) -> RequestBuilder {
    let form = pictures.iter().fold(Form::new(), |form, (image, mask)| {
        let part = |file: &[u8], name: &str| Part::bytes(file.to_vec()).file_name(name.to_owned());
        form.part("image", part(image, "a.jpg"))
            .part("mask", part(mask, "a.png"))
    });
    server.put(path).multipart(form)
}

fn all() -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..4)
        .map(|index| picture(&format!("train_{index}")))
        .collect()
}

fn segment(server: &Server, path: &str, image: &[u8]) -> RequestBuilder {
    server
        .post(path)
        .header("content-type", "image/jpeg")
        .body(image.to_vec())
}

fn indices(file: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(file))
        .read_info()
        .unwrap();
    assert_eq!(reader.info().color_type, png::ColorType::Indexed);
    let mut indices = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut indices).unwrap();
    indices
}

#[tokio::test]
async fn pixels_have_the_classes_that_scikit_learn_finds() {
    let golden = Tensors::read("segmenter/segmenter.safetensors");
    let server = focus_server().await;
    let path = "/v1/segmenters/things?size=224&l2=100&wait=true";
    let made = ok_json(train(&server, path, &all())).await;
    assert_eq!(made["state"], "ready", "{made}");
    let about = &made["segmenter"];
    assert_eq!(about["classes"], json!([0, 1, 2]));
    assert_eq!((&about["images"], &about["l2"]), (&json!(4), &json!(100.0)));
    let labeled = golden
        .get("train_labels")
        .iter()
        .filter(|&&label| label != 255.0)
        .count();
    assert_eq!(about["patches"], labeled);

    let mut confusion = Confusion::default();
    for index in 0..2 {
        let (image, _) = picture(&format!("test_{index}"));
        let path = "/v1/segment?segmenter=things";
        let response = ok(segment(&server, path, &image)).await;
        assert_eq!(response.headers()["image-size"], "224");
        let mask = indices(&response.bytes().await.unwrap());
        let bytes = |name: &str| -> Vec<u8> {
            let tensor = golden.get(name).index_axis(Axis(0), index);
            tensor.iter().map(|&value| value as u8).collect()
        };
        let expected = bytes("maps");
        let same = mask
            .iter()
            .zip(&expected)
            .filter(|(one, other)| one == other)
            .count();
        // The reference rounds tokens to f16.
        assert!(
            same * 1000 > expected.len() * 997,
            "{same} of {}",
            expected.len()
        );
        let image_of = |labels| LabelImage::new(Size::square(SIDE), labels);
        confusion.add(&image_of(bytes("test_masks")), &image_of(mask.clone()));

        let found = ok_json(segment(&server, path, &image).header("accept", "application/json"));
        let found = found.await;
        assert_eq!(found["classes"].as_array().unwrap().len(), 3);
        for (class, described) in found["classes"].as_array().unwrap().iter().enumerate() {
            assert_eq!(described["class"], class);
            let area = mask
                .iter()
                .filter(|&&label| usize::from(label) == class)
                .count();
            let share = described["share"].as_f64().unwrap();
            assert!((share - area as f64 / (SIDE * SIDE) as f64).abs() < 1e-9);
            if area > 0 {
                assert_eq!(described["mask"]["area"], area);
                assert_eq!(described["mask"]["rle"]["size"], json!([SIDE, SIDE]));
            } else {
                assert_eq!(described["mask"], Value::Null);
            }
        }

        let logits = segment(&server, path, &image).header("accept", "application/x-npy");
        let logits = npy(&ok_bytes(logits).await);
        assert_eq!(logits.shape(), [3, SIDE, SIDE]);
        for (pixel, &label) in mask.iter().enumerate().step_by(97) {
            let at = |class: usize| logits[[class, pixel / SIDE, pixel % SIDE]];
            assert!((0..3).all(|class| at(class) <= at(usize::from(label))));
        }
        let overlay = ok_bytes(segment(&server, &format!("{path}&output=overlay"), &image)).await;
        assert!(image::load_from_memory(&overlay).is_ok());
    }
    let expected = golden.get("miou")[0];
    let found = confusion.mean_iou().unwrap() as f32;
    assert!((found - expected).abs() < 0.01, "{found} {expected}");
}

#[tokio::test]
async fn the_view_of_a_crop_ends_where_nothing_was_seen() {
    let server = focus_server().await;
    let path = "/v1/segmenters/square?size=112&resize=crop&l2=100&wait=true";
    ok(train(&server, path, &all())).await;
    let wide = image::RgbImage::from_fn(400, 200, |x, y| {
        image::Rgb([(x % 251) as u8, (y % 241) as u8, 90])
    });
    let mut file = Vec::new();
    let mut writer = std::io::Cursor::new(&mut file);
    wide.write_to(&mut writer, image::ImageFormat::Png).unwrap();
    let mask = indices(&ok_bytes(segment(&server, "/v1/segment?segmenter=square", &file)).await);
    assert_eq!((mask[100 * 400], mask[100 * 400 + 399]), (255, 255));
    assert!(mask[100 * 400 + 200] < 3);
}

#[tokio::test]
async fn segmenters_are_listed_replaced_and_deleted() {
    let server = focus_server().await;
    let path = "/v1/segmenters/s?size=112";
    let response = ok(train(&server, path, &all())).await;
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["location"], "/v1/segmenters/s");
    let path = "/v1/segmenters/s";
    crate::support::until(async || ok_json(server.get(path)).await["state"] == "ready").await;
    let about = ok_json(server.get(path)).await;
    // Few images are no sample to choose a strength by.
    assert_eq!(about["segmenter"]["l2"], 100.0, "{about}");
    let listed = ok_json(server.get("/v1/segmenters")).await;
    assert_eq!(listed["data"], json!([{"name": "s", "state": "ready"}]));
    // In JSON, and with more layers.
    let base64 = |file: &[u8]| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(file)
    };
    let pictures = all();
    let images: Vec<String> = pictures.iter().map(|(image, _)| base64(image)).collect();
    let masks: Vec<String> = pictures.iter().map(|(_, mask)| base64(mask)).collect();
    let body = json!({
        "images": images, "masks": masks, "layers": 4, "l2": 50, "size": 112, "wait": true,
    });
    let replaced = ok_json(server.put(path).json(&body)).await;
    assert_eq!(replaced["segmenter"]["layers"], 4);
    ok(segment(&server, "/v1/segment?segmenter=s", &pictures[0].0)).await;
    assert_eq!(ok(server.delete(path)).await.status(), 204);
    assert_eq!(problem(server.get(path)).await.0, 404);
    let gone = segment(&server, "/v1/segment?segmenter=s", &pictures[0].0);
    assert_eq!(problem(gone).await.0, 404);
}

/// A grey mask of the size of the pictures.
fn grey(value: impl Fn(u32, u32) -> u8) -> Vec<u8> {
    let image =
        image::GrayImage::from_fn(SIDE as u32, SIDE as u32, |x, y| image::Luma([value(x, y)]));
    let mut file = Vec::new();
    let mut writer = std::io::Cursor::new(&mut file);
    image
        .write_to(&mut writer, image::ImageFormat::Png)
        .unwrap();
    file
}

#[tokio::test]
async fn bad_masks_are_refused_with_the_reason() {
    let server = focus_server().await;
    let (image, mask) = picture("train_0");
    let with = |mask: Vec<u8>| vec![(image.clone(), mask)];
    let half = |value: u8, other: u8| grey(move |x, _| if x < 112 { value } else { other });
    let small = {
        let mut file = Vec::new();
        let mut writer = std::io::Cursor::new(&mut file);
        image::GrayImage::new(100, 50)
            .write_to(&mut writer, image::ImageFormat::Png)
            .unwrap();
        file
    };
    for (pictures, status, text) in [
        (with(grey(|_, _| 0)), 422, "the class 0 only"),
        (with(half(0, 255)), 422, "a mask of 0 and 255 has one class"),
        (with(grey(|_, _| 255)), 422, "name no class"),
        (with(grey(|_, _| 7)), 422, "the class 7 only"),
        (
            with(small),
            422,
            "the mask has 100×50 pixels, and its upright photograph 224×224",
        ),
        (with(image.clone()), 422, "a JPEG file, and a mask is a PNG"),
        (with(b"text".to_vec()), 422, "the mask cannot be read"),
        (
            vec![
                (image.clone(), mask.clone()),
                (image.clone(), image.clone()),
            ],
            422,
            "image 1: the mask cannot be read",
        ),
    ] {
        let path = "/v1/segmenters/s?size=112&wait=true";
        let (found, problem) = problem(train(&server, path, &pictures)).await;
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(found, status, "{text}: {detail}");
        assert!(detail.contains(text), "{text}: {detail}");
    }
    // Two classes that are named by other numbers than 0 and 1 are learned.
    let path = "/v1/segmenters/s?size=112&wait=true";
    let made = ok_json(train(&server, path, &with(half(3, 254)))).await;
    assert_eq!(made["segmenter"]["classes"], json!([3, 254]));
    assert_eq!(
        made["segmenter"]["accuracy"],
        Value::Null,
        "none was held out"
    );

    let part = |name: &str| Part::bytes(image.clone()).file_name(name.to_owned());
    let only_image = server
        .put(path)
        .multipart(Form::new().part("image", part("a.jpg")));
    let (status, one) = problem(only_image).await;
    assert_eq!(status, 400);
    assert!(
        one["detail"]
            .as_str()
            .unwrap()
            .contains("1 image and 0 masks"),
        "{one}"
    );
    let raw = server
        .put(path)
        .header("content-type", "image/jpeg")
        .body(image.clone());
    assert_eq!(problem(raw).await.0, 415);
    for (path, status, text) in [
        ("/v1/segmenters/s?layers=0", 422, "it must be 1 to 4"),
        ("/v1/segmenters/s?layers=5", 422, "it must be 1 to 4"),
        ("/v1/segmenters/s?l2=0", 422, "l2"),
        ("/v1/segmenters/s?folds=1", 422, "folds"),
        ("/v1/segmenters/s?coreset=1", 422, "unknown"),
    ] {
        let pictures = [(image.clone(), mask.clone())];
        let (found, problem) = problem(train(&server, path, &pictures)).await;
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(found, status, "{path}: {detail}");
        assert!(detail.contains(text), "{path}: {detail}");
    }
    for (path, status, text) in [
        ("/v1/segment", 422, "the name of a segmenter"),
        (
            "/v1/segment?segmenter=none",
            404,
            "there is no segmenter `none`",
        ),
        (
            "/v1/segment?segmenter=s&overlay=2",
            422,
            "it must be 0 to 1",
        ),
        (
            "/v1/segment?segmenter=s&size=112",
            422,
            "option `size`: unknown",
        ),
    ] {
        let (found, problem) = problem(segment(&server, path, &image)).await;
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(found, status, "{path}: {detail}");
        assert!(detail.contains(text), "{path}: {detail}");
    }
}
