//! Downloads of files: resumed after interruptions, verified before use.

mod request;

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use ureq::{
    Agent, Body,
    http::{Response, StatusCode, Uri, header},
};

use self::request::{ByteRange, Failure, Reply, content_range, get, header_text, new_agent};
use super::{
    Hub, Progress, Step,
    disk::{lock, sha256_file, with_suffix},
};
use crate::error::{Error, Kind, Result};

/// Maximum number of successive attempts that bring nothing new.
const MAX_FRUITLESS: u32 = 4;
/// Time after which an attempt ends and is resumed, so that a stalled connection cannot hang. It
/// doubles where the server restarts the file instead.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);

/// Timeout of a check whether a file is available.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// Downloads `url` to `to`, or completes an interrupted download.
///
/// The bytes go to a file with the suffix `.part`, which is renamed after its hash is verified.
/// `sha256` is the expected hash in hexadecimal, or its first digits; by default it is the one that
/// a model hub announces. The token of `hub` is sent to that hub only.
pub fn download(
    url: &str,
    to: &Path,
    sha256: Option<&str>,
    hub: &Hub,
    progress: &mut dyn Progress,
) -> Result<()> {
    let writing = |error| Error::writing(to, error);
    // Processes that download the same file take turns; the second finds it complete.
    let _lock = lock(to)?;
    if to.exists() {
        return Ok(());
    }
    let part = with_suffix(to, ".part");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&part)
        .map_err(writing)?;
    let announced = Transfer {
        agent: new_agent(),
        hub,
        url,
        to,
        file: &mut file,
        progress: &mut *progress,
    }
    .run()?;

    file.sync_all().map_err(writing)?;
    let found = sha256_file(&part, progress)?;
    match sha256.or(announced.as_deref()) {
        Some(expected) if !found.starts_with(expected) => {
            let _ = fs::remove_file(&part);
            Err(Error::new(
                Kind::Download,
                format!(
                    "{url} has SHA-256 {found}, but {expected} was expected; it was deleted. Try \
                     again; if the error persists, the file at its source has changed or a proxy \
                     alters it"
                ),
            ))
        }
        _ => fs::rename(&part, to).map_err(writing),
    }
}

/// Checks that `url` answers with a file, without downloading it.
pub(super) fn check_available(hub: &Hub, url: &str) -> Result<()> {
    let problem = match get(&new_agent(), hub, url, 0, CHECK_TIMEOUT) {
        Ok(reply) if reply.response.status().is_success() => return Ok(()),
        Ok(reply) => format!("{url} answered {}", reply.response.status()),
        Err(Failure::Permanent(error)) => return Err(error),
        Err(Failure::Transient { problem, .. }) => format!("{url}: {problem}"),
    };
    Err(Error::new(Kind::Download, problem))
}

/// A download in progress.
struct Transfer<'a> {
    agent: Agent,
    hub: &'a Hub,
    url: &'a str,
    to: &'a Path,
    file: &'a mut File,
    progress: &'a mut dyn Progress,
}

