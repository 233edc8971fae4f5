//! The images to import: a folder with a subfolder per label, a list of paths as CSV or JSONL, a
//! list on standard input, or a single image.

use std::{
    collections::HashSet,
    fmt::Display,
    fs::File,
    io::{BufRead, BufReader, stdin},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::{
    cli::output::extension,
    error::{Error, Result},
    gallery::{ItemId, Label, Metadata},
    sources::{SkippedFiles, find_images, path_segments, relative_path},
};

/// The columns of a CSV file and the members of a line of JSONL. Only `path` is required.
const COLUMNS: [&str; 4] = ["path", "id", "label", "metadata"];

/// An image file, and the item that it becomes.
#[derive(Debug)]
pub(super) struct ListedImage {
    pub(super) path: PathBuf,
    pub(super) id: ItemId,
    pub(super) label: Option<Label>,
    pub(super) metadata: Metadata,
}

/// The images in their order, and the files, folders and lines without a valid image.
#[derive(Debug, Default)]
pub(super) struct ImageList {
    pub(super) images: Vec<ListedImage>,
    pub(super) failures: Vec<(String, Error)>,
    pub(super) skipped: SkippedFiles,
}

impl ImageList {
    /// Reads a folder, a list, standard input for `-`, or takes a single image.
    pub(super) fn read(source: &Path) -> anyhow::Result<Self> {
        let list = match extension(source).to_lowercase().as_str() {
            _ if source.as_os_str() == "-" => {
                Self::read_lines(Path::new(""), "standard input", stdin().lock())
            }
            _ if source.is_dir() => Self::read_folder(source),
            "csv" => Self::read_csv(source),
            "jsonl" => Self::read_jsonl(source),
            _ if source.is_file() => Self::read_image(source),
            _ => bail!(
                "{}: no such file or folder; the source must be a folder of images, an image, a \
                 list that ends in .csv or .jsonl, or - for a list on standard input",
                source.display()
            ),
        }?;
        if list.images.is_empty() && list.failures.is_empty() {
            let source = source.display();
            bail!("{source}: the list is empty; give the path of an image on each line");
        }
        Ok(list)
    }

    /// Takes the name of the file as the id.
    fn read_image(path: &Path) -> anyhow::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let (id, label) = id_and_label(folder, path)?;
        let image = ListedImage {
            path: path.to_owned(),
            id,
            label,
            metadata: Metadata::default(),
        };
        Ok(Self {
            images: vec![image],
            ..Self::default()
        })
    }

    /// Takes the path below the folder as the id, and its first part as the label.
    fn read_folder(folder: &Path) -> anyhow::Result<Self> {
        let found = find_images(folder)?;
        found.check_any(folder)?;
        let mut list = Self {
            images: Vec::with_capacity(found.paths.len()),
            failures: found.unreadable,
            skipped: found.skipped,
        };
        for path in found.paths {
            match id_and_label(folder, &path) {
                Ok((id, label)) => list.images.push(ListedImage {
                    path,
                    id,
                    label,
                    metadata: Metadata::default(),
                }),
                Err(error) => list.failures.push((relative_path(folder, &path), error)),
            }
        }
        Ok(list)
    }

    fn read_csv(file: &Path) -> anyhow::Result<Self> {
        let mut reader = csv::Reader::from_path(file)
            .with_context(|| format!("cannot read the list {}", file.display()))?;
        let header = reader
            .headers()
            .with_context(|| format!("{}: cannot read the header", file.display()))?;
        let known = header.iter().all(|column| COLUMNS.contains(&column));
        if !known || !header.iter().any(|column| column == "path") {
            let found = header.iter().collect::<Vec<_>>().join(",");
            bail!(
                "{}: the header is invalid: {found:?}; its columns must be among {}, and path is \
                 required",
                file.display(),
                COLUMNS.join(", ")
            );
        }
        let mut list = ListReader::new(file);
        for (index, row) in reader.deserialize::<ListRow<String>>().enumerate() {
            let row = match row {
                // A failing disk fails the import, not the line.
                Err(error) if error.is_io_error() => {
                    return Err(error).context(format!("reading {}", file.display()));
                }
                row => row,
            };
            // The header is line 1.
            list.add(index + 2, row, |json| Metadata::parse(&json));
        }
        Ok(list.list)
    }

    fn read_jsonl(file: &Path) -> anyhow::Result<Self> {
        let opened =
            File::open(file).with_context(|| format!("cannot read the list {}", file.display()))?;
        let name = file.display().to_string();
        Self::read_lines(file, &name, BufReader::new(opened))
    }

    /// Reads lines of JSONL. On standard input a line may also be a path.
    fn read_lines(file: &Path, name: &str, lines: impl BufRead) -> anyhow::Result<Self> {
        let may_be_path = file.as_os_str().is_empty();
        let mut list = ListReader::new(file);
        for (index, line) in lines.lines().enumerate() {
            let number = index + 1;
            let line = line.with_context(|| format!("reading {name}, line {number}"))?;
            if line.trim().is_empty() {
                continue;
            }
            let row = if may_be_path && !line.starts_with('{') {
                Ok(ListRow::of_path(line))
            } else {
                serde_json::from_str(&line)
            };
            list.add(number, row, Metadata::from_value);
        }
        Ok(list.list)
    }
}

