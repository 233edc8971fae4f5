//! The pages as tools: many photographs, downloads, permalinks, whole galleries, and accessibility.

use dinoserve::http::HttpConfig;
use serde_json::{Value, json};

use super::pages::assert_asks_only;
use crate::support::{
    browser::Browser,
    focus,
    python::Python,
    read_golden,
    server::{Server, Setup, new_gallery, ok_json},
    skip,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";

pub(super) async fn goto(browser: &Browser, server: &Server, path: &str) {
    browser.driver.goto(server.url(path)).await.unwrap();
    browser
        .wait("document.querySelector('#model').textContent !== ''")
        .await;
}

async fn tiny_with_gallery() -> Server {
    Setup {
        gallery: Some(new_gallery().await),
        ..Setup::tiny()
    }
    .start()
    .await
}

/// Makes what is saved visible: the name, and the first bytes of each file.
pub(super) async fn record_downloads(browser: &Browser) {
    browser
        .run(
            "window.saved = [];
             const files = new Map();
             const create = URL.createObjectURL;
             URL.createObjectURL = (file) => {
               const address = create(file);
               files.set(address, file);
               return address;
             };
             HTMLAnchorElement.prototype.click = function () {
               files.get(this.href).arrayBuffer().then((bytes) => window.saved.push(
                 [this.download, bytes.byteLength, [...new Uint8Array(bytes.slice(0, 6))]]));
             };",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_photographs_are_shown_while_the_page_stays_responsive() {
    let Some(browser) = Browser::start("page_tools::two_hundred_photographs").await else {
        return;
    };
    let server = tiny_with_gallery().await;
    browser.resize(1280, 900, false).await;
    goto(&browser, &server, "/").await;
    browser
        .run(
            "window.longest = 0;
             new PerformanceObserver((list) => {
               for (const { duration } of list.getEntries()) longest = Math.max(longest, duration);
             }).observe({ type: 'longtask' });",
        )
        .await;
    // Each is a photograph of its own, so that no answer comes from a cache. One is none at all.
    let dropped = "const files = new DataTransfer();
         const blob = await (await fetch('/assets/cat.jpg')).blob();
         for (let index = 0; index < 199; index++) {
           files.items.add(new File([blob, `${index}`], `${index}.jpg`, { type: 'image/jpeg' }));
         }
         files.items.add(new File(['no image'], 'broken.jpg', { type: 'image/jpeg' }));
         files.items.add(new File(['notes'], 'notes.txt', { type: 'text/plain' }));
         window.longest = 0;
         for (const type of ['dragover', 'drop']) document.body.dispatchEvent(
           new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: files }));";
    browser
        .run(&format!("return (async () => {{ {dropped} }})()"))
        .await;
    browser.wait_for_count(".photos li", 200).await;
    browser
        .wait("document.querySelector('#queue-summary').textContent.includes('Click one')")
        .await;
    assert_eq!(
        browser.text("#queue-summary").await,
        "199 are ready, 1 cannot be used. Click one to explore it."
    );
    let failures = browser.text("#queue-failures").await;
    assert!(
        failures.starts_with("broken.jpg: ") && !failures.contains('\n'),
        "{failures}"
    );
    assert_eq!(
        browser.text("#unused").await,
        "Not used, because they are not images: notes.txt."
    );
    assert!(browser.colors(".photos li:nth-child(150) canvas").await > 20);
    // The size of a long task depends on the machine; what counts is that none is as long as the
    // work on 200 photographs.
    let longest = browser.run("return window.longest").await;
    println!("the longest task took {longest} ms");
    assert!(longest.as_f64().unwrap() < 1000.0, "{longest}");
    let address = browser
        .run("return document.querySelector('#error').hidden")
        .await;
    assert_eq!(address, json!(true));
    browser.screenshot("many-1280").await;

    // The second photograph of the queue is opened, then several are seen in the same colors.
    browser.click(".photos li:nth-child(2) button").await;
    browser
        .wait("document.querySelector('#photo').getAttribute('aria-label').includes('1.jpg')")
        .await;
    browser.click("#queue-joint").await;
    browser
        .wait("document.querySelector('dialog.joint img')?.naturalWidth > 1000")
        .await;
    browser
        .run("document.querySelector('dialog.joint').close()")
        .await;

    // All are stored but the broken one.
    browser
        .wait("!document.querySelector('#queue-store').hidden")
        .await;
    browser.click("#queue-store").await;
    browser
        .wait("document.querySelector('#queue-summary').textContent.startsWith('199 of 199 are')")
        .await;
    let stored = ok_json(server.get("/v1/galleries/default")).await;
    assert_eq!(stored["items"], 199);
    browser.click("#queue-clear").await;
    browser
        .wait("document.querySelector('#queue').hidden")
        .await;
    assert_asks_only(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_shows_can_be_saved_and_linked_to() {
    let Some(browser) = Browser::start("page_tools::saved_and_linked").await else {
        return;
    };
    let server = Server::start(focus().clone(), HttpConfig::default()).await;
    browser.resize(1280, 900, false).await;
    goto(&browser, &server, "/?sample=cat.jpg").await;
    let ready = "document.querySelector('#status').textContent.includes('are ready')";
    browser.wait(ready).await;
    record_downloads(&browser).await;
    let heads = browser.text("#heads button:nth-child(3)").await;
    assert!(
        heads.contains("% on the object, entropy "),
        "heads have numbers: {heads}"
    );
    browser.click("#heads button:nth-child(3)").await;
    browser
        .wait("document.querySelectorAll('.downloads button').length === 9")
        .await;
    browser
        .run("for (const button of document.querySelectorAll('.downloads button')) button.click()")
        .await;
    browser.wait("window.saved.length === 9").await;
    let saved = browser.run("return window.saved").await;
    let png = json!([137, 80, 78, 71, 13, 10]);
    let npy = json!([147, 78, 85, 77, 80, 89]);
    for (name, begin) in [
        ("cat-parts.png", &png),
        ("cat-parts.npy", &npy),
        ("cat-heads.png", &png),
        ("cat-heads.npy", &npy),
        ("cat-overlay.png", &png),
        ("cat-mask.png", &png),
    ] {
        let files = saved.as_array().unwrap();
        let file = files.iter().find(|file| file[0] == name);
        assert_eq!(file.map(|file| &file[2]), Some(begin), "{name} in {saved}");
    }

    // The value under the pointer, in the range that the color bar states.
    let hovered = "const canvas = document.querySelector('#photo');
         const box = canvas.getBoundingClientRect();
         canvas.dispatchEvent(new PointerEvent('pointermove',
           { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 }));
         return document.querySelector('#hover').textContent;";
    let hovered = browser.run(hovered).await;
    assert!(
        hovered.as_str().unwrap().starts_with("row 18, column 27: "),
        "{hovered}"
    );
    assert_ne!(browser.text("#high").await, "");

    // A click in the second photograph compares the other way round.
    browser.click("#second-samples button:nth-child(2)").await;
    browser
        .wait("!document.querySelector('#second').hidden")
        .await;
    browser.click("#second").await;
    browser
        .wait(
            "document.querySelector('#curl').textContent\
             .includes('image=@coffee.jpg -F image=@cat.jpg')",
        )
        .await;
    browser.click("#joint").await;
    browser
        .wait("!document.querySelector('#pca-second-stage').hidden")
        .await;
    assert!(browser.colors("#pca-second").await > 100);

    // The same as a program.
    browser
        .run("language.value = 'python'; language.dispatchEvent(new Event('change'))")
        .await;
    let program = browser.text("#curl figure:nth-child(1) pre").await;
    assert_eq!(
        program,
        format!(
            "from dinoserve import Client\nClient(\"{}\").pca_image(\"cat.jpg\", size=518)\
             .save(\"parts.png\")",
            server.url("")
        )
    );

    // Another size.
    browser
        .run(
            "const size = document.querySelector('#size'); size.value = '224'; \
              size.dispatchEvent(new Event('change'))",
        )
        .await;
    browser
        .wait("document.querySelector('#photo').height === 224")
        .await;
    assert_asks_only(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gallery_is_filled_changed_and_deleted_on_its_page() {
    let Some(browser) = Browser::start("page_tools::a_gallery_is_filled").await else {
        return;
    };
    let server = tiny_with_gallery().await;
    browser.resize(1280, 900, false).await;
    goto(&browser, &server, "/gallery").await;
    browser
        .wait("document.querySelector('#summary').textContent.includes('Add photos to begin')")
        .await;
    browser.screenshot("gallery-empty-1280").await;
    browser.click("#new").await;
    browser.enter("#naming-name", "pets").await;
    browser.click("#naming-form button").await;
    let photo = read_golden(CHELSEA);
    let cup = read_golden("dinov2-small-focus/coffee.png");
    browser
        .drop_files(&[
            (&photo, "cat-1.png", "image/png"),
            (&photo, "cat-2.png", "image/png"),
            (&cup, "cup-1.png", "image/png"),
            (&cup, "cup-2.png", "image/png"),
            (b"no image", "broken.jpg", "image/jpeg"),
        ])
        .await;
    browser.wait_for_count(".tile", 4).await;
    assert_eq!(
        browser.text("#upload-summary").await,
        "4 photos are stored in “pets”."
    );
    assert!(
        browser
            .text("#upload-failures")
            .await
            .starts_with("broken.jpg: ")
    );
    // The whole picture is in the tile, not only its middle.
    browser
        .wait("document.querySelector('.tile img')?.naturalWidth === 160")
        .await;
    let height = browser
        .run("return document.querySelector('.tile img').naturalHeight")
        .await;
    assert_eq!(height, json!(106));

    // Two are stored at a time, so only their names are known.
    for (name, label, year) in [
        ("cat-1", "cat", 2020),
        ("cat-2", "cat", 2021),
        ("cup-1", "cup", 2022),
        ("cup-2", "cup", 2023),
    ] {
        let tile = format!(".tile[data-id=\"{name}.png\"]");
        browser.click(&format!("{tile} .tile-picture")).await;
        browser
            .wait("document.querySelector('#details').open")
            .await;
        browser.enter("#details-label", label).await;
        browser
            .run(&format!(
                "document.querySelector('#details-metadata').value = '{{\"year\": {year}}}'"
            ))
            .await;
        browser.click("#details-edit button").await;
        browser
            .wait("!document.querySelector('#details').open")
            .await;
        browser
            .wait(&format!(
                "document.querySelector('{tile} .label')?.textContent === '{label}'"
            ))
            .await;
    }
    let changed = ok_json(server.get("/v1/gallery/cup-1.png?gallery=pets")).await;
    assert_eq!(
        (&changed["label"], &changed["metadata"]),
        (&json!("cup"), &json!({"year": 2022}))
    );

    // The address of an item opens it.
    goto(&browser, &server, "/gallery?gallery=pets&item=cup-2.png").await;
    browser
        .wait("document.querySelector('#details').open")
        .await;
    assert_eq!(browser.text("#details-id").await, "cup-2.png");
    browser.screenshot("gallery-details-edit-1280").await;
    browser.click("#details-close").await;

    // Conditions from the builder.
    for (comparison, value) in [("gte", "2021"), ("lt", "2023")] {
        browser
            .run("document.querySelector('#member').value = 'year'")
            .await;
        browser
            .run(&format!(
                "document.querySelector('#comparison').value = '{comparison}'"
            ))
            .await;
        browser.enter("#value", value).await;
        browser.click("#add-condition").await;
    }
    browser.wait_for_count(".tile", 2).await;
    let found = browser
        .run("return document.querySelector('#where').value")
        .await;
    assert_eq!(found, json!(r#"{"year":{"gte":2021,"lt":2023}}"#));
    browser
        .wait("decodeURIComponent(location.search).includes('\"lt\":2023')")
        .await;

    // The arrow keys move from tile to tile.
    browser
        .run("document.querySelector('.tile-picture').focus()")
        .await;
    browser
        .enter(".tile:nth-child(1) .tile-picture", thirtyfour::Key::Right)
        .await;
    let is_next = "return document.activeElement.closest('.tile') === \
                   document.querySelector('.tile:nth-child(2)')";
    assert_eq!(browser.run(is_next).await, json!(true));

    // A probe and a basis are made of what is stored.
    browser.enter("#probe-name", "animals").await;
    browser.click("#train button").await;
    browser
        .wait("document.querySelector('#probes').textContent.includes('2 classes')")
        .await;
    browser.enter("#basis-name", "parts").await;
    browser.click("#fit button").await;
    browser
        .wait("document.querySelector('#bases').textContent.includes('4 images, 3 components')")
        .await;
    browser.screenshot("gallery-learned-1280").await;
    browser.resize(390, 844, true).await;
    browser.screenshot("gallery-dark-390").await;
    browser.resize(1280, 900, false).await;
    browser.click("#probes button").await;
    browser.click("#confirm-yes").await;
    browser
        .wait("document.querySelector('#probes').children.length === 0")
        .await;

    browser.click("#remove").await;
    browser.click("#confirm-yes").await;
    browser
        .wait("document.querySelector('#summary').textContent.includes('Add photos to begin')")
        .await;
    let left = ok_json(server.get("/v1/galleries")).await;
    assert_eq!(left["data"], json!([]));
    assert_asks_only(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}

/// Returns the violations of WCAG 2.1 AA that axe finds on the page.
async fn violations(browser: &Browser, axe: &str) -> Value {
    browser.run(axe).await;
    browser
        .run(
            "return axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] })
             .then(({ violations }) => violations.map(({ id, nodes }) =>
               [id, nodes.map((node) => node.html.slice(0, 160) + node.failureSummary)]));",
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_meet_wcag_aa() {
    let test = "page_tools::the_pages_meet_wcag_aa";
    let Some(python) = Python::find(test) else {
        return;
    };
    let Some(browser) = Browser::start(test).await else {
        return;
    };
    let find = "import importlib.util, pathlib; \
                spec = importlib.util.find_spec('axe_core_python'); \
                print(pathlib.Path(spec.origin).parent / 'axe.min.js', end='')";
    let path = python.run(&["-c", find]).await;
    let Ok(axe) = std::fs::read_to_string(&path) else {
        return skip(&format!("{test}: {path} is missing"));
    };
    let server = tiny_with_gallery().await;
    for (width, dark) in [(1280, false), (1280, true), (390, false), (390, true)] {
        browser.resize(width, 900, dark).await;
        goto(&browser, &server, "/").await;
        assert_eq!(
            violations(&browser, &axe).await,
            json!([]),
            "/ {width} {dark}"
        );
        let photo = read_golden(CHELSEA);
        let files: Vec<(&[u8], &str, &str)> = ["a.png", "b.png", "c.png"]
            .map(|name| (photo.as_slice(), name, "image/png"))
            .to_vec();
        browser.drop_files(&files).await;
        browser
            .wait("document.querySelector('#status').textContent.includes('are ready')")
            .await;
        browser
            .wait("document.querySelector('#queue-summary').textContent.includes('Click one')")
            .await;
        browser
            .run("document.querySelector('#heads button').click()")
            .await;
        browser
            .run("document.querySelector('#second-samples button').click()")
            .await;
        browser
            .wait("!document.querySelector('#second').hidden")
            .await;
        for (button, summary) in [
            ("#objects", "#objects-summary"),
            ("#matches", "#matches-summary"),
        ] {
            browser
                .run(&format!("document.querySelector('{button}').click()"))
                .await;
            let done = format!("/^.*[.]$/.test(document.querySelector('{summary}').textContent)");
            browser.wait(&done).await;
        }
        let found = violations(&browser, &axe).await;
        assert_eq!(found, json!([]), "/ with photographs {width} {dark}");
        goto(&browser, &server, "/gallery").await;
        browser.drop_files(&files).await;
        browser
            .wait("document.querySelector('#upload-summary').textContent.includes('are stored in')")
            .await;
        browser
            .wait("document.querySelector('#uploading button').hidden")
            .await;
        browser.wait_for_count(".tile", 3).await;
        browser
            .wait("!document.querySelector('#learned').hidden")
            .await;
        let found = violations(&browser, &axe).await;
        assert_eq!(found, json!([]), "/gallery {width} {dark}");
        browser
            .run("document.querySelector('.tile .tile-picture').click()")
            .await;
        browser
            .wait("document.querySelector('#details').open")
            .await;
        let found = violations(&browser, &axe).await;
        assert_eq!(found, json!([]), "details {width} {dark}");
    }
    assert_asks_only(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}
