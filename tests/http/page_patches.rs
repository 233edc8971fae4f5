//! Objects and matches on the page.

use dinoserve::http::HttpConfig;
use serde_json::json;

use super::{
    page_tools::{goto, record_downloads},
    pages::assert_asks_only,
};
use crate::support::{browser::Browser, focus, server::Server};

async fn open(browser: &Browser, server: &Server, path: &str) {
    goto(browser, server, path).await;
    browser
        .wait("document.querySelector('#status').textContent.includes('are ready')")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_drawn_listed_and_saved() {
    let Some(browser) = Browser::start("page_patches::objects").await else {
        return;
    };
    let server = Server::start(focus().clone(), HttpConfig::default()).await;
    browser.resize(1280, 900, false).await;
    open(&browser, &server, "/?sample=coffee.jpg").await;
    record_downloads(&browser).await;
    browser.click("#objects").await;
    browser
        .wait("document.querySelector('#objects-summary').textContent === '1 object stands out.'")
        .await;
    browser.wait_for_count("#photo + svg path[stroke]", 1).await;
    let found = browser.text("#objects-found li").await;
    assert!(found.contains("% of the attention, "), "{found}");
    assert!(found.contains("% of the area"), "{found}");
    let commands = browser.text("#curl").await;
    assert!(commands.contains("/v1/objects"), "{commands}");
    browser
        .run(
            "for (const button of document.querySelectorAll('#objects-found .downloads button'))
               button.click()",
        )
        .await;
    browser.wait("window.saved.length === 4").await;
    let names = browser
        .run("return window.saved.map(([name]) => name).sort()")
        .await;
    let expected = ["-mask.png", ".json", ".npy", ".png"];
    let expected = expected.map(|ending| format!("coffee-objects{ending}"));
    assert_eq!(names, json!(expected));
    browser.screenshot("objects-1280").await;

    // Another way to find them, and a head takes their place.
    browser
        .run(
            "const method = document.querySelector('#objects-method');
             method.value = 'attention';
             method.dispatchEvent(new Event('change', { bubbles: true }));",
        )
        .await;
    browser
        .wait("document.querySelector('#curl').textContent.includes('method=attention')")
        .await;
    browser.click("#heads button:nth-child(2)").await;
    browser.wait_for_count("#photo + svg path[stroke]", 0).await;
    assert_asks_only(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matches_of_two_photographs_are_joined_by_lines() {
    let Some(browser) = Browser::start("page_patches::matches").await else {
        return;
    };
    let server = Server::start(focus().clone(), HttpConfig::default()).await;
    browser.resize(1280, 900, false).await;
    open(&browser, &server, "/?sample=cat.jpg").await;
    record_downloads(&browser).await;
    // The same photograph again: every place is where it was.
    browser
        .run(
            "const names = [...document.querySelectorAll('#second-samples button')];
             names.find((button) => /cat/.test(button.outerHTML)).click();",
        )
        .await;
    browser
        .wait("!document.querySelector('#second').hidden")
        .await;
    browser.click("#matches").await;
    browser
        .wait("/^[0-9]+ matches[.]/.test(document.querySelector('#matches-summary').textContent)")
        .await;
    let lines = browser
        .run("return document.querySelectorAll('#matches-stage svg line').length")
        .await;
    assert!(lines.as_u64().unwrap() > 40, "{lines}");
    browser
        .run(
            "const geometry = document.querySelector('#matches-geometry');
             geometry.value = 'similarity';
             geometry.dispatchEvent(new Event('change', { bubbles: true }));",
        )
        .await;
    browser
        .wait("document.querySelector('#matches-summary').textContent.includes('of them inliers')")
        .await;
    browser
        .enter("#matches-stage", thirtyfour::Key::Right)
        .await;
    let chosen = browser.text("#matches-hover").await;
    assert!(chosen.starts_with("Cosine "), "{chosen}");
    browser
        .run("for (const b of document.querySelectorAll('#matches-downloads button')) b.click()")
        .await;
    browser.wait("window.saved.length === 3").await;
    browser.screenshot("matches-1280").await;
    browser.resize(390, 844, true).await;
    browser.screenshot("matches-390").await;
    assert_asks_only(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}
