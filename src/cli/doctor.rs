//! `dinoserve doctor`: checks whether `serve` would work here, and says what to do if not.

use std::{
    fmt::Display,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{anyhow, bail};
use clap::Args;
use console::style;
use serde::Serialize;

use super::{
    executor::block_on,
    output::{exit_code, print_json},
    progress::with_progress,
    serve::Serve,
};
use crate::{
    artifacts::ModelState,
    engine::Runtime,
    error::{Kind, Result},
    gallery::OpenMode,
};

/// Checks the runtime library, the model, the device, the port, the keys, the certificate and the
/// gallery that `serve` would use with the same flags. The exit code is 1 if a problem would keep
/// it from serving.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    serve: Box<Serve>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    /// It works, with a remark.
    Note,
    Bad,
    /// Not checked, because an earlier check is bad.
    Skipped,
}

/// The result of a check; an error is a bad one.
type Outcome = anyhow::Result<(Verdict, String)>;

/// The printed result of a check.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    detail: String,
}

impl Finding {
    fn new(check: &'static str, outcome: Outcome) -> Self {
        let (verdict, detail) = outcome.unwrap_or_else(|error| (Verdict::Bad, error.to_string()));
        Self {
            check,
            verdict,
            detail,
        }
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let verdict = match self.verdict {
            Verdict::Good => style("ok      ").green(),
            Verdict::Note => style("note    ").yellow(),
            Verdict::Bad => style("BAD     ").red().bold(),
            Verdict::Skipped => style("skipped ").dim(),
        };
        writeln!(out, "{verdict} {:<8} {}", self.check, self.detail)
    }
}

fn good(detail: impl Display) -> Outcome {
    Ok((Verdict::Good, detail.to_string()))
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = self.serve.engine.runtime();
        let findings = block_on(async {
            let mut findings = vec![Finding::new("runtime", self.library(&runtime))];
            let runtime = runtime.ok();
            self.serve.check_models()?;
            for name in &self.serve.models {
                let model = self.model(name);
                let is_usable = matches!(model, Ok((Verdict::Good, _)));
                let device = self.device(name, runtime.as_ref(), is_usable).await;
                findings.push(Finding::new("model", model));
                findings.push(Finding::new("device", device));
            }
            findings.push(Finding::new("port", self.port()));
            findings.push(Finding::new("keys", self.keys()));
            findings.push(Finding::new("tls", self.tls()));
            findings.push(Finding::new("gallery", self.gallery().await));
            Ok(findings)
        })?;
        if self.json {
            print_json(&findings)?;
        } else {
            let mut out = std::io::stdout().lock();
            findings
                .iter()
                .try_for_each(|finding| finding.print(&mut out))?;
        }
        let mut verdicts = findings.iter().map(|finding| finding.verdict);
        Ok(exit_code(verdicts.all(|verdict| verdict != Verdict::Bad)))
    }

    fn library(&self, runtime: &Result<Runtime>) -> Outcome {
        match runtime {
            Ok(_) => good(self.serve.engine.runtime_library()?.display()),
            Err(error) => bail!("{error}"),
        }
    }

    /// The outcome is good only if the model can be run now.
    fn model(&self, name: &str) -> Outcome {
        let engine = &self.serve.engine;
        let store = engine.store()?;
        let spec = store.catalog().get(name)?;
        match store.state(spec, engine.conversion()?) {
            ModelState::Converted => {
                let verified = with_progress(|show| store.verify(name, engine.conversion()?, show));
                let manifest = verified.map_err(|error| {
                    anyhow!("{error}; `dinoserve models pull {name}` replaces it")
                })?;
                let precision = manifest.precision;
                good(format_args!("{name} {precision}, as it was written"))
            }
            ModelState::Downloaded => Ok((
                Verdict::Note,
                format!("the weights of {name} are in the cache; the first start converts them"),
            )),
            ModelState::Absent
                if !engine.offline && spec.sources.iter().any(|source| source.url.is_some()) =>
            {
                store.check_source(spec).map_err(|error| {
                    anyhow!(
                        "{name} is not in the cache and cannot be pulled: {error}; check the \
                         network, a proxy and --hub, or convert a weight file"
                    )
                })?;
                let detail = format!(
                    "{name} is not in the cache; the first start or `dinoserve models pull {name}` \
                     pulls it"
                );
                Ok((Verdict::Note, detail))
            }
            ModelState::Absent if spec.sources.iter().any(|source| source.package.is_some()) => {
                bail!("{}", store.absent(spec))
            }
            ModelState::Absent => bail!(
                "{name} is not in the cache and may not be pulled; run `dinoserve models pull \
                 {name}` where there is a network, or convert a weight file"
            ),
        }
    }

    async fn device(
        &self,
        name: &str,
        runtime: Option<&Runtime>,
        model_is_usable: bool,
    ) -> Outcome {
        let Some(runtime) = runtime else {
            return Ok((Verdict::Skipped, "needs the runtime library".to_owned()));
        };
        let engine = &self.serve.engine;
        if !model_is_usable {
            let precision = engine.conversion()?.precision;
            let providers = runtime.providers(&engine.config().device, precision)?;
            let names: Vec<String> = providers.iter().map(ToString::to_string).collect();
            return good(names.join(", "));
        }
        let ready = engine.with_engine(name, runtime, async |engine| engine.ready().await);
        good(format_args!("the model runs: {}", ready.await??))
    }

    fn port(&self) -> Outcome {
        let address = self.serve.address();
        match TcpListener::bind(address) {
            Ok(_) => good(format_args!("{address} is free")),
            Err(error) => bail!(
                "{address}: {error}; stop what listens there, or choose another by --port or --host"
            ),
        }
    }

    fn keys(&self) -> Outcome {
        match self.serve.access.keys()? {
            Some(keys) => good(format_args!(
                "requests need one of {}",
                keys.path().display()
            )),
            None if self.serve.address().ip().is_loopback() => {
                good("none are needed, and only this machine can connect")
            }
            None => Ok((
                Verdict::Note,
                "none are needed: every client that reaches the port may use the API; --api-keys \
                 FILE requires keys"
                    .to_owned(),
            )),
        }
    }

    fn tls(&self) -> Outcome {
        match self.serve.access.certificate()? {
            Some(_) => good("HTTPS by --tls-cert and --tls-key"),
            None => good("HTTP; --tls-cert and --tls-key turn on HTTPS"),
        }
    }

    async fn gallery(&self) -> Outcome {
        let flags = &self.serve.gallery;
        let opened = flags.open(OpenMode::Read).await;
        let is_missing = matches!(&opened, Err(error) if error.kind() == Kind::NotFound);
        if is_missing && let Some(folder) = flags.missing_folder() {
            let location = folder.display();
            return match tempfile::tempfile_in(nearest_folder(&folder)) {
                Ok(_) => good(format_args!("{location} will be made")),
                Err(error) => {
                    bail!("{location} cannot be made: {error}; choose another folder by --gallery")
                }
            };
        }
        let Some(store) = opened? else {
            return good("none; --gallery DIR stores images for searches");
        };
        let mut names = Vec::new();
        for gallery in store.galleries().await? {
            names.push(format!("{} ({})", gallery.name, gallery.items));
        }
        if names.is_empty() {
            names.push("no galleries yet".to_owned());
        }
        good(format_args!("{}: {}", store.describe(), names.join(", ")))
    }
}

/// Returns the folder itself, or the first folder above it that exists.
fn nearest_folder(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let existing = absolute.ancestors().find(|folder| folder.is_dir());
    existing.unwrap_or(&absolute).to_owned()
}
