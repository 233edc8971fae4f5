//! Results in a file: goes on where an earlier run stopped, and publishes as a whole.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Embed, Run, report};
use crate::{
    bulk::{
        Failure, Journal, Lease, Manifest, Output, OutputFile, Record, Results, Saved, Summary,
        rows_of,
    },
    cli::{
        interrupt::{self, defer_exit, is_interrupted},
        output::exit_code,
    },
    error::Result,
    hex,
    names::plural,
    service::Extractor,
    sources::{Place, Shard},
};

impl Embed {
    pub(super) async fn write_file(
        &self,
        extractor: &Extractor,
        output: &Output,
        shard: Shard,
    ) -> anyhow::Result<ExitCode> {
        let run = self.plan(extractor, shard)?;
        output.format.check(&run.schema)?;
        if is_finished(&run, output).await? {
            return Ok(ExitCode::SUCCESS);
        }
        let file = output.of_shard(shard)?;
        let local = self.local_path(&file)?;
        let started = Instant::now();
        let _deferred = defer_exit();
        let lease = Lease::take(&file.place).await?;
        let written = self.write_with_lease(extractor, output, &run, &file, &local, lease.as_ref());
        let written = written.await;
        if let Some(lease) = lease
            && let Err(error) = lease.release().await
        {
            tracing::warn!(%error, "the lease stays until it expires");
        }
        if is_interrupted() {
            if let Err(error) = written {
                eprintln!("stopped: {error:#}");
            }
            interrupt::exit();
        }
        let Some((summary, failures)) = written? else {
            return Ok(ExitCode::SUCCESS);
        };
        report(
            io::stdout(),
            &summary,
            &failures,
            started,
            &file.to_string(),
        )?;
        Ok(exit_code(failures.is_empty()))
    }

    /// Computes what is missing and writes the output. Returns what was done; `None` if another
    /// process has finished the shard meanwhile.
    async fn write_with_lease(
        &self,
        extractor: &Extractor,
        output: &Output,
        run: &Run,
        file: &Output,
        local: &Path,
        lease: Option<&Lease>,
    ) -> anyhow::Result<Option<(Summary, Vec<Failure>)>> {
        let journal_path = Journal::path_of(local);
        let mut saved = Saved::restore(&file.place, &journal_path).await?;
        let settings = json!({
            "version": run.manifest.version,
            "fingerprint": run.manifest.fingerprint,
            "shard": run.manifest.shard,
            "options": run.manifest.options,
        });
        let mut journal = Journal::open(&journal_path, &settings)?;
        if is_finished(run, output).await? {
            journal.remove()?;
            return Ok(None);
        }
        let show = |_: &Record| Ok(());
        let computed = self
            .compute(extractor, run, &mut journal, saved.as_mut(), show)
            .await;
        journal.sync()?;
        if let Some(saved) = &mut saved {
            while let Some(part) = saved.next_part(&journal)? {
                saved.upload(part).await?;
            }
        }
        let resume = || {
            let images = plural(journal.records(), "image");
            format!("{images} done; the same command goes on from there")
        };
        let summary = match computed {
            Ok(_) if is_interrupted() => bail!(resume()),
            Ok(summary) => summary,
            Err(error) if journal.records() > 0 => return Err(error.context(resume())),
            Err(error) => return Err(error),
        };
        journal.end()?;

        let failures = failures(&journal)?;
        let read = || Ok(rows_of(journal.read()?));
        let results = Results {
            schema: &run.schema,
            model: &run.manifest.model,
            fingerprint: &run.manifest.fingerprint,
            options: run.manifest.options.to_string(),
            count: journal.rows(),
            read: &read,
        };
        file.write_at(local, &results)?;
        if let Some(lease) = lease {
            lease.check().await?;
        }
        let manifest = Manifest {
            images: journal.records(),
            embedded: journal.rows(),
            failures: failures.clone(),
            output: OutputFile::of(local, file.place.name())?,
            ..run.manifest.clone()
        };
        publish(file, local).await?;
        if !manifest.shard.is_whole() {
            let content = serde_json::to_vec_pretty(&manifest)?;
            output
                .manifest(manifest.shard)?
                .write(content.into())
                .await?;
        }
        journal.remove()?;
        if let Some(saved) = saved {
            saved.remove().await?;
        }
        Ok(Some((summary, failures)))
    }

    /// Returns the local file that becomes the output, in the work folder if the output is in a
    /// store.
    fn local_path(&self, file: &Output) -> anyhow::Result<PathBuf> {
        if let Some(path) = file.path() {
            return Ok(path.clone());
        }
        let name = file.to_string();
        let hash = hex::encode(&Sha256::digest(&name)[..8]);
        let folder = match &self.work_dir {
            Some(folder) => folder.clone(),
            None => std::env::temp_dir().join("dinoserve"),
        };
        let folder = folder.join(hash);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder.join(file.place.name()))
    }
}

/// Returns whether the shard is finished, and says so.
async fn is_finished(run: &Run, output: &Output) -> anyhow::Result<bool> {
    let shard = run.manifest.shard;
    if shard.is_whole() {
        return Ok(false);
    }
    let place = output.manifest(shard)?;
    let Some(found) = Manifest::read(&place).await? else {
        return Ok(false);
    };
    found.check_same_run(&run.manifest, &place)?;
    writeln!(
        io::stdout(),
        "shard {shard} is finished: {} embedded, {} failed, in {}",
        plural(found.embedded, "image"),
        found.failures.len(),
        found.output.file
    )?;
    Ok(true)
}

/// Copies local files to the store that the output is in, the output last.
async fn publish(file: &Output, local: &Path) -> Result<()> {
    let Place::Object(object) = &file.place else {
        return Ok(());
    };
    for companion in file.companions()? {
        let from = local.with_file_name(companion.name());
        if let Place::Object(object) = companion
            && from.exists()
        {
            object.upload(&from).await?;
            let _ = fs::remove_file(from);
        }
    }
    object.upload(local).await?;
    let _ = fs::remove_file(local);
    Ok(())
}

/// Returns the images without features, with the reasons.
fn failures(journal: &Journal) -> Result<Vec<Failure>> {
    let mut failures = Vec::new();
    for record in journal.read()? {
        if let Record::Failed { name, error } = record? {
            failures.push(Failure { id: name, error });
        }
    }
    Ok(failures)
}
