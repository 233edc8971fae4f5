//! `dinoserve doctor`: would `serve` work here, and if not, what is to be done?

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
    progress::{Progress, Unit},
    serve::Serve,
};
use crate::{
    artifacts::ModelState,
    engine::{Engine, Runtime},
    error::{Error, Kind},
    gallery::OpenMode,
};

/// Checks the runtime library, the model, the device, the port and the gallery that `serve` would
/// use with the same flags. Ends with exit code 1 if something would keep it from serving.
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
    /// It works, with something to know.
    Note,
    Bad,
    /// It could not be checked, as something before it is bad.
    Skipped,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    detail: String,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            detail: detail.into(),
        }
    }

    fn bad(check: &'static str, error: &Error) -> Self {
        Self::new(check, Verdict::Bad, error.detail())
    }
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (runtime, of_runtime) = self.runtime();
        let (usable, of_model) = self.model();
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let of_device = tokio.block_on(self.device(runtime.as_ref(), usable));
        let findings = [
            of_runtime,
            of_model,
            of_device,
            self.port(),
            tokio.block_on(self.gallery()),
        ];
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?;
        } else {
            for Finding {
                check,
                verdict,
                detail,
            } in &findings
            {
                let verdict = match verdict {
                    Verdict::Good => style("ok      ").green(),
                    Verdict::Note => style("note    ").yellow(),
                    Verdict::Bad => style("BAD     ").red().bold(),
                    Verdict::Skipped => style("skipped ").dim(),
                };
                writeln!(out, "{verdict} {check:<8} {detail}")?;
            }
        }
        let bad = findings
            .iter()
            .any(|finding| finding.verdict == Verdict::Bad);
        Ok(if bad {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    fn runtime(&self) -> (Option<Runtime>, Finding) {
        match self.serve.engine.runtime() {
            Ok(runtime) => {
                let place = self
                    .serve
                    .engine
                    .runtime_library()
                    .map(|path| path.display().to_string());
                let finding = Finding::new("runtime", Verdict::Good, place.unwrap_or_default());
                (Some(runtime), finding)
            }
            Err(error) => (None, Finding::bad("runtime", &error)),
        }
    }

    /// Also whether the model can be run now.
    fn model(&self) -> (bool, Finding) {
        const CHECK: &str = "model";
        let engine = &self.serve.engine;
        let name = &engine.model;
        let found = engine.store().and_then(|store| {
            let state = store.state(store.catalog().get(name)?, engine.precision());
            Ok((store, state))
        });
        match found {
            Err(error) => (false, Finding::bad(CHECK, &error)),
            Ok((store, ModelState::Converted)) => {
                let mut progress = Progress::new(Unit::BytesOrSteps);
                let mut show = |step: &str, done, total| progress.show(step, done, total);
                match store.verify(name, engine.precision(), &mut show) {
                    Ok(verified) => {
                        let detail =
                            format!("{name} {}, as it was written", verified.manifest.precision);
                        (true, Finding::new(CHECK, Verdict::Good, detail))
                    }
                    Err(error) => {
                        let again = format!("; `dinoserve models pull {name}` makes it anew");
                        (
                            false,
                            Finding::new(CHECK, Verdict::Bad, error.detail().to_owned() + &again),
                        )
                    }
                }
            }
            Ok((_, ModelState::Downloaded)) => {
                let detail = format!(
                    "the weights of {name} are here; they are converted at the first start"
                );
                (false, Finding::new(CHECK, Verdict::Note, detail))
            }
            Ok((store, ModelState::Absent)) => match store.catalog().get(name) {
                Ok(spec)
                    if !engine.offline()
                        && spec.sources.iter().any(|source| source.url.is_some()) =>
                {
                    let detail = format!(
                        "{name} is not in the cache; the first start pulls it, and so does `dinoserve models pull {name}`"
                    );
                    (false, Finding::new(CHECK, Verdict::Note, detail))
                }
                Ok(spec) if spec.sources.iter().any(|source| source.package.is_some()) => {
                    let detail = format!("{name} is not in the cache; `make setup` gets it");
                    (false, Finding::new(CHECK, Verdict::Bad, detail))
                }
                _ => {
                    let detail = format!(
                        "{name} is not in the cache and may not be pulled; run `dinoserve models pull {name}` where there is a \
                         network, or convert a weight file"
                    );
                    (false, Finding::new(CHECK, Verdict::Bad, detail))
                }
            },
        }
    }

    async fn device(&self, runtime: Option<&Runtime>, model_is_usable: bool) -> Finding {
        const CHECK: &str = "device";
        let Some(runtime) = runtime else {
            return Finding::new(CHECK, Verdict::Skipped, "needs the runtime library");
        };
        let engine = &self.serve.engine;
        if !model_is_usable {
            return match runtime.providers(&engine.config().device) {
                Ok(providers) => {
                    let names: Vec<String> = providers.iter().map(ToString::to_string).collect();
                    Finding::new(CHECK, Verdict::Good, names.join(", "))
                }
                Err(error) => Finding::bad(CHECK, &error),
            };
        }
        let started = engine
            .model_file()
            .and_then(|model| Engine::start(runtime, model, &engine.config()));
        match started {
            Ok((engine, thread)) => {
                let ready = engine.ready().await;
                drop(engine);
                thread.join();
                match ready {
                    Ok(plan) => {
                        Finding::new(CHECK, Verdict::Good, format!("the model runs: {plan}"))
                    }
                    Err(error) => Finding::bad(CHECK, &error),
                }
            }
            Err(error) => Finding::bad(CHECK, &error),
        }
    }

    fn port(&self) -> Finding {
        const CHECK: &str = "port";
        let address = self.serve.address();
        match TcpListener::bind(address) {
            Ok(_) => Finding::new(CHECK, Verdict::Good, format!("{address} is free")),
            Err(error) => {
                let detail = format!(
                    "{address}: {error}; stop what listens there, or choose another by --port or --host"
                );
                Finding::new(CHECK, Verdict::Bad, detail)
            }
        }
    }

    async fn gallery(&self) -> Finding {
        const CHECK: &str = "gallery";
        let Some(location) = &self.serve.gallery.location else {
            return Finding::new(
                CHECK,
                Verdict::Good,
                "none; --gallery DIR keeps images to be found again",
            );
        };
        let listed = match self.serve.gallery.open(OpenMode::Read).await {
            Ok(Some(store)) => store
                .galleries()
                .await
                .map(|galleries| (store.describe(), galleries)),
            Ok(None) => return Finding::new(CHECK, Verdict::Good, "none"),
            Err(error) => Err(error),
        };
        match listed {
            Ok((place, galleries)) => {
                let names = galleries
                    .iter()
                    .map(|gallery| format!("{} ({})", gallery.name, gallery.items));
                let names: Vec<String> = names.collect();
                let names = if names.is_empty() {
                    "no galleries yet".to_owned()
                } else {
                    names.join(", ")
                };
                Finding::new(CHECK, Verdict::Good, format!("{place}: {names}"))
            }
            // A folder that is not there yet is made by the first start.
            Err(error) if error.kind() == Kind::NotFound && !Path::new(location).exists() => {
                match tempfile::tempfile_in(nearest_folder(Path::new(location))) {
                    Ok(_) => Finding::new(CHECK, Verdict::Good, format!("{location} will be made")),
                    Err(error) => {
                        let detail = format!(
                            "{location} cannot be made: {error}; choose another folder by --gallery"
                        );
                        Finding::new(CHECK, Verdict::Bad, detail)
                    }
                }
            }
            Err(error) => Finding::bad(CHECK, &error),
        }
    }
}

/// The folder itself, or the first above it that exists.
fn nearest_folder(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    absolute
        .ancestors()
        .find(|folder| folder.is_dir())
        .map_or(absolute.clone(), Path::to_owned)
}
