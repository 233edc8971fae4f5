//! The pages, in a real browser that can reach only the server.

use dinoserve::http::{
    HttpConfig,
    access::{ApiKeys, NewKey, Role},
};
use serde_json::json;
use thirtyfour::Key;

use super::families::model as family_model;
use crate::support::{
    browser::Browser,
    focus, golden, read_golden, scratch,
    server::{Server, Setup, new_gallery, ok},
    tiny, until,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";

/// Checks that the console is empty and that no other server was contacted.
async fn assert_well_behaved(browser: &Browser, server: &Server) {
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
    assert_asks_only(browser, server).await;
}

/// Checks that no other server was contacted.
pub(super) async fn assert_asks_only(browser: &Browser, server: &Server) {
    let requests = browser.requests().await;
    assert!(!requests.is_empty());
    for address in requests {
        let own = address.starts_with(&server.url("/"));
        assert!(
            own || address.starts_with("data:") || address.starts_with("blob:"),
            "{address} was requested"
        );
    }
}

pub(super) async fn assert_fits(browser: &Browser) {
    let width = browser
        .run("return [document.documentElement.scrollWidth, innerWidth]")
        .await;
    assert!(
        width[0].as_u64() <= width[1].as_u64(),
        "the page is wider than the screen: {width}"
    );
}

#[tokio::test]
async fn an_image_is_dropped_explored_stored_and_found() {
    let Some(browser) = Browser::start("pages::an_image_is_dropped").await else {
        return;
    };
    let server =
        Server::start_on(new_gallery().await, focus().clone(), HttpConfig::default()).await;
    browser.resize(1280, 900, false).await;
    drop_on_the_playground(&browser, &server).await;
    explore(&browser).await;
    store_and_find(&browser, &server).await;
    use_the_gallery_page(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}

async fn drop_on_the_playground(browser: &Browser, server: &Server) {
    browser.driver.goto(server.url("/")).await.unwrap();
    browser.wait_for_count("#samples img", 4).await;
    browser
        .wait("document.querySelector('#model').textContent.includes('dinov2-small-focus')")
        .await;
    assert!(
        browser.text("#notice").await.contains("NOT Meta's"),
        "the notice is shown"
    );
    browser.screenshot("playground-empty-1280").await;

    browser
        .drop_file(&read_golden(CHELSEA), "my cat's photo.png", "image/png")
        .await;
    browser.wait_for_count("#heads button", 6).await;
    browser
        .wait("document.querySelector('#neighbors-hint').textContent.includes('is empty')")
        .await;
    for canvas in ["#photo", "#pca", "#heads button:nth-child(6) canvas"] {
        assert!(
            browser.colors(canvas).await > 200,
            "{canvas} shows something"
        );
    }
    let photo = browser
        .run("return [photo.width, photo.height].map(Number)")
        .await;
    assert_eq!(photo, json!([770, 518]), "the image as the model saw it");
}

/// Shows a head, the similarity of a patch, and a second image.
async fn explore(browser: &Browser) {
    // A head over the image, and a smaller mass of it.
    let plain = browser.colors("#photo").await;
    browser.click("#heads button:nth-child(3)").await;
    browser
        .wait("document.querySelector('#shown').textContent.includes('head 2')")
        .await;
    assert_ne!(browser.colors("#photo").await, plain);
    browser
        .run("mass.value = 0.5; mass.dispatchEvent(new Event('input'))")
        .await;
    assert_eq!(browser.text("#mass-value").await, "50 %");

    // A patch, by the mouse and by the keyboard.
    browser.click("#photo").await;
    browser
        .wait(
            "document.querySelector('#status').textContent\
             .startsWith('Showing the similarity of every patch')",
        )
        .await;
    browser
        .wait("document.querySelector('#curl').textContent.includes('patch=18,27')")
        .await;
    let quoted = browser.text("#curl").await;
    assert!(quoted.contains(r"'@my cat'\''s photo.png'"), "{quoted}");
    for key in [Key::Right, Key::Enter] {
        browser.enter("#photo", key).await;
    }
    browser
        .wait("document.querySelector('#curl').textContent.includes('patch=18,28')")
        .await;

    // A second image next to it.
    browser.click("#second-samples button:nth-child(1)").await;
    browser
        .wait("!document.querySelector('#second').hidden")
        .await;
    browser
        .wait("document.querySelector('#timing').textContent.includes('Similarity')")
        .await;
    assert!(browser.colors("#second").await > 200);
}

async fn store_and_find(browser: &Browser, server: &Server) {
    browser.enter("#add-label", "cat").await;
    browser.click("#add button").await;
    browser
        .wait("document.querySelector('#added').textContent.includes('in “default”.')")
        .await;
    let neighbor = browser.text("#neighbors li").await;
    assert!(
        neighbor.contains("my cat's photo.png") && neighbor.contains("1.000"),
        "{neighbor}"
    );
    browser
        .wait("document.querySelector('#neighbors img')?.naturalWidth > 0")
        .await;
    assert_well_behaved(browser, server).await;
    assert_fits(browser).await;
    browser.screenshot("playground-1280").await;
    browser.resize(1280, 900, true).await;
    browser.screenshot("playground-dark-1280").await;
    browser.resize(390, 844, false).await;
    assert_fits(browser).await;
    browser.screenshot("playground-390").await;
}

/// Lists, filters, searches, opens and deletes items.
async fn use_the_gallery_page(browser: &Browser, server: &Server) {
    for (id, file) in [
        ("cups/coffee", "coffee.png"),
        ("people/astronaut", "astronaut.png"),
    ] {
        let path = format!(
            "/v1/gallery/{}?label=other&metadata={{\"year\":1983}}",
            id.replace('/', "%2F")
        );
        let image = read_golden(&format!("dinov2-small-focus/{file}"));
        ok(server
            .put(&path)
            .header("content-type", "image/png")
            .body(image))
        .await;
    }
    browser.resize(1280, 900, false).await;
    browser.driver.goto(server.url("/gallery")).await.unwrap();
    browser.wait_for_count(".tile", 3).await;
    browser
        .wait("[...document.querySelectorAll('.tile img')].every((img) => img.naturalWidth > 0)")
        .await;
    browser.screenshot("gallery-1280").await;
    browser.enter("#where", r#"{"year": {"lt": 2000}}"#).await;
    browser.click("#filters button").await;
    browser.wait_for_count(".tile", 2).await;
    browser.find("#where").await.clear().await.unwrap();
    browser.enter("#label", "cat").await;
    browser.click("#filters button").await;
    browser.wait_for_count(".tile", 1).await;
    browser.find("#label").await.clear().await.unwrap();
    browser.click(".tile-actions button").await;
    browser.wait_for_count(".tile", 2).await;
    browser
        .wait("document.querySelector('#summary').textContent.includes('nearest of')")
        .await;
    browser.click("#unlike").await;
    browser.wait_for_count(".tile", 3).await;
    browser
        .enter("#file", golden(CHELSEA).to_string_lossy())
        .await;
    browser
        .wait("document.querySelector('.tile .score')?.textContent === '1.000'")
        .await;
    browser.click(".tile .tile-picture").await;
    browser
        .wait("document.querySelector('#details').open")
        .await;
    browser.screenshot("gallery-details-1280").await;
    browser.click("#details-delete").await;
    browser.click("#confirm-yes").await;
    browser
        .wait("document.querySelector('#summary').textContent.startsWith('Deleted')")
        .await;
    assert_eq!(
        server
            .get("/v1/gallery/my%20cat's%20photo.png")
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
    browser.resize(390, 844, false).await;
    browser.driver.goto(server.url("/gallery")).await.unwrap();
    browser.wait_for_count(".tile", 2).await;
    assert_fits(browser).await;
    browser.screenshot("gallery-390").await;
    assert_well_behaved(browser, server).await;
}

/// On a server elsewhere without TLS, browsers have no interface to the clipboard.
#[tokio::test]
async fn commands_are_copied_also_in_an_insecure_context() {
    let Some(browser) = Browser::start("pages::commands_are_copied").await else {
        return;
    };
    let server = Server::tiny().await;
    for secure in [true, false] {
        browser.driver.goto(server.url("/")).await.unwrap();
        if !secure {
            browser
                .run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
                .await;
        }
        browser
            .drop_file(&read_golden(CHELSEA), "a.png", "image/png")
            .await;
        browser.wait_for_count("#curl figure", 3).await;
        browser.click("#curl figure:nth-child(2) button").await;
        browser
            .wait(
                "document.querySelector('#curl figure:nth-child(2) button').textContent \
                 === 'Copied'",
            )
            .await;
        // Pasted into another field.
        browser
            .wait("!document.querySelector('#results').hidden")
            .await;
        browser
            .run(
                "const area = document.createElement('textarea'); area.id = 'pasted'; \
                 document.querySelector('main').prepend(area); area.focus();",
            )
            .await;
        browser.enter("#pasted", Key::Control + "v").await;
        let pasted = browser
            .run("return document.querySelector('#pasted').value")
            .await;
        assert_eq!(
            pasted,
            browser.text("#curl figure:nth-child(2) pre").await,
            "secure: {secure}"
        );
    }
    browser.quit().await;
    server.stopped().await;
}

#[tokio::test]
async fn the_gallery_page_follows_its_address() {
    let Some(browser) = Browser::start("pages::the_gallery_page_follows_its_address").await else {
        return;
    };
    let server = Setup {
        gallery: Some(new_gallery().await),
        ..Setup::tiny()
    }
    .start()
    .await;
    let long = "a-very-long-file-name-without-any-space-in-it-".repeat(3);
    for (id, gallery, label) in [
        (format!("{long}.png"), "default", "cat"),
        (
            "two".to_owned(),
            "default",
            "a-label-that-is-longer-than-any-tile-is-wide",
        ),
        ("three".to_owned(), "default", "cat"),
        ("lone".to_owned(), "other", "cat"),
    ] {
        let put = server.put(&format!("/v1/gallery/{id}?gallery={gallery}&label={label}"));
        ok(put
            .header("content-type", "image/png")
            .body(read_golden(CHELSEA)))
        .await;
    }
    browser.resize(1280, 900, false).await;
    let address = "/gallery?gallery=default&label=cat";
    browser.driver.goto(server.url(address)).await.unwrap();
    browser.wait_for_count(".tile", 2).await;
    let overflowing = "return [...document.querySelectorAll('.tile')]\
        .filter((tile) => tile.scrollWidth > tile.clientWidth).length";
    assert_eq!(browser.run(overflowing).await, json!(0));
    browser.find("#label").await.clear().await.unwrap();
    browser.click("#filters button").await;
    browser.wait_for_count(".tile", 3).await;
    assert_eq!(browser.run(overflowing).await, json!(0));
    browser.screenshot("gallery-long-names-1280").await;
    browser.wait("location.search === '?gallery=default'").await;

    // Neighbors have an address, and the browser's buttons work.
    browser
        .click(".tile:nth-child(3) .tile-actions button")
        .await;
    browser
        .wait("location.search === '?gallery=default&like=three'")
        .await;
    browser
        .wait(
            "document.querySelector('#summary').textContent.startsWith('The 2 nearest of “three”')",
        )
        .await;
    browser.driver.back().await.unwrap();
    browser.wait_for_count(".tile", 3).await;
    browser
        .wait("document.querySelector('#summary').textContent.startsWith('3 items shown')")
        .await;
    browser.driver.forward().await.unwrap();
    browser.wait_for_count(".tile", 2).await;
    browser.driver.refresh().await.unwrap();
    browser.wait_for_count(".tile", 2).await;

    // The details have the picture.
    browser.click(".tile .tile-picture").await;
    browser
        .wait("document.querySelector('#details-picture img')?.naturalWidth > 0")
        .await;
    browser.screenshot("gallery-picture-1280").await;
    browser.click("#details-close").await;

    // A search that fails leaves no summary of the one before.
    browser.enter("#where", "no JSON").await;
    browser.click("#filters button").await;
    browser
        .wait("!document.querySelector('#error').hidden")
        .await;
    assert_eq!(browser.text("#summary").await, "");
    browser.wait_for_count(".tile", 0).await;
    browser.find("#where").await.clear().await.unwrap();
    browser.enter("#label", "dog").await;
    browser.click("#filters button").await;
    browser
        .wait("document.querySelector('#summary').textContent === 'No item matches.'")
        .await;
    browser
        .driver
        .goto(server.url("/gallery?gallery=none"))
        .await
        .unwrap();
    browser
        .wait("document.querySelector('#error').textContent.includes('no gallery “none”')")
        .await;
    browser.quit().await;
    server.stopped().await;
}

#[tokio::test]
async fn errors_are_shown_as_text() {
    let Some(browser) = Browser::start("pages::errors_are_shown_as_text").await else {
        return;
    };
    let server = Server::tiny().await;
    browser.driver.goto(server.url("/")).await.unwrap();
    browser
        .wait("document.querySelector('#model').textContent.includes('tiny')")
        .await;
    browser.drop_file(b"hello", "notes.txt", "text/plain").await;
    browser
        .wait(
            "document.querySelector('#error').textContent.startsWith('notes.txt is not an image.')",
        )
        .await;
    browser
        .drop_file(b"%PDF-1.7", "a.pdf", "application/pdf")
        .await;
    browser
        .wait("document.querySelector('#error').textContent.startsWith('a.pdf is not an image.')")
        .await;
    // Many systems know no type for some formats: the server says what such a file is.
    browser.drop_file(b"8BPS\0\x01", "cat.psd", "").await;
    browser
        .wait("document.querySelector('#error').textContent.includes('PSD')")
        .await;
    let pgm = [&b"P5 64 64 255\n"[..], &[7, 99, 200, 31].repeat(1024)].concat();
    browser.drop_file(&pgm, "cat.pgm", "").await;
    browser
        .wait("document.querySelector('#add-id').value === 'cat.pgm'")
        .await;
    browser.drop_file(b"hello", "broken.png", "image/png").await;
    browser
        .wait(
            "document.querySelector('#error').textContent.includes('are not an image; send JPEG')",
        )
        .await;
    // The server renders formats that the browser cannot show.
    let tiff = read_golden("formats/tiff_raw.tif");
    browser.drop_file(&tiff, "cat.tiff", "image/tiff").await;
    until(async || browser.colors("#photo").await > 200).await;
    browser.wait_for_count("#heads button", 2).await;
    // The page says that this server has no gallery.
    browser
        .wait("document.querySelector('#neighbors-hint').textContent.includes('--gallery DIR')")
        .await;
    // The console holds the failed responses only.
    let console = browser.console().await;
    assert!(
        console
            .iter()
            .all(|line| line.contains("the server responded with a status of")),
        "{console:#?}"
    );
    let address = server.url("/");
    server.stopped().await;
    browser.click("#samples button").await;
    browser
        .wait("document.querySelector('#error').textContent.length > 10")
        .await;
    let error = browser.text("#error").await;
    assert!(
        error.contains("The server does not answer"),
        "{address}: {error}"
    );
    browser.quit().await;
}

#[tokio::test]
async fn the_api_can_be_read_and_tried() {
    let Some(browser) = Browser::start("pages::the_api_can_be_read_and_tried").await else {
        return;
    };
    let server = Server::tiny().await;
    browser.resize(1280, 900, false).await;
    browser.driver.goto(server.url("/docs")).await.unwrap();
    browser
        .wait("document.body.textContent.includes('/v1/similarity')")
        .await;
    browser.screenshot("docs-1280").await;
    assert_well_behaved(&browser, &server).await;

    // The forms work as they are offered.
    for operation in [
        "create_pca_map",
        "create_attention_map",
        "create_similarity_map",
    ] {
        let block = format!("#operations-features-{operation}");
        browser
            .click(&format!("{block} .opblock-summary-control"))
            .await;
        browser
            .wait(&format!("document.querySelector('{block} .execute')"))
            .await;
        // A click before the operation is read from the document has no effect.
        browser
            .wait(&format!(
                "document.querySelector('{block} .live-responses-table') || \
                 document.querySelector('{block} .loading-container') || \
                 document.querySelector('{block} .execute').click()"
            ))
            .await;
        browser
            .wait(&format!(
                "document.querySelector('{block} .live-responses-table')"
            ))
            .await;
        let status = format!("{block} .live-responses-table .response-col_status");
        let status = browser.text(&format!("{status}:not(.col_header)")).await;
        if operation == "create_pca_map" {
            browser.screenshot("docs-pca-1280").await;
        }
        assert!(status.starts_with("200"), "{operation}: {status}");
    }

    // A server without keys asks for none, phones show it in their width, and there is a way back.
    let authorize = browser
        .run("return document.querySelector('.authorize')")
        .await;
    assert_eq!(authorize, json!(null));
    browser.resize(390, 844, false).await;
    browser.driver.goto(server.url("/docs")).await.unwrap();
    browser
        .wait("document.body.textContent.includes('/v1/similarity')")
        .await;
    assert_eq!(browser.run("return innerWidth").await, json!(390));
    assert_fits(&browser).await;
    browser.screenshot("docs-390").await;
    browser.click(".way-back nav a").await;
    browser.wait("document.querySelector('#samples')").await;
    browser.quit().await;
}

#[tokio::test]
async fn page_files_are_cached_by_browsers() {
    let server = Server::start(tiny("tiny-reg", "model.safetensors"), HttpConfig::default()).await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/gallery", "text/html; charset=utf-8"),
        ("/audit", "text/html; charset=utf-8"),
        ("/map", "text/html; charset=utf-8"),
        ("/assets/style.css", "text/css; charset=utf-8"),
        ("/assets/playground.js", "text/javascript; charset=utf-8"),
        ("/assets/icon.svg", "image/svg+xml"),
        ("/assets/cat.jpg", "image/jpeg"),
    ] {
        let answer = ok(server.get(path)).await;
        let headers = answer.headers();
        assert_eq!(headers["content-type"], kind);
        assert!(
            headers["content-security-policy"]
                .to_str()
                .unwrap()
                .starts_with("default-src 'none'")
        );
        let tag = headers["etag"].to_str().unwrap().to_owned();
        let again = server
            .get(path)
            .header("if-none-match", tag)
            .send()
            .await
            .unwrap();
        assert_eq!(
            (again.status().as_u16(), again.bytes().await.unwrap().len()),
            (304, 0)
        );
    }
    for path in ["/docs/", "/openapi.json"] {
        let answer = ok(server.get(path)).await;
        assert_eq!(
            answer.headers()["content-security-policy"],
            "frame-ancestors 'none'",
            "{path}"
        );
    }
    for path in [
        "/assets/none.js",
        "/assets/..%2F..%2Fmod.rs",
        "/assets/%2e%2e%2fmod.rs",
    ] {
        assert_eq!(
            server.get(path).send().await.unwrap().status(),
            404,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_visitor_is_asked_for_an_api_key_once() {
    let Some(browser) = Browser::start("pages::a_visitor_is_asked_for_an_api_key_once").await
    else {
        return;
    };
    let file = scratch("keys").join("keys.toml");
    let NewKey { secret, entry } = NewKey::random("visitor", Role::Write, None, None).unwrap();
    std::fs::write(&file, entry).unwrap();
    let keys = Some(ApiKeys::open(&file).unwrap());
    let server = Setup {
        keys,
        gallery: Some(new_gallery().await),
        ..Setup::tiny()
    }
    .start()
    .await;
    let put = server
        .put("/v1/gallery/cat")
        .bearer_auth(&secret)
        .header("content-type", "image/png");
    ok(put.body(read_golden(CHELSEA))).await;

    browser.resize(1280, 900, false).await;
    browser.driver.goto(server.url("/")).await.unwrap();
    browser
        .wait("document.querySelector('dialog[open] input')")
        .await;
    browser.screenshot("api-key-1280").await;
    browser.enter("dialog input", "ds_wrong").await;
    browser.click("dialog button").await;
    browser
        .wait("document.querySelector('dialog')?.textContent.includes('does not know')")
        .await;
    browser.enter("dialog input", &secret).await;
    browser.click("dialog button").await;
    browser
        .wait("document.querySelector('#model').textContent.includes('tiny-reg')")
        .await;
    browser.wait("!document.querySelector('dialog')").await;
    // The other page has it, too, also for images, which browsers request without a key.
    browser.driver.goto(server.url("/gallery")).await.unwrap();
    browser
        .wait("document.querySelector('.tile img')?.naturalWidth > 0")
        .await;
    assert!(
        browser
            .run("return document.querySelector('.key-dialog') === null")
            .await
            == json!(true)
    );
    browser.quit().await;
    server.stopped().await;
}

#[tokio::test]
async fn two_models_are_shown_side_by_side() {
    let Some(browser) = Browser::start("pages::two_models").await else {
        return;
    };
    let setup = Setup {
        others: vec![family_model("tiny-dinov3", "hub_pretrain.pth")],
        gallery: Some(new_gallery().await),
        ..Setup::new(focus().clone())
    };
    let server = setup.start().await;
    browser.resize(1280, 900, false).await;
    browser.driver.goto(server.url("/")).await.unwrap();
    browser.wait_for_count("#chosen option", 2).await;
    browser
        .drop_file(&read_golden(CHELSEA), "cat.png", "image/png")
        .await;
    let ready = "document.querySelector('#status').textContent.includes('are ready')";
    browser.wait(ready).await;
    browser.wait_for_count("#side .stage canvas", 6).await;
    // A model sees the photograph in its own patches: 518 pixels of 14, and 448 of 16.
    let sides = browser
        .run("return [...document.querySelectorAll('#side canvas')].map((c) => c.height)")
        .await;
    assert_eq!(sides, json!([518, 448, 518, 448, 518, 448]));
    browser
        .run(
            "const canvas = document.querySelectorAll('#side canvas')[4]; \
             const box = canvas.getBoundingClientRect(); \
             canvas.dispatchEvent(new MouseEvent('click', \
             {clientX: box.left + box.width / 3, clientY: box.top + box.height / 2}));",
        )
        .await;
    let asked = async |model: &str| {
        let script = format!(
            "return performance.getEntriesByType('resource').some(({{name}}) => \
             name.includes('/v1/similarity') && name.includes('model={model}'))"
        );
        browser.run(&script).await == json!(true)
    };
    until(async || asked("dinov2-small-focus").await && asked("tiny-dinov3").await).await;
    browser.screenshot("side-by-side-1280").await;

    // The other model for the whole page.
    browser
        .run(
            "const select = document.querySelector('#chosen'); select.value = 'tiny-dinov3'; \
             select.dispatchEvent(new Event('change'));",
        )
        .await;
    browser
        .wait("document.querySelector('#model').textContent.includes('tiny-dinov3')")
        .await;
    browser.wait_for_count("#heads button", 3).await;
    browser.wait(ready).await;
    assert!(browser.text("#curl").await.contains("model=tiny-dinov3"));
    assert_fits(&browser).await;
    assert_well_behaved(&browser, &server).await;
    browser.quit().await;
    server.stopped().await;
}
