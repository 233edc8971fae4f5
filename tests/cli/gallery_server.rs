//! `dinoserve gallery … --server`: galleries of a running server.

use std::{
    path::Path,
    process::{Command, Output},
};

use dinoserve::{
    gallery::{Gallery, GalleryName, Parts, StoredItem},
    http::HttpConfig,
};
use futures_util::TryStreamExt;

use crate::support::{
    SAMPLES, golden,
    program::{dinoserve, text},
    scratch,
    server::{Server, new_gallery, ok},
    tiny,
};

/// Runs a command on the galleries of a server, and returns its code and what it printed.
async fn run(server: &Server, arguments: &[&str], sources: &[&Path]) -> (i32, String) {
    let mut command = dinoserve();
    command.arg("gallery").args(arguments).args(sources);
    command.args(["--server", &server.url("/")]);
    run_command(command).await
}

async fn run_command(mut command: Command) -> (i32, String) {
    let output = tokio::task::spawn_blocking(move || command.output());
    let Output {
        status,
        stdout,
        stderr,
    } = output.await.unwrap().unwrap();
    let printed = text(&stdout) + text(&stderr).as_str();
    (status.code().unwrap(), printed)
}

async fn server_on(store: &Gallery) -> Server {
    server_with(store, HttpConfig::default()).await
}

async fn server_with(store: &Gallery, config: HttpConfig) -> Server {
    let model = tiny("tiny-reg", "model.safetensors");
    Server::start_on(store.clone(), model, config).await
}

async fn read_items(store: &Gallery, name: &GalleryName) -> Vec<StoredItem> {
    let items = store.read(name, Parts::ALL).await.unwrap();
    items.try_collect().await.unwrap()
}

/// Makes a folder of two labels, with two images and a file that is none.
fn photos(name: &str) -> std::path::PathBuf {
    let folder = scratch(name);
    for (label, file) in [("cats", SAMPLES[0]), ("cups & more", SAMPLES[1])] {
        std::fs::create_dir(folder.join(label)).unwrap();
        let image = golden(&format!("dinov2-small-focus/{file}"));
        std::fs::copy(image, folder.join(label).join("a photo?.png")).unwrap();
    }
    std::fs::write(folder.join("cats/notes.txt"), "no image").unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_imported_through_a_server() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    let folder = photos("import-server");
    let import = ["import", "--name", "photos"];
    let (code, printed) = run(&server, &import, &[&folder]).await;
    assert_eq!(code, 0, "{printed}");
    assert!(
        printed.contains("2 images stored in `photos`, 0 replaced, 0 already there"),
        "{printed}"
    );
    let name = GalleryName::new("photos").unwrap();
    let stored = read_items(&store, &name).await;
    let mut found: Vec<(&str, &str)> = stored
        .iter()
        .map(|item| {
            (
                item.item.id.as_str(),
                item.item.label.as_ref().unwrap().as_str(),
            )
        })
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("cats/a photo?.png", "cats"),
            ("cups & more/a photo?.png", "cups & more")
        ]
    );
    // As a command that stores them by itself would: with features and thumbnails.
    assert!(
        stored
            .iter()
            .all(|item| item.features.is_some() && item.thumbnail.is_some())
    );

    // The second run sends nothing again, and goes on with what is new and what is broken.
    std::fs::write(folder.join("cats/broken.png"), b"\x89PNG\r\n\x1a\nno more").unwrap();
    std::fs::copy(
        golden("dinov2-small-focus/rocket.jpg"),
        folder.join("cats/rocket.jpg"),
    )
    .unwrap();
    let (code, printed) = run(&server, &import, &[&folder]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("1 image stored in `photos`, 0 replaced, 2 already there"),
        "{printed}"
    );
    assert!(printed.contains("broken.png"), "{printed}");
    let before = read_items(&store, &name).await;
    assert_eq!(before[..2], stored[..]);
    std::fs::remove_file(folder.join("cats/broken.png")).unwrap();
    let replace = ["import", "--name", "photos", "--replace"];
    let (code, printed) = run(&server, &replace, &[&folder]).await;
    assert_eq!(code, 0, "{printed}");
    assert!(
        printed.contains("0 images stored in `photos`, 3 replaced"),
        "{printed}"
    );

    // What does not fit the gallery ends the command before anything is stored.
    let other = [
        "import",
        "--name",
        "photos",
        "--replace",
        "--pooling",
        "mean",
    ];
    let (code, printed) = run(&server, &other, &[&folder]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("answered 409") && printed.contains("pooling"),
        "{printed}"
    );
    let own = [
        "import",
        "--name",
        "own",
        "--pooling",
        "mean",
        "--size",
        "112",
    ];
    let (code, printed) = run(&server, &own, &[&folder]).await;
    assert_eq!(code, 0, "{printed}");
    let own = store
        .require_gallery(&GalleryName::new("own").unwrap())
        .await
        .unwrap();
    assert_eq!((own.items, own.binding.preprocessing.size), (3, 112));
}

/// The server answers before it has read the body, and ends the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_server_does_not_take_stops_no_others() {
    let store = new_gallery().await;
    let config = HttpConfig {
        max_body_bytes: 2_000_000,
        ..HttpConfig::default()
    };
    let server = server_with(&store, config).await;
    let folder = photos("import-large");
    let small = std::fs::read(folder.join("cats/a photo?.png")).unwrap();
    for (name, length) in [("larger", 3_000_000), ("much larger", 40_000_000)] {
        let mut large = small.clone();
        large.resize(length, 0);
        std::fs::write(folder.join(format!("cats/{name}.png")), large).unwrap();
    }
    let (code, printed) = run(&server, &["import"], &[&folder]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("2 images stored in `default`"),
        "{printed}"
    );
    for name in ["cats/larger.png", "cats/much larger.png"] {
        assert!(printed.contains(name), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_store_is_reported_before_any_image_is_read() {
    let folder = photos("import-no-server");
    let without = Server::tiny().await;
    let (code, printed) = run(&without, &["import"], &[&folder]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("this server keeps no gallery"),
        "{printed}"
    );
    let mut command = dinoserve();
    // The port of TCP multiplexing, where nothing listens.
    command
        .args(["gallery", "import", "--server", "http://127.0.0.1:1"])
        .arg(&folder);
    let (code, printed) = run_command(command).await;
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("requesting http://127.0.0.1:1/v1/galleries"),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gallery_of_a_server_is_renamed() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    for id in ["a", "b"] {
        let image = std::fs::read(golden("dinov2-small-focus/chelsea.png")).unwrap();
        let put = server.put(&format!("/v1/gallery/{id}?gallery=of-{id}"));
        ok(put.header("content-type", "image/png").body(image)).await;
    }
    let taken = ["rename", "--name", "of-a", "--to", "of-b"];
    let (code, printed) = run(&server, &taken, &[]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("there is a gallery `of-b` already"),
        "{printed}"
    );
    let (code, printed) = run(
        &server,
        &["rename", "--name", "of-a", "--to", "photos"],
        &[],
    )
    .await;
    assert_eq!((code, &*printed), (0, "of-a is photos now\n"));
    let names: Vec<String> = store
        .galleries()
        .await
        .unwrap()
        .into_iter()
        .map(|gallery| gallery.name.to_string())
        .collect();
    assert_eq!(names, ["of-b", "photos"]);
}
