//! The output of a run: its place, its format, and the names of the files of shards.

use std::{fmt, path::PathBuf};

use crate::{
    error::{Error, Kind, Result},
    names::option_enum,
    sources::{Place, Shard},
};

option_enum! {
    /// Format of an output.
    pub enum Format {
        /// A matrix, with the ids in a `.paths.txt` next to it.
        Npy,
        /// A line of JSON for each image.
        Jsonl,
        /// A row for each image.
        Parquet,
        /// WebDataset: two files for each image.
        Tar,
    }
}

/// Where results go.
#[derive(Debug, Clone)]
pub struct Output {
    /// The file of the run; those of shards are next to it.
    pub place: Place,
    /// By the extension of the file.
    pub format: Format,
}

impl Output {
    /// Chooses the format by the name of the file.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for a name with no known extension.
    pub fn parse(text: &str) -> Result<Self> {
        let place = Place::parse(text)?;
        match place.extension().parse() {
            Ok(format) if !text.ends_with('/') => Ok(Self { place, format }),
            _ => Err(Error::new(
                Kind::InvalidOption,
                format!(
                    "{text}: the output must end in .npy, .jsonl, .parquet or .tar, or be - for \
                     lines of JSON on standard output"
                ),
            )),
        }
    }

    /// Returns the output of a shard: `out-00003-of-00008.parquet` for `out.parquet`; the same for
    /// a whole run.
    pub fn of_shard(&self, shard: Shard) -> Result<Self> {
        if shard.is_whole() {
            return Ok(self.clone());
        }
        let name = format!(
            "{}{}.{}",
            self.stem(),
            suffix(shard),
            self.place.extension()
        );
        Ok(Self {
            place: self.place.with_name(&name)?,
            format: self.format,
        })
    }

    /// Returns the file that says that a shard is finished.
    pub fn manifest(&self, shard: Shard) -> Result<Place> {
        let name = format!("{}{}.json", self.stem(), suffix(shard));
        self.place.with_name(&name)
    }

    /// Returns the file of another ending next to this one, such as `out.paths.txt`.
    pub fn companion(&self, ending: &str) -> Result<Place> {
        self.place.with_name(&format!("{}.{ending}", self.stem()))
    }

    /// Returns the name of the file without its extension.
    pub fn stem(&self) -> String {
        let name = self.place.name();
        match name.rsplit_once('.') {
            Some((stem, _)) => stem.to_owned(),
            None => name,
        }
    }

    /// Returns the shard whose manifest has this name.
    pub(super) fn shard_of_manifest(&self, name: &str) -> Option<Shard> {
        let stem = self.stem();
        let numbers = name.strip_prefix(stem.as_str())?.strip_prefix('-')?;
        let (index, count) = numbers.strip_suffix(".json")?.split_once("-of-")?;
        let shard = Shard::new(index.parse().ok()?, count.parse().ok()?).ok()?;
        (suffix(shard) == format!("-{index}-of-{count}")).then_some(shard)
    }

    /// Returns the local path.
    pub fn path(&self) -> Option<&PathBuf> {
        match &self.place {
            Place::Local(path) => Some(path),
            Place::Object(_) => None,
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

fn suffix(shard: Shard) -> String {
    format!("-{:05}-of-{:05}", shard.index, shard.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_shards_are_next_to_the_output() {
        let output = Output::parse("run.1/out.parquet").expect("an output");
        let shard = Shard { index: 3, count: 8 };
        let of_shard = output.of_shard(shard).expect("a name");
        assert_eq!(of_shard.to_string(), "run.1/out-00003-of-00008.parquet");
        let manifest = output.manifest(shard).expect("a name");
        assert_eq!(manifest.to_string(), "run.1/out-00003-of-00008.json");
        assert_eq!(output.shard_of_manifest(&manifest.name()), Some(shard));
        for name in [
            "out-3-of-8.json",
            "out.json",
            "out-00008-of-00008.json",
            "x.json",
        ] {
            assert_eq!(output.shard_of_manifest(name), None, "{name}");
        }
        assert_eq!(
            output.of_shard(Shard::WHOLE).expect("a name").to_string(),
            output.to_string()
        );
    }

    #[test]
    fn an_output_has_a_known_ending() {
        assert_eq!(
            Output::parse("a.NPY").expect("an output").format,
            Format::Npy
        );
        for text in ["out.csv", "out", "out.npy/"] {
            assert!(Output::parse(text).is_err(), "{text}");
        }
    }
}
