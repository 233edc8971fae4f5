//! The known models: the built-in files of `models/`, and those of a user's folder.

use std::{collections::BTreeMap, path::Path};

use super::ModelSpec;
use crate::{
    error::{Error, Result},
    names::did_you_mean,
};

#[derive(rust_embed::RustEmbed)]
#[folder = "models/"]
struct BuiltIn;

/// All known models by name.
#[derive(Debug, Clone)]
pub struct Catalog {
    specs: BTreeMap<String, ModelSpec>,
}

impl Catalog {
    /// Returns the built-in models.
    pub fn built_in() -> Result<Self> {
        let mut specs = BTreeMap::new();
        for file in BuiltIn::iter().filter(|file| file.ends_with(".toml")) {
            let content = BuiltIn::get(&file)
                .ok_or_else(|| Error::internal(format!("models/{file} is not built in")))?;
            let text = String::from_utf8_lossy(&content.data);
            let spec = ModelSpec::parse(&text, &format!("models/{file}"))?;
            specs.insert(spec.name.clone(), spec);
        }
        Ok(Self { specs })
    }

    /// Returns the built-in models and those of `folder`, which replace built-in ones of the same
    /// name. A folder that does not exist is empty.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if a file of the folder is not a valid description.
    pub fn with_folder(folder: &Path) -> Result<Self> {
        let mut catalog = Self::built_in()?;
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Ok(catalog);
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                catalog.add_file(&path)?;
            }
        }
        Ok(catalog)
    }

    /// Adds the model that a file describes, and returns its name.
    pub fn add_file(&mut self, path: &Path) -> Result<String> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::reading(path, error))?;
        let spec = ModelSpec::parse(&text, &path.display().to_string())?;
        let name = spec.name.clone();
        self.specs.insert(name.clone(), spec);
        Ok(name)
    }

    /// Returns the model called `name`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] that lists the known names.
    pub fn get(&self, name: &str) -> Result<&ModelSpec> {
        self.specs.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.specs.keys().map(String::as_str).collect();
            let suggestion = did_you_mean(name, known.iter().copied());
            let known = known.join(", ");
            Error::artifact(format!(
                "there is no model {name:?}; known are {known}{suggestion}"
            ))
        })
    }

    /// Iterates over all models in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &ModelSpec> {
        self.specs.values()
    }
}
