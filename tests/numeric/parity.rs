//! The comparison of whole folders with Pillow (`tests/parity`).

use crate::support::python::Python;

/// The exceptions are those of `docs/limits.md`.
#[tokio::test]
async fn files_are_read_as_pillow_reads_them() {
    let Some(python) = Python::with_packages("parity", "parity") else {
        return;
    };
    let program = env!("CARGO_BIN_EXE_dinoserve");
    let folder = "tests/golden/formats";
    let exceptions = "tests/parity/exceptions.json";
    let script = "tests/parity/parity.py";
    let counts = python
        .run(&[script, program, folder, "--exceptions", exceptions])
        .await;
    let all = counts.lines().find(|line| line.starts_with("all"));
    let equal = all.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    assert!(equal.is_some_and(|equal| equal >= 120), "{counts}");
}
