//! `dinoserve doctor`: checks whether `serve` would work here, and says what to do if not.

use std::{
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::ExitCode,
};

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
    error::{Error, Kind},
    gallery::OpenMode,
};

/// Checks the runtime library, the model, the device, the port and the gallery that `serve` would
/// use with the same flags. The exit code is 1 if a problem would keep it from serving.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    serve: Box<Serve>,

    /// Print JSON
    #[arg(long)]
    json: bool,
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

/// The result of a check.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    detail: String,
}

impl Finding {
    /// Gives the result of a check its name.
    fn new(check: &'static str, (verdict, detail): Outcome) -> Self {
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

type Outcome = (Verdict, String);

fn good(detail: impl Into<String>) -> Outcome {
    (Verdict::Good, detail.into())
}

fn note(detail: impl Into<String>) -> Outcome {
    (Verdict::Note, detail.into())
}

fn bad(detail: impl Into<String>) -> Outcome {
    (Verdict::Bad, detail.into())
}

fn failed(error: &Error) -> Outcome {
    bad(error.detail())
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = self.serve.engine.runtime();
        let (model_is_usable, model) = self.model();
        let findings = block_on(async {
            Ok([
                Finding::new("runtime", self.library(&runtime)),
                Finding::new("model", model),
                Finding::new("device", self.device(runtime.ok(), model_is_usable).await),
                Finding::new("port", self.port()),
                Finding::new("gallery", self.gallery().await),
            ])
        })?;
        if self.json {
            print_json(&findings)?;
        } else {
            let mut out = std::io::stdout().lock();
            findings
                .iter()
                .try_for_each(|finding| finding.print(&mut out))?;
        }
        let problem = findings
            .iter()
            .any(|finding| finding.verdict == Verdict::Bad);
        Ok(exit_code(!problem))
    }

    fn library(&self, runtime: &Result<Runtime, Error>) -> Outcome {
        match (runtime, self.serve.engine.runtime_library()) {
            (Ok(_), Ok(path)) => good(path.display().to_string()),
            (Ok(_), Err(_)) => good(""),
            (Err(error), _) => failed(error),
        }
    }

    /// Also returns whether the model can be run now.
    fn model(&self) -> (bool, Outcome) {
        let engine = &self.serve.engine;
        let name = &engine.model;
        let found = engine.store().and_then(|store| {
            let spec = store.catalog().get(name)?.clone();
            Ok((store, spec))
        });
        let (store, spec) = match found {
            Ok(found) => found,
            Err(error) => return (false, failed(&error)),
        };
        let outcome = match store.state(&spec, engine.precision()) {
            ModelState::Converted => {
                match with_progress(|show| store.verify(name, engine.precision(), show)) {
                    Ok(manifest) => {
                        let precision = manifest.precision;
                        return (true, good(format!("{name} {precision}, as it was written")));
                    }
                    Err(error) => bad(format!(
                        "{}; `dinoserve models pull {name}` replaces it",
                        error.detail()
                    )),
                }
            }
            ModelState::Downloaded => note(format!(
                "the weights of {name} are in the cache; the first start converts them"
            )),
            ModelState::Absent
                if !engine.offline && spec.sources.iter().any(|source| source.url.is_some()) =>
            {
                note(format!(
                    "{name} is not in the cache; the first start or `dinoserve models pull {name}` \
                     pulls it"
                ))
            }
            ModelState::Absent if spec.sources.iter().any(|source| source.package.is_some()) => {
                bad(format!(
                    "{name} is not in the cache; `make setup` installs it"
                ))
            }
            ModelState::Absent => bad(format!(
                "{name} is not in the cache and may not be pulled; run `dinoserve models pull \
                 {name}` where there is a network, or convert a weight file"
            )),
        };
        (false, outcome)
    }

    async fn device(&self, runtime: Option<Runtime>, model_is_usable: bool) -> Outcome {
        let Some(runtime) = runtime else {
            return (Verdict::Skipped, "needs the runtime library".to_owned());
        };
        let engine = &self.serve.engine;
        if !model_is_usable {
            return match runtime.providers(&engine.config().device) {
                Ok(providers) => {
                    let names: Vec<String> = providers.iter().map(ToString::to_string).collect();
                    good(names.join(", "))
                }
                Err(error) => failed(&error),
            };
        }
        let ready = engine.with_engine(&runtime, async |engine| engine.ready().await);
        match ready.await.flatten() {
            Ok(plan) => good(format!("the model runs: {plan}")),
            Err(error) => failed(&error),
        }
    }

    fn port(&self) -> Outcome {
        let address = self.serve.address();
        match TcpListener::bind(address) {
            Ok(_) => good(format!("{address} is free")),
            Err(error) => bad(format!(
                "{address}: {error}; stop what listens there, or choose another by --port or --host"
            )),
        }
    }

    async fn gallery(&self) -> Outcome {
        let gallery = &self.serve.gallery;
        let listed = async {
            let Some(store) = gallery.open(OpenMode::Read).await? else {
                return Ok("none; --gallery DIR stores images for searches".to_owned());
            };
            let mut names = Vec::new();
            for gallery in store.galleries().await? {
                names.push(format!("{} ({})", gallery.name, gallery.items));
            }
            if names.is_empty() {
                names.push("no galleries yet".to_owned());
            }
            Ok::<_, Error>(format!("{}: {}", store.describe(), names.join(", ")))
        };
        match listed.await {
            Ok(detail) => good(detail),
            Err(error) => match gallery.missing_folder() {
                Some(folder) if error.kind() == Kind::NotFound => {
                    let location = folder.display();
                    match tempfile::tempfile_in(nearest_folder(&folder)) {
                        Ok(_) => good(format!("{location} will be made")),
                        Err(error) => bad(format!(
                            "{location} cannot be made: {error}; choose another folder by --gallery"
                        )),
                    }
                }
                _ => failed(&error),
            },
        }
    }
}

/// Returns the folder itself, or the first folder above it that exists.
fn nearest_folder(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let existing = absolute.ancestors().find(|folder| folder.is_dir());
    existing.unwrap_or(&absolute).to_owned()
}
