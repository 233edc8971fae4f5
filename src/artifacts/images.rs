//! The image files of a folder.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How names of image files end, in any case.
pub const IMAGE_ENDINGS: [&str; 9] = [
    "jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jfif",
];

/// The image files below a folder, by their endings, sorted by path; and the subfolders that cannot
/// be read.
///
/// # Errors
/// [`crate::error::Kind::Io`] if the folder itself cannot be read.
#[allow(clippy::type_complexity, reason = "a pair of lists, used by few")]
pub fn images_of(root: &Path) -> Result<(Vec<PathBuf>, Vec<(String, Error)>)> {
    let (mut found, mut bad) = (Vec::new(), Vec::new());
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if folder == root => {
                return Err(Error::io(
                    format_args!("cannot read the folder {}", root.display()),
                    error,
                ));
            }
            Err(error) => {
                bad.push((below(root, &folder), Error::io("reading the folder", error)));
                continue;
            }
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let ending = path
                .extension()
                .and_then(|extension| extension.to_str())
                .unwrap_or_default()
                .to_lowercase();
            // Links to folders are not followed, so that a loop of them does no harm.
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if IMAGE_ENDINGS.contains(&ending.as_str()) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok((found, bad))
}

/// The path of a file below a folder, for people.
pub fn below(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

/// The parts of the path of a file below a folder. By convention the first is the label if there
/// are several: the folder of a class.
///
/// # Errors
/// [`crate::error::Kind::InvalidOption`] if the path is no UTF-8.
pub fn parts<'a>(root: &Path, path: &'a Path) -> Result<Vec<&'a str>> {
    let parts = path
        .strip_prefix(root)
        .unwrap_or(path)
        .iter()
        .map(std::ffi::OsStr::to_str);
    parts.collect::<Option<_>>().ok_or_else(|| {
        Error::option(
            "path",
            "is no UTF-8, so it cannot be an id; rename the file",
        )
    })
}
