//! Commands of the program.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{focus_source, runtime_library, scratch, tiny_home};

pub fn dinoserve() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dinoserve"));
    command
        .env("ORT_DYLIB_PATH", runtime_library())
        .env("DINOSERVE_LOG", "warn");
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Makes a home with the converted model `tiny`.
pub fn home_with_tiny() -> PathBuf {
    tiny_home(&["tiny"])
}

/// Makes a home with the focus model in one precision.
pub fn home_with_focus(precision: &str) -> PathBuf {
    let home = scratch("focus-home");
    convert_focus_in(&home, precision);
    home
}

/// Adds the focus model to a home.
pub fn convert_focus_in(home: &Path, precision: &str) {
    let mut command = dinoserve();
    command
        .args([
            "models",
            "convert",
            "dinov2-small-focus",
            "--precision",
            precision,
            "--from",
        ])
        .arg(focus_source());
    assert!(
        command
            .env("DINOSERVE_HOME", home)
            .output()
            .unwrap()
            .status
            .success()
    );
}

/// A server process, killed at the end of the test.
pub struct Serving {
    pub process: Child,
    pub address: String,
}

impl Serving {
    pub fn start(mut command: Command) -> Self {
        let mut process = command
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("printed {line:?}"))
            .to_owned();
        Self { process, address }
    }

    pub fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill")
                .args([signal, &self.process.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
