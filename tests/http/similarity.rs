//! `/v1/similarity` and `/v1/attention/stats`, compared with plain computations on the tokens and
//! attention rows of other endpoints.

use dinoserve::http::HttpConfig;
use ndarray::{Array2, ArrayD, ArrayView1, Axis, s};
use reqwest::{
    RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::support::{
    cosine, difference, focus, read_golden,
    server::{Server, floats, npy, ok_bytes, ok_json, problem},
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";
const COFFEE: &str = "dinov2-small-focus/coffee.png";
const SIZE: &str = "resize=fit&size=224";
/// Grid of both images with `fit` at 224.
const GRID: (usize, usize) = (16, 24);

async fn focus_server() -> Server {
    Server::start(focus().clone(), HttpConfig::default()).await
}

fn both(server: &Server, path: &str) -> RequestBuilder {
    let part = |file: &str| Part::bytes(read_golden(file)).file_name(file.to_owned());
    server
        .post(path)
        .multipart(Form::new().part("a", part(CHELSEA)).part("b", part(COFFEE)))
}

/// `[patches, dim]`.
async fn tokens(server: &Server, file: &str) -> Array2<f32> {
    let request = server
        .post_file(&format!("/v1/embed?tokens=true&{SIZE}"), file)
        .header("accept", "application/x-npy");
    let tokens = npy(&ok_bytes(request).await).index_axis_move(Axis(0), 0);
    let tokens: Array2<f32> = tokens.into_dimensionality().unwrap();
    assert_eq!(tokens.nrows(), GRID.0 * GRID.1);
    tokens
}

fn cosines(query: ArrayView1<'_, f32>, tokens: &Array2<f32>) -> ArrayD<f32> {
    let of =
        |token: ArrayView1<'_, f32>| cosine(query.iter().copied(), token.iter().copied()) as f32;
    let values = tokens.rows().into_iter().map(of).collect::<Vec<_>>();
    ArrayD::from_shape_vec(vec![GRID.0, GRID.1], values).unwrap()
}

#[tokio::test]
async fn similarity_is_the_cosine_between_tokens() {
    let server = focus_server().await;
    let cat = tokens(&server, CHELSEA).await;
    let cup = tokens(&server, COFFEE).await;
    let request = |options: &str| {
        server
            .post_file(&format!("/v1/similarity?{SIZE}&{options}"), CHELSEA)
            .header("accept", "application/x-npy")
    };
    let found = npy(&ok_bytes(request("patch=5,9")).await);
    assert_eq!(found.shape(), [GRID.0, GRID.1]);
    assert!(difference(&found, &cosines(cat.row(5 * GRID.1 + 9), &cat)).0 < 1e-5);
    assert!((found[[5, 9]] - 1.0).abs() < 1e-5);

    // A box: the patches whose centers are inside, here rows 4 to 7 and columns 6 to 11.
    let found = npy(&ok_bytes(request("box=0.25,0.25,0.5,0.5")).await);
    let mut query = ndarray::Array1::zeros(cat.ncols());
    for (row, column) in (4..8).flat_map(|row| (6..12).map(move |column| (row, column))) {
        let token = cat.row(row * GRID.1 + column);
        query += &(&token / token.dot(&token).sqrt());
    }
    assert!(difference(&found, &cosines(query.view(), &cat)).0 < 1e-5);
    // A box smaller than a patch selects the patch under it.
    let small = ok_json(
        server
            .post_file(
                &format!("/v1/similarity?{SIZE}&box=0.41,0.33,0.415,0.335"),
                CHELSEA,
            )
            .header("accept", "application/json"),
    )
    .await;
    assert_eq!(
        small["query"],
        json!({"top": 5, "left": 9, "bottom": 5, "right": 9})
    );

    // A place of the first image, compared with the second.
    let path = format!("/v1/similarity?{SIZE}&patch=5,9");
    let pair = npy(&ok_bytes(both(&server, &path).header("accept", "application/x-npy")).await);
    assert_eq!(pair.shape(), [2, GRID.0, GRID.1]);
    assert!(
        difference(
            pair.index_axis(Axis(0), 1),
            &cosines(cat.row(5 * GRID.1 + 9), &cup)
        )
        .0 < 1e-5
    );
    let json = ok_json(both(&server, &path).header("accept", "application/json")).await;
    assert_eq!(
        floats(&json["data"][1]["similarity"]),
        pair.slice(s![1, .., ..])
            .iter()
            .copied()
            .collect::<Vec<_>>()
    );
    assert_eq!(json["data"][1]["grid"], json!([GRID.0, GRID.1]));
}

#[tokio::test]
async fn similarity_renderings_share_a_scale_and_frame_the_patch() {
    let server = focus_server().await;
    let path = format!("/v1/similarity?{SIZE}&patch=5,9&colormap=gray");
    let strip = image::load_from_memory(&ok_bytes(both(&server, &path)).await)
        .unwrap()
        .into_rgb8();
    let width = GRID.1 as u32 * 14;
    let height = GRID.0 as u32 * 14;
    assert_eq!(strip.dimensions(), (2 * width + 8, height));
    let numbers = npy(&ok_bytes(both(&server, &path).header("accept", "application/x-npy")).await);
    let low = numbers.iter().copied().fold(f32::INFINITY, f32::min);
    let high = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for (image, row, column) in [(0, 0, 0), (0, 12, 20), (1, 3, 4), (1, 15, 23)] {
        let shade = strip
            .get_pixel(image * (width + 8) + column * 14 + 7, row * 14 + 7)
            .0;
        let value = numbers[[image as usize, row as usize, column as usize]];
        let expected = ((value - low) / (high - low) * 255.0).round();
        assert!(
            (f32::from(shade[0]) - expected).abs() <= 1.0 && shade[0] == shade[2],
            "image {image}, patch {row},{column}: {shade:?} for {expected}"
        );
    }
    let corner = (9 * 14, 5 * 14);
    assert_eq!(strip.get_pixel(corner.0, corner.1).0, [255; 3]);
    assert_eq!(strip.get_pixel(corner.0 - 2, corner.1 - 2).0, [0; 3]);
    // At the edge the frame is cut off, without a panic.
    let edge = server.post_file(&format!("/v1/similarity?{SIZE}&patch=0,0"), CHELSEA);
    image::load_from_memory(&ok_bytes(edge).await).unwrap();
}

#[tokio::test]
async fn bad_places_are_rejected() {
    let server = Server::tiny().await;
    for (options, detail) in [
        (
            "",
            "option `patch`: missing; send `patch=row,column`, or `box=left,top,right,bottom`",
        ),
        (
            "patch=1",
            "option `patch`: \"1\" is not 2 comma-separated numbers",
        ),
        ("patch=a,b", "option `patch`"),
        ("patch=-1,2", "option `patch`"),
        (
            "patch=16,0",
            "option `patch`: 16,0 is outside of the image; it has rows 0 to 15 and \
             columns 0 to 15",
        ),
        (
            "patch=1,1&box=0,0,1,1",
            "option `box`: does not go with `patch`",
        ),
        (
            "box=0.5,0,0.5,1",
            "option `box`: must be left,top,right,bottom, each 0 to 1",
        ),
        ("box=0,0,1,1.5", "option `box`"),
        ("box=0,nan,1,1", "option `box`"),
        ("patch=1,1&overlay=2", "option `overlay`"),
    ] {
        let (status, body) = problem(server.post_file(
            &format!("/v1/similarity?size=224&resize=squash&{options}"),
            CHELSEA,
        ))
        .await;
        assert_eq!(status, 422, "{options}: {body}");
        assert!(
            body["detail"].as_str().unwrap().starts_with(detail),
            "{options}: {body}"
        );
    }
}

#[tokio::test]
async fn heads_are_compared() {
    let server = focus_server().await;
    let request = |path: &str, accept: &str| {
        server
            .post_file(path, CHELSEA)
            .header("accept", accept.to_owned())
    };
    let rows = npy(&ok_bytes(request(
        &format!("/v1/attention?{SIZE}"),
        "application/x-npy",
    ))
    .await);
    let rows: Array2<f32> = rows.to_shape((6, GRID.0 * GRID.1)).unwrap().into_owned();
    let pca = ok_json(request(
        &format!("/v1/pca?{SIZE}&foreground=auto"),
        "application/json",
    ))
    .await;
    let truths = |value: &Value| {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|inside| inside.as_bool().unwrap())
            .collect()
    };
    let mask: Vec<Vec<bool>> = pca["data"][0]["foreground"]
        .as_array()
        .unwrap()
        .iter()
        .map(truths)
        .collect();
    let mask = mask.concat();

    let answer = ok_json(server.post_file(&format!("/v1/attention/stats?{SIZE}"), CHELSEA)).await;
    let stats = &answer["data"][0];
    let number = |value: &Value| value.as_f64().unwrap();
    assert_eq!(stats["grid"], json!([GRID.0, GRID.1]));
    let area = mask.iter().filter(|inside| **inside).count() as f64 / mask.len() as f64;
    assert!(area > 0.1 && area < 0.9 && (number(&stats["foreground_area"]) - area).abs() < 1e-6);

    let shares = rows.map_axis(Axis(1), |row| row.sum()).insert_axis(Axis(1));
    let shares = (&rows / &shares).mapv(f64::from);
    let overlap = |a: usize, b: usize| {
        (&shares.row(a) - &shares.row(b))
            .mapv(f64::abs)
            .sum()
            .mul_add(-0.5, 1.0)
    };
    let mut sum = 0.0;
    for head in 0..6 {
        let entropy: f64 = shares
            .row(head)
            .iter()
            .map(|&share| {
                if share > 0.0 {
                    -share * share.ln()
                } else {
                    0.0
                }
            })
            .sum();
        let inside: f64 = shares
            .row(head)
            .iter()
            .zip(&mask)
            .map(|(&share, &inside)| if inside { share } else { 0.0 })
            .sum();
        let found = &stats["heads"][head];
        assert_eq!(found["head"], head);
        assert!(
            (number(&found["entropy"]) - entropy).abs() < 1e-3,
            "{found} {entropy}"
        );
        assert!((number(&found["effective_patches"]) / entropy.exp() - 1.0).abs() < 1e-3);
        assert!((number(&found["foreground_mass"]) - inside).abs() < 1e-4);
        for other in 0..6 {
            assert!((number(&stats["overlap"][head][other]) - overlap(head, other)).abs() < 1e-4);
            sum += if head == other {
                0.0
            } else {
                overlap(head, other)
            };
        }
    }
    assert!((number(&stats["mean_overlap"]) - sum / 30.0).abs() < 1e-4);
    // The heads of this model differ, and attend to the cat more than a uniform map does.
    assert!(number(&stats["mean_overlap"]) < 0.9);
    assert!(
        (0..6).any(|head| number(&stats["heads"][head]["foreground_mass"]) > area * 1.2),
        "{stats}"
    );
}
