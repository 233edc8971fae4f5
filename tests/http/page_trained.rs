//! Anomaly banks and segmenters on the page.

use dinoserve::http::HttpConfig;
use serde_json::json;

use super::{
    page_tools::{goto, record_downloads},
    pages::assert_asks_only,
};
use crate::support::{
    browser::Browser,
    focus,
    server::{Server, new_gallery, ok_json},
};

/// Opens a sample on a server with a gallery.
async fn open(browser: &Browser, server: &Server, path: &str) {
    browser.resize(1280, 900, false).await;
    goto(browser, server, path).await;
    browser
        .wait("document.querySelector('#status').textContent.includes('are ready')")
        .await;
    record_downloads(browser).await;
}

async fn server() -> Server {
    Server::start_on(new_gallery().await, focus().clone(), HttpConfig::default()).await
}

/// Clicks all buttons that save files below an element, and returns the sorted names of the files.
async fn saved(browser: &Browser, css: &str, count: usize) -> serde_json::Value {
    browser
        .run(&format!(
            "for (const button of document.querySelectorAll('{css} button')) button.click()"
        ))
        .await;
    browser
        .wait(&format!("window.saved.length === {count}"))
        .await;
    browser
        .run("return window.saved.map(([name]) => name).sort()")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_of_dropped_pictures_scores_the_photograph() {
    let Some(browser) = Browser::start("page_trained::a_bank").await else {
        return;
    };
    let server = server().await;
    open(&browser, &server, "/?sample=coffee.jpg").await;
    browser.click("#bank").await;
    browser
        .wait("document.querySelector('#bank-choice').textContent === 'none yet'")
        .await;
    // The coffee is not among the good pictures.
    browser
        .run(
            "return (async () => {
               const dataTransfer = new DataTransfer();
               for (const name of ['cat.jpg', 'rocket.jpg']) {
                 const blob = await (await fetch(`/assets/${name}`)).blob();
                 dataTransfer.items.add(new File([blob], name, { type: 'image/jpeg' }));
               }
               for (const type of ['dragover', 'drop'])
                 document.querySelector('#bank-card').dispatchEvent(
                   new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer }));
             })()",
        )
        .await;
    browser.wait_for_count("#bank-good canvas", 2).await;
    assert_eq!(browser.text("#bank-count").await, "2 good pictures.");
    browser.click("#bank-submit").await;
    browser
        .wait("document.querySelector('#bank-verdict').textContent.includes('Score ')")
        .await;
    let facts = browser.text("#bank-facts").await;
    assert!(facts.starts_with("2 good pictures, "), "{facts}");
    browser.wait_for_count("#bank-stage svg image", 1).await;
    let list = ok_json(server.get("/v1/anomaly")).await;
    assert_eq!(list["data"], json!([{"name": "good", "state": "ready"}]));
    let commands = browser.text("#curl").await;
    assert!(commands.contains("-F image=@rocket.jpg"), "{commands}");
    let names = saved(&browser, "#bank-downloads", 4).await;
    let expected = ["-mask.png", ".json", ".npy", ".png"];
    let expected = expected.map(|ending| format!("coffee-anomaly{ending}"));
    assert_eq!(names, json!(expected));
    browser.screenshot("bank-1280").await;
    browser.resize(390, 844, true).await;
    browser.screenshot("bank-390").await;

    browser.click("#bank-delete").await;
    browser.click("dialog[open] .danger").await;
    browser
        .wait("document.querySelector('#bank-choice').textContent === 'none yet'")
        .await;
    let list = ok_json(server.get("/v1/anomaly")).await;
    assert_eq!(list["data"], json!([]));
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
    assert_asks_only(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_painted_mask_trains_a_segmenter() {
    let Some(browser) = Browser::start("page_trained::a_segmenter").await else {
        return;
    };
    let server = server().await;
    open(&browser, &server, "/?sample=coffee.jpg").await;
    browser.click("#segmenter").await;
    browser
        .wait("document.querySelector('#segmenter-choice').textContent === 'none yet'")
        .await;
    // A large brush in the middle, for class 2; then a stroke of class 1 that is undone.
    browser.enter("#paint", "2]]]]] ").await;
    browser
        .run("document.querySelectorAll('#brushes input')[1].click()")
        .await;
    browser.enter("#paint", " ").await;
    browser.click("#paint-undo").await;
    assert_eq!(browser.text("#painted-count").await, "1 painted");
    // Nothing of it is between two classes.
    let labels = browser
        .run(
            "const canvas = document.querySelector('#paint');
             const { data } = canvas.getContext('2d')
               .getImageData(0, 0, canvas.width, canvas.height);
             return new Set(new Uint32Array(data.buffer)).size",
        )
        .await;
    assert_eq!(labels, json!(2), "class 2 and unpainted");
    browser.click("#segmenter-submit").await;
    browser.wait_for_count("#segmenter-legend li", 2).await;
    let legend = browser.text("#segmenter-legend").await;
    assert!(
        legend.contains("Background") && legend.contains("Class 2"),
        "{legend}"
    );
    let facts = browser.text("#segmenter-facts").await;
    assert!(
        facts.starts_with("Classes 0, 2 from 1 photograph"),
        "{facts}"
    );
    browser.wait_for_count("#segmenter-stage svg path", 2).await;
    let names = saved(&browser, "#segmenter-downloads", 4).await;
    let expected = ["-mask.png", ".json", ".npy", ".png"];
    let expected = expected.map(|ending| format!("coffee-segments{ending}"));
    assert_eq!(names, json!(expected));
    browser.screenshot("segmenter-1280").await;
    browser.resize(390, 844, true).await;
    browser.screenshot("segmenter-390").await;
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
    assert_asks_only(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}
