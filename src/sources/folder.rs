//! Image files below a folder.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use futures_util::stream::BoxStream;
use glob::Pattern;

use super::{Listed, SkippedFiles, Source, SourceImage, blocking_list};
use crate::{
    error::{Error, Kind, Result},
    vision::{HEAD_LENGTH, Identified, identify, image_extensions},
};

fn no_images(root: &Path, unreadable: &[(String, Error)], skipped: &SkippedFiles) -> Error {
    let mut detail = format!(
        "{}: the folder has no images; supported extensions: {}",
        root.display(),
        image_extensions().join(", ")
    );
    for (path, error) in unreadable {
        detail += &format!("; {path}: {error}");
    }
    if !skipped.is_empty() {
        detail += &format!("; {skipped}");
    }
    Error::new(Kind::InvalidOption, detail)
}

/// The image files below a folder, sorted by the parts of their paths: those with one of
/// [`image_extensions`], in any case, and those of other names whose first bytes are those of an
/// image.
pub(super) struct Folder {
    pub(super) root: PathBuf,
    /// Begins each id, if several sources are read.
    pub(super) prefix: String,
    /// What paths below the folder must match.
    pub(super) pattern: Option<Pattern>,
}

impl Source for Folder {
    fn list(self: Box<Self>) -> BoxStream<'static, Result<Listed>> {
        blocking_list(move |send| self.send_all(send))
    }

    fn is_quick(&self) -> bool {
        true
    }
}

impl Folder {
    fn send_all(self, send: &mut dyn FnMut(Listed) -> bool) -> Result<()> {
        // The first reasons are enough for the error.
        let mut unreadable = Vec::new();
        let mut skipped = SkippedFiles::default();
        let mut has_images = false;
        let mut is_read = true;
        walk(&self.root, &mut |file| {
            if !self.matches(&file) {
                return true;
            }
            match &file {
                Found::Image(_) => has_images = true,
                Found::Unreadable(path, error) if unreadable.len() < 10 => {
                    let error = Error::new(error.kind(), error.detail());
                    unreadable.push((relative_path(&self.root, path), error));
                }
                Found::Unreadable(..) => (),
                Found::Other(_, kind, advice) => skipped.add(kind.clone(), *advice),
            }
            is_read = send(self.listed(file));
            is_read
        })?;
        if has_images || !is_read {
            return Ok(());
        }
        Err(no_images(&self.root, &unreadable, &skipped))
    }

    fn matches(&self, file: &Found) -> bool {
        let Some(pattern) = &self.pattern else {
            return true;
        };
        let (Found::Image(path) | Found::Unreadable(path, _) | Found::Other(path, ..)) = file;
        matches_below(pattern, &relative_path(&self.root, path))
    }

    fn listed(&self, file: Found) -> Listed {
        let name = |path: &Path| self.prefix.clone() + &relative_path(&self.root, path);
        match file {
            Found::Image(path) => match path_segments(&self.root, &path) {
                Ok(parts) => {
                    let id = parts.join("/");
                    let mut image = SourceImage::file(id, path.clone());
                    image.id.insert_str(0, &self.prefix);
                    Listed::Image(Box::new(image))
                }
                Err(error) => Listed::Failed {
                    name: name(&path),
                    error,
                },
            },
            Found::Unreadable(path, error) => Listed::Failed {
                name: name(&path),
                error,
            },
            Found::Other(path, kind, advice) => Listed::Skipped {
                name: name(&path),
                kind,
                advice,
            },
        }
    }
}

/// Returns whether a path matches a pattern whose `*` stays within a part of the path.
pub(super) fn matches_below(pattern: &Pattern, path: &str) -> bool {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    pattern.matches_with(path, options)
}

/// A file below a folder.
enum Found {
    Image(PathBuf),
    /// A subfolder or a file that cannot be read.
    Unreadable(PathBuf, Error),
    /// No image: its kind, and what to do with it, if that is known.
    Other(PathBuf, String, Option<&'static str>),
}

/// Passes the files below `root` to `take`, sorted by the parts of their paths, until it returns
/// false. Holds the names of the open folders only.
fn walk(root: &Path, take: &mut dyn FnMut(Found) -> bool) -> Result<()> {
    let entries = sorted_entries(root).map_err(|error| {
        let action = format_args!("cannot read the folder {}", root.display());
        Error::io(action, error)
    })?;
    let mut open = vec![entries.into_iter()];
    while let Some(entries) = open.last_mut() {
        let Some(path) = entries.next() else {
            open.pop();
            continue;
        };
        let found = if path.is_dir() {
            // Links to folders are not followed, because they can form a loop.
            if path.is_symlink() {
                continue;
            }
            match sorted_entries(&path) {
                Ok(entries) => {
                    open.push(entries.into_iter());
                    continue;
                }
                Err(error) => Found::Unreadable(path, Error::io("reading the folder", error)),
            }
        } else if has_image_extension(&path) {
            Found::Image(path)
        } else {
            by_content(path)
        };
        if !take(found) {
            return Ok(());
        }
    }
    Ok(())
}

fn sorted_entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort_unstable();
    Ok(paths)
}

/// Looks into a file whose name does not say that it is an image.
fn by_content(path: PathBuf) -> Found {
    // The others, such as pipes, could block.
    if !path.is_file() {
        return Found::Other(path, "no regular file".to_owned(), None);
    }
    match first_bytes(&path).map(|head| identify(&head)) {
        Ok(Identified::Readable(_)) => Found::Image(path),
        Ok(Identified::Known(kind)) => Found::Other(path, kind.name.to_owned(), Some(kind.advice)),
        Ok(Identified::Unknown) => {
            let kind = kind_by_name(&path.to_string_lossy());
            Found::Other(path, kind, None)
        }
        Err(error) => Found::Unreadable(path, Error::io("reading", error)),
    }
}

fn first_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let file = File::open(path)?;
    file.take(HEAD_LENGTH as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Names the kind of a file by its extension.
pub(super) fn kind_by_name(name: &str) -> String {
    match Path::new(name).extension() {
        Some(extension) => format!(".{}", extension.to_string_lossy().to_lowercase()),
        None => "without an extension".to_owned(),
    }
}

/// Returns the path of a file relative to `root`, for messages.
pub fn relative_path(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

/// Returns the segments of the path of a file relative to `root`.
///
/// By convention the first of several segments is the label: each class has its folder.
pub fn path_segments<'a>(root: &Path, path: &'a Path) -> Result<Vec<&'a str>> {
    path.strip_prefix(root)
        .unwrap_or(path)
        .iter()
        .map(OsStr::to_str)
        .collect::<Option<_>>()
        .ok_or_else(|| {
            Error::option(
                "path",
                "is not UTF-8, so it cannot be an id; rename the file",
            )
        })
}

pub(super) fn has_image_extension(path: &Path) -> bool {
    path.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|extension| {
            image_extensions().contains(&extension.to_ascii_lowercase().as_str())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_extensions_match_in_any_case() {
        assert!(has_image_extension(Path::new("a/B.JPEG")));
        assert!(!has_image_extension(Path::new("a/b.txt")));
        assert!(!has_image_extension(Path::new("a/jpg")));
    }

    #[test]
    fn paths_are_relative_to_the_root() {
        let root = Path::new("/data");
        let path = Path::new("/data/cat/1.png");
        assert_eq!(relative_path(root, path), "cat/1.png");
        assert_eq!(path_segments(root, path).unwrap(), ["cat", "1.png"]);
    }
}
