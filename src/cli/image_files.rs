//! The image files that a command works on.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::{
    error::Error,
    sources::{SkippedFiles, find_images, relative_path},
};

/// An image file, and its name in the output.
pub(super) struct NamedFile {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// What a command works on.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) files: Vec<NamedFile>,
    pub(super) unreadable: Vec<(String, Error)>,
    pub(super) skipped: SkippedFiles,
}

impl Sources {
    /// Finds the image files of a folder, an image, or a list on standard input.
    pub(super) fn find(source: &Path) -> anyhow::Result<Self> {
        if source.as_os_str() == "-" {
            return Self::read_list(io::stdin().lock());
        }
        if source.is_file() {
            return Ok(Self {
                files: vec![NamedFile::of(source)],
                ..Self::default()
            });
        }
        let found = find_images(source)?;
        found.check_any(source)?;
        let named = |path: PathBuf| NamedFile {
            name: relative_path(source, &path),
            path,
        };
        Ok(Self {
            files: found.paths.into_iter().map(named).collect(),
            unreadable: found.unreadable,
            skipped: found.skipped,
        })
    }

    /// Reads a path a line.
    fn read_list(list: impl io::BufRead) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for line in list.lines() {
            let line = line.context("reading the list of files from standard input")?;
            if !line.is_empty() {
                files.push(NamedFile::of(Path::new(&line)));
            }
        }
        if files.is_empty() {
            bail!("the list on standard input is empty; give the path of an image on each line");
        }
        Ok(Self {
            files,
            ..Self::default()
        })
    }
}

impl NamedFile {
    fn of(path: &Path) -> Self {
        Self {
            name: path.to_string_lossy().into_owned(),
            path: path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_path_a_line() {
        let list = Sources::read_list(&b"a b.png\n\n./c.jpg\n"[..]).expect("a list");
        let names: Vec<&str> = list.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a b.png", "./c.jpg"]);
        assert!(Sources::read_list(&b"\n"[..]).is_err());
    }
}