impl Transfer<'_> {
    /// Downloads until the file is complete. Returns the SHA-256 that the server announced, if any.
    fn run(&mut self) -> Result<Option<String>> {
        let mut fruitless = 0;
        let mut furthest = 0;
        let mut timeout = ATTEMPT_TIMEOUT;
        loop {
            let received = self.received()?;
            furthest = received.max(furthest);
            let (problem, resumed) = match self.attempt(received, timeout) {
                Ok(announced) => return Ok(announced),
                Err(Failure::Permanent(error)) => return Err(error),
                Err(Failure::Transient { problem, resumed }) => (problem, resumed),
            };
            let received = self.received()?;
            fruitless = if received > furthest {
                0
            } else {
                fruitless + 1
            };
            if !resumed {
                timeout *= 2;
            }
            let url = self.url;
            if fruitless == MAX_FRUITLESS {
                let advice = match (received, resumed) {
                    (0, _) => "",
                    (_, true) => "; the partial file is kept, and the next run resumes it",
                    (_, false) => "; the server does not resume, so the next run starts over",
                };
                return Err(Error::new(
                    Kind::Download,
                    format!("{url}: {problem}{advice}"),
                ));
            }
            tracing::warn!(url, %problem, received, "download interrupted, retrying");
            std::thread::sleep(Duration::from_millis(250 << fruitless));
        }
    }

    /// Returns the size of the partial file, and moves to its end.
    fn received(&mut self) -> Result<u64> {
        self.file
            .seek(SeekFrom::End(0))
            .map_err(|error| Error::writing(self.to, error))
    }

    /// Requests the missing bytes over one connection and appends them.
    fn attempt(&mut self, received: u64, timeout: Duration) -> Result<Option<String>, Failure> {
        let url = self.url;
        let Reply {
            response,
            announced,
            uri,
        } = get(&self.agent, self.hub, url, received, timeout)?;
        if let Some(range) = self.range(&response, received, &uri)? {
            self.append(response.into_body(), range, received)?;
        }
        Ok(announced)
    }

    /// Returns the part of the file that `response` brings, `None` if all of it was received.
    fn range(
        &mut self,
        response: &Response<Body>,
        received: u64,
        uri: &Uri,
    ) -> Result<Option<ByteRange>, Failure> {
        let headers = response.headers();
        match response.status() {
            StatusCode::PARTIAL_CONTENT => match content_range(headers) {
                Some(range) if range.start == received => Ok(Some(range)),
                _ => {
                    self.clear()?;
                    Err(Failure::transient(
                        "the server resumed at the wrong position",
                    ))
                }
            },
            StatusCode::OK => {
                self.clear()?;
                Ok(Some(ByteRange {
                    start: 0,
                    total: header_text(headers, header::CONTENT_LENGTH)
                        .and_then(|text| text.parse().ok()),
                }))
            }
            // The file is complete, or it is another one; its hash decides.
            StatusCode::RANGE_NOT_SATISFIABLE
                if content_range(headers).is_some_and(|range| range.total == Some(received)) =>
            {
                Ok(None)
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                self.clear()?;
                Err(Failure::transient(
                    "the server's file is shorter than the partial file",
                ))
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::transient(format!("the server answered {status}")))
            }
            status => {
                let advice = match status {
                    StatusCode::NOT_FOUND => {
                        "there is no such file; check whether it was moved, and the hub's address"
                            .to_owned()
                    }
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        self.hub.access_advice(self.url, uri)
                    }
                    _ => "the file is not available".to_owned(),
                };
                let url = self.url;
                Err(Failure::permanent(format!(
                    "{url}: the server answered {status}: {advice}"
                )))
            }
        }
    }

    /// Discards the partial file.
    fn clear(&mut self) -> Result<(), Failure> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(|error| Failure::Permanent(Error::writing(self.to, error)))
    }

    fn append(&mut self, body: Body, range: ByteRange, received: u64) -> Result<(), Failure> {
        let failure = |problem| Failure::Transient {
            problem,
            resumed: range.start == received,
        };
        let mut body = body.into_reader();
        let mut buffer = vec![0; 1 << 17];
        let mut done = range.start;
        loop {
            self.progress.advance(Step::Downloading, done, range.total);
            let count = body
                .read(&mut buffer)
                .map_err(|error| failure(format!("the connection failed: {error}")))?;
            if count == 0 {
                break;
            }
            self.file
                .write_all(&buffer[..count])
                .map_err(|error| Failure::Permanent(Error::writing(self.to, error)))?;
            done += count as u64;
        }
        match range.total {
            Some(total) if done < total => Err(failure(format!(
                "the connection was closed after {done} of {total} bytes"
            ))),
            _ => Ok(()),
        }
    }
}
