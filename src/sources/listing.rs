//! Sources by their names, read one after the other.

use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use glob::Pattern;

use super::{
    Listed, Place, Shard, SkippedFiles, Source, SourceImage,
    folder::{Folder, has_image_extension, matches_below},
    list::{Format, List},
    one::One,
    prefix::Prefix,
    store::ObjectPlace,
    table::Table,
    tar::Tar,
};
use crate::error::{Error, Kind, Result};

/// Sources that are open.
pub struct Listing(Vec<Box<dyn Source>>);

/// Everything that sources list.
#[derive(Debug, Default)]
pub struct ListedImages {
    /// The images, in a fixed order.
    pub images: Vec<SourceImage>,
    /// What cannot be read, and why.
    pub failures: Vec<(String, Error)>,
    /// Files that are no images.
    pub skipped: SkippedFiles,
}

/// How sources are opened.
struct Opening<'a> {
    column: Option<&'a str>,
    /// Whether there are several sources, whose images must not share their ids.
    are_several: bool,
}

impl Listing {
    /// Opens sources: folders, images, lists that end in `.csv`, `.jsonl` or `.txt`, Parquet files
    /// whose images are in `column`, tar files, addresses of those or of prefixes in a store, any
    /// of them by a pattern such as `shards/*.tar`, and `-` for a list on standard input.
    ///
    /// The id of an image is its path below the folder or prefix, after the name of the source if
    /// there are several. A single image has the name of its file; one of several, its path.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] or [`Kind::Io`] for a source that cannot be opened.
    pub async fn open(sources: &[String], column: Option<&str>) -> Result<Self> {
        let opening = Opening {
            column,
            are_several: sources.len() > 1,
        };
        let mut opened = Vec::new();
        for source in sources {
            opened.extend(opening.open(source).await?);
        }
        Ok(Self(opened))
    }

    /// Returns whether listing takes little time and reads no images, so that it can be done once
    /// more to count them.
    pub fn is_quick(&self) -> bool {
        self.0.iter().all(|source| source.is_quick())
    }

    /// Lists everything. Images of tar and Parquet files stay in memory.
    pub async fn list_all(self) -> Result<ListedImages> {
        let mut listed = self.list(Shard::WHOLE);
        let mut found = ListedImages::default();
        while let Some(listed) = listed.try_next().await? {
            match listed {
                Listed::Image(image) => found.images.push(*image),
                Listed::Failed { name, error } => found.failures.push((name, error)),
                Listed::Skipped { kind, advice, .. } => found.skipped.add(kind, advice),
            }
        }
        Ok(found)
    }

    /// Lists what is in a shard. If there are at least as many tar and Parquet files as shards, a
    /// shard has whole files, by their places modulo the number of shards. All other images are
    /// assigned by their ids.
    pub fn list(self, shard: Shard) -> BoxStream<'static, Result<Listed>> {
        let containers = self.0.iter().filter(|source| source.is_container());
        let deals_whole = containers.count() as u64 >= shard.count;
        let mut place = 0;
        let mut chosen: Vec<BoxStream<'static, Result<Listed>>> = Vec::new();
        for source in self.0 {
            if source.is_container() && deals_whole {
                if shard.has_place(place) {
                    chosen.push(source.list());
                }
                place += 1;
            } else {
                let listed = source.list();
                let of_shard = listed
                    .try_filter(move |listed| std::future::ready(shard.has_id(listed.name())));
                chosen.push(of_shard.boxed());
            }
        }
        stream::iter(chosen).flatten().boxed()
    }
}

