//! The cache folder and its layout.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    path::{Path, PathBuf},
};

use super::ModelPaths;
use crate::{
    error::{Error, Kind, Result},
    onnx::{Conversion, GRAPH_VERSION},
};

/// Folders of the libraries that `make setup` fetches.
const RUNTIME: &str = "onnxruntime-1.32.0";
const OPENVINO_RUNTIME: &str = "onnxruntime-openvino-1.24.1";

/// The cache folder: `DINOSERVE_HOME`, by default `~/.cache/dinoserve`.
///
/// ```text
/// runtime/onnxruntime-1.32.0/libonnxruntime.so
/// runtime/onnxruntime-openvino-1.24.1/    the build with OpenVINO, where it was fetched
/// sources/<model>/<weight file>            published weights
/// models/<model>/<conversion>-v1.onnx      converted model
/// models/<model>/<conversion>-v1.onnx.data its weights
/// models/<model>/<conversion>-v1.json      its manifest
/// catalog/*.toml                           model descriptions of the user
/// tuning.json                              what `dinoserve tune` measured
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
        self.library(RUNTIME)
    }

    /// Returns the path of the library with OpenVINO, which `make setup` installs on x86-64.
    pub fn openvino_library(&self) -> PathBuf {
        self.library(OPENVINO_RUNTIME)
    }

    fn library(&self, folder: &str) -> PathBuf {
        let name = format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}");
        self.root.join("runtime").join(folder).join(name)
    }

    /// Returns the folder of a model's published weight files.
    pub fn sources(&self, model: &str) -> PathBuf {
        self.root.join("sources").join(model)
    }

    /// Returns the paths of a converted model. They contain the graph's version, so that a newer
    /// program converts the model again.
    pub fn model(&self, model: &str, conversion: impl Into<Conversion>) -> ModelPaths {
        let conversion = conversion.into();
        let name = format!("{conversion}-v{GRAPH_VERSION}.onnx");
        ModelPaths::new(self.root.join("models").join(model).join(name))
    }

    /// Returns the path of what `dinoserve tune` measured.
    pub fn tuning(&self) -> PathBuf {
        self.root.join("tuning.json")
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
