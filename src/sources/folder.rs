//! Image files below a folder.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    vision::image_extensions,
};

/// Image files found below a folder.
#[derive(Debug, Default)]
pub struct FoundImages {
    /// Paths of the files, sorted.
    pub paths: Vec<PathBuf>,
    /// Relative paths of subfolders that cannot be read, each with the reason.
    pub unreadable: Vec<(String, Error)>,
}

/// Finds the files below `root` whose extension is one of [`image_extensions`], in any case.
///
/// # Errors
/// [`Kind::Io`](crate::error::Kind::Io) if `root` itself cannot be read.
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
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if has_image_extension(&path) {
                found.paths.push(path);
            }
        }
    }
    found.paths.sort();
    Ok(found)
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
}
