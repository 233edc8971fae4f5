//! A headless Chromium that can reach this machine only.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{
    By, ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, TypingData, WebDriver,
    WebElement,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::skip;

/// Maximum time for a change on a page; images go through the model on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Browser {
    /// Dropped first: after a panic the driver would wait minutes for a running chromedriver.
    _process: Child,
    pub driver: WebDriver,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser. Returns `None` and reports the test as skipped without Chromium.
    pub async fn start(test: &str) -> Option<Self> {
        let chromium = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find_map(program);
        let (Some(chromium), Some(chromedriver)) = (chromium, program("chromedriver")) else {
            skip(&format!(
                "{test}: Chromium is missing (apt-get install chromium chromium-driver)"
            ));
            return None;
        };
        let mut process = Command::new(chromedriver)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let port = loop {
            let line = lines
                .next_line()
                .await
                .expect("its output")
                .expect("chromedriver says its port");
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

        let profile = tempfile::tempdir().expect("a folder");
        let mut capabilities = DesiredCapabilities::chrome();
        capabilities.set_binary(&chromium).unwrap();
        for argument in [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--force-color-profile=srgb",
            "--hide-scrollbars",
            // Names of other machines do not resolve.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            &format!("--user-data-dir={}", profile.path().display()),
        ] {
            capabilities.add_arg(argument).unwrap();
        }
        capabilities
            .set_browser_log_level(LoggingPrefsLogLevel::All)
            .unwrap();
        capabilities
            .set_logging_prefs("performance", LoggingPrefsLogLevel::All)
            .unwrap();
        super::client::install_provider();
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), capabilities)
            .await
            .expect("a browser");
        Some(Self {
            _process: process,
            driver,
            _profile: profile,
        })
    }

    /// Emulates a screen of this size.
    pub async fn resize(&self, width: u32, height: u32, dark: bool) {
        let mobile = width < 600;
        let screen =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        let cdp = self.driver.cdp();
        cdp.send_raw("Emulation.setDeviceMetricsOverride", screen)
            .await
            .unwrap();
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        cdp.send_raw("Emulation.setEmulatedMedia", media)
            .await
            .unwrap();
    }

    pub async fn find(&self, css: &str) -> WebElement {
        self.driver
            .find(By::Css(css.to_owned()))
            .await
            .unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    pub async fn click(&self, css: &str) {
        self.find(css).await.click().await.expect("a click");
    }

    pub async fn enter(&self, css: &str, keys: impl Into<TypingData>) {
        let typed = self.find(css).await.send_keys(keys).await;
        typed.expect("typed keys");
    }

    pub async fn text(&self, css: &str) -> String {
        self.find(css).await.text().await.expect("text")
    }

    /// Waits until this many elements match.
    pub async fn wait_for_count(&self, css: &str, count: usize) {
        self.wait(&format!(
            "document.querySelectorAll('{css}').length === {count}"
        ))
        .await;
    }

    /// Runs a function body and returns its result.
    pub async fn run(&self, script: &str) -> Value {
        let found = self.driver.execute(script, Vec::new()).await;
        found
            .unwrap_or_else(|error| panic!("{script}: {error}"))
            .json()
            .clone()
    }

    /// Waits until a JavaScript expression is true.
    pub async fn wait(&self, condition: &str) {
        let started = Instant::now();
        while self.run(&format!("return Boolean({condition});")).await != json!(true) {
            if started.elapsed() > PATIENCE {
                let error = self
                    .run("return document.getElementById('error')?.textContent")
                    .await;
                panic!(
                    "in vain: {condition}; the page says {error}; its console {:?}",
                    self.console().await
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Counts the colors of a canvas.
    pub async fn colors(&self, css: &str) -> u64 {
        let script = format!(
            "const canvas = document.querySelector({css:?});
             const copy = new OffscreenCanvas(canvas.width, canvas.height)
               .getContext('2d', {{ willReadFrequently: true }});
             copy.drawImage(canvas, 0, 0);
             const {{ data }} = copy.getImageData(0, 0, canvas.width, canvas.height);
             return new Set(new Uint32Array(data.buffer)).size;"
        );
        self.run(&script).await.as_u64().expect("a count")
    }

    /// Drops a file on the page.
    pub async fn drop_file(&self, bytes: &[u8], name: &str, kind: &str) {
        self.drop_files(&[(bytes, name, kind)]).await;
    }

    /// Drops files, each with its name and media type, on the page at once.
    pub async fn drop_files(&self, files: &[(&[u8], &str, &str)]) {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let files: Vec<_> = files
            .iter()
            .map(|(bytes, name, kind)| json!([BASE64_STANDARD.encode(bytes), name, kind]))
            .collect();
        let files = Value::from(files);
        self.run(&format!(
            "const dataTransfer = new DataTransfer();
             for (const [encoded, name, type] of {files}) {{
               const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
               dataTransfer.items.add(new File([bytes], name, {{ type }}));
             }}
             for (const type of ['dragover', 'drop'])
               document.body.dispatchEvent(
                 new DragEvent(type, {{ bubbles: true, cancelable: true, dataTransfer }}));"
        ))
        .await;
    }

    /// Returns errors and warnings of the console since the last call.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.driver.browser_log().await.unwrap();
        let bad = entries
            .into_iter()
            .filter(|entry| matches!(entry.level.as_str(), "SEVERE" | "WARNING"));
        bad.map(|entry| entry.message).collect()
    }

    /// Returns the requested addresses since the last call.
    pub async fn requests(&self) -> Vec<String> {
        let entries = self.driver.get_log("performance").await.unwrap();
        let mut addresses = Vec::new();
        for entry in entries {
            let event: Value = serde_json::from_str(&entry.message).unwrap();
            if event["message"]["method"] == "Network.requestWillBeSent" {
                let address = event["message"]["params"]["request"]["url"]
                    .as_str()
                    .unwrap_or_default();
                // The browser's start page is internal.
                if !address.starts_with("chrome:") {
                    addresses.push(address.to_owned());
                }
            }
        }
        addresses
    }

    /// Saves the whole page as a PNG in `target/screenshots`, and returns it.
    pub async fn screenshot(&self, name: &str) -> Vec<u8> {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let size = self
            .run(
                "const page = document.documentElement; \
                      return [page.clientWidth, page.scrollHeight]",
            )
            .await;
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        let options = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let png = self
            .driver
            .cdp()
            .send_raw("Page.captureScreenshot", options)
            .await
            .unwrap();
        let png = BASE64_STANDARD
            .decode(png["data"].as_str().unwrap())
            .unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), &png).unwrap();
        png
    }

    pub async fn quit(self) {
        self.driver.quit().await.unwrap();
    }
}

/// Finds a program.
fn program(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())?;
    Some(found.to_string_lossy().into_owned())
}
