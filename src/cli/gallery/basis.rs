//! `dinoserve gallery basis NAME SOURCE…`.

use std::{
    io::{self, Write},
    pin::pin,
    process::ExitCode,
};

use clap::Args;
use futures_util::{StreamExt, TryStreamExt};

use super::selection::open_store;
use crate::{
    cli::{
        executor::block_on,
        flags::{GalleryFlags, MapFlags},
        output::{exit_code, print_unused},
        progress::{Progress, Unit},
    },
    error::{Error, Result},
    gallery::{BasisName, OpenMode},
    names::plural,
    service::{Bases, Fitting, PCA_COMPONENTS},
    sources::{Listed, Listing, Shard, SkippedFiles},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct FitBasis {
    /// Name of the basis; one of that name is replaced
    name: BasisName,

    /// Folders of images, images, `-` for a list of paths on standard input, or any other source of
    /// `dinoserve embed`
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,

    /// Column of the images in Parquet files, as bytes or as paths [default: image, bytes, path, …]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,

    /// Number of components
    #[arg(long, value_name = "COUNT", default_value_t = PCA_COMPONENTS)]
    components: usize,

    #[command(flatten)]
    gallery: GalleryFlags,

    #[command(flatten)]
    map: MapFlags,
}

/// What has no part in the basis.
#[derive(Default)]
struct Unused {
    skipped: SkippedFiles,
    failures: Vec<(String, Error)>,
}

/// What has become of something that is listed.
enum Outcome {
    Added,
    Failed(String, Error),
    NoImage(String, Option<&'static str>),
}

impl FitBasis {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        block_on(self.map.with_extractor(async |extractor| {
            let listing = Listing::open(&self.sources, self.column.as_deref()).await?;
            extractor.engine().ready().await?;
            let image = self.map.image_options();
            let fitting = Bases::begin(&extractor, &image, self.components)?;
            let Unused { skipped, failures } = add_all(&fitting, listing).await?;
            let mut out = io::stdout();
            let store = open_store(&self.gallery, OpenMode::Serve).await?;
            let stored = Bases::new(store.clone()).finish(fitting, &self.name).await;
            store.close().await;
            let (stored, created) = stored?;
            writeln!(
                out,
                "basis `{}` {}: {} with {}",
                self.name,
                if created { "stored" } else { "replaced" },
                plural(stored.about.images as usize, "image"),
                plural(stored.about.patches as usize, "patch"),
            )?;
            print_unused(&mut out, &skipped, "used", &failures)?;
            Ok(exit_code(failures.is_empty()))
        }))
    }
}

/// Adds all images that can be read, and shows the progress.
async fn add_all(fitting: &Fitting<'_>, listing: Listing) -> anyhow::Result<Unused> {
    let outcomes = listing
        .list(Shard::WHOLE)
        .map(|listed| add(fitting, listed))
        .buffered(fitting.max_concurrent_images());
    let mut outcomes = pin!(outcomes);
    let mut progress = Progress::new(Unit::Items);
    let mut added = 0;
    let mut unused = Unused::default();
    while let Some(outcome) = outcomes.try_next().await? {
        match outcome {
            Outcome::Added => added += 1,
            Outcome::Failed(name, error) => unused.failures.push((name, error)),
            Outcome::NoImage(kind, advice) => unused.skipped.add(kind, advice),
        }
        progress.show("fitting", added, None);
    }
    drop(progress);
    if added == 0 {
        let Unused { skipped, failures } = &unused;
        print_unused(&mut io::stdout(), skipped, "used", failures)?;
        anyhow::bail!("there are no images to fit the basis on");
    }
    Ok(unused)
}

async fn add(fitting: &Fitting<'_>, listed: Result<Listed>) -> Result<Outcome> {
    let image = match listed? {
        Listed::Image(image) => image,
        Listed::Failed { name, error } => return Ok(Outcome::Failed(name, error)),
        Listed::Skipped { kind, advice, .. } => return Ok(Outcome::NoImage(kind, advice)),
    };
    let added = match image.read().await {
        Ok(file) => fitting.add(file).await,
        Err(error) => Err(error),
    };
    match added {
        Ok(_) => Ok(Outcome::Added),
        Err(error) if error.kind().is_about_image() => Ok(Outcome::Failed(image.origin, error)),
        Err(error) => Err(error.context(&image.origin)),
    }
}