impl Opening<'_> {
    async fn open(&self, source: &str) -> Result<Vec<Box<dyn Source>>> {
        if source == "-" {
            return Ok(vec![Box::new(List {
                place: None,
                format: Format::Mixed,
                prefix: String::new(),
            })]);
        }
        match Place::parse(source)? {
            Place::Local(path) => self.open_path(source, path),
            Place::Object(_) => self.open_address(source).await,
        }
    }

    fn open_path(&self, source: &str, path: PathBuf) -> Result<Vec<Box<dyn Source>>> {
        if path.is_dir() {
            return Ok(vec![self.folder(source, path, None)]);
        }
        if path.exists() {
            return Ok(vec![self.file(source, Place::Local(path))]);
        }
        let Some((root, pattern)) = split_pattern(source)? else {
            let error = std::fs::metadata(&path).err();
            let error = error.unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
            let action = format_args!(
                "cannot read {source}, which must be a folder, an image, a list, a Parquet or tar \
                 file, an address, or - for a list on standard input"
            );
            return Err(Error::io(action, error));
        };
        if !is_container(pattern.as_str()) {
            let root = PathBuf::from(if root.is_empty() { "." } else { root });
            return Ok(vec![self.folder(source, root, Some(pattern))]);
        }
        let matches = glob::glob(source).map_err(|error| Error::option("source", error))?;
        let mut files: Vec<PathBuf> = matches.flatten().collect();
        files.sort();
        self.containers(source, files.into_iter().map(Place::Local).collect())
    }

    async fn open_address(&self, source: &str) -> Result<Vec<Box<dyn Source>>> {
        let Some((root, pattern)) = split_pattern(source)? else {
            let place = ObjectPlace::parse(source)?;
            let name = Place::Object(place.clone()).name();
            let is_file = kind_of(&name) != FileKind::Unknown || has_image_extension(name.as_ref());
            return Ok(vec![match is_file && !source.ends_with('/') {
                true => self.file(source, Place::Object(place)),
                false => self.prefix(source, place, None),
            }]);
        };
        let root = ObjectPlace::parse(root)?;
        if !is_container(pattern.as_str()) {
            return Ok(vec![self.prefix(source, root, Some(pattern))]);
        }
        let mut found: Vec<Place> = Vec::new();
        let mut objects = root.list();
        while let Some((object, _)) = objects.try_next().await? {
            if matches_below(&pattern, &root.below(&object)) {
                found.push(Place::Object(object));
            }
        }
        found.sort_by_cached_key(ToString::to_string);
        self.containers(source, found)
    }

    fn containers(&self, source: &str, files: Vec<Place>) -> Result<Vec<Box<dyn Source>>> {
        if files.is_empty() {
            let detail = format!("{source}: no file matches the pattern");
            return Err(Error::new(Kind::InvalidOption, detail));
        }
        let opened = files.into_iter().map(|place| self.file(source, place));
        Ok(opened.collect())
    }

    /// What begins each id of a folder.
    fn prefix_of(&self, source: &str) -> String {
        match source {
            "" => String::new(),
            _ if self.are_several => format!("{source}/"),
            _ => String::new(),
        }
    }

    fn folder(&self, source: &str, root: PathBuf, pattern: Option<Pattern>) -> Box<dyn Source> {
        Box::new(Folder {
            prefix: self.prefix_of(&root_of(source, pattern.as_ref())),
            root,
            pattern,
        })
    }

    fn prefix(
        &self,
        source: &str,
        place: ObjectPlace,
        pattern: Option<Pattern>,
    ) -> Box<dyn Source> {
        Box::new(Prefix {
            prefix: self.prefix_of(&root_of(source, pattern.as_ref())),
            place,
            pattern,
        })
    }

    fn file(&self, source: &str, place: Place) -> Box<dyn Source> {
        let list = |format| List {
            prefix: match self.are_several {
                true => format!("{place}, "),
                false => String::new(),
            },
            place: Some(place.clone()),
            format,
        };
        match kind_of(&place.name()) {
            FileKind::Tar => Box::new(Tar(place)),
            FileKind::Parquet => Box::new(Table {
                place,
                column: self.column.map(str::to_owned),
            }),
            FileKind::List(format) => Box::new(list(format)),
            FileKind::Unknown => {
                let id = match self.are_several {
                    true => source.to_owned(),
                    false => place.name(),
                };
                Box::new(One(SourceImage::single(id, place)))
            }
        }
    }
}

/// What a file is by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    Tar,
    Parquet,
    List(Format),
    /// An image, perhaps.
    Unknown,
}

fn kind_of(name: &str) -> FileKind {
    let extension = Path::new(name).extension().unwrap_or_default();
    match extension.to_string_lossy().to_lowercase().as_str() {
        "tar" => FileKind::Tar,
        "parquet" => FileKind::Parquet,
        "csv" => FileKind::List(Format::Csv),
        "jsonl" => FileKind::List(Format::Jsonl),
        "txt" => FileKind::List(Format::Text),
        _ => FileKind::Unknown,
    }
}

/// Whether files of this name are opened, and not read as images.
fn is_container(name: &str) -> bool {
    kind_of(name) != FileKind::Unknown
}

/// Returns the folder or prefix before a pattern, and the pattern; `None` without a `*`, `?` or
/// `[`.
fn split_pattern(source: &str) -> Result<Option<(&str, Pattern)>> {
    let Some(special) = source.find(['*', '?', '[']) else {
        return Ok(None);
    };
    let (root, pattern) = match source[..special].rfind('/') {
        Some(slash) => (&source[..slash.max(1)], &source[slash + 1..]),
        None => ("", source),
    };
    let pattern = Pattern::new(pattern).map_err(|error| {
        let detail = format_args!("{source}: the pattern is invalid: {error}");
        Error::option("source", detail)
    })?;
    Ok(Some((root, pattern)))
}

/// Returns a source without its pattern.
fn root_of(source: &str, pattern: Option<&Pattern>) -> String {
    let root = pattern.map_or(source, |pattern| {
        source.strip_suffix(pattern.as_str()).unwrap_or(source)
    });
    root.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_begins_after_the_last_whole_part() {
        let split = |source| {
            let (root, pattern) = split_pattern(source).expect("valid").expect("a pattern");
            (root.to_owned(), pattern.as_str().to_owned())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(split("s3://b/shards/*.tar"), pair("s3://b/shards", "*.tar"));
        assert_eq!(split("a/*/x?.jpg"), pair("a", "*/x?.jpg"));
        assert_eq!(split("*.jpg"), pair("", "*.jpg"));
        assert_eq!(split("/*.jpg"), pair("/", "*.jpg"));
        assert!(split_pattern("a/b.jpg").expect("valid").is_none());
        assert!(split_pattern("a/[").is_err());
    }
}
