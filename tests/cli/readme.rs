//! The documents: their commands run or parse, their links and file names exist.

use std::path::Path;

use tokio::process::Command;

use crate::{
    support::{process::PROGRAM, python::Python, scratch},
    tidy::text,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the commands in the `sh` blocks of a document, without their comments.
fn commands(document: &str) -> Vec<String> {
    let joined = document.replace("\\\n", " ");
    let mut found = Vec::new();
    let mut is_shell = false;
    for line in joined.lines() {
        if line.starts_with("```") {
            is_shell = line == "```sh";
            continue;
        }
        let command = line.split(" #").next().unwrap_or_default().trim();
        if is_shell && !command.is_empty() && !command.starts_with('#') {
            found.push(command.to_owned());
        }
    }
    found
}

/// Returns the `code` in the text of a document.
fn code_spans(document: &str) -> Vec<String> {
    let outside = document.split("```").step_by(2).collect::<String>();
    let spans = outside.split('`').skip(1).step_by(2);
    spans.map(|span| span.replace('\n', " ")).collect()
}

/// Runs a line of a shell that finds `dinoserve`, and returns what it prints.
async fn run(line: &str, folder: &Path) -> Vec<u8> {
    let programs = Path::new(PROGRAM).parent().unwrap().to_str().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(folder)
        .env("PATH", format!("{programs}:{path}"))
        .env("DINOSERVE_HOME", folder.join("home"))
        .env("NO_PROXY", "*")
        .env_remove("MAKEFLAGS")
        .output()
        .await
        .expect("a shell");
    assert!(output.status.success(), "{line}: {output:?}");
    output.stdout
}

#[tokio::test]
async fn the_commands_of_all_documents_parse() {
    let folder = scratch("documents");
    let mut count = 0;
    for (file, document) in text::read("", ".md") {
        let all = [commands(&document), code_spans(&document)].concat();
        for command in all.iter().filter(|text| text.starts_with("dinoserve ")) {
            // Redirections are left out.
            let command = command.split(" >").next().unwrap_or_default();
            let help = run(&format!("{command} --help"), &folder).await;
            let help = String::from_utf8_lossy(&help);
            assert!(help.contains("Usage: dinoserve"), "{file}: {command}");
            count += 1;
        }
    }
    assert!(count > 20, "{count} commands");
}

#[test]
fn links_and_file_names_in_documents_exist() {
    let mut problems = Vec::new();
    let sources = text::read("", ".rs");
    for (file, document) in text::read("", ".md") {
        let folder = Path::new(ROOT).join(&file);
        for link in document.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            let is_file = !target.is_empty() && !target.contains("://");
            if is_file && !folder.with_file_name(target).exists() {
                problems.push(format!("{file}: {target}"));
            }
        }
        for span in code_spans(&document) {
            let is_source = span.ends_with(".rs") && !span.contains(['*', ' ']);
            let ending = format!("/{span}");
            if is_source
                && !sources
                    .keys()
                    .any(|path| format!("/{path}").ends_with(&ending))
            {
                problems.push(format!("{file}: `{span}`"));
            }
        }
    }
    assert!(
        problems.is_empty(),
        "unknown files:\n{}",
        problems.join("\n")
    );
}

#[test]
fn the_page_of_dependencies_names_each_crate() {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/dependencies.md")).unwrap();
    let names: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .flat_map(|crates| crates.split(", "))
        .collect();
    let mut listed = 0;
    for package in ["", "train/", "loadtest/", "fuzz/"] {
        let file = Path::new(ROOT).join(package).join("Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(file).unwrap().parse().unwrap();
        for table in ["dependencies", "dev-dependencies"] {
            let crates = manifest.get(table).and_then(toml::Value::as_table);
            for name in crates.into_iter().flatten().map(|(name, _)| name) {
                let is_ours = name.starts_with("dinoserve");
                assert!(
                    is_ours || names.contains(&name.as_str()),
                    "{package}: {name}"
                );
                listed += 1;
            }
        }
    }
    assert!(listed > 80, "{listed} dependencies");
}

#[tokio::test]
async fn the_page_of_the_api_is_up_to_date() {
    let Some(python) = Python::find("readme::the_page_of_the_api_is_up_to_date") else {
        return;
    };
    let script = Path::new(ROOT).join("openapi/api_md.py");
    python.run(&[script.to_str().unwrap(), "--check"]).await;
}
