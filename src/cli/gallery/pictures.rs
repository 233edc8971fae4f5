//! What is to be imported: a folder with a subfolder per label, or a list of paths as CSV or JSONL.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    artifacts::{IMAGE_ENDINGS, below, images_of, parts},
    error::{Error, Result},
    gallery::{ItemId, Label, Metadata},
};

/// An image file and what is said of it.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) path: PathBuf,
    pub(super) id: ItemId,
    pub(super) label: Option<Label>,
    pub(super) metadata: Metadata,
}

/// The pictures in their order, and the folders or lines that name none, with the reason.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    pub(super) good: Vec<Picture>,
    pub(super) bad: Vec<(String, Error)>,
}

/// Columns of a CSV file and members of a line of JSONL. Only the path is needed.
const COLUMNS: [&str; 4] = ["path", "id", "label", "metadata"];

/// A line of a list. Metadata are an object in JSONL, and its text in CSV.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<M> {
    path: String,
    id: Option<String>,
    label: Option<String>,
    metadata: Option<M>,
}

impl Pictures {
    /// Reads a folder or a list.
    pub(super) fn read(source: &Path) -> anyhow::Result<Self> {
        let ending = source
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        let pictures = match ending.to_lowercase().as_str() {
            _ if source.is_dir() => Self::of_folder(source),
            "csv" => Self::of_csv(source),
            "jsonl" => Self::of_jsonl(source),
            _ => bail!(
                "{}: must be a folder of images, or a list that ends in .csv or .jsonl",
                source.display()
            ),
        }?;
        if pictures.good.is_empty() && pictures.bad.is_empty() {
            bail!(
                "{} names no images ({})",
                source.display(),
                IMAGE_ENDINGS.join(", ")
            );
        }
        Ok(pictures)
    }

    /// The id is the path below the folder, the label its first part.
    fn of_folder(folder: &Path) -> anyhow::Result<Self> {
        let (paths, bad) = images_of(folder)?;
        let mut pictures = Self {
            good: Vec::with_capacity(paths.len()),
            bad,
        };
        for path in paths {
            let named = parts(folder, &path).and_then(|parts| {
                let label = if parts.len() > 1 {
                    Some(Label::new(parts[0])?)
                } else {
                    None
                };
                Ok((ItemId::new(parts.join("/"))?, label))
            });
            match named {
                Ok((id, label)) => pictures.good.push(Picture {
                    path,
                    id,
                    label,
                    metadata: Metadata::default(),
                }),
                Err(error) => pictures.bad.push((below(folder, &path), error)),
            }
        }
        Ok(pictures)
    }

    fn of_csv(file: &Path) -> anyhow::Result<Self> {
        let mut reader = csv::Reader::from_path(file)
            .with_context(|| format!("cannot read the list {}", file.display()))?;
        let header = reader
            .headers()
            .with_context(|| format!("{}: its first line", file.display()))?;
        let known = header.iter().all(|column| COLUMNS.contains(&column));
        if !known || !header.iter().any(|column| column == "path") {
            let found = header.iter().collect::<Vec<_>>().join(",");
            bail!(
                "{}: its first line is {found:?}; it must name the columns, of which there are {} (only path is needed)",
                file.display(),
                COLUMNS.join(", ")
            );
        }
        let mut list = List::of(file);
        for (index, line) in reader.deserialize::<Line<String>>().enumerate() {
            let line = match line {
                Ok(Line {
                    metadata,
                    path,
                    id,
                    label,
                }) => {
                    let metadata = metadata
                        .map_or_else(|| Ok(Metadata::default()), |json| Metadata::parse(&json));
                    metadata.map(|metadata| (path, id, label, metadata))
                }
                // What the disk refuses is no fault of a line.
                Err(error) if error.is_io_error() => {
                    return Err(error).context(format!("reading {}", file.display()));
                }
                Err(error) => Err(Error::option("line", error)),
            };
            // The header is line 1.
            list.add(index + 2, line);
        }
        Ok(list.pictures)
    }

    fn of_jsonl(file: &Path) -> anyhow::Result<Self> {
        let opened =
            File::open(file).with_context(|| format!("cannot read the list {}", file.display()))?;
        let mut list = List::of(file);
        for (index, text) in BufReader::new(opened).lines().enumerate() {
            let text =
                text.with_context(|| format!("reading {}, line {}", file.display(), index + 1))?;
            if text.trim().is_empty() {
                continue;
            }
            let line = serde_json::from_str::<Line<Value>>(&text)
                .map_err(|error| Error::option("line", error));
            let line = line.and_then(
                |Line {
                     path,
                     id,
                     label,
                     metadata,
                 }| {
                    let metadata =
                        metadata.map_or_else(|| Ok(Metadata::default()), Metadata::from_value)?;
                    Ok((path, id, label, metadata))
                },
            );
            list.add(index + 1, line);
        }
        Ok(list.pictures)
    }
}

/// A list that is being read.
struct List<'a> {
    /// Paths are relative to it.
    folder: &'a Path,
    pictures: Pictures,
    ids: HashSet<ItemId>,
}

impl<'a> List<'a> {
    fn of(file: &'a Path) -> Self {
        let folder = file.parent().unwrap_or(Path::new(""));
        Self {
            folder,
            pictures: Pictures::default(),
            ids: HashSet::new(),
        }
    }

    #[allow(clippy::type_complexity, reason = "the four columns")]
    fn add(
        &mut self,
        number: usize,
        line: Result<(String, Option<String>, Option<String>, Metadata)>,
    ) {
        let picture = line.and_then(|(path, id, label, metadata)| {
            let id = ItemId::new(id.unwrap_or_else(|| path.clone()))?;
            if !self.ids.insert(id.clone()) {
                return Err(Error::option(
                    "id",
                    format!("{:?} stands in an earlier line, too", id.as_str()),
                ));
            }
            Ok(Picture {
                path: self.folder.join(path),
                id,
                label: label.map(Label::new).transpose()?,
                metadata,
            })
        });
        match picture {
            Ok(picture) => self.pictures.good.push(picture),
            Err(error) => self.pictures.bad.push((format!("line {number}"), error)),
        }
    }
}
