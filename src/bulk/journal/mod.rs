//! The results of a run that has not finished, so that the same command goes on from there.
//!
//! They are a file next to the output: a line with the settings, then a line for each image in the
//! order of the listing, synced after a few seconds. A last line that was torn by a crash is
//! dropped. A later run reads the lines along with the listing. If an image was added, removed or
//! changed meanwhile, the lines from there on are moved to a second file, in which they are looked
//! up.

mod line;
mod lock;
mod moved;

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;

use self::{
    line::{Line, damaged, parse},
    lock::lock,
    moved::Moved,
};
use super::row::Record;
use crate::{
    error::{Error, Kind, Result},
    sources::Identity,
};

/// Time after which written lines are synced, at the next line.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);

/// The file of results.
pub struct Journal {
    path: PathBuf,
    settings: String,
    /// Open and locked.
    file: File,
    /// The lines of an earlier run that are not taken yet; `None` after the last one.
    earlier: Option<BufReader<File>>,
    /// Results that are no longer at their place.
    moved: Option<Moved>,
    /// Number of bytes of whole lines that are valid.
    length: u64,
    /// Number of bytes that earlier runs wrote and this one has kept at their place.
    kept: u64,
    records: u64,
    rows: u64,
    synced: Instant,
}

/// What an earlier run found for an image.
#[derive(Debug, PartialEq)]
pub enum Recalled {
    /// Its result is at its place.
    InPlace(Record),
    /// Its result must be added again, at its new place.
    Moved(Record),
    /// Nothing.
    Unknown,
}

impl Journal {
    /// Opens the file that `settings` began, or begins one.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if another process has it, or for other settings.
    pub fn open(path: &Path, settings: &impl Serialize) -> Result<Self> {
        let settings = serde_json::to_string(settings)
            .map_err(|error| Error::internal(format!("settings: {error}")))?;
        let file = lock(path)?;
        let mut journal = Self {
            path: path.to_owned(),
            settings,
            earlier: None,
            moved: None,
            length: 0,
            kept: 0,
            records: 0,
            rows: 0,
            synced: Instant::now(),
            file,
        };
        journal.read_settings()?;
        Ok(journal)
    }

    /// Returns the path of the file of results of an output.
    pub fn path_of(output: &Path) -> PathBuf {
        with_suffix(output, ".partial")
    }

