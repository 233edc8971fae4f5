//! `dinoserve-train run DIR --out RUN`.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser};
use dinoserve::{
    artifacts::{Home, ModelStore, read_weights, remove_unfinished},
    onnx::weights::Weights,
};
use strum::VariantNames;

use super::{ConfigFlags, DeviceFlag, export::export_run};
use crate::{
    config::{Arch, Config},
    run::{Ended, Evaluation, Run, RunFiles, device_of, say},
};

#[derive(Debug, Args)]
pub(super) struct RunCommand {
    /// Folder of images; its subfolders are read, too
    folder: PathBuf,

    /// Folder of the run; one that was stopped goes on
    #[arg(long, value_name = "RUN")]
    out: PathBuf,

    /// Sizes of the backbone
    #[arg(long, value_parser = PossibleValuesParser::new(Arch::VARIANTS).try_map(|name| name.parse::<Arch>()))]
    arch: Option<Arch>,

    /// Begin with these weights instead of random ones: a model of `dinoserve models list`, or a
    /// weight file
    #[arg(long, value_name = "NAME|FILE")]
    init: Option<String>,

    #[command(flatten)]
    config: ConfigFlags,

    /// How often all images are seen (optimiser.epochs)
    #[arg(long, value_name = "COUNT")]
    epochs: Option<usize>,

    /// Images that go through the networks together (optimiser.batch)
    #[arg(long, value_name = "COUNT")]
    batch: Option<usize>,

    /// Labeled folder: every few epochs the share of its images that the k-NN of the frozen
    /// teacher gets right
    #[arg(long, value_name = "DIR")]
    knn_val: Option<PathBuf>,

    /// Labeled folder whose images vote on those of `--knn-val` [default: the others of
    /// `--knn-val`]
    #[arg(long, value_name = "DIR", requires = "knn_val")]
    knn_train: Option<PathBuf>,

    /// Threads that make crops [default: half the cores]
    #[arg(long, value_name = "COUNT")]
    loader_threads: Option<usize>,

    #[command(flatten)]
    device: DeviceFlag,

    /// Cache folder of dinoserve, for `--init NAME` [default: ~/.cache/dinoserve]
    #[arg(long, env = "DINOSERVE_HOME", value_name = "DIR")]
    home: Option<PathBuf>,

    /// Address of the model hub, for `--init NAME`
    #[arg(
        long,
        env = "DINOSERVE_HUB",
        value_name = "URL",
        default_value = "https://huggingface.co"
    )]
    hub: String,
}

impl RunCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let device = device_of(&self.device.device)?;
        let files = RunFiles::new(&self.out);
        let (config, weights) = self.config(&files)?;
        let evaluation = Evaluation {
            set: self.knn_val,
            gallery: self.knn_train,
        };
        let mut run = Run::prepare(
            &self.folder,
            files.clone(),
            config.clone(),
            weights.as_ref(),
            &evaluation,
            device.clone(),
        )?;
        say(summary(&run, &config, &files));

        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.loader_threads.unwrap_or((cores / 2).max(1));
        let stop = stop_on_ctrl_c()?;
        let ended = run.train(threads, &stop)?;
        export_run(&files, None, &device)?;
        if let Ended::Stopped(step) = ended {
            say(format_args!(
                "Stopped after step {step}; the same command goes on from there."
            ));
        }
        Ok(())
    }

    /// The configuration: that of the run if it goes on, else the file's, and what flags overrule;
    /// and the weights that a new run begins with.
    fn config(&self, files: &RunFiles) -> anyhow::Result<(Config, Option<Weights>)> {
        let goes_on = files.checkpoint().exists();
        let file = self
            .config
            .config
            .clone()
            .or_else(|| goes_on.then(|| files.config()));
        let mut config = Config::parse(&read(file.as_deref())?, &[])?;
        if let Some(arch) = self.arch {
            config.model.take(arch);
        }
        let open_store = || ModelStore::new(Home::new(self.home.clone())?, &self.hub);
        let named = self
            .init
            .as_deref()
            .filter(|init| !Path::new(init).is_file());
        let store = named.map(|_| open_store()).transpose()?;
        if let Some((name, store)) = named.zip(store.as_ref()) {
            match store.catalog().get(name) {
                Ok(spec) => config.model.take_spec(spec),
                // A file that is not needed any more.
                Err(_) if goes_on => {}
                Err(error) => return Err(error).context("--init names no file and no model"),
            }
        }
        let mut settings = Vec::new();
        settings.extend(
            self.epochs
                .map(|epochs| format!("optimiser.epochs={epochs}")),
        );
        settings.extend(self.batch.map(|batch| format!("optimiser.batch={batch}")));
        settings.extend(self.config.set.iter().cloned());
        let mut config = Config::parse(&config.to_toml(), &settings)?;
        config.check()?;
        if goes_on && config.run.shards == 0 && files.config().exists() {
            config.run.shards = Config::parse(&read(Some(&files.config()))?, &[])?
                .run
                .shards;
        }
        // Once nothing else can be wrong: this may take a download.
        let weights = match &self.init {
            Some(init) if !goes_on => Some(match &store {
                Some(store) => store.weights(init, &mut say_steps())?,
                None => read_weights(Path::new(init), None)?,
            }),
            _ => None,
        };
        Ok((config, weights))
    }
}

/// Names each step of getting weights once.
fn say_steps() -> impl FnMut(&str, u64, Option<u64>) {
    let mut said = String::new();
    move |step, _, _| {
        if step != said {
            say(format_args!("{step} …"));
            step.clone_into(&mut said);
        }
    }
}

/// The text of a configuration; without a file an empty one.
pub(super) fn read(file: Option<&Path>) -> anyhow::Result<String> {
    file.map_or(Ok(String::new()), |file| {
        std::fs::read_to_string(file)
            .with_context(|| format!("reading the configuration {}", file.display()))
    })
}

fn summary(run: &Run, config: &Config, files: &RunFiles) -> String {
    use burn::module::Module;
    let backbone = run.trainer().state().student.backbone.num_params();
    let all = run.trainer().state().student.num_params();
    format!(
        "{}: {} epochs of {} steps, {} images each{}; {:.1} M parameters, {:.1} M of them in the backbone",
        files.root().display(),
        config.optimiser.epochs,
        run.steps_per_epoch(),
        config.optimiser.images_per_step(),
        if run.done() > 0 {
            format!(", going on after step {}", run.done())
        } else {
            String::new()
        },
        all as f64 / 1e6,
        backbone as f64 / 1e6,
    )
}

/// The first Ctrl-C asks the run to save and stop; the second ends it at once.
fn stop_on_ctrl_c() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            remove_unfinished();
            std::process::exit(130);
        }
        say("\nStopping after this step; press Ctrl-C again to stop at once and lose what came after the last checkpoint.");
    })
    .context("hearing Ctrl-C")?;
    Ok(stop)
}
