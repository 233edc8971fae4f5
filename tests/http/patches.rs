//! `/v1/match` and `/v1/objects`.

use dinoserve::http::HttpConfig;
use image::{ImageFormat, RgbImage};
use reqwest::{
    RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::support::{
    focus, golden_png, read_golden,
    server::{Server, ok, ok_bytes, ok_json, problem},
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";
const COFFEE: &str = "dinov2-small-focus/coffee.png";

async fn focus_server() -> Server {
    Server::start(focus().clone(), HttpConfig::default()).await
}

fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = std::io::Cursor::new(&mut bytes);
    image.write_to(&mut writer, ImageFormat::Png).unwrap();
    bytes
}

fn images(server: &Server, path: &str, files: &[Vec<u8>]) -> RequestBuilder {
    let form = files.iter().fold(Form::new(), |form, file| {
        form.part("image", Part::bytes(file.clone()).file_name("image.png"))
    });
    server.post(path).multipart(form)
}

fn as_json(request: RequestBuilder) -> RequestBuilder {
    request.header("accept", "application/json")
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_f64().unwrap()).collect()
}

/// The middle three quarters of a photograph, at half their size.
fn half_of_the_middle(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let middle =
        image::imageops::crop_imm(image, width / 8, height / 8, width * 3 / 4, height * 3 / 4);
    let filter = image::imageops::FilterType::Triangle;
    image::imageops::resize(&middle.to_image(), width * 3 / 8, height * 3 / 8, filter)
}

#[tokio::test]
async fn a_part_of_a_photograph_is_found_in_it() {
    let server = focus_server().await;
    let whole = golden_png(CHELSEA);
    let (width, height) = whole.dimensions();
    let files = [png(&whole), png(&half_of_the_middle(&whole))];
    let path = "/v1/match?size=280&geometry=similarity";
    let found = ok_json(as_json(images(&server, path, &files))).await;
    assert_eq!(found["images"][0]["width"], width);
    assert_eq!(found["images"][1]["height"], height * 3 / 8);
    assert_eq!(found["images"][0]["size"], 280);
    // A point of the whole image lies at half its distance from the corner of the part.
    let transform: Vec<Vec<f64>> = found["transform"]
        .as_array()
        .unwrap()
        .iter()
        .map(numbers)
        .collect();
    let expected = [
        [0.5, 0.0, -f64::from(width / 8) / 2.0],
        [0.0, 0.5, -f64::from(height / 8) / 2.0],
        [0.0, 0.0, 1.0],
    ];
    for (row, expected) in transform.iter().zip(expected) {
        for (index, (value, expected)) in row.iter().zip(expected).enumerate() {
            let tolerance = if index == 2 { 6.0 } else { 0.03 };
            assert!((value - expected).abs() < tolerance, "{transform:?}");
        }
    }
    let matches = found["matches"].as_array().unwrap();
    let inliers = found["inliers"].as_array().unwrap();
    assert!(inliers.len() > 30 && inliers.len() * 10 > matches.len() * 8);
    for (index, found) in matches.iter().enumerate() {
        assert_eq!(found["inlier"], inliers.contains(&json!(index)));
        let [a, b] = [&found["a"], &found["b"]].map(numbers);
        assert!(a[0] < f64::from(width) && b[0] < f64::from(width * 3 / 8));
    }
    let scores: Vec<f64> = matches
        .iter()
        .map(|found| found["score"].as_f64().unwrap())
        .collect();
    assert!(scores.is_sorted_by(|one, other| one >= other));

    // Without a transform there is nothing to agree with, and `max` keeps the best.
    let path = "/v1/match?size=280&max=5";
    let best = ok_json(as_json(images(&server, path, &files))).await;
    assert_eq!(best["inliers"], Value::Null);
    assert_eq!(best["transform"], Value::Null);
    assert_eq!(best["matches"].as_array().unwrap().len(), 5);
    assert_eq!(best["matches"][0]["a"], matches[0]["a"]);
    assert_eq!(best["matches"][0].get("inlier"), None);
}

