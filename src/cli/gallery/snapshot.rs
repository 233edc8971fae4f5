//! `dinoserve gallery snapshot FILE` and `dinoserve gallery restore FILE`.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio_util::io::{InspectReader, InspectWriter};
use ureq::{
    Agent, Body, RequestBuilder, SendBody,
    http::Response,
    tls::{RootCerts, TlsConfig},
};

use super::{OneGallery, block_on};
use crate::{
    artifacts::write_atomically,
    cli::progress::Progress,
    error::{Error, Kind, Result},
    gallery::{
        GalleryName, OpenMode, SnapshotSummary, restore_snapshot, verify_snapshot, write_snapshot,
    },
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Snapshot {
    /// File to write
    file: PathBuf,

    #[command(flatten)]
    which: OneGallery,

    /// Ask a running server for it, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    #[command(flatten)]
    key: Key,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Restore {
    /// File that `gallery snapshot` wrote
    file: PathBuf,

    #[command(flatten)]
    which: OneGallery,

    /// Let a running server do it, as http://HOST:PORT; needed while it has the folder open
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    #[command(flatten)]
    key: Key,
}

/// How to be let in by the server.
#[derive(Args)]
struct Key {
    /// API key for the server; in the variable others do not see it in the list of processes
    #[arg(
        long,
        env = "DINOSERVE_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    api_key: Option<String>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// The request with the key, if there is one.
    fn of<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.api_key {
            Some(key) => request.header("Authorization", format!("Bearer {key}")),
            None => request,
        }
    }
}

impl Snapshot {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let name = &self.which.name;
        let mut summary = SnapshotSummary::default();
        if let Some(server) = &self.server {
            let address = address(server, name);
            let mut answer = accepted(&address, self.key.of(agent().get(&address)).call())?;
            write_atomically(&self.file, |file| {
                let writing =
                    |error| Error::io(format_args!("writing {}", self.file.display()), error);
                let mut answer = Shown {
                    from: answer.as_reader(),
                    show: Progress::of_bytes("receiving", None),
                };
                std::io::copy(&mut answer, file).map_err(writing)?;
                file.rewind().map_err(writing)?;
                // The server may have ended half way.
                summary = tokio.block_on(verify_snapshot(reading(file, "checking")?))?;
                Ok(())
            })?;
        } else {
            let store = tokio.block_on(self.which.place.open(OpenMode::Read))?;
            write_atomically(&self.file, |file| {
                let to =
                    InspectWriter::new(asynchronous(file)?, Progress::of_bytes("writing", None));
                summary = tokio.block_on(write_snapshot(&store, name, to))?;
                Ok(())
            })?;
        }
        say(
            &summary,
            &format!("of `{name}` written to {}", self.file.display()),
        )
    }
}

impl Restore {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let name = &self.which.name;
        let mut file = File::open(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))?;
        let summary = if let Some(server) = &self.server {
            let verified =
                block_on(async { Ok(verify_snapshot(reading(&file, "checking")?).await?) });
            let SnapshotSummary { bytes, .. } =
                verified.with_context(|| self.file.display().to_string())?;
            file.rewind()?;
            let body = Shown {
                from: file,
                show: Progress::of_bytes("sending", Some(bytes)),
            };
            let address = address(server, name);
            let request = self
                .key
                .of(agent().put(&address))
                .content_type("application/octet-stream");
            let answer = request.send(SendBody::from_owned_reader(body));
            serde_json::from_str(&accepted(&address, answer)?.read_to_string()?)?
        } else {
            block_on(self.restore_here(&file))?
        };
        say(
            &summary,
            &format!("restored into `{name}` from {}", self.file.display()),
        )
    }

    async fn restore_here(&self, file: &File) -> anyhow::Result<SnapshotSummary> {
        let opened = self.which.place.open(OpenMode::Serve).await;
        let held = |error: &anyhow::Error| {
            error
                .downcast_ref::<Error>()
                .is_some_and(|error| error.kind() == Kind::Unavailable)
        };
        let store = opened.map_err(|error| match held(&error) {
            true => {
                error.context("the galleries cannot be opened; through a running server: --server http://HOST:PORT")
            }
            false => error,
        })?;
        let restored =
            restore_snapshot(&store, &self.which.name, reading(file, "restoring")?).await;
        store.close().await;
        restored.with_context(|| self.file.display().to_string())
    }
}

fn say(summary: &SnapshotSummary, what: &str) -> anyhow::Result<ExitCode> {
    let SnapshotSummary { items, bytes } = summary;
    writeln!(
        std::io::stdout(),
        "{items} items ({}) {what}",
        indicatif::BinaryBytes(*bytes)
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The same open file, for asynchronous use.
fn asynchronous(file: &File) -> Result<tokio::fs::File> {
    file.try_clone()
        .map(tokio::fs::File::from_std)
        .map_err(|error| Error::io("opening the file again", error))
}

/// The same open file, for reading it to its end.
fn reading(file: &File, step: &'static str) -> Result<impl AsyncRead + Unpin + Send> {
    let total = file.metadata().ok().map(|metadata| metadata.len());
    Ok(InspectReader::new(
        asynchronous(file)?,
        Progress::of_bytes(step, total),
    ))
}

/// A reader that shows how far it is.
struct Shown<R, F> {
    from: R,
    show: F,
}

impl<R: Read, F: FnMut(&[u8])> Read for Shown<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(buffer)?;
        (self.show)(&buffer[..count]);
        Ok(count)
    }
}

/// A client that waits for as long as a large gallery takes.
fn agent() -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .tls_config(tls);
    config
        .timeout_connect(Some(Duration::from_secs(20)))
        .build()
        .into()
}

fn address(server: &str, name: &GalleryName) -> String {
    format!(
        "{}/v1/galleries/{name}/snapshot",
        server.trim_end_matches('/')
    )
}

/// The body of a good answer; what is wrong, in the server's words, otherwise.
fn accepted(address: &str, answer: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Body> {
    let mut answer = answer.with_context(|| format!("asking {address}"))?;
    if answer.status().is_success() {
        return Ok(answer.into_body());
    }
    let problem: Value =
        serde_json::from_str(&answer.body_mut().read_to_string()?).unwrap_or_default();
    let detail = problem["detail"]
        .as_str()
        .unwrap_or("it is no dinoserve with a gallery");
    bail!("{address} answered {}: {detail}", answer.status())
}
