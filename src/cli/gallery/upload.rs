//! Images for the gallery of a running server.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::bail;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use super::{
    entry::{Entry, EntryImage},
    fill::modified_ms,
    server::{Answer, Refusal, Server, item_path},
};
use crate::{
    cli::{flags::VectorFlags, interrupt::is_interrupted},
    error::{Error, Kind, Result},
    gallery::GalleryName,
};

/// Number of images that are sent at the same time.
pub(super) const AT_ONCE: usize = 8;
/// Time for which a server that is busy or does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest pause between two requests.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The gallery of a server, and how it stores images.
#[derive(Clone)]
pub(super) struct Upload {
    server: Server,
    gallery: GalleryName,
    /// Options of a new item.
    options: Map<String, Value>,
    replace: bool,
}

/// What has become of something that is listed.
pub(super) enum Sent {
    Stored {
        /// Whether it replaced no other item.
        is_new: bool,
        /// Whether the image is nearly black.
        is_dim: bool,
    },
    /// The gallery has an item of this id.
    Present {
        /// Whether the file was changed after that.
        is_newer: bool,
    },
    Failed(String, Error),
    NoImage(String, Option<&'static str>),
}

impl Upload {
    /// `vector` are the options that the command was given; the server has others by itself.
    pub(super) fn new(
        server: Server,
        gallery: &GalleryName,
        vector: &VectorFlags,
        replace: bool,
    ) -> Self {
        let mut options = vector.given();
        let on_conflict = if replace { "replace" } else { "skip" };
        options.insert("on_conflict".to_owned(), on_conflict.into());
        Self {
            server,
            gallery: gallery.clone(),
            options,
            replace,
        }
    }

    /// Checks that the server has galleries, before an image is read. Later requests wait for a
    /// server that does not answer.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        let server = self.server.clone();
        spawn_blocking(move || server.get("/v1/galleries")).await???;
        Ok(())
    }

    /// Stores an image, unless it is stored already.
    ///
    /// # Errors
    /// What no other image would pass, either.
    pub(super) async fn send(&self, entry: Result<Entry>) -> anyhow::Result<Sent> {
        let entry = match entry? {
            Entry::Image(entry) => entry,
            Entry::Failed(name, error) => return Ok(Sent::Failed(name, error)),
            Entry::NoImage(kind, advice) => return Ok(Sent::NoImage(kind, advice)),
        };
        let upload = self.clone();
        let path = item_path(entry.id.as_str(), self.gallery.as_str());
        if !self.replace {
            let modified = entry.image.path().and_then(modified_ms);
            let ask = {
                let (upload, path) = (upload.clone(), path.clone());
                move || upload.stored_ms(&path)
            };
            if let Some(stored_ms) = spawn_blocking(ask).await?? {
                return Ok(Sent::Present {
                    is_newer: modified > Some(stored_ms),
                });
            }
        }
        let origin = entry.image.origin.clone();
        let file = match entry.image.read().await {
            Ok(file) => file,
            Err(error) => return Ok(Sent::Failed(origin, error)),
        };
        let sent = spawn_blocking(move || upload.store(&path, &entry, &file)).await??;
        Ok(sent.unwrap_or_else(|error| Sent::Failed(origin, error)))
    }

    /// Returns when an item was stored, in milliseconds since 1970.
    fn stored_ms(&self, path: &str) -> anyhow::Result<Option<u64>> {
        match patiently(|| self.server.get(path))? {
            Ok(mut found) => {
                let item: Value = serde_json::from_str(&found.body_mut().read_to_string()?)?;
                Ok(item["stored_ms"].as_u64())
            }
            // The first item creates the gallery.
            Err(refusal) if refusal.code == "not_found" => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Sends an image.
    fn store(&self, path: &str, entry: &EntryImage, file: &[u8]) -> anyhow::Result<Result<Sent>> {
        let mut body = self.options.clone();
        body.insert("image".to_owned(), BASE64_STANDARD.encode(file).into());
        body.insert("label".to_owned(), json!(entry.label));
        body.insert("metadata".to_owned(), json!(entry.metadata));
        let body = serde_json::to_vec(&body)?;
        let answer = patiently(|| match self.server.put(path, "application/json", &body) {
            // A server that answers other requests has ended the connection because of this one.
            Err(error) if matches!(self.server.get("/healthz"), Ok(Ok(_))) => {
                Ok(Ok(Err(error.to_string())))
            }
            sent => sent.map(|answer| answer.map(Ok)),
        });
        let mut response = match answer? {
            Ok(Ok(response)) => response,
            Ok(Err(broken)) => {
                let detail = format!(
                    "{broken}; the server ended the connection: the file may be larger than its \
                     --max-body-bytes allows"
                );
                return Ok(Err(Error::new(Kind::TooLarge, detail)));
            }
            Err(refusal) if is_about_image(&refusal) => {
                return Ok(Err(Error::new(Kind::UndecodableImage, refusal.detail)));
            }
            Err(refusal) => return Err(refusal.into()),
        };
        let is_dim = response.headers().contains_key("x-image-hint");
        let stored: Value = serde_json::from_str(&response.body_mut().read_to_string()?)?;
        match stored["status"].as_str() {
            Some(status @ ("created" | "replaced")) => Ok(Ok(Sent::Stored {
                is_new: status == "created",
                is_dim,
            })),
            // Another client was faster.
            Some("skipped") => Ok(Ok(Sent::Present { is_newer: false })),
            _ => bail!("the answer is not that of a dinoserve: {stored}"),
        }
    }
}

/// Whether another image may be stored: the same as `Kind::is_about_image` of the server's error.
fn is_about_image(refusal: &Refusal) -> bool {
    let codes = [
        "malformed_request",
        "too_large",
        "undecodable_image",
        "limit_exceeded",
        "unsupported_media_type",
        "internal",
    ];
    codes.contains(&refusal.code.as_str())
}

/// Sends a request, and again while the server is busy or does not answer, for [`PATIENCE`].
fn patiently<T>(send: impl Fn() -> Answer<T>) -> Answer<T> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(500);
    loop {
        let answer = send();
        let asked_to_wait = match &answer {
            Ok(Err(refusal)) if matches!(refusal.status, 429 | 502 | 503 | 504) => {
                refusal.retry_after
            }
            Err(_) => None,
            Ok(_) => return answer,
        };
        if began.elapsed() > PATIENCE || is_interrupted() {
            return answer;
        }
        sleep(asked_to_wait.unwrap_or(pause).min(LONGEST_PAUSE));
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
