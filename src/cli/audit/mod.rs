//! `dinoserve audit SOURCE…`, and what it shares with `dinoserve gallery audit`.

mod output;
mod page;

use std::{
    collections::HashMap,
    io::{self, Write},
    num::NonZero,
    process::ExitCode,
};

use clap::Args;

pub(in crate::cli) use self::output::OutputFlags;
use super::{
    embed_files::embed_files,
    executor::block_on,
    flags::EmbedFlags,
    output::{exit_code, print_dim, print_unused},
    progress::{Progress, Unit, show_progress},
};
use crate::{
    engine::available_cores,
    error::Error,
    features::{audit::AuditOptions, pool::Pooling},
    service::{AuditReport, AuditSet},
    sources::{Listing, SourceImage},
    vision::{DecodeLimits, DecodeOptions, decode, thumbnail},
};

/// Longer side of a picture on a page, in pixels.
const PICTURE_SIDE: usize = 160;

/// How images are audited.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Audit")]
pub(in crate::cli) struct AuditFlags {
    /// Number of similar images of each image that are looked at
    #[arg(long, value_name = "COUNT", default_value_t = AuditOptions::default().neighbors)]
    neighbors: usize,

    /// Cosine from which on two images are near-duplicates
    #[arg(long, value_name = "COSINE")]
    #[arg(default_value_t = AuditOptions::default().duplicates_above)]
    duplicates_above: f32,

    /// Number of clusters [default: the one with the best silhouette]
    #[arg(long, value_name = "COUNT")]
    clusters: Option<NonZero<usize>>,
}

impl AuditFlags {
    /// Audits images on all cores, and shows the progress.
    pub(in crate::cli) fn audit(&self, set: &AuditSet) -> anyhow::Result<AuditReport> {
        let options = self.options();
        let threads = NonZero::new(available_cores()).unwrap_or(NonZero::<usize>::MIN);
        let found = set.audit(&options, threads, &mut show_progress())?;
        Ok(found.ok_or_else(|| Error::internal("the audit was stopped"))?)
    }

    /// Rejects invalid options.
    pub(in crate::cli) fn check(&self) -> Result<(), Error> {
        self.options().check()
    }

    fn options(&self) -> AuditOptions {
        AuditOptions {
            neighbors: self.neighbors,
            duplicates_above: self.duplicates_above,
            clusters: self.clusters,
        }
    }
}

/// Find near-duplicates, outliers, labels that are likely wrong, and groups among images. The first
/// subfolder of an image is its label
#[derive(Debug, Args)]
pub(in crate::cli) struct Audit {
    /// Folder of images, or any other source of `dinoserve embed`
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,

    /// Column of the images in Parquet files, as bytes or as paths [default: image, bytes, path, …]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,

    #[command(flatten)]
    output: OutputFlags,

    #[command(flatten)]
    audit: AuditFlags,

    #[command(flatten)]
    embed: EmbedFlags,
}

impl Audit {
    pub(in crate::cli) fn run(self) -> anyhow::Result<ExitCode> {
        self.output.check()?;
        self.audit.check()?;
        let mut found = block_on(async {
            let listing = Listing::open(&self.sources, self.column.as_deref()).await?;
            Ok(listing.list_all().await?)
        })?;
        let mut set = AuditSet::default();
        let mut embedded = HashMap::new();
        let mut dim_images = 0;
        block_on(self.embed.with_extractor(async |extractor| {
            let vector = &self.embed.run.vector;
            let options = vector.embed_options(Pooling::Cls, true);
            options.check(extractor.engine().spec())?;
            let mut progress = Progress::new(Unit::Items);
            let total = found.images.len() as u64;
            let mut results: Vec<_> = found.images.iter().map(|_| None).collect();
            let mut done = 0;
            let image = vector.image_options();
            embed_files(
                &extractor,
                &found.images,
                &image,
                &options,
                |index, result| {
                    results[index] = Some(result);
                    done += 1;
                    progress.show("embedding", done, Some(total));
                    Ok(())
                },
            )
            .await?;
            for (image, result) in found.images.iter().zip(results) {
                match result {
                    Some(Ok(_)) if embedded.contains_key(&image.id) => {
                        let detail =
                            format_args!("{:?} occurs earlier; ids must be unique", image.id);
                        let error = Error::option("id", detail);
                        found.failures.push((image.origin.clone(), error));
                    }
                    Some(Ok(made)) => {
                        dim_images += usize::from(made.is_dim);
                        let (id, label) = (image.id.clone(), image.label.clone());
                        set.add(id.clone(), label, Some(made.hash), &made.vector)?;
                        embedded.insert(id, image.clone());
                    }
                    Some(Err(error)) => found.failures.push((image.origin.clone(), error)),
                    // A signal has ended the work.
                    None => super::interrupt::exit(),
                }
            }
            Ok(())
        }))?;
        let report = self.audit.audit(&set)?;
        let limits = self.embed.run.limits().decode;
        let title = self.sources.join(", ");
        block_on(self.output.write(&title, &report, async |id| {
            let Some(image) = embedded.get(id) else {
                return Ok(None);
            };
            Ok(picture(image, limits).await.ok())
        }))?;
        if !self.output.prints_json() {
            let mut out = io::stdout();
            print_dim(&mut out, dim_images, "")?;
            print_unused(&mut out, &found.skipped, "used", &found.failures)?;
            out.flush()?;
        }
        Ok(exit_code(found.failures.is_empty()))
    }
}

async fn picture(image: &SourceImage, limits: DecodeLimits) -> anyhow::Result<Vec<u8>> {
    let file = image.read().await?;
    let pixels = decode(&file, DecodeOptions::default(), limits)?;
    Ok(thumbnail(&pixels, PICTURE_SIDE)?)
}
