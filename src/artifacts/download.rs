//! Downloading a file: resumed where it stopped, checked before it is used.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use ureq::{
    Agent,
    http::{Response, StatusCode, Uri, header},
    tls::{RootCerts, TlsConfig},
};

use super::{Progress, disk::sha256_file};
use crate::error::{Error, Kind, Result};

const MAX_REDIRECTS: usize = 10;
/// Attempts that bring nothing new before a download is given up.
const MAX_FRUITLESS: u32 = 4;
/// An attempt ends after this time and is resumed, so that a stalled connection cannot hang. Where
/// the server begins anew instead, the next one has twice the time.
const ATTEMPT: Duration = Duration::from_secs(120);

/// What to download and where to.
#[derive(Debug, Clone)]
pub struct Download<'a> {
    /// Address.
    pub url: &'a str,
    /// Where the finished file goes. Until then its bytes are kept beside it with the ending
    /// `.part`.
    pub to: &'a Path,
    /// SHA-256 in hexadecimal, where known. Without one, the hash that a model hub announces is
    /// used.
    pub sha256: Option<&'a str>,
}

/// Downloads a file, or finishes a download that was interrupted.
///
/// A connection that is cut is taken up again where it stopped. The file gets its name only after
/// its hash was checked.
///
/// # Errors
/// [`Kind::Download`] if the server refuses, cannot be reached, or the file has another hash than
/// it should; [`Kind::Io`] if the disk is full or cannot be written.
pub fn download(what: &Download<'_>, progress: Progress<'_>) -> Result<()> {
    let writing = |error| Error::io(format_args!("writing {}", what.to.display()), error);
    if let Some(folder) = what.to.parent() {
        fs::create_dir_all(folder).map_err(writing)?;
    }
    // Two processes that want the same file take turns; the second finds it done. The lock is a
    // file of its own, which stays: one that is renamed or deleted could be locked twice.
    let lock = File::create(beside(what.to, ".lock")).map_err(writing)?;
    lock.lock().map_err(writing)?;
    if what.to.exists() {
        return Ok(());
    }
    let part = beside(what.to, ".part");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&part)
        .map_err(writing)?;

    let agent: Agent = Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        // The machine's own certificates, so that a company's proxy works.
        .tls_config(
            TlsConfig::builder()
                .root_certs(RootCerts::PlatformVerifier)
                .build(),
        )
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .user_agent(concat!("dinoserve/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let announced = transfer(&agent, what, &mut file, progress)?;

    file.sync_all().map_err(writing)?;
    let expected = what.sha256.map(str::to_owned).or(announced);
    let total = file.metadata().map_err(writing)?.len();
    let found = sha256_file(&part, &mut |done| progress("checking", done, Some(total)))?;
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        let _ = fs::remove_file(&part);
        return Err(Error::new(
            Kind::Download,
            format!(
                "{} has SHA-256 {found}, but {expected} was expected; it was deleted. Try again, and if it stays so, \
                 the file at its source has changed or a proxy alters it",
                what.url
            ),
        ));
    }
    fs::rename(&part, what.to).map_err(writing)
}

/// `path` with `ending` at its end.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Fetches until the file is whole and gives the SHA-256 that the server announced, if it did.
fn transfer(
    agent: &Agent,
    what: &Download<'_>,
    file: &mut File,
    progress: Progress<'_>,
) -> Result<Option<String>> {
    let writing = |error| Error::io(format_args!("writing {}", what.to.display()), error);
    let (mut fruitless, mut furthest, mut patience) = (0, 0, ATTEMPT);
    loop {
        let have = file.seek(SeekFrom::End(0)).map_err(writing)?;
        furthest = have.max(furthest);
        let mut resumed = true;
        let problem = match attempt(agent, what, file, have, patience, &mut resumed, progress) {
            Ok(announced) => return Ok(announced),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(problem)) => problem,
        };
        let now = file.seek(SeekFrom::End(0)).map_err(writing)?;
        fruitless = if now > furthest { 0 } else { fruitless + 1 };
        if !resumed {
            patience *= 2;
        }
        if fruitless == MAX_FRUITLESS {
            let kept = match (now, resumed) {
                (0, _) => "",
                (_, true) => "; what has arrived is kept, and the next try goes on from there",
                (_, false) => "; the server does not resume, so the next try begins anew",
            };
            return Err(Error::new(
                Kind::Download,
                format!("{}: {problem}{kept}", what.url),
            ));
        }
        tracing::warn!(url = what.url, %problem, have = now, "download interrupted, trying again");
        std::thread::sleep(Duration::from_millis(250 << fruitless));
    }
}

enum Failure {
    /// Trying again will not help.
    Final(Error),
    /// It may.
    Passing(String),
}