#[tokio::test]
async fn matches_are_also_a_drawing_and_a_table() {
    let server = focus_server().await;
    let whole = golden_png(COFFEE);
    let files = [png(&whole), png(&half_of_the_middle(&whole))];
    let path = "/v1/match?size=224&geometry=homography";
    let json = ok_json(as_json(images(&server, path, &files))).await;
    let response = ok(images(&server, path, &files)).await;
    assert_eq!(response.headers()["content-type"], "image/png");
    assert_eq!(response.headers()["image-size"], "224, 224");
    let drawn = response.bytes().await.unwrap();
    let drawn = image::load_from_memory(&drawn).unwrap().into_rgb8();
    assert_eq!(drawn.dimensions(), (336 + 8 + 336, 224));
    // A line crosses the gap between the images, which is white.
    let gap = (0..224).map(|y| drawn.get_pixel(340, y).0);
    assert!(gap.filter(|pixel| *pixel != [255; 3]).count() > 10);

    let request = images(&server, path, &files).header("accept", "application/x-npy");
    let table = crate::support::server::npy(&ok_bytes(request).await);
    let matches = json["matches"].as_array().unwrap();
    assert_eq!(table.shape(), [matches.len(), 6]);
    for (row, found) in table.outer_iter().zip(matches) {
        let [a, b] = [&found["a"], &found["b"]].map(numbers);
        let score = found["score"].as_f64().unwrap();
        let inlier = f64::from(u8::from(found["inlier"] == true));
        let expected = [a[0], a[1], b[0], b[1], score, inlier];
        for (value, expected) in row.iter().zip(expected) {
            assert!((f64::from(*value) - expected).abs() < 1e-3);
        }
    }
}

#[tokio::test]
async fn options_of_matches_change_what_is_found() {
    let server = focus_server().await;
    let files = [png(&golden_png(CHELSEA)), png(&golden_png(COFFEE))];
    let count = async |options: &str| {
        let path = format!("/v1/match?size=224{options}");
        let found = ok_json(as_json(images(&server, &path, &files))).await;
        found["matches"].as_array().unwrap().len()
    };
    // A cat and a cup have nothing in common but what is alike at a glance.
    let strict = count("").await;
    assert!(strict < 10, "{strict}");
    let last = count("&tokens=last").await;
    assert!(last > 10, "{last}");
    assert!(count("&tokens=last&foreground=auto").await < last);
    assert!(count("&tokens=last&min_score=0.6").await < last);
    assert_eq!(count("&tokens=last&min_score=1").await, 0);
    assert!(count("&tokens=last&support=2").await < last);
    assert!(count("&ratio=1&support=0").await > strict);

    // A flat image has no places that differ.
    let flat = RgbImage::from_pixel(300, 200, image::Rgb([128; 3]));
    let files = [png(&golden_png(CHELSEA)), png(&flat)];
    let path = "/v1/match?size=224&geometry=homography";
    let none = ok_json(as_json(images(&server, path, &files))).await;
    assert_eq!(none["transform"], Value::Null);
    assert_eq!(none["inliers"], json!([]));
    let drawn = ok_bytes(images(&server, path, &files)).await;
    assert!(image::load_from_memory(&drawn).is_ok());
}

