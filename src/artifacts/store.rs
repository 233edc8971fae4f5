//! The models of the cache folder: their state, and how missing ones are obtained.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Home, Hub, Manifest, ModelFile, ModelPaths, Progress,
    convert::convert,
    disk::{lock, lock_to_read, sha256_file},
    download::{check_available, download},
    local_source::{local_source, not_downloadable},
    weight_file::{WeightFile, read_weights, shard_names},
};
use crate::{
    error::{Error, Kind, Result},
    model::{Catalog, ModelSpec, PositionRule, Source},
    onnx::{Conversion, weights::Weights},
};

/// Finds, downloads, converts and verifies models.
#[derive(Debug, Clone)]
pub struct ModelStore {
    home: Home,
    catalog: Catalog,
    hub: Hub,
}

/// A model that was downloaded and converted.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// Its manifest.
    pub manifest: Manifest,
    /// What its weights are, and where the file has them; `None` if another process read them.
    pub weights: Option<String>,
}

/// State of a model in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// The model is converted.
    Converted,
    /// The model's weights are present. Their conversion takes seconds.
    Downloaded,
    /// No file of the model is present.
    Absent,
}

impl ModelStore {
    /// Opens the store in `home`, which downloads from `hub`.
    pub fn new(home: Home, hub: impl Into<Hub>) -> Result<Self> {
        let catalog = Catalog::with_folder(&home.catalog())?;
        Ok(Self {
            home,
            catalog,
            hub: hub.into(),
        })
    }

    /// Returns the same store with the current model descriptions.
    pub fn reread(&self) -> Result<Self> {
        Self::new(self.home.clone(), self.hub.clone())
    }

    /// Returns the known models.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Adds the model that a file describes, and returns its name.
    pub fn add_description(&mut self, path: &Path) -> Result<String> {
        self.catalog.add_file(path)
    }

    /// Returns the paths of a converted model, which need not exist.
    pub fn paths(&self, name: &str, conversion: impl Into<Conversion>) -> ModelPaths {
        self.home.model(name, conversion)
    }

    /// Returns the state of a model.
    pub fn state(&self, spec: &ModelSpec, conversion: impl Into<Conversion>) -> ModelState {
        if self.paths(&spec.name, conversion).exist() {
            ModelState::Converted
        } else if local_source(spec, &self.home, &self.hub).is_some() {
            ModelState::Downloaded
        } else {
            ModelState::Absent
        }
    }

    /// Downloads a model's weights, unless they are present, and converts them. A model that
    /// another process converts meanwhile is taken.
    pub fn pull(
        &self,
        name: &str,
        conversion: impl Into<Conversion>,
        progress: &mut dyn Progress,
    ) -> Result<Pulled> {
        let spec = self.catalog.get(name)?;
        let conversion = conversion.into();
        let paths = self.paths(name, conversion);
        let written = || {
            fs::metadata(&paths.model)
                .and_then(|model| model.modified())
                .ok()
        };
        let before = written();
        let (source, path) = self.obtain(spec, progress)?;
        let _lock = lock(&paths.model)?;
        if paths.exist() && written() != before {
            return Ok(Pulled {
                manifest: Manifest::read(&paths)?,
                weights: None,
            });
        }
        let file = WeightFile::read(&path, Some(source.format), None)?;
        Ok(Pulled {
            weights: Some(file.weights().summary()),
            manifest: convert(spec, &file, conversion, &paths.model, progress)?,
        })
    }

    /// Converts weights to a model of the cache folder. Processes that convert the same model take
    /// turns.
    pub fn convert(
        &self,
        spec: &ModelSpec,
        source: &WeightFile,
        conversion: impl Into<Conversion>,
        progress: &mut dyn Progress,
    ) -> Result<Manifest> {
        let conversion = conversion.into();
        let to = self.paths(&spec.name, conversion).model;
        let _lock = lock(&to)?;
        convert(spec, source, conversion, &to, progress)
    }

    /// Returns a model's published weights, which are downloaded unless they are present.
    pub fn weights(&self, name: &str, progress: &mut dyn Progress) -> Result<Weights> {
        let spec = self.catalog.get(name)?;
        let (source, path) = self.obtain(spec, progress)?;
        read_weights(&path, Some(source.format))
    }

    /// Returns the converted model. If necessary, it is converted from local weights or, unless
    /// `offline`, downloaded.
    ///
    /// # Errors
    /// [`Kind::Artifact`] if the model is damaged, or absent and `offline`.
    pub fn ensure(
        &self,
        name: &str,
        conversion: impl Into<Conversion>,
        rule: PositionRule,
        offline: bool,
        progress: &mut dyn Progress,
    ) -> Result<ModelFile> {
        let spec = self.catalog.get(name)?;
        let conversion = conversion.into();
        let paths = self.paths(name, conversion);
        // The files are read while no process replaces them.
        let mut reading = lock_to_read(&paths.model);
        match self.state(spec, conversion) {
            // Damaged weights would silently give wrong features.
            ModelState::Converted => Manifest::read(&paths)?.verify(&paths, progress)?,
            ModelState::Absent if offline => {
                return Err(Error::artifact(format!(
                    "model {name} is not in {}, and --offline forbids downloads; run `dinoserve \
                     models pull {name}` on a machine with network access",
                    self.home.root().display()
                )));
            }
            ModelState::Downloaded | ModelState::Absent => {
                drop(reading.take());
                self.pull(name, conversion, progress)?;
                reading = lock_to_read(&paths.model);
            }
        }
        let _reading = reading;
        ModelFile::open(&paths.model, rule)
    }

