//! The page of maps: points on a canvas, and changes of those that are selected.

use bytes::Bytes;
use dinoserve::gallery::NewItem;
use serde_json::json;

use super::{
    audits::{fill, item, server_on},
    page_tools::goto,
    pages::{assert_asks_only, assert_fits},
};
use crate::support::{
    browser::Browser,
    read_golden,
    server::{new_gallery, ok, ok_json},
};

/// Drags the pointer over the whole canvas, around all points, and returns the number of items that
/// are selected.
async fn select_all(browser: &Browser) -> String {
    browser
        .run(
            "const canvas = document.querySelector('#chart');
             const { width, height, left, top } = canvas.getBoundingClientRect();
             const at = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {
               pointerId: 1, button: 0, bubbles: true, shiftKey: true,
               clientX: left + x * width, clientY: top + y * height }));
             canvas.setPointerCapture = () => {};
             at('pointerdown', 0.01, 0.01);
             for (const [x, y] of [[0.99, 0.01], [0.99, 0.99], [0.01, 0.99]]) {
               at('pointermove', x, y);
             }
             at('pointerup', 0.01, 0.99);",
        )
        .await;
    browser
        .wait("!document.querySelector('#selection').hidden")
        .await;
    browser.text("#selected-title").await
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_shown_selected_and_changed_on_a_map() {
    let Some(browser) = Browser::start("page_map::items").await else {
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
    browser.resize(1280, 900, false).await;
    goto(&browser, &server, "/gallery?gallery=g").await;
    browser.wait_for_count(".tile", 48).await;
    browser.click("#map").await;
    browser
        .wait("document.querySelector('#gallery')?.value === 'g'")
        .await;
    browser.click("#start").await;
    browser.wait_for_count("#legend li", 3).await;
    let facts = browser.text("#facts").await;
    assert!(facts.starts_with("180 items, "), "{facts}");
    // The points of the three labels have three colors.
    browser
        .wait(
            "(() => { const { data } = document.querySelector('#chart').getContext('2d')
               .getImageData(0, 0, document.querySelector('#chart').width,
                             document.querySelector('#chart').height);
               return new Set(new Uint32Array(data.buffer)).size === 4; })()",
        )
        .await;
    browser.screenshot("map-1280").await;

    assert_eq!(select_all(&browser).await, "180 items selected");
    browser.click("#clear").await;
    browser
        .wait("document.querySelector('#selection').hidden")
        .await;
    browser.click("#legend li:nth-child(2) button").await;
    browser
        .wait("!document.querySelector('#selection').hidden")
        .await;
    let selected = browser.text("#selected-title").await;
    let count: usize = selected.split(' ').next().unwrap().parse().unwrap();
    assert!((59..=61).contains(&count), "{selected}");
    // Only those of the selection are shown, with their pictures as they are few, and can be
    // selected.
    browser.click("#only").await;
    browser
        .wait(
            "(() => { const canvas = document.querySelector('#chart');
               const { data } = canvas.getContext('2d')
                 .getImageData(0, 0, canvas.width, canvas.height);
               return new Set(new Uint32Array(data.buffer)).size > 500; })()",
        )
        .await;
    assert_eq!(select_all(&browser).await, selected);
    browser.screenshot("map-selected-1280").await;
    browser.enter("#new-label", "chosen").await;
    browser.click("#relabel button:not([type])").await;
    browser
        .wait("document.querySelector('#confirm').open")
        .await;
    browser.click("#confirm-yes").await;
    browser
        .wait("document.querySelector('#legend').textContent.includes('chosen')")
        .await;
    let labeled = ok_json(server.get("/v1/gallery?gallery=g&label=chosen&limit=100")).await;
    assert_eq!(labeled["items"].as_array().unwrap().len(), count);

    // Colors of an audit, which is to be made first.
    browser
        .run(
            "const colors = document.querySelector('#colors'); colors.value = 'cluster';
             colors.dispatchEvent(new Event('change'));",
        )
        .await;
    browser
        .wait("document.querySelector('#error').textContent.includes('no audit')")
        .await;
    ok(server.post("/v1/galleries/g/audit?wait=true&clusters=3")).await;
    browser
        .run("document.querySelector('#colors').dispatchEvent(new Event('change'))")
        .await;
    browser
        .wait("document.querySelector('#legend').textContent.includes('1: ')")
        .await;

    // The legend of one gallery does not select items of another.
    fill(&store, &server, "other", (0..3).map(item).collect()).await;
    browser.driver.refresh().await.unwrap();
    browser.wait_for_count("#legend li", 3).await;
    browser
        .run(
            "const gallery = document.querySelector('#gallery'); gallery.value = 'other';
             gallery.dispatchEvent(new Event('change'));",
        )
        .await;
    browser.wait_for_count("#legend li", 0).await;
    browser
        .wait("document.querySelector('#shown').hidden")
        .await;
    browser.driver.back().await.unwrap();
    browser.wait_for_count("#legend li", 3).await;

    // New items are placed by a button that counts them.
    fill(&store, &server, "g", (180..183).map(item).collect()).await;
    browser.resize(390, 844, false).await;
    browser.driver.refresh().await.unwrap();
    browser
        .wait("document.querySelector('#start').textContent === 'Place 3 new items'")
        .await;
    browser.click("#start").await;
    browser
        .wait("document.querySelector('#facts').textContent.startsWith('183 items')")
        .await;
    assert_fits(&browser).await;
    browser.screenshot("map-390").await;
    browser.resize(1280, 900, true).await;
    browser.screenshot("map-dark-1280").await;

    assert_eq!(select_all(&browser).await, "183 items selected");
    browser.click("#delete").await;
    browser
        .wait("document.querySelector('#confirm').open")
        .await;
    browser.click("#confirm-yes").await;
    browser
        .wait("document.querySelector('#facts').textContent.startsWith('0 items')")
        .await;
    assert_eq!(ok_json(server.get("/v1/galleries/g")).await["items"], 0);
    browser.click("#forget").await;
    browser
        .wait("document.querySelector('#confirm').open")
        .await;
    browser.click("#confirm-yes").await;
    browser
        .wait("document.querySelector('#shown').hidden")
        .await;
    let console = browser.console().await;
    // Chromium logs the answers to questions for what is not there, and what this test reads.
    let unexpected = console
        .iter()
        .filter(|line| !line.contains("404") && !line.contains("readback"));
    assert_eq!(unexpected.collect::<Vec<_>>(), [""; 0]);
    assert_asks_only(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_points_are_drawn() {
    let Some(browser) = Browser::start("page_map::points").await else {
        return;
    };
    let server = server_on(&new_gallery().await).await;
    browser.resize(1280, 900, false).await;
    goto(&browser, &server, "/map").await;
    // Frames are counted while the map is moved. How many there are depends on the machine, so only
    // a page that stands still fails.
    let frames = browser
        .run(
            "return (async () => {
               const { Chart, packed, isInside } = await import('/assets/chart.js');
               document.querySelector('#shown').hidden = false;
               const chart = new Chart(document.querySelector('#chart'), {
                 picture: () => new Promise(() => {}), hovered: () => {}, changed: () => {} });
               const count = 100_000;
               const points = Array.from({ length: count }, (_, index) => [
                 Math.sin(index * 1.7) * Math.sqrt(index),
                 Math.cos(index * 1.7) * Math.sqrt(index)]);
               const frame = () => new Promise(requestAnimationFrame);
               await frame();
               chart.show(points, new Uint32Array(count).fill(packed('#3b7dd8')));
               await frame();
               const began = performance.now();
               let frames = 0;
               for (; performance.now() - began < 2000; frames++) {
                 chart.pan(3, 2);
                 await frame();
               }
               const square = [[0, 0], [10, 0], [10, 10], [0, 10]];
               chart.select((index) => isInside([index, 5], square));
               return [frames / 2, chart.selected.filter(Boolean).length];
             })()",
        )
        .await;
    println!("{} frames a second", frames[0]);
    assert!(frames[0].as_f64().unwrap() >= 3.0, "{frames}");
    // 0 to 9 lie within, by the rule of rays that a place on the left side counts.
    assert_eq!(frames[1], json!(10), "{frames}");
    browser.quit().await;
    server.stopped().await;
}
