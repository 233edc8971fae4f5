//! Commands over image files that make a picture and a description of each.

mod anomaly;
mod matching;
mod objects;
mod segment;
mod training;

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    time::Instant,
};

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;

pub(super) use self::{
    anomaly::Anomaly,
    matching::Match,
    objects::Objects,
    segment::Segment,
    training::{MaskFolders, MaskedFile, masked_files},
};
use super::{
    interrupt::interrupted,
    output::{exit_code, print_unused, write_file},
    pace::short_number,
    progress::{Progress, Unit},
};
use crate::{
    error::{Error, Kind, Result},
    names::plural,
    service::Extractor,
    sources::{Listed, Listing, Shard, SkippedFiles, SourceImage},
};

/// What a command makes of an image file.
struct Made {
    png: Vec<u8>,
    json: Value,
}

/// What has become of something that is listed.
enum Outcome {
    Made(Box<SourceImage>, Result<Made>),
    Failed(String, Error),
    Skipped(String, Option<&'static str>),
}

/// Reads a file.
async fn read(path: &Path) -> Result<Bytes> {
    let file = tokio::fs::read(path).await;
    Ok(file.map_err(|error| Error::io("reading", error))?.into())
}

/// Runs `make` on each image of the sources and writes `NAME.png` and `NAME.json` into a folder.
/// Prints what was done, and which images failed.
async fn make_all(
    extractor: &Extractor,
    sources: &[String],
    folder: &Path,
    make: impl AsyncFn(&SourceImage) -> Result<Made>,
) -> anyhow::Result<ExitCode> {
    let concurrency = extractor.engine().ready().await?.max_concurrent_images();
    let started = Instant::now();
    let mut progress = Progress::new(Unit::Items);
    let mut places = BTreeSet::new();
    let listed = Listing::open(sources, None).await?.list(Shard::WHOLE);
    let results = listed
        .map(|listed| {
            let listed = listed?;
            if let Listed::Image(image) = &listed {
                let place = place_of(folder, &image.id, "png");
                if let Some(place) = places.replace(place) {
                    let place = place.display();
                    let detail = format!("two of the files would be written to {place}");
                    return Err(Error::new(Kind::InvalidOption, detail));
                }
            }
            Ok(listed)
        })
        .map(async |listed: Result<Listed>| {
            Ok::<_, Error>(match listed? {
                Listed::Image(image) => {
                    let made = make(&image).await;
                    Outcome::Made(image, made)
                }
                Listed::Failed { name, error } => Outcome::Failed(name, error),
                Listed::Skipped { kind, advice, .. } => Outcome::Skipped(kind, advice),
            })
        })
        .buffer_unordered(concurrency)
        .take_until(interrupted());
    let mut results = pin!(results);
    let mut made = 0_usize;
    let mut skipped = SkippedFiles::default();
    let mut failures: Vec<(String, Error)> = Vec::new();
    while let Some(result) = results.next().await {
        match result? {
            Outcome::Made(_, Err(error)) if error.kind() == Kind::InvalidOption => {
                return Err(error.into());
            }
            Outcome::Made(image, Err(error)) => failures.push((image.id, error)),
            Outcome::Made(image, Ok(result)) => {
                write(folder, &image.id, &result)?;
                made += 1;
            }
            Outcome::Failed(name, error) => failures.push((name, error)),
            Outcome::Skipped(kind, advice) => skipped.add(kind, advice),
        }
        progress.show("drawing", (made + failures.len()) as u64, None);
    }
    drop(progress);
    let seconds = started.elapsed().as_secs_f64();
    let mut out = io::stdout();
    writeln!(
        out,
        "{} in {seconds:.1} s ({} images/s), written to {}",
        plural(made, "image"),
        short_number(made as f64 / seconds),
        folder.display()
    )?;
    failures.sort_by(|(one, _), (other, _)| one.cmp(other));
    print_unused(&mut out, &skipped, "used", &failures)?;
    Ok(exit_code(failures.is_empty()))
}

/// Writes what was made of a file, at its place within the folder. The whole name of the file is
/// kept, so that `a.jpg` and `a.png` do not share a name.
fn write(folder: &Path, name: &str, made: &Made) -> anyhow::Result<()> {
    let json = serde_json::to_vec(&made.json)?;
    for (extension, content) in [("png", &made.png), ("json", &json)] {
        let path = place_of(folder, name, extension);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| Error::writing(parent, error))?;
        }
        write_file(&path, |writer| writer.write_all(content))?;
    }
    Ok(())
}

/// Returns the path of a result. A name that leads out of its own folder, as in a list of files,
/// keeps its last parts only.
fn place_of(folder: &Path, name: &str, extension: &str) -> PathBuf {
    use std::path::Component;
    let parts = Path::new(name).components();
    let below: PathBuf = parts
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    let mut name = below.into_os_string();
    name.push(".");
    name.push(extension);
    folder.join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stay_in_the_folder() {
        let place = |name| place_of(Path::new("out"), name, "png");
        assert_eq!(place("a/b.jpg"), Path::new("out/a/b.jpg.png"));
        assert_eq!(place("../x/b.jpg"), Path::new("out/x/b.jpg.png"));
        assert_eq!(place("/data/b"), Path::new("out/data/b.png"));
    }
}