    /// Returns the error for a model whose weights are absent and have no address. It says how to
    /// get them.
    pub fn absent(&self, spec: &ModelSpec) -> Error {
        not_downloadable(spec, &self.home)
    }

    /// Compares a converted model with its manifest, and returns the manifest.
    pub fn verify(
        &self,
        name: &str,
        conversion: impl Into<Conversion>,
        progress: &mut dyn Progress,
    ) -> Result<Manifest> {
        self.catalog.get(name)?;
        let conversion = conversion.into();
        let paths = self.paths(name, conversion);
        let _reading = lock_to_read(&paths.model);
        if !paths.model.exists() {
            return Err(Error::artifact(format!(
                "model {name} is not converted to {conversion}; run `dinoserve models pull {name} \
                 {}`",
                conversion.flags()
            )));
        }
        let manifest = Manifest::read(&paths)?;
        manifest.verify(&paths, progress)?;
        let file = ModelFile::open(&paths.model, PositionRule::Hub)?;
        if file.fingerprint != manifest.fingerprint {
            return Err(Error::artifact(format!(
                "{} has another fingerprint than its manifest; convert the model again",
                paths.model.display()
            )));
        }
        Ok(manifest)
    }

    /// Returns the file of an image in the cache folder, which is downloaded unless it is there.
    pub fn image(&self, url: &str, progress: &mut dyn Progress) -> Result<PathBuf> {
        let folder = self.home.root().join("images");
        fs::create_dir_all(&folder).map_err(|error| Error::writing(&folder, error))?;
        let to = folder.join(url.rsplit('/').next().unwrap_or("image"));
        if self.hub.is_offline() && !to.exists() {
            return Err(Error::artifact(format!(
                "HF_HUB_OFFLINE forbids downloading {url}; name the file of the image with --image"
            )));
        }
        download(url, &to, None, &self.hub, progress)?;
        Ok(to)
    }

    /// Checks that the weights of a model can be downloaded from one of its sources.
    pub fn check_source(&self, spec: &ModelSpec) -> Result<()> {
        let mut first_error = None;
        for url in spec.sources.iter().filter_map(|source| source.url.as_ref()) {
            match check_available(&self.hub, &self.hub.url(url)) {
                Ok(()) => return Ok(()),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| not_downloadable(spec, &self.home)))
    }

    /// Downloads the weights from the first available source.
    fn download<'a>(
        &self,
        spec: &'a ModelSpec,
        progress: &mut dyn Progress,
    ) -> Result<(&'a Source, PathBuf)> {
        if self.hub.is_offline() && spec.sources.iter().any(|source| source.url.is_some()) {
            return Err(Error::artifact(format!(
                "the weights of {} are absent, and HF_HUB_OFFLINE forbids downloads; unset it",
                spec.name
            )));
        }
        let mut first_error = None;
        for source in &spec.sources {
            let Some(url) = &source.url else { continue };
            let to = self.home.sources(&spec.name).join(&source.file);
            match self.download_source(source, &self.hub.url(url), &to, progress) {
                Ok(()) => return Ok((source, to)),
                // A full disk fails for every source.
                Err(error) if error.kind() == Kind::Io => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a source of the weights is not available");
                    first_error.get_or_insert(error);
                }
            }
        }
        let error = first_error.unwrap_or_else(|| not_downloadable(spec, &self.home));
        // Access to some weights depends on a license.
        Err(match &spec.notice {
            Some(notice) => error.context(format_args!("{} ({notice})", spec.name)),
            None => error,
        })
    }

    fn download_source(
        &self,
        source: &Source,
        url: &str,
        to: &Path,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let sha256 = source.sha256.as_deref();
        if !source.file.ends_with(".index.json") {
            return download(url, to, sha256, &self.hub, progress);
        }
        // The index gets its name last, so its presence means that all shards exist.
        let index = to.with_extension("downloading");
        download(url, &index, sha256, &self.hub, progress)?;
        let (folder, _) = url.rsplit_once('/').unwrap_or((url, ""));
        for shard in shard_names(&index)? {
            let url = format!("{folder}/{shard}");
            download(&url, &to.with_file_name(shard), None, &self.hub, progress)?;
        }
        std::fs::rename(&index, to).map_err(|error| Error::writing(to, error))
    }

    /// Returns the local weights, which are downloaded if absent and compared with their published
    /// hash.
    fn obtain<'a>(
        &self,
        spec: &'a ModelSpec,
        progress: &mut dyn Progress,
    ) -> Result<(&'a Source, PathBuf)> {
        let (source, path) = match local_source(spec, &self.home, &self.hub) {
            Some(local) => local,
            None => self.download(spec, progress)?,
        };
        if let Some(expected) = &source.sha256 {
            let found = sha256_file(&path, progress)?;
            if !found.starts_with(expected) {
                return Err(Error::artifact(format!(
                    "{} has SHA-256 {found}, but {expected} was expected; delete it and download \
                     it again",
                    path.display()
                )));
            }
        }
        Ok((source, path))
    }
}
