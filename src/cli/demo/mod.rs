//! `dinoserve demo`: what the model sees in a few photographs, as one page with all pictures.

mod drawing;
mod page;

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;

use self::drawing::Drawn;
use super::{
    executor::block_on,
    flags::{EngineFlags, ImageLimitFlags, first_name},
    output::write_file,
    progress::{Progress, Unit},
};
use crate::{
    error::Error,
    http::samples,
    names::plural,
    service::{CacheBytes, Extractor},
};

/// Draws what the model sees in photographs: the parts that PCA finds, where the heads attend, and
/// what is similar to a patch. Writes the pictures, and a page that shows them next to the
/// originals.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Image files [default: four photographs in the program]
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,

    /// Folder for the page, `index.html`, and its pictures; files of the same names are replaced
    #[arg(short, long, value_name = "DIR", default_value = "demo-output")]
    output: PathBuf,

    /// Open the page in the browser
    #[arg(long)]
    open: bool,

    /// Name of the model, the first of a list; `dinoserve models list` shows all
    #[arg(long, env = "DINOSERVE_MODEL", value_name = "NAME")]
    #[arg(default_value = "dinov2-small-focus", value_parser = first_name)]
    model: String,

    #[command(flatten)]
    engine: EngineFlags,

    #[command(flatten)]
    limits: ImageLimitFlags,
}

/// A photograph, and its name in the names of pictures.
struct Photograph {
    name: String,
    file: Bytes,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let photographs = self.photographs()?;
        let runtime = self.engine.runtime()?;
        let limits = self.limits.limits();
        fs::create_dir_all(&self.output).map_err(|error| Error::writing(&self.output, error))?;
        let started = Instant::now();
        let drawn: anyhow::Result<Vec<Drawn>> = block_on(async {
            let drawing = self
                .engine
                .with_engine(&self.model, &runtime, async |engine| {
                    engine.ready().await?;
                    // All pictures of a photograph are made of the same features.
                    let cache = CacheBytes {
                        all: 0,
                        recent: 32 << 20,
                    };
                    let extractor = Extractor::new(engine, limits, cache);
                    self.draw(&extractor, &photographs).await
                });
            Ok(drawing.await?)
        })?;
        let page = page::render(&self.model, &drawn?)?;
        let path = self.output.join("index.html");
        write_file(&path, |writer| writer.write_all(page.as_bytes()))?;
        let path = path.canonicalize().context("the path of the page")?;
        writeln!(
            std::io::stdout(),
            "{} drawn in {:.1} s; the page is {}",
            plural(photographs.len(), "photograph"),
            started.elapsed().as_secs_f64(),
            path.display()
        )?;
        if self.open {
            open(&path)?;
        }
        Ok(())
    }

    /// Reads the photographs. Two of the same name get different ones.
    fn photographs(&self) -> anyhow::Result<Vec<Photograph>> {
        if self.images.is_empty() {
            let own = samples().map(|(name, file)| Photograph {
                name: stem(Path::new(&*name)),
                file: Bytes::from(file.into_owned()),
            });
            return Ok(own.collect());
        }
        let mut names = BTreeSet::new();
        let mut photographs = Vec::with_capacity(self.images.len());
        for path in &self.images {
            let file = fs::read(path).map_err(|error| Error::reading(path, error))?;
            let first = stem(path);
            let others = (2..).map(|number| format!("{first}-{number}"));
            let mut candidates = std::iter::once(first.clone()).chain(others);
            // Some file systems do not distinguish cases.
            let name = candidates.find(|name| names.insert(name.to_lowercase()));
            photographs.push(Photograph {
                name: name.unwrap_or(first),
                file: file.into(),
            });
        }
        Ok(photographs)
    }

    /// Draws all photographs, and writes the pictures.
    async fn draw(
        &self,
        extractor: &Extractor,
        photographs: &[Photograph],
    ) -> anyhow::Result<Vec<Drawn>> {
        let mut progress = Progress::new(Unit::Items);
        let mut all = Vec::with_capacity(photographs.len());
        for (index, Photograph { name, file }) in photographs.iter().enumerate() {
            progress.show("drawing", index as u64, Some(photographs.len() as u64));
            let (drawn, pictures) = drawing::draw(extractor, name, file.clone())
                .await
                .with_context(|| name.clone())?;
            for (file, picture) in pictures {
                let path = self.output.join(file);
                write_file(&path, |writer| writer.write_all(&picture))?;
            }
            all.push(drawn);
        }
        Ok(all)
    }
}

/// Returns the name of a file without its ending, in characters that a link needs not escape.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_plain = |letter: char| letter.is_alphanumeric() || letter == '-' || letter == '_';
    stem.replace(|letter| !is_plain(letter), "-")
}

/// Opens a page in the browser of the user.
fn open(page: &Path) -> anyhow::Result<()> {
    let opener = match std::env::consts::OS {
        "macos" => "open",
        _ => "xdg-open",
    };
    let opened = Command::new(opener)
        .arg(page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    match opened {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("--open: {opener} ended with {status}; open the page by hand"),
        Err(error) => bail!("--open: {opener}: {error}; open the page by hand"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pictures_need_no_escaping() {
        assert_eq!(stem(Path::new("a b/my cat #1.jpg")), "my-cat--1");
        assert_eq!(stem(Path::new("Käse_2.tar.gz")), "Käse_2-tar");
    }
}
