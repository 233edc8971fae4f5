//! The programs of `examples/`.

use std::path::{Path, PathBuf};

use dinoserve::http::HttpConfig;
use ndarray::Axis;
use tokio::process::Command;

use crate::support::{
    SAMPLES, cosine, focus, golden,
    python::Python,
    scratch,
    server::{Server, new_gallery, npy, ok_bytes},
};

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name)
        .to_string_lossy()
        .into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes crops of the sample images, in a folder for each image.
fn write_samples(folder: &Path) -> PathBuf {
    let images = folder.join("images");
    for sample in SAMPLES {
        let label = images.join(sample.split_once('.').unwrap().0);
        std::fs::create_dir_all(&label).unwrap();
        let whole = image::open(golden("dinov2-small-focus").join(sample))
            .unwrap()
            .into_rgb8();
        for step in 0..3 {
            let crop = image::imageops::crop_imm(&whole, step * 15, step * 10, 280, 260).to_image();
            crop.save(label.join(format!("{step}.jpg"))).unwrap();
        }
    }
    images
}

#[tokio::test]
async fn the_python_examples_run() {
    let Some(python) = Python::find("examples::the_python_examples_run") else {
        return;
    };
    let server =
        Server::start_on(new_gallery().await, focus().clone(), HttpConfig::default()).await;
    let folder = scratch("examples-python");
    let images = write_samples(&folder);
    std::fs::write(images.join("rocket/broken.png"), b"no image").unwrap();
    let python = python.with_server(&server.url(""));

    let output = folder.join("features.npy");
    let printed = python
        .run(&[&example("embed_folder.py"), text(&images), text(&output)])
        .await;
    assert!(printed.starts_with("12 of 13 images in "), "{printed}");
    let features = npy(&std::fs::read(&output).unwrap());
    assert_eq!(features.shape(), [12, 384]);
    let names = std::fs::read_to_string(folder.join("features.txt")).unwrap();
    assert_eq!(names.lines().next(), Some("astronaut/0.jpg"));
    let file = std::fs::read(images.join("astronaut/0.jpg")).unwrap();
    let request = server
        .post("/v1/embed")
        .header("content-type", "image/jpeg")
        .header("accept", "application/x-npy");
    let own = npy(&ok_bytes(request.body(file)).await);
    assert!(
        cosine(
            features.index_axis(Axis(0), 0).iter().copied(),
            own.iter().copied()
        ) > 0.99999
    );

    let maps = folder.join("maps");
    let printed = python
        .run(&[
            &example("pca_frames.py"),
            text(&images.join("chelsea")),
            text(&maps),
        ])
        .await;
    assert!(printed.starts_with("3 maps in "), "{printed}");
    let rendering = image::open(maps.join("2.png")).unwrap().into_rgb8();
    assert!(
        rendering.width() > 500
            && rendering
                .pixels()
                .any(|pixel| pixel != rendering.get_pixel(0, 0))
    );

    std::fs::remove_file(images.join("rocket/broken.png")).unwrap();
    let new = [images.join("coffee/2.jpg"), images.join("rocket/2.jpg")].map(|from| {
        let to = folder.join(format!(
            "new-{}.jpg",
            from.parent()
                .unwrap()
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
        ));
        std::fs::rename(from, &to).unwrap();
        to
    });
    let printed = python
        .run(&[
            &example("knn.py"),
            text(&images),
            text(&new[0]),
            text(&new[1]),
        ])
        .await;
    let lines: Vec<&str> = printed.lines().collect();
    assert!(
        lines[0].starts_with("new-coffee.jpg: coffee (")
            && lines[0].contains("nearest are coffee/1.jpg"),
        "{printed}"
    );
    assert!(
        lines[1].starts_with("new-rocket.jpg: rocket ("),
        "{printed}"
    );
    server.stopped().await;
}

#[tokio::test]
async fn the_javascript_example_runs() {
    let Some(python) = Python::find("examples::the_javascript_example_runs") else {
        return;
    };
    let server = Server::start(focus().clone(), HttpConfig::default()).await;
    let folder = scratch("examples-javascript");
    let sample = golden("dinov2-small-focus/chelsea.png");
    // The second image is a part of the first, so the place of the cat's eye in it is known:
    // 0.37, 0.56.
    let whole = image::open(&sample).unwrap().into_rgb8();
    let part = folder.join("part.png");
    image::imageops::crop_imm(&whole, 75, 0, 300, 200)
        .to_image()
        .save(&part)
        .unwrap();
    let node = python.with_server(&server.url("")).in_folder(&folder);
    let printed = node
        .run_node(&[
            &example("similar.mjs"),
            text(&sample),
            text(&part),
            "0.41",
            "0.37",
        ])
        .await;
    let best: Vec<f32> = printed
        .lines()
        .next()
        .unwrap()
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    assert!(
        best[0] > 0.9 && (best[1] - 0.37).abs() < 0.08 && (best[2] - 0.56).abs() < 0.08,
        "{printed}"
    );
    assert_eq!(printed.lines().count(), 3);
    image::open(folder.join("similarity.png")).unwrap();
    server.stopped().await;
}

#[tokio::test]
async fn the_shell_example_runs() {
    let server = Server::start(focus().clone(), HttpConfig::default()).await;
    let folder = scratch("examples-shell");
    let mut command = Command::new(example("features.sh"));
    command
        .arg(golden("dinov2-small-focus/coffee.png"))
        .env("DINOSERVE_URL", server.url(""))
        .current_dir(&folder);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        npy(&std::fs::read(folder.join("embedding.npy")).unwrap()).shape(),
        [1, 384]
    );
    for rendering in ["parts.png", "heads.png"] {
        assert!(image::open(folder.join(rendering)).unwrap().width() > 300);
    }
    server.stopped().await;
}
