//! The cache folder and where things lie in it.

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, Result},
    onnx::{GRAPH_VERSION, Precision},
};

/// The version of ONNX Runtime that `make setup` fetches.
const RUNTIME_VERSION: &str = "1.32.0";

/// The cache folder: `DINOSERVE_HOME`, by default `~/.cache/dinoserve`.
///
/// ```text
/// runtime/onnxruntime-1.32.0/libonnxruntime.so
/// sources/<model>/<weight file>           as published
/// models/<model>/<precision>-v1.onnx      converted; beside it .onnx.data with its weights and a .json manifest
/// catalog/*.toml                          model descriptions of the user's own
/// ```
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The folder `root`, or the default if `None`. It need not exist.
    ///
    /// # Errors
    /// [`crate::error::Kind::Io`] if there is no home folder to put the default in.
    pub fn new(root: Option<PathBuf>) -> Result<Self> {
        let default = || {
            let cache = std::env::var_os("XDG_CACHE_HOME")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from);
            let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
            Some(cache.join("dinoserve"))
        };
        let root = root.or_else(default).ok_or_else(|| {
            Error::new(
                crate::error::Kind::Io,
                "no home folder is known; set DINOSERVE_HOME",
            )
        })?;
        // Paths outlive changes of the working directory, and name the place in full in messages.
        let root = std::path::absolute(&root)
            .map_err(|error| Error::io(format_args!("{}", root.display()), error))?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// ONNX Runtime's library, where `make setup` puts it.
    pub fn runtime_library(&self) -> PathBuf {
        let name = format!(
            "{}onnxruntime{}",
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX
        );
        self.root
            .join("runtime")
            .join(format!("onnxruntime-{RUNTIME_VERSION}"))
            .join(name)
    }

    /// Published weight files of a model.
    pub fn sources(&self, model: &str) -> PathBuf {
        self.root.join("sources").join(model)
    }

    /// A converted model. The graph's version is in its name, so that a newer program converts
    /// anew.
    pub fn model(&self, model: &str, precision: Precision) -> PathBuf {
        self.root
            .join("models")
            .join(model)
            .join(format!("{precision}-v{GRAPH_VERSION}.onnx"))
    }

    /// Model descriptions of the user's own.
    pub fn catalog(&self) -> PathBuf {
        self.root.join("catalog")
    }
}
