//! Results of an `embed` that has not finished, so that the same command goes on from there.
//!
//! They are a file next to the output: a line with the settings, then a line for each image. A line
//! is written when its image is done, and synced after a few seconds. A last line that was torn by
//! a crash is ignored.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant, UNIX_EPOCH},
};

use anyhow::bail;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Time after which written lines are synced, at the next line.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);

/// Identity of a file's content: another size or time means that the file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileIdentity {
    bytes: u64,
    /// Time of the last change, in nanoseconds since 1970.
    modified_ns: u64,
}

impl FileIdentity {
    /// Reads the identity of a file; `None` if it has none, such as a missing file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self {
            bytes: metadata.len(),
            modified_ns: u64::try_from(modified.as_nanos()).ok()?,
        })
    }
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    path: String,
    #[serde(flatten)]
    identity: FileIdentity,
    /// The values as little-endian f32 in base64, so that they are kept to the bit.
    vector: String,
}

/// The file of unfinished results.
pub(super) struct PartialResults {
    path: PathBuf,
    settings: String,
    /// The open and locked file; it is made with the first result.
    file: Option<File>,
    known: HashMap<String, (FileIdentity, Vec<f32>)>,
    synced: Instant,
}

impl PartialResults {
    /// Opens the results of `output` that were made with `settings`, if there are any.
    pub(super) fn open(output: &Path, settings: &impl Serialize) -> anyhow::Result<Self> {
        let mut path = output.as_os_str().to_owned();
        path.push(".partial");
        let mut results = Self {
            path: path.into(),
            settings: serde_json::to_string(settings)?,
            file: None,
            known: HashMap::new(),
            synced: Instant::now(),
        };
        if results.path.exists() {
            results.load()?;
        }
        Ok(results)
    }

    /// Reads all whole lines, and continues after them.
    fn load(&mut self) -> anyhow::Result<()> {
        let file = self.lock()?;
        let reading = |error| Error::reading(&self.path, error);
        let mut reader = BufReader::new(&file);
        let mut text = Vec::new();
        let mut whole = 0;
        while reader.read_until(b'\n', &mut text).map_err(reading)? > 0 {
            let Some(line) = text.strip_suffix(b"\n") else {
                break;
            };
            if whole == 0 {
                if line != self.settings.as_bytes() {
                    bail!(
                        "{} has results of another model or of other options; give the same model \
                         and options to go on, or delete it",
                        self.path.display()
                    );
                }
            } else {
                let Some((path, result)) = parse(line) else {
                    break;
                };
                self.known.insert(path, result);
            }
            whole += text.len() as u64;
            text.clear();
        }
        if whole == 0 {
            return Ok(remove(&self.path)?);
        }
        file.set_len(whole)
            .and_then(|()| (&file).seek(SeekFrom::End(0)))
            .map_err(|error| Error::writing(&self.path, error))?;
        self.file = Some(file);
        Ok(())
    }

    /// Opens the file for this process alone.
    fn lock(&self) -> anyhow::Result<File> {
        let writing = |error| Error::writing(&self.path, error);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&self.path)
            .map_err(writing)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => bail!(
                "another process writes {}; wait for its end, or give another --output",
                self.path.display()
            ),
            Err(TryLockError::Error(error)) => Err(writing(error).into()),
        }
    }

    /// Returns the vector of a file if it has not changed since.
    pub(super) fn get(&self, path: &str, identity: FileIdentity) -> Option<&[f32]> {
        let (known, vector) = self.known.get(path)?;
        (*known == identity).then_some(vector)
    }

    /// Writes the vector of a file.
    pub(super) fn add(
        &mut self,
        path: &str,
        identity: FileIdentity,
        vector: &[f32],
    ) -> anyhow::Result<()> {
        let values: Vec<u8> = vector
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let line = Line {
            path: path.to_owned(),
            identity,
            vector: BASE64_STANDARD.encode(values),
        };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                text = format!("{}\n{text}", self.settings);
                self.lock()?
            }
        };
        // In one call, so that a signal does not come in between.
        file.write_all(text.as_bytes())
            .map_err(|error| Error::writing(&self.path, error))?;
        self.file = Some(file);
        if self.synced.elapsed() >= SYNC_INTERVAL {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes all results durable.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.synced = Instant::now();
        let Some(file) = &self.file else {
            return Ok(());
        };
        file.sync_data()
            .map_err(|error| Error::writing(&self.path, error))
    }

    /// Removes the file: the output has all results.
    pub(super) fn finish(self) -> Result<()> {
        self.file.map_or(Ok(()), |_| remove(&self.path))
    }
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path)
        .map_err(|error| Error::io(format_args!("removing {}", path.display()), error))
}

fn parse(line: &[u8]) -> Option<(String, (FileIdentity, Vec<f32>))> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let bytes = BASE64_STANDARD.decode(line.vector).ok()?;
    let (values, []) = bytes.as_chunks::<4>() else {
        return None;
    };
    let vector = values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect();
    Some((line.path, (line.identity, vector)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: FileIdentity = FileIdentity {
        bytes: 3,
        modified_ns: 1,
    };

    fn open(output: &Path, settings: &str) -> anyhow::Result<PartialResults> {
        PartialResults::open(output, &settings)
    }

    /// Writes two results and returns the file.
    fn two_results(output: &Path) -> PathBuf {
        let mut results = open(output, "a").expect("new results");
        for (path, value) in [("x", 0.1), ("y", 1e-42)] {
            let added = results.add(path, IDENTITY, &[value, f32::MAX]);
            added.expect("a result is written");
        }
        results.path.clone()
    }

    #[test]
    fn results_are_kept_to_the_bit_unless_their_file_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("out.npy");
        let file = two_results(&output);
        let results = open(&output, "a").expect("the results");
        assert_eq!(results.get("y", IDENTITY), Some(&[1e-42, f32::MAX][..]));
        let changed = FileIdentity {
            modified_ns: 2,
            ..IDENTITY
        };
        assert_eq!(results.get("y", changed), None);
        assert_eq!(results.get("z", IDENTITY), None);
        results.finish().expect("it is removed");
        assert!(!file.exists());
    }

    #[test]
    fn a_torn_line_is_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("out.npy");
        let file = two_results(&output);
        let whole = fs::read(&file).expect("the file");
        for cut in 1..whole.len() {
            fs::write(&file, &whole[..cut]).expect("a torn file");
            let mut results = open(&output, "a").expect("the results");
            for (path, value) in [("x", 0.1), ("y", 1e-42)] {
                if results.get(path, IDENTITY).is_none() {
                    let added = results.add(path, IDENTITY, &[value, f32::MAX]);
                    added.expect("a result is written");
                }
            }
            drop(results);
            assert!(fs::read(&file).expect("the file") == whole, "cut at {cut}");
        }
    }

    #[test]
    fn results_of_other_settings_or_of_a_running_process_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("out.npy");
        two_results(&output);
        let error = open(&output, "b").map(drop).expect_err("other settings");
        assert!(
            error
                .to_string()
                .contains("give the same model and options")
        );
        let _first = open(&output, "a").expect("the results");
        let error = open(&output, "a").map(drop).expect_err("a second process");
        assert!(error.to_string().contains("another process writes"));
    }
}