fn id_and_label(folder: &Path, path: &Path) -> Result<(ItemId, Option<Label>)> {
    let parts = path_segments(folder, path)?;
    let label = match parts.as_slice() {
        [label, _, ..] => Some(Label::new(*label)?),
        _ => None,
    };
    Ok((ItemId::new(parts.join("/"))?.of_new_item()?, label))
}

/// A row of a list. Metadata are an object in JSONL, and its text in CSV.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListRow<M> {
    path: String,
    id: Option<String>,
    label: Option<String>,
    metadata: Option<M>,
}

impl<M> ListRow<M> {
    fn of_path(path: String) -> Self {
        Self {
            path,
            id: None,
            label: None,
            metadata: None,
        }
    }
}

/// A list that is being read.
struct ListReader<'a> {
    /// Folder of the list, to which paths are relative.
    folder: &'a Path,
    list: ImageList,
    ids: HashSet<ItemId>,
}

impl<'a> ListReader<'a> {
    fn new(file: &'a Path) -> Self {
        Self {
            folder: file.parent().unwrap_or(Path::new("")),
            list: ImageList::default(),
            ids: HashSet::new(),
        }
    }

    fn add<M>(
        &mut self,
        number: usize,
        row: Result<ListRow<M>, impl Display>,
        parse_metadata: fn(M) -> Result<Metadata>,
    ) {
        let row = row.map_err(|error| Error::option("line", error));
        match row.and_then(|row| self.image(row, parse_metadata)) {
            Ok(image) => self.list.images.push(image),
            Err(error) => self.list.failures.push((format!("line {number}"), error)),
        }
    }

    fn image<M>(
        &mut self,
        row: ListRow<M>,
        parse_metadata: fn(M) -> Result<Metadata>,
    ) -> Result<ListedImage> {
        let metadata = row.metadata.map(parse_metadata).transpose()?;
        let id = ItemId::new(row.id.unwrap_or_else(|| row.path.clone()))?.of_new_item()?;
        if !self.ids.insert(id.clone()) {
            let id = id.as_str();
            let detail = format!("{id:?} occurs in an earlier line; ids must be unique");
            return Err(Error::option("id", detail));
        }
        Ok(ListedImage {
            path: self.folder.join(row.path),
            id,
            label: row.label.map(Label::new).transpose()?,
            metadata: metadata.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> anyhow::Result<ImageList> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("the list is written");
        ImageList::read(&file)
    }

    #[test]
    fn an_id_is_the_path_unless_given_and_must_be_unique() {
        let list = read("list.CSV", "path,id\na.png,\nb.png,a.png\nc.png,c\n").expect("a list");
        let ids: Vec<&str> = list.images.iter().map(|image| image.id.as_str()).collect();
        assert_eq!(ids, ["a.png", "c"]);
        assert!(list.images[0].path.is_absolute(), "relative to the list");
        assert_eq!(list.failures[0].0, "line 3");
    }

    #[test]
    fn a_header_needs_a_path_and_no_other_columns() {
        for header in ["id,label", "path,color"] {
            let error = read("list.csv", &format!("{header}\na,b\n")).expect_err(header);
            assert!(error.to_string().contains("path, id, label, metadata"));
        }
    }

    #[test]
    fn standard_input_mixes_paths_and_objects() {
        let lines = "a/b.png\n{\"path\": \"c.png\", \"label\": \"cup\"}\na/b.png\n";
        let list = ImageList::read_lines(Path::new(""), "standard input", lines.as_bytes());
        let list = list.expect("a list");
        let ids: Vec<&str> = list.images.iter().map(|image| image.id.as_str()).collect();
        assert_eq!(ids, ["a/b.png", "c.png"]);
        assert_eq!(list.images[0].path, Path::new("a/b.png"));
        assert!(list.images[0].label.is_none() && list.images[1].label.is_some());
        assert_eq!(list.failures[0].0, "line 3", "ids are unique");
    }

    #[test]
    fn empty_lines_of_jsonl_count_but_are_skipped() {
        let list = read("list.jsonl", "{\"path\": \"a\"}\n\n{}\n").expect("a list");
        assert_eq!(list.images.len(), 1);
        assert_eq!(list.failures[0].0, "line 3");
    }
}
