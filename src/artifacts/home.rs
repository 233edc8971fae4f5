//! The cache folder and its layout.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    path::{Path, PathBuf},
};

use super::ModelPaths;
use crate::{
    error::{Error, Kind, Result},
    onnx::{GRAPH_VERSION, Precision},
};

/// Version of ONNX Runtime that `make setup` fetches.
const RUNTIME_VERSION: &str = "1.32.0";

/// The cache folder: `DINOSERVE_HOME`, by default `~/.cache/dinoserve`.
///
/// ```text
/// runtime/onnxruntime-1.32.0/libonnxruntime.so
/// sources/<model>/<weight file>           published weights
/// models/<model>/<precision>-v1.onnx      converted model
/// models/<model>/<precision>-v1.onnx.data its weights
/// models/<model>/<precision>-v1.json      its manifest
/// catalog/*.toml                          model descriptions of the user
/// ```
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// Uses the folder `root`, or the default if `None`. The folder need not exist.
    pub fn new(root: Option<PathBuf>) -> Result<Self> {
        let root = root.or_else(default_root).ok_or_else(|| {
            Error::new(Kind::Io, "the home folder is unknown; set DINOSERVE_HOME")
        })?;
        // An absolute path stays valid if the working directory changes, and is clear in messages.
        let root = std::path::absolute(&root)
            .map_err(|error| Error::io(format_args!("{}", root.display()), error))?;
        Ok(Self { root })
    }

    /// Returns the folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the path of ONNX Runtime's library, which `make setup` installs.
    pub fn runtime_library(&self) -> PathBuf {
        self.root
            .join("runtime")
            .join(format!("onnxruntime-{RUNTIME_VERSION}"))
            .join(format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}"))
    }

    /// Returns the folder of a model's published weight files.
    pub fn sources(&self, model: &str) -> PathBuf {
        self.root.join("sources").join(model)
    }

    /// Returns the paths of a converted model. They contain the graph's version, so that a newer
    /// program converts the model again.
    pub fn model(&self, model: &str, precision: Precision) -> ModelPaths {
        let name = format!("{precision}-v{GRAPH_VERSION}.onnx");
        ModelPaths::new(self.root.join("models").join(model).join(name))
    }

    /// Returns the folder of the user's model descriptions.
    pub fn catalog(&self) -> PathBuf {
        self.root.join("catalog")
    }
}

fn default_root() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    Some(cache.join("dinoserve"))
}
