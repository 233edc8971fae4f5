//! Image files below a folder.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Kind, Result},
    names::plural,
    vision::{HEAD_LENGTH, Identified, identify, image_extensions},
};

/// Files found below a folder.
#[derive(Debug, Default)]
pub struct FoundImages {
    /// Paths of the image files, sorted.
    pub paths: Vec<PathBuf>,
    /// Relative paths of subfolders and files that cannot be read, each with the reason.
    pub unreadable: Vec<(String, Error)>,
    /// The other files.
    pub skipped: SkippedFiles,
}

/// Files that are no images that can be read, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SkippedFiles(BTreeMap<String, SkippedKind>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct SkippedKind {
    count: usize,
    /// What to do with such files, if that is known.
    advice: Option<&'static str>,
}

impl SkippedFiles {
    /// Returns whether no file was skipped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, kind: String, advice: Option<&'static str>) {
        let skipped = self.0.entry(kind).or_default();
        skipped.count += 1;
        skipped.advice = advice;
    }
}

/// A line with the counts, such as "3 files skipped, no readable images: 2 HEIC, 1 .txt", and a
/// line for each kind that has an advice.
impl fmt::Display for SkippedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<_> = self.0.iter().collect();
        // Stable: kinds of equal counts stay sorted by name.
        kinds.sort_by_key(|(_, skipped)| std::cmp::Reverse(skipped.count));
        let files = plural(
            kinds
                .iter()
                .map(|(_, skipped)| skipped.count)
                .sum::<usize>(),
            "file",
        );
        write!(f, "{files} skipped, no readable images:")?;
        for (index, (kind, SkippedKind { count, .. })) in kinds.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma} {count} {kind}")?;
        }
        for (kind, skipped) in kinds {
            if let Some(advice) = skipped.advice {
                write!(f, "\n  {kind}: {advice}")?;
            }
        }
        Ok(())
    }
}

/// Finds the image files below `root`: those with one of [`image_extensions`], in any case, and
/// those of other names whose first bytes are those of an image. Counts the others.
///
/// # Errors
/// [`Kind::Io`] if `root` itself cannot be read.
pub fn find_images(root: &Path) -> Result<FoundImages> {
    let mut found = FoundImages::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if folder == root => {
                let action = format_args!("cannot read the folder {}", root.display());
                return Err(Error::io(action, error));
            }
            Err(error) => {
                let error = Error::io("reading the folder", error);
                found.unreadable.push((relative_path(root, &folder), error));
                continue;
            }
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            // Links to folders are not followed, because they can form a loop.
            if path.is_dir() {
                if !path.is_symlink() {
                    folders.push(path);
                }
            } else if has_image_extension(&path) {
                found.paths.push(path);
            } else {
                found.add_by_content(root, path);
            }
        }
    }
    found.paths.sort();
    Ok(found)
}

impl FoundImages {
    /// Rejects a folder without image files. The error lists what was found instead.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] without the path of an image.
    pub fn check_any(&self, root: &Path) -> Result<()> {
        if !self.paths.is_empty() {
            return Ok(());
        }
        let mut detail = format!(
            "{}: the folder has no images; supported extensions: {}",
            root.display(),
            image_extensions().join(", ")
        );
        for (path, error) in &self.unreadable {
            detail += &format!("; {path}: {error}");
        }
        if !self.skipped.is_empty() {
            detail += &format!("; {}", self.skipped);
        }
        Err(Error::new(Kind::InvalidOption, detail))
    }

    /// Adds a file whose name does not say that it is an image.
    fn add_by_content(&mut self, root: &Path, path: PathBuf) {
        // The others, such as pipes, could block.
        if !path.is_file() {
            return self.skipped.add("no regular file".to_owned(), None);
        }
        match first_bytes(&path).map(|head| identify(&head)) {
            Ok(Identified::Readable(_)) => self.paths.push(path),
            Ok(Identified::Known(kind)) => {
                self.skipped.add(kind.name.to_owned(), Some(kind.advice));
            }
            Ok(Identified::Unknown) => self.skipped.add(kind_by_name(&path), None),
            Err(error) => {
                let error = Error::io("reading", error);
                self.unreadable.push((relative_path(root, &path), error));
            }
        }
    }
}

fn first_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let file = File::open(path)?;
    file.take(HEAD_LENGTH as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn kind_by_name(path: &Path) -> String {
    match path.extension() {
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

fn has_image_extension(path: &Path) -> bool {
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

    #[test]
    fn skipped_files_are_counted_by_kind() {
        let mut skipped = SkippedFiles::default();
        for kind in [".txt", "HEIC", "HEIC", ".md"] {
            skipped.add(kind.to_owned(), (kind == "HEIC").then_some("convert it"));
        }
        assert_eq!(
            skipped.to_string(),
            "4 files skipped, no readable images: 2 HEIC, 1 .md, 1 .txt\n  HEIC: convert it"
        );
    }
}