#[tokio::test]
async fn bad_requests_for_patches_are_refused() {
    let server = Server::tiny().await;
    let file = read_golden(CHELSEA);
    let send = |path: &str, count: usize| images(&server, path, &vec![file.clone(); count]);
    for (path, count, status, text) in [
        (
            "/v1/match",
            1,
            400,
            "a match takes 2 images, and the request has 1",
        ),
        (
            "/v1/match",
            3,
            400,
            "a match takes 2 images, and the request has 3",
        ),
        (
            "/v1/objects",
            2,
            400,
            "takes 1 image, and the request has 2",
        ),
        ("/v1/match?min_score=2", 2, 422, "it must be -1 to 1"),
        ("/v1/match?ratio=0", 2, 422, "above 0, and at most 1"),
        ("/v1/match?ratio=nan", 2, 422, "ratio"),
        ("/v1/match?support=9", 2, 422, "it must be 0 to 8"),
        ("/v1/match?max=0", 2, 422, "at least 1"),
        ("/v1/match?geometry=affine", 2, 422, "geometry"),
        ("/v1/match?overlay=0.5", 2, 422, "unknown"),
        ("/v1/objects?max_objects=11", 1, 422, "it must be 1 to 10"),
        ("/v1/objects?threshold=1.5", 1, 422, "it must be -1 to 1"),
        (
            "/v1/objects?method=attention&threshold=-0.5",
            1,
            422,
            "it must be 0 to 1",
        ),
        ("/v1/objects?overlay=2", 1, 422, "it must be 0 to 1"),
        (
            "/v1/objects?overlay=2&output=mask",
            1,
            422,
            "it must be 0 to 1",
        ),
        ("/v1/objects?refine=always", 1, 422, "refine"),
    ] {
        let (found, problem) = problem(send(path, count)).await;
        assert_eq!(found, status, "{path}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(text), "{path}: {detail}");
    }
    let (status, problem) = problem(send("/v1/match", 2).header("accept", "text/html")).await;
    assert_eq!(status, 406, "{problem}");
}

/// Decodes COCO's run lengths.
fn decoded(rle: &Value) -> Vec<bool> {
    let [height, width] = [0, 1].map(|axis| rle["size"][axis].as_u64().unwrap() as usize);
    let mut runs: Vec<i64> = Vec::new();
    let mut bytes = rle["counts"]
        .as_str()
        .unwrap()
        .bytes()
        .map(|byte| byte - 48)
        .peekable();
    while bytes.peek().is_some() {
        let (mut run, mut shift) = (0_i64, 0);
        loop {
            let byte = bytes.next().unwrap();
            run |= i64::from(byte & 0x1f) << shift;
            shift += 5;
            if byte & 0x20 == 0 {
                if byte & 0x10 != 0 {
                    run |= -1 << shift;
                }
                break;
            }
        }
        if runs.len() > 2 {
            run += runs[runs.len() - 2];
        }
        runs.push(run);
    }
    let columns: Vec<bool> = runs
        .iter()
        .enumerate()
        .flat_map(|(index, &run)| std::iter::repeat_n(index % 2 == 1, run as usize))
        .collect();
    assert_eq!(columns.len(), height * width);
    (0..height * width)
        .map(|pixel| columns[pixel % width * height + pixel / width])
        .collect()
}

#[tokio::test]
async fn the_forms_of_objects_agree() {
    let server = focus_server().await;
    let send = |path: &str| server.post_file(path, COFFEE);
    let found = ok_json(as_json(send("/v1/objects?size=280"))).await;
    assert_eq!(
        (&found["width"], &found["height"]),
        (&json!(600), &json!(400))
    );
    let objects = found["objects"].as_array().unwrap();
    assert_eq!(objects.len(), 1, "{objects:?}");
    let cup = &objects[0];
    let bounds = numbers(&cup["box"]);
    // The cup with its saucer, by eye.
    for (side, expected) in bounds.iter().zip([76.0, 16.0, 480.0, 392.0]) {
        assert!((side - expected).abs() < 20.0, "{bounds:?}");
    }
    let mask = decoded(&cup["rle"]);
    let area = mask.iter().filter(|&&pixel| pixel).count();
    assert_eq!(cup["area"], area);
    assert!(cup["score"].as_f64().unwrap() > 0.5);
    // By the shoelace formula; holes count against their surroundings.
    let rings: Vec<Vec<Vec<f64>>> = cup["polygons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ring| ring.as_array().unwrap().iter().map(numbers).collect())
        .collect();
    let of_polygons: f64 = rings
        .iter()
        .map(|ring| {
            let next = ring.iter().cycle().skip(1);
            ring.iter()
                .zip(next)
                .map(|(a, b)| a[0] * b[1] - b[0] * a[1])
                .sum::<f64>()
                / 2.0
        })
        .sum();
    assert!(
        (of_polygons / area as f64 - 1.0).abs() < 0.03,
        "{of_polygons} {area}"
    );

    let request = send("/v1/objects?size=280").header("accept", "application/x-npy");
    let bytes = ok_bytes(request).await;
    let shape = "'shape': (1, 400, 600)";
    assert!(String::from_utf8_lossy(&bytes[..128]).contains(shape));
    let values: Vec<bool> = bytes[bytes.len() - 240_000..]
        .iter()
        .map(|&v| v == 1)
        .collect();
    assert_eq!(values, mask);

    let bytes = ok_bytes(send("/v1/objects?size=280&output=mask")).await;
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
        .read_info()
        .unwrap();
    assert_eq!(reader.info().color_type, png::ColorType::Indexed);
    let mut pixels = vec![0; 240_000];
    reader.next_frame(&mut pixels).unwrap();
    assert_eq!(
        pixels.iter().map(|&label| label == 1).collect::<Vec<_>>(),
        mask
    );

    let response = ok(send("/v1/objects?size=280")).await;
    assert_eq!(response.headers()["image-size"], "280");
    let drawn = image::load_from_memory(&response.bytes().await.unwrap()).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (420, 280));
}

#[tokio::test]
async fn options_of_objects_change_what_is_found() {
    let server = focus_server().await;
    let find = async |options: &str| {
        let request = server.post_file(&format!("/v1/objects?size=224{options}"), COFFEE);
        ok_json(as_json(request)).await["objects"].take()
    };
    let refined = find("").await;
    let rough = find("&refine=none").await;
    let [refined, rough] = [&refined[0]["rle"], &rough[0]["rle"]].map(decoded);
    let both = refined
        .iter()
        .zip(&rough)
        .filter(|(a, b)| **a && **b)
        .count();
    let either = refined
        .iter()
        .zip(&rough)
        .filter(|(a, b)| **a || **b)
        .count();
    let overlap = both as f64 / either as f64;
    assert!((0.85..0.999).contains(&overlap), "{overlap}");

    let attended = find("&method=attention&threshold=0.9").await;
    let attended = attended.as_array().unwrap();
    assert!(!attended.is_empty());
    let scores: Vec<f64> = attended
        .iter()
        .map(|object| object["score"].as_f64().unwrap())
        .collect();
    assert!(scores.is_sorted_by(|one, other| one >= other), "{scores:?}");
    let one = find("&method=attention&threshold=0.9&max_objects=1").await;
    assert_eq!(one.as_array().unwrap().len(), 1);
    assert_eq!(one[0]["box"], attended[0]["box"]);
    // Nothing is alike, so nothing is joined.
    assert_eq!(find("&threshold=1").await, json!([]));

    let flat = RgbImage::from_pixel(300, 200, image::Rgb([90, 120, 90]));
    let path = "/v1/objects?size=224";
    let none = ok_json(as_json(images(&server, path, &[png(&flat)]))).await;
    assert_eq!(none["objects"], json!([]));
    let mask = ok_bytes(images(&server, "/v1/objects?output=mask", &[png(&flat)])).await;
    let mask = image::load_from_memory(&mask).unwrap().into_rgb8();
    assert!(mask.dimensions() == (300, 200) && mask.pixels().all(|pixel| pixel.0 == [0; 3]));
}

#[tokio::test]
async fn coordinates_are_those_of_the_upright_image() {
    let server = focus_server().await;
    // Orientation 6: stored on its side.
    let turned = read_golden("formats/jpeg_orientation_6.jpg");
    let upright = golden_png("formats/jpeg_orientation_6.jpg.upright.png");
    let found = ok_json(as_json(images(
        &server,
        "/v1/objects",
        std::slice::from_ref(&turned),
    )))
    .await;
    assert_eq!(found["width"], upright.width());
    assert_eq!(found["height"], upright.height());
    let found = ok_json(as_json(images(
        &server,
        "/v1/match",
        &[turned, png(&upright)],
    )))
    .await;
    assert_eq!(found["images"][0]["width"], found["images"][1]["width"]);
    assert_eq!(found["images"][0]["height"], found["images"][1]["height"]);
}

#[tokio::test]
async fn masks_end_where_the_view_of_the_model_ends() {
    let server = Server::tiny().await;
    // A line of pixels that becomes 67 million wide, of which the model sees 896.
    let line = png(&RgbImage::from_pixel(65_535, 1, image::Rgb([9; 3])));
    let path = "/v1/objects?size=896&resize=crop&method=attention";
    let drawn = ok_bytes(images(&server, path, std::slice::from_ref(&line))).await;
    let drawn = image::load_from_memory(&drawn).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (896, 896));

    let path = "/v1/objects?size=112&resize=crop&method=attention&threshold=1";
    let found = ok_json(as_json(server.post_file(path, COFFEE))).await;
    let [object] = found["objects"].as_array().unwrap().as_slice() else {
        panic!("{found}");
    };
    // Of 600×400 pixels the model sees the middle 350×350. At the top and at the bottom less than a
    // patch is cut off, which counts as seen.
    let bounds = numbers(&object["box"]);
    for (side, expected) in bounds.iter().zip([125.0, 0.0, 475.0, 400.0]) {
        assert!((side - expected).abs() < 8.0, "{bounds:?}");
    }
    let mask = decoded(&object["rle"]);
    assert_eq!(object["area"], mask.iter().filter(|&&pixel| pixel).count());
}
