//! A file on this machine or in an object store.

use std::{
    fmt,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{identity::Identity, object_reader::ObjectReader, store::ObjectPlace};
use crate::error::{Error, Result};

/// A file, folder or prefix on this machine or in an object store.
#[derive(Debug, Clone)]
pub enum Place {
    /// A path.
    Local(PathBuf),
    /// An object, or a prefix of objects.
    Object(ObjectPlace),
}

impl Place {
    /// Parses a path, or an address such as `s3://bucket/folder/file`.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`](crate::error::Kind) for an address of no known kind.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once("://") {
            Some(("file", path)) => Ok(Self::Local(PathBuf::from(path))),
            Some((scheme, _)) if is_scheme(scheme) => Ok(Self::Object(ObjectPlace::parse(text)?)),
            _ => Ok(Self::Local(PathBuf::from(text))),
        }
    }

    /// Resolves a path or an address in relation to this folder or prefix.
    pub fn join(&self, text: &str) -> Result<Self> {
        match self {
            _ if text.contains("://") => Self::parse(text),
            Self::Local(folder) => Ok(Self::Local(folder.join(text))),
            Self::Object(prefix) => Ok(Self::Object(prefix.join(text)?)),
        }
    }

    /// Returns the folder or prefix that has the file.
    pub fn parent(&self) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.parent().unwrap_or(Path::new("")).to_owned()),
            Self::Object(place) => Self::Object(place.parent()),
        }
    }

    /// Returns the name of the file.
    pub fn name(&self) -> String {
        match self {
            Self::Local(path) => {
                let name = path.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            }
            Self::Object(place) => place.name().to_owned(),
        }
    }

    /// Returns the file of another name in the same folder.
    pub fn with_name(&self, name: &str) -> Result<Self> {
        self.parent().join(name)
    }

    /// Returns the extension in lower case; empty if there is none.
    pub fn extension(&self) -> String {
        let name = self.name();
        let extension = Path::new(&name).extension().unwrap_or_default();
        extension.to_string_lossy().to_lowercase()
    }

    /// Reads the whole file; `None` if there is none.
    pub async fn read_if_exists(&self) -> Result<Option<Bytes>> {
        match self {
            Self::Local(path) => match std::fs::read(path) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(Error::reading(path, error)),
            },
            Self::Object(place) => place.read_if_exists().await,
        }
    }

    /// Writes a small file as a whole.
    pub async fn write(&self, content: Bytes) -> Result<()> {
        match self {
            Self::Local(path) => {
                let write = |folder: &Path| -> std::io::Result<()> {
                    std::fs::create_dir_all(folder)?;
                    let mut file = tempfile::NamedTempFile::with_prefix_in(".writing-", folder)?;
                    file.write_all(&content)?;
                    file.persist(path)?;
                    Ok(())
                };
                let folder = match path.parent() {
                    Some(folder) if !folder.as_os_str().is_empty() => folder,
                    _ => Path::new("."),
                };
                write(folder).map_err(|error| Error::writing(path, error))
            }
            Self::Object(place) => place.write(content).await,
        }
    }

    /// Returns the names of the files in the same folder, sorted.
    pub async fn siblings(&self) -> Result<Vec<String>> {
        let mut names = match self.parent() {
            Self::Local(folder) => {
                let folder = match folder.as_os_str().is_empty() {
                    true => PathBuf::from("."),
                    false => folder,
                };
                let entries = std::fs::read_dir(&folder);
                let entries = entries.map_err(|error| Error::reading(&folder, error))?;
                let names = entries.flatten().map(|entry| entry.file_name());
                names
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect()
            }
            Self::Object(prefix) => prefix.names().await?,
        };
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Opens the file for work on a thread that may block, with its identity.
    pub(super) fn open(&self) -> Result<(Box<dyn Read + Send>, Identity)> {
        match self {
            Self::Local(path) => {
                let file = File::open(path).map_err(|error| Error::reading(path, error))?;
                let identity = Identity::of(path).unwrap_or(Identity {
                    bytes: 0,
                    version: String::new(),
                });
                Ok((Box::new(file), identity))
            }
            Self::Object(place) => {
                let reader = ObjectReader::open(place)?;
                let identity = reader.identity.clone();
                Ok((Box::new(reader), identity))
            }
        }
    }
}

fn is_scheme(text: &str) -> bool {
    let mut characters = text.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && characters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Object(place) => place.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme() {
        for (text, is_local) in [("a/b.png", true), ("file:///a", true), ("/a:b//c", true)] {
            assert_eq!(
                matches!(Place::parse(text), Ok(Place::Local(_))),
                is_local,
                "{text}"
            );
        }
        assert!(Place::parse("gopher://host/a").is_err());
    }

    #[test]
    fn a_path_of_a_list_is_relative_to_the_list() {
        let list = Place::parse("data/list.csv").expect("a path");
        let joined = |text| list.with_name(text).expect("a path").to_string();
        assert_eq!(joined("a/1.png"), "data/a/1.png");
        assert_eq!(joined("/x/1.png"), "/x/1.png");
    }
}
