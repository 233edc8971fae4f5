//! `dinoserve shards status|merge FILE`.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::{
    executor::block_on,
    output::exit_code,
    progress::{Progress, Unit},
};
use crate::{
    bulk::{Manifest, Output, OutputFile, ShardState, merge, shard_states},
    error::Result,
    names::plural,
    sources::Place,
};

#[derive(Debug, Subcommand)]
pub(super) enum Shards {
    /// Show how far each shard is; exits with 1 unless all are finished
    Status(Status),
    /// Join the outputs of all shards into one file, in the order of the shards
    Merge(Merge),
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// The --output of the `embed`, without the number of a shard
    #[arg(value_name = "FILE")]
    output: String,
}

#[derive(Debug, Args)]
pub(super) struct Merge {
    /// The --output of the `embed`, without the number of a shard
    #[arg(value_name = "FILE")]
    shards: String,

    /// File to write, here or in a store, of the same format
    #[arg(short, long, value_name = "FILE")]
    output: String,
}

impl Shards {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        block_on(async {
            match self {
                Self::Status(status) => status.run().await,
                Self::Merge(merge) => merge.run().await,
            }
        })
    }
}

impl Status {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let output = Output::parse(&self.output)?;
        let states = shard_states(&output).await?;
        let mut out = io::stdout();
        let mut finished = 0;
        let mut embedded = 0;
        let mut failed = 0;
        for ShardState {
            shard,
            manifest,
            is_begun,
        } in &states
        {
            match manifest {
                Some(manifest) => {
                    finished += 1;
                    embedded += manifest.embedded;
                    failed += manifest.failures.len() as u64;
                    let images = plural(manifest.embedded, "image");
                    let failures = manifest.failures.len();
                    writeln!(out, "{shard}  finished, {images}, {failures} failed")?;
                }
                None if *is_begun => writeln!(out, "{shard}  begun")?,
                None => writeln!(out, "{shard}  not begun")?,
            }
        }
        writeln!(
            out,
            "{finished} of {} finished: {} embedded, {failed} failed",
            plural(states.len() as u64, "shard"),
            plural(embedded, "image"),
        )?;
        Ok(exit_code(finished == states.len()))
    }
}

impl Merge {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let shards = Output::parse(&self.shards)?;
        let output = Output::parse(&self.output)?;
        if shards.format != output.format {
            bail!(
                "the shards are .{}, so the output must be, too",
                shards.format
            );
        }
        let manifests = finished(&shards).await?;
        // What is in a store is brought here first.
        let folder = match &output.place {
            Place::Local(path) => {
                let parent = path
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(std::path::Path::new("."));
                fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
                tempfile::Builder::new()
                    .prefix(".writing-")
                    .tempdir_in(parent)?
            }
            Place::Object(_) => tempfile::tempdir()?,
        };
        let mut progress = Progress::new(Unit::Items);
        let total = Some(manifests.len() as u64);
        let mut files: Vec<PathBuf> = Vec::with_capacity(manifests.len());
        for manifest in &manifests {
            let of_shard = shards.of_shard(manifest.shard)?;
            let file = bring(&of_shard.place, folder.path()).await?;
            let found = OutputFile::of(&file, manifest.output.file.clone())?;
            if found != manifest.output {
                bail!(
                    "{of_shard} is not what its manifest says; delete the manifest and embed the \
                     shard again"
                );
            }
            for companion in of_shard.companions()? {
                if companion.read_if_exists().await?.is_some() {
                    bring(&companion, folder.path()).await?;
                }
            }
            files.push(file);
            progress.show("checking", files.len() as u64, total);
        }
        drop(progress);
        match &output.place {
            Place::Local(path) => merge(output.format, &files, path)?,
            Place::Object(object) => {
                let merged = folder.path().join(output.place.name());
                merge(output.format, &files, &merged)?;
                for companion in output.companions()? {
                    let written = folder.path().join(companion.name());
                    if let Place::Object(to) = companion
                        && written.exists()
                    {
                        to.upload(&written).await?;
                    }
                }
                object.upload(&merged).await?;
            }
        }
        let images = manifests
            .iter()
            .map(|manifest| manifest.embedded)
            .sum::<u64>();
        writeln!(
            io::stdout(),
            "{} of {} written to {output}",
            plural(images, "image"),
            plural(manifests.len() as u64, "shard")
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the manifests of all shards, which must be finished and of one run.
async fn finished(output: &Output) -> anyhow::Result<Vec<Manifest>> {
    let states = shard_states(output).await?;
    let count = states.len();
    let missing: Vec<String> = states
        .iter()
        .filter(|state| state.manifest.is_none())
        .map(|state| state.shard.to_string())
        .collect();
    if !missing.is_empty() {
        let shown = missing
            .iter()
            .take(10)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let more = if missing.len() > 10 { ", …" } else { "" };
        bail!(
            "{} of {count} are not finished: {shown}{more}; run `dinoserve embed … --shard I/N` \
             for each",
            plural(missing.len() as u64, "shard")
        );
    }
    let manifests: Vec<Manifest> = states
        .into_iter()
        .filter_map(|state| state.manifest)
        .collect();
    if let Some(first) = manifests.first() {
        for manifest in &manifests {
            let place = output.manifest(manifest.shard)?;
            manifest.check_same_run(first, &place)?;
        }
    }
    Ok(manifests)
}

/// Returns the local path of a file; one in a store is copied into `folder`.
async fn bring(place: &Place, folder: &std::path::Path) -> Result<PathBuf> {
    match place {
        Place::Local(path) => Ok(path.clone()),
        Place::Object(object) => {
            let path = folder.join(place.name());
            object.download(&path).await?;
            Ok(path)
        }
    }
}
