//! The page of audits: findings, and changes of many items.

use bytes::Bytes;
use dinoserve::gallery::NewItem;
use serde_json::json;

use super::{
    audits::{fill, item, server_on},
    page_tools::{goto, record_downloads},
    pages::{assert_asks_only, assert_fits},
};
use crate::support::{
    browser::Browser,
    read_golden,
    server::{Server, new_gallery, ok_json},
};

const CARDS: &str = ".findings section";

/// Clicks a button of a section, agrees to what it asks, and returns what was done.
async fn do_with_all(browser: &Browser, section: usize, button: &str) -> String {
    let buttons =
        format!("[...document.querySelectorAll('{CARDS}')][{section}].querySelectorAll('button')");
    browser
        .run(&format!(
            "[...{buttons}].find((button) => button.textContent === '{button}').click()"
        ))
        .await;
    agree(browser).await
}

/// Agrees to what is asked, and returns what was done.
async fn agree(browser: &Browser) -> String {
    browser
        .run("document.querySelector('#done').textContent = ''")
        .await;
    browser
        .wait("document.querySelector('#confirm').open")
        .await;
    browser.click("#confirm-yes").await;
    browser
        .wait("document.querySelector('#done').textContent !== ''")
        .await;
    browser.text("#done").await
}

/// Returns a member of a stored item, or null.
async fn stored(server: &Server, id: &str, member: &str) -> serde_json::Value {
    let path = format!("/v1/gallery/{}?gallery=g", id.replace(' ', "%20"));
    let answer = server.get(&path).send().await.unwrap();
    let item: serde_json::Value = answer.json().await.unwrap();
    item[member].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_shown_and_items_changed_in_bulk() {
    let Some(browser) = Browser::start("page_audit::findings").await else {
        return;
    };
    let store = new_gallery().await;
    let server = server_on(&store).await;
    let picture = Bytes::from(read_golden("../../src/http/page/assets/cat.jpg"));
    let items = (0..180).map(|index| NewItem {
        thumbnail: Some(picture.clone()),
        ..item(index)
    });
    fill(&store, &server, "g", items.collect()).await;
    fill(&store, &server, "empty", Vec::new()).await;
    browser.resize(1280, 900, false).await;
    goto(&browser, &server, "/gallery?gallery=g").await;
    browser.wait_for_count(".tile", 48).await;
    browser.click("#audit").await;
    browser
        .wait("document.querySelector('#gallery')?.value === 'g'")
        .await;
    browser.enter("#clusters", "3").await;
    browser.click("#start").await;
    browser.wait_for_count(CARDS, 4).await;
    let facts = browser.text("#facts").await;
    assert!(facts.starts_with("180 items, "), "{facts}");
    browser
        .wait(
            "[...document.querySelectorAll('.tile img')].slice(0, 8).every((i) => i.naturalWidth)",
        )
        .await;
    browser.screenshot("audit-1280").await;

    // Of the two that are the same, the second is kept.
    browser
        .run("document.querySelectorAll('.group input[type=radio]')[1].click()")
        .await;
    let done = do_with_all(&browser, 0, "Delete the others of all groups shown").await;
    assert_eq!(done, "1 of 1 item deleted.");
    assert_eq!(stored(&server, "item 4", "status").await, json!(404));
    assert_eq!(stored(&server, "item 7", "id").await, json!("item 7"));
    browser.wait_for_count(".group input[type=radio]", 0).await;

    // Suggested labels are taken over.
    let wrong = browser
        .run(&format!(
            "return document.querySelectorAll('{CARDS}')[1].querySelectorAll('.tile').length"
        ))
        .await;
    browser
        .run(&format!(
            "document.querySelectorAll('{CARDS}')[1].querySelector('button').click()"
        ))
        .await;
    let done = do_with_all(&browser, 1, "Give the selected the suggested label").await;
    let items = if wrong == json!(1) { "item" } else { "items" };
    assert_eq!(done, format!("{wrong} of {wrong} {items} relabeled."));
    assert_eq!(stored(&server, "item 11", "label").await, json!("cat"));

    // A whole cluster gets a label.
    let of_cluster = format!("document.querySelectorAll('{CARDS}')[3].querySelector('form')");
    browser
        .run(&format!(
            "const form = {of_cluster};
             form.querySelector('input').value = 'first';
             form.requestSubmit()"
        ))
        .await;
    let done = agree(&browser).await;
    let labeled = ok_json(server.get("/v1/gallery?gallery=g&label=first&limit=100")).await;
    let count = labeled["items"].as_array().unwrap().len();
    assert!((40..=80).contains(&count), "{count}");
    assert_eq!(done, format!("{count} of {count} items relabeled."));

    // What was deleted since the audit is not shown again, nor on a phone.
    browser.resize(390, 844, false).await;
    browser.driver.refresh().await.unwrap();
    browser.wait_for_count(CARDS, 4).await;
    browser.wait_for_count(".group input[type=radio]", 0).await;
    assert_fits(&browser).await;
    browser.screenshot("audit-390").await;
    browser.resize(1280, 900, true).await;
    browser.screenshot("audit-dark-1280").await;

    record_downloads(&browser).await;
    browser.click("#csv").await;
    browser.wait("window.saved.length === 1").await;
    assert_eq!(
        browser.run("return window.saved[0][0]").await,
        json!("g-audit.csv")
    );
    browser.click("#forget").await;
    browser
        .wait("document.querySelector('#confirm').open")
        .await;
    browser.click("#confirm-yes").await;
    browser.wait_for_count(CARDS, 0).await;

    // An audit that cannot work says why.
    goto(&browser, &server, "/audit?gallery=empty").await;
    browser
        .wait("document.querySelector('#gallery')?.value === 'empty'")
        .await;
    browser.click("#start").await;
    browser
        .wait("document.querySelector('#error').textContent.includes('at least two')")
        .await;
    let console = browser.console().await;
    // Chromium logs the answers to questions for what is not there.
    let unexpected = console.iter().filter(|line| !line.contains("404"));
    assert_eq!(unexpected.collect::<Vec<_>>(), [""; 0]);
    assert_asks_only(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}