/// One connection, for as long as `patience`: asks for what is missing and appends it. Tells
/// whether the server `resumed`.
fn attempt(
    agent: &Agent,
    what: &Download<'_>,
    file: &mut File,
    have: u64,
    patience: Duration,
    resumed: &mut bool,
    progress: Progress<'_>,
) -> Result<Option<String>, Failure> {
    let (response, announced) = get(agent, what.url, have, patience)?;
    let writing = |error| {
        Failure::Final(Error::io(
            format_args!("writing {}", what.to.display()),
            error,
        ))
    };
    let (mut have, total) = match response.status() {
        StatusCode::PARTIAL_CONTENT => match content_range(&response) {
            Some((start, total)) if start == have => (have, total),
            _ => {
                file.set_len(0).map_err(writing)?;
                return Err(Failure::Passing(
                    "the server resumed at the wrong place".to_owned(),
                ));
            }
        },
        StatusCode::OK => {
            *resumed = have == 0;
            file.set_len(0).map_err(writing)?;
            file.rewind().map_err(writing)?;
            (
                0,
                response
                    .headers()
                    .get(header::CONTENT_LENGTH)
                    .and_then(|value| value.to_str().ok()?.parse().ok()),
            )
        }
        // Nothing is missing any more, or what is there belongs to another file: the hash will
        // tell.
        StatusCode::RANGE_NOT_SATISFIABLE
            if content_range(&response).is_some_and(|(_, total)| total == Some(have)) =>
        {
            return Ok(announced);
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            file.set_len(0).map_err(writing)?;
            return Err(Failure::Passing(
                "the server has a shorter file than what had arrived".to_owned(),
            ));
        }
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            return Err(Failure::Passing(format!("the server answered {status}")));
        }
        status => {
            let advice = match status {
                StatusCode::NOT_FOUND => {
                    "there is no such file; was it moved, or is the hub's address wrong?"
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "the file is not public there",
                _ => "the file cannot be had there",
            };
            let detail = format!("{}: the server answered {status}: {advice}", what.url);
            return Err(Failure::Final(Error::new(Kind::Download, detail)));
        }
    };

    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 17];
    progress("downloading", have, total);
    loop {
        let count = body
            .read(&mut buffer)
            .map_err(|error| Failure::Passing(format!("the connection broke: {error}")))?;
        if count == 0 {
            break;
        }
        file.write_all(&buffer[..count]).map_err(writing)?;
        have += count as u64;
        progress("downloading", have, total);
    }
    match total {
        Some(total) if have < total => Err(Failure::Passing(format!(
            "the connection was closed after {have} of {total} bytes"
        ))),
        _ => Ok(announced),
    }
}

/// Follows redirects by hand: the hub announces the file's hash (`X-Linked-ETag`) only on the
/// redirect itself.
fn get(
    agent: &Agent,
    url: &str,
    have: u64,
    patience: Duration,
) -> Result<(Response<ureq::Body>, Option<String>), Failure> {
    let wrong = |detail: String| Failure::Final(Error::new(Kind::Download, detail));
    let mut uri: Uri = url
        .parse()
        .map_err(|error| wrong(format!("{url:?} is not an address: {error}")))?;
    let mut announced = None;
    for _ in 0..MAX_REDIRECTS {
        let mut request = agent
            .get(&uri)
            .config()
            .timeout_recv_body(Some(patience))
            .build();
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = request
            .call()
            .map_err(|error| Failure::Passing(error.to_string()))?;
        let linked = response
            .headers()
            .get("x-linked-etag")
            .and_then(|value| value.to_str().ok());
        announced = announced.or(linked
            .map(|tag| tag.trim_matches('"').to_owned())
            .filter(|tag| is_sha256(tag)));
        if !response.status().is_redirection() {
            return Ok((response, announced));
        }
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| wrong(format!("{uri} redirects to nowhere")))?;
        let next = resolve(&uri, location)
            .ok_or_else(|| wrong(format!("{uri} redirects to {location:?}")))?;
        if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
            return Err(wrong(format!("{uri} redirects to the insecure {next}")));
        }
        uri = next;
    }
    Err(wrong(format!(
        "{url} redirects more than {MAX_REDIRECTS} times"
    )))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An absolute `Location`, or one relative to the server's root.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    if location.starts_with('/') {
        Uri::builder()
            .scheme(base.scheme()?.clone())
            .authority(base.authority()?.clone())
            .path_and_query(location)
            .build()
            .ok()
    } else {
        location
            .parse()
            .ok()
            .filter(|uri: &Uri| uri.scheme().is_some())
    }
}

/// `bytes 100-199/200` or `bytes */200`: the first byte (0 for `*`) and the size of the whole.
fn content_range(response: &Response<ureq::Body>) -> Option<(u64, Option<u64>)> {
    let value = response
        .headers()
        .get(header::CONTENT_RANGE)?
        .to_str()
        .ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = if range == "*" {
        0
    } else {
        range.split_once('-')?.0.parse().ok()?
    };
    Some((start, total.parse().ok()))
}
