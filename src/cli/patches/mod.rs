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

use anyhow::bail;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::Value;

pub(super) use self::{
    anomaly::Anomaly,
    matching::Match,
    objects::Objects,
    segment::Segment,
    training::{MaskFolders, MaskedFile, masked_files, show_progress},
};
use super::{
    image_files::{NamedFile, Sources},
    interrupt::interrupted,
    output::{exit_code, print_unused, write_file},
    pace::short_number,
    progress::{Progress, Unit},
};
use crate::{
    error::{Error, Kind, Result},
    names::plural,
    service::Extractor,
};

/// What a command makes of an image file.
struct Made {
    png: Vec<u8>,
    json: Value,
}

/// Finds the image files. A single image has the name of its file.
fn find(source: &Path) -> anyhow::Result<Sources> {
    let mut sources = Sources::find(source)?;
    if let ([file], Some(name)) = (sources.files.as_mut_slice(), source.file_name())
        && source.is_file()
    {
        file.name = name.to_string_lossy().into_owned();
    }
    Ok(sources)
}

/// Reads a file.
async fn read(path: &Path) -> Result<Bytes> {
    let file = tokio::fs::read(path).await;
    Ok(file.map_err(|error| Error::io("reading", error))?.into())
}

/// Runs `make` on each file and writes `NAME.png` and `NAME.json` into a folder. Prints what was
/// done, and which files failed.
async fn make_all(
    extractor: &Extractor,
    sources: Sources,
    folder: &Path,
    make: impl AsyncFn(&NamedFile) -> Result<Made>,
) -> anyhow::Result<ExitCode> {
    let Sources {
        files,
        unreadable: mut failures,
        skipped,
    } = sources;
    let mut places = BTreeSet::new();
    for file in &files {
        let place = place_of(folder, &file.name, "png");
        if !places.insert(place.clone()) {
            bail!("two of the files would be written to {}", place.display());
        }
    }
    let concurrency = extractor.engine().ready().await?.max_concurrent_images();
    let started = Instant::now();
    let total = files.len() as u64;
    let mut progress = Progress::new(Unit::Items);
    let results = stream::iter(&files)
        .map(async |file| (file, make(file).await))
        .buffer_unordered(concurrency)
        .take_until(interrupted());
    let mut results = pin!(results);
    let mut made = 0_usize;
    while let Some((file, result)) = results.next().await {
        match result {
            Err(error) if error.kind() == Kind::InvalidOption => return Err(error.into()),
            Err(error) => failures.push((file.name.clone(), error)),
            Ok(result) => {
                write(folder, &file.name, &result)?;
                made += 1;
            }
        }
        progress.show("drawing", (made + failures.len()) as u64, Some(total));
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
