//! `deploy/setup.py`: it keeps existing files, and explains what to do without a network.

use std::{path::Path, process::Command};

use crate::support::{home, scratch};

fn setup(home: &Path) -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/setup.py"));
    command
        .env("DINOSERVE_HOME", home)
        .env_remove("ORT_DYLIB_PATH");
    command
}

#[test]
fn existing_files_are_kept() {
    let library = home().runtime_library();
    let before = std::fs::metadata(&library).unwrap().modified().unwrap();
    let output = setup(home().root())
        .env("PIP_NO_INDEX", "1")
        .env_remove("PIP_FIND_LINKS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("setup: nothing to do"),
        "{output:?}"
    );
    assert_eq!(
        std::fs::metadata(&library).unwrap().modified().unwrap(),
        before
    );
}

#[test]
fn without_a_network_the_manual_steps_are_printed() {
    let home = scratch("setup-home");
    let output = setup(&home)
        .env("PIP_NO_INDEX", "1")
        .env_remove("PIP_FIND_LINKS")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&output.stderr);
    for expected in [
        "onnxruntime==1.32.0 could not be fetched",
        "By hand:",
        "SHA-256 ",
        home.to_str().unwrap(),
    ] {
        assert!(printed.contains(expected), "{expected} in {printed}");
    }
    assert!(!printed.contains("Traceback"), "{printed}");
}
