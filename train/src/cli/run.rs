//! `dinoserve-train run DIR --out RUN`.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use burn::module::Module;
use clap::Args;
use dinoserve::{
    artifacts::{Home, Hub, ModelStore, Progress, Step, WeightFile, remove_unfinished},
    onnx::weights::Weights,
};

use super::{
    export::export_run,
    flags::{ConfigFlags, DeviceFlag, read_config},
};
use crate::{
    config::Config,
    run::{EvaluationSources, Run, RunFiles, RunOutcome, log_line},
};

#[derive(Debug, Args)]
pub(super) struct RunCommand {
    /// Folder of images, with its subfolders; for `--method supervised`, a subfolder for each
    /// label. Or any other source of `dinoserve embed`: a list, a WebDataset tar, a Parquet file,
    /// or an address in a store
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Folder of the run; a stopped run is resumed
    #[arg(long, value_name = "RUN")]
    out: PathBuf,

    /// Initial weights instead of random ones: a model of `dinoserve models list`, or a weight
    /// file
    #[arg(long, value_name = "NAME|FILE")]
    init: Option<String>,

    /// Prefix of the names of the weights in the file of `--init`, such as `teacher.backbone`,
    /// where it has several models [default: the teacher or moving average, else the only model]
    #[arg(long, value_name = "PREFIX", requires = "init")]
    weights_prefix: Option<String>,

    #[command(flatten)]
    config: ConfigFlags,

    /// Number of epochs (optimiser.epochs)
    #[arg(long, value_name = "COUNT")]
    epochs: Option<usize>,

    /// Number of images in a batch (optimiser.batch)
    #[arg(long, value_name = "COUNT")]
    batch: Option<usize>,

    /// Folder or other source of labeled images, on which the k-NN accuracy of the teacher is
    /// measured every few epochs
    #[arg(long, value_name = "SOURCE")]
    knn_val: Option<String>,

    /// Folder or other source of labeled images that vote on those of `--knn-val` [default: the
    /// other images of `--knn-val`]
    #[arg(long, value_name = "SOURCE", requires = "knn_val")]
    knn_train: Option<String>,

    /// Number of threads that make crops [default: half the cores]
    #[arg(long, value_name = "COUNT")]
    loader_threads: Option<usize>,

    #[command(flatten)]
    device: DeviceFlag,

    /// Cache folder of dinoserve, for `--init NAME` [default: ~/.cache/dinoserve]
    #[arg(long, env = "DINOSERVE_HOME", value_name = "DIR")]
    home: Option<PathBuf>,

    /// Address of the model hub, for `--init NAME` [default: HF_ENDPOINT, or
    /// https://huggingface.co]
    #[arg(long, env = "DINOSERVE_HUB", value_name = "URL")]
    hub: Option<String>,
}

impl RunCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let device = self.device.open()?;
        let files = RunFiles::new(&self.out);
        let (config, weights) = self.config(&files)?;
        let evaluation = EvaluationSources {
            set: self.knn_val,
            gallery: self.knn_train,
        };
        let mut run = Run::prepare(
            &self.source,
            files.clone(),
            config.clone(),
            weights.as_ref(),
            &evaluation,
            device.clone(),
        )?;
        log_line(summary(&run, &config, &files));

        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.loader_threads.unwrap_or((cores / 2).max(1));
        let stop = stop_on_ctrl_c()?;
        let outcome = run.train(threads, &stop)?;
        export_run(&files, None, &device)?;
        if let RunOutcome::Stopped(step) = outcome {
            log_line(format_args!(
                "Stopped after step {step}; run the same command again to resume."
            ));
        }
        Ok(())
    }

    /// Returns the configuration and, for a new run, the initial weights. Flags override the
    /// configuration file, which is by default that of the resumed run.
    fn config(&self, files: &RunFiles) -> anyhow::Result<(Config, Option<Weights>)> {
        let resumed = files.checkpoint().exists();
        let run_config = files.config();
        let mut config = self.config.read(resumed.then_some(&run_config))?;
        let model_name = self
            .init
            .as_deref()
            .filter(|init| !Path::new(init).is_file());
        let store = match model_name {
            Some(_) => {
                let hub = Hub::from_environment(self.hub.as_deref());
                Some(ModelStore::new(Home::new(self.home.clone())?, hub)?)
            }
            None => None,
        };
        if let (Some(name), Some(store)) = (model_name, &store) {
            match store.catalog().get(name) {
                Ok(spec) => config.model.set_spec(spec)?,
                // A weight file that a resumed run no longer needs.
                Err(_) if resumed => {}
                Err(error) => return Err(error).context("--init is neither a file nor a model"),
            }
        }
        let mut settings = Vec::new();
        if let Some(epochs) = self.epochs {
            settings.push(format!("optimiser.epochs={epochs}"));
        }
        if let Some(batch) = self.batch {
            settings.push(format!("optimiser.batch={batch}"));
        }
        settings.extend(self.config.set.iter().cloned());
        let mut config = Config::parse(&config.to_toml(), &settings)?;
        config.check()?;
        if resumed && config.run.shards == 0 && run_config.exists() {
            config.run.shards = read_config(&run_config)?.run.shards;
        }
        // Comes last, after all checks, because it may download the weights.
        let weights = match &self.init {
            Some(init) if !resumed => Some(match &store {
                Some(_) if self.weights_prefix.is_some() => {
                    anyhow::bail!("--weights-prefix is for a weight file, and {init} is a model")
                }
                Some(store) => store.weights(init, &mut StepNames::default())?,
                None => {
                    let prefix = self.weights_prefix.as_deref();
                    WeightFile::read(Path::new(init), None, prefix)?.into_weights()
                }
            }),
            _ => None,
        };
        if let Some(weights) = &weights {
            log_line(format_args!("weights: {}", weights.summary()));
        }
        Ok((config, weights))
    }
}

/// Logs the name of each step once.
#[derive(Default)]
struct StepNames(Option<Step>);

impl Progress for StepNames {
    fn advance(&mut self, step: Step, _: u64, _: Option<u64>) {
        if self.0.replace(step) != Some(step) {
            log_line(format_args!("{} …", step.name()));
        }
    }
}

fn summary(run: &Run, config: &Config, files: &RunFiles) -> String {
    let student = &run.trainer().state().student;
    let resumed = match run.steps_done() {
        0 => String::new(),
        step => format!(", resumed after step {step}"),
    };
    let labels = match run.classes().len() {
        0 => String::new(),
        count => format!(" with {count} labels"),
    };
    format!(
        "{}: {} epochs of {} steps, {} images each{labels}{resumed}; {:.1} M parameters, {:.1} M \
         of them in the backbone",
        files.root().display(),
        config.optimizer.epochs,
        run.steps_per_epoch(),
        config.optimizer.images_per_step(),
        student.num_params() as f64 / 1e6,
        student.backbone.num_params() as f64 / 1e6,
    )
}

/// Returns a flag that the first Ctrl-C sets, so that the run saves and stops. The second Ctrl-C
/// ends the process.
fn stop_on_ctrl_c() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            let _no_writes = remove_unfinished();
            std::process::exit(130);
        }
        log_line(
            "\nStopping after this step; press Ctrl-C again to stop at once and lose the steps \
             since the last checkpoint.",
        );
    })
    .context("setting the handler of Ctrl-C")?;
    Ok(stop)
}
