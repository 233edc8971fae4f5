//! The cache folder and its layout.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    path::{Path, PathBuf},
};

use super::{ModelPaths, PythonPackages};
use crate::{
    error::{Error, Kind, Result},
    onnx::{Conversion, GRAPH_VERSION},
};

/// Folders of the libraries that `make setup` fetches.
const RUNTIME: &str = "onnxruntime-1.32.0";
const OPENVINO_RUNTIME: &str = "onnxruntime-openvino-1.24.1";
/// Oldest ONNX Runtime 1.x with the interface that the engine uses (`api-24` of ort).
const MIN_RUNTIME: u32 = 24;

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
    /// The packages of a program that was installed as a wheel.
    packages: Option<PythonPackages>,
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
        let program = std::env::current_exe().ok();
        let packages = program.and_then(|program| PythonPackages::next_to(&program));
        Ok(Self { root, packages })
    }

    /// Returns the folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the packages next to a program that was installed as a wheel.
    pub fn packages(&self) -> Option<&PythonPackages> {
        self.packages.as_ref()
    }

    /// Returns the path of ONNX Runtime's library: in a Python package next to a program installed
    /// as a wheel, else where `make setup` puts it.
    pub fn runtime_library(&self) -> PathBuf {
        let installed = self.installed_library(&["onnxruntime-gpu", "onnxruntime"]);
        installed.unwrap_or_else(|| self.fetched_library(RUNTIME))
    }

    /// Returns the path of the library with OpenVINO: in a Python package next to a program
    /// installed as a wheel, else where `make setup` puts it on x86-64.
    pub fn openvino_library(&self) -> PathBuf {
        let installed = self.installed_library(&["onnxruntime-openvino"]);
        installed.unwrap_or_else(|| self.fetched_library(OPENVINO_RUNTIME))
    }

    /// Returns the library of the first of these packages that is new enough.
    fn installed_library(&self, names: &[&str]) -> Option<PathBuf> {
        let packages = self.packages.as_ref()?;
        let found = names.iter().flat_map(|name| packages.named(name));
        found
            .filter(|package| is_new_enough(&package.version))
            .find_map(|package| package.file(is_runtime_library))
    }

    fn fetched_library(&self, folder: &str) -> PathBuf {
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

/// Returns whether a version of ONNX Runtime, such as `1.32.0`, has the interface that is used.
fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(1)), Some(Ok(minor))) => minor >= MIN_RUNTIME,
        _ => false,
    }
}

/// Returns whether a file of a package is ONNX Runtime's library: `libonnxruntime.so.1.32.0` or
/// `libonnxruntime.1.32.0.dylib`.
fn is_runtime_library(file: &str) -> bool {
    file.strip_prefix("libonnxruntime.")
        .is_some_and(|rest| rest == "so" || rest.starts_with("so.") || rest.ends_with("dylib"))
}

#[cfg(test)]
mod tests {
    use super::{super::python::tests::environment, *};

    /// Returns the names of the libraries that a program with these packages uses, the plain one
    /// and the one with OpenVINO; in the cache they have no version.
    fn libraries(packages: &[(&str, &[&str])]) -> [String; 2] {
        let root = tempfile::tempdir().expect("a folder");
        let own = [("dinoserve-0.1.0.dist-info", &[][..])];
        let all = [&own, packages].concat();
        let program = environment(root.path(), "lib/python3.12/site-packages", &all);
        let mut home = Home::new(Some(root.path().join("home"))).expect("a home");
        home.packages = PythonPackages::next_to(&program);
        [home.runtime_library(), home.openvino_library()].map(|path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        })
    }

    #[test]
    fn libraries_of_new_enough_packages_go_before_those_of_the_cache() {
        let shared = "onnxruntime/capi/libonnxruntime_providers_shared.so";
        let plain = (
            "onnxruntime-1.32.0.dist-info",
            "onnxruntime/capi/libonnxruntime.so.1.32.0",
        );
        let plain = (plain.0, &[shared, plain.1][..]);
        let gpu = (
            "onnxruntime_gpu-1.31.1.dist-info",
            &["onnxruntime/capi/libonnxruntime.so.1.31.1"][..],
        );
        let old_gpu = (
            "onnxruntime_gpu-1.20.0.dist-info",
            &["onnxruntime/capi/libonnxruntime.so.1.20.0"][..],
        );
        let openvino = (
            "onnxruntime_openvino-1.24.1.dist-info",
            &["onnxruntime/capi/libonnxruntime.so.1.24.1"][..],
        );
        let mac = (
            "onnxruntime-1.32.0.dist-info",
            &["onnxruntime/capi/libonnxruntime.1.32.0.dylib"][..],
        );
        let fetched = format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}");
        for (packages, expected) in [
            (&[][..], [fetched.as_str(), &fetched]),
            (&[plain], ["libonnxruntime.so.1.32.0", &fetched]),
            (&[plain, gpu], ["libonnxruntime.so.1.31.1", &fetched]),
            (&[plain, old_gpu], ["libonnxruntime.so.1.32.0", &fetched]),
            (
                &[plain, openvino],
                ["libonnxruntime.so.1.32.0", "libonnxruntime.so.1.24.1"],
            ),
            (&[old_gpu], [&fetched, &fetched]),
            (&[mac], ["libonnxruntime.1.32.0.dylib", &fetched]),
        ] {
            assert_eq!(libraries(packages), expected, "{packages:?}");
        }
    }
}