    fn read_settings(&mut self) -> Result<()> {
        let mut reader = self.reader(0)?;
        let mut line = Vec::new();
        let count = reader.read_until(b'\n', &mut line);
        count.map_err(|error| Error::reading(&self.path, error))?;
        let Some(found) = line.strip_suffix(b"\n") else {
            // New, or torn in the first line.
            let header = format!("{}\n", self.settings);
            self.truncate(0)?;
            return self.append(header.as_bytes());
        };
        if found != self.settings.as_bytes() {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "{} has results of another model or of other options; give the same model and \
                     options to go on, or delete it",
                    self.path.display()
                ),
            ));
        }
        self.length = line.len() as u64;
        self.kept = self.length;
        self.earlier = Some(reader);
        let moved = self.moved_path();
        if moved.exists() {
            let file = File::open(&moved).map_err(|error| Error::reading(&moved, error))?;
            self.moved = Some(Moved::read(file, &moved)?);
        }
        Ok(())
    }

    fn moved_path(&self) -> PathBuf {
        with_suffix(&self.path, ".moved")
    }

    /// Opens the file once more, at an offset. The path may name another file by now.
    fn reader(&self, offset: u64) -> Result<BufReader<File>> {
        let reading = |error| Error::reading(&self.path, error);
        let mut file = File::open(&self.path).map_err(reading)?;
        file.seek(SeekFrom::Start(offset)).map_err(reading)?;
        Ok(BufReader::with_capacity(1 << 20, file))
    }

    /// Returns what an earlier run found for the next image of the listing, if it has not changed
    /// since.
    pub fn recall(&mut self, id: &str, identity: Option<&Identity>) -> Result<Recalled> {
        if let Some(earlier) = &mut self.earlier {
            let mut text = Vec::new();
            let read = earlier.read_until(b'\n', &mut text);
            read.map_err(|error| Error::reading(&self.path, error))?;
            let line = text.strip_suffix(b"\n").and_then(parse);
            match line {
                Some(line) if line.is_of(id, identity) => {
                    let record = line.record(&self.path)?;
                    self.length += text.len() as u64;
                    self.kept = self.length;
                    self.count(&record);
                    return Ok(Recalled::InPlace(record));
                }
                _ => self.move_rest()?,
            }
        }
        let line = self.moved.as_mut().and_then(|moved| moved.find(id));
        Ok(match line.filter(|line| line.is_of(id, identity)) {
            Some(line) => Recalled::Moved(line.record(&self.path)?),
            None => Recalled::Unknown,
        })
    }

    /// Moves the lines that were not taken to the second file.
    fn move_rest(&mut self) -> Result<()> {
        self.earlier = None;
        let mut rest = self.reader(self.length)?;
        let path = self.moved_path();
        let writing = |error| Error::writing(&path, error);
        let mut text = Vec::new();
        let read = |rest: &mut BufReader<File>, text: &mut Vec<u8>| {
            text.clear();
            let read = rest.read_until(b'\n', text);
            read.map(|_| text.ends_with(b"\n"))
        };
        let reading = |error| Error::reading(&self.path, error);
        if read(&mut rest, &mut text).map_err(reading)? {
            let mut options = OpenOptions::new();
            let file = options.create(true).append(true).open(&path);
            let mut file = std::io::BufWriter::new(file.map_err(writing)?);
            file.write_all(&text).map_err(writing)?;
            while read(&mut rest, &mut text).map_err(reading)? {
                file.write_all(&text).map_err(writing)?;
            }
            let file = file
                .into_inner()
                .map_err(|error| writing(error.into_error()))?;
            file.sync_data().map_err(writing)?;
            let file = File::open(&path).map_err(writing)?;
            self.moved = Some(Moved::read(file, &path)?);
        }
        self.truncate(self.length)
    }

    /// Drops the lines of an earlier run that the listing no longer has. The listing has ended.
    pub fn end(&mut self) -> Result<()> {
        if self.earlier.take().is_some() {
            self.truncate(self.length)?;
        }
        self.sync()
    }

    /// Appends what has become of the next image of the listing.
    pub fn add(&mut self, identity: Option<Identity>, record: &Record) -> Result<()> {
        self.write(&Line::of(identity, record))?;
        self.count(record);
        if self.synced.elapsed() >= SYNC_INTERVAL {
            self.sync()?;
        }
        Ok(())
    }

    fn count(&mut self, record: &Record) {
        self.records += 1;
        self.rows += u64::from(matches!(record, Record::Row(_)));
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_vec(line)
            .map_err(|error| Error::internal(format!("a result: {error}")))?;
        text.push(b'\n');
        self.append(&text)
    }

    /// Appends whole lines in one call, so that a signal does not come in between.
    fn append(&mut self, text: &[u8]) -> Result<()> {
        let writing = |error| Error::writing(&self.path, error);
        self.file
            .seek(SeekFrom::Start(self.length))
            .map_err(writing)?;
        self.file.write_all(text).map_err(writing)?;
        self.length += text.len() as u64;
        Ok(())
    }

    fn truncate(&self, length: u64) -> Result<()> {
        let truncated = self.file.set_len(length);
        truncated.map_err(|error| Error::writing(&self.path, error))
    }

    /// Makes all results durable.
    pub fn sync(&mut self) -> Result<()> {
        self.synced = Instant::now();
        let synced = self.file.sync_data();
        synced.map_err(|error| Error::writing(&self.path, error))
    }

    /// Returns whether all results of earlier runs are taken or moved.
    pub fn is_caught_up(&self) -> bool {
        self.earlier.is_none()
    }

    /// Number of bytes that earlier runs wrote and this one has kept at their place.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Number of bytes of whole lines.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads bytes of whole lines.
    pub fn read_bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.reader(offset)?.take(length).read_to_end(&mut bytes);
        read.map_err(|error| Error::reading(&self.path, error))?;
        Ok(bytes)
    }

    /// Number of images so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Number of images with features.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads all results in their order.
    pub fn read(&self) -> Result<impl Iterator<Item = Result<Record>> + use<>> {
        let path = self.path.clone();
        let mut lines = self.reader(0)?.take(self.length);
        let mut text = Vec::new();
        let mut is_first = true;
        Ok(std::iter::from_fn(move || {
            loop {
                text.clear();
                match lines.read_until(b'\n', &mut text) {
                    Ok(0) => return None,
                    Ok(_) if std::mem::take(&mut is_first) => (),
                    Ok(_) => {
                        let line = text.strip_suffix(b"\n").and_then(parse);
                        let line = line.ok_or_else(|| damaged(&path));
                        return Some(line.and_then(|line| line.record(&path)));
                    }
                    Err(error) => return Some(Err(Error::reading(&path, error))),
                }
            }
        }))
    }

    /// Removes the file: the output has all results.
    pub fn remove(self) -> Result<()> {
        let moved = self.moved_path();
        for path in [&self.path, &moved] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(
                        format_args!("removing {}", path.display()),
                        error,
                    ));
                }
                _ => (),
            }
        }
        Ok(())
    }
}

/// A run that ends before its first image leaves no file behind.
impl Drop for Journal {
    fn drop(&mut self) {
        if self.length == self.settings.len() as u64 + 1 && self.earlier.is_none() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
