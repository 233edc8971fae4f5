//! The layers of the code, kept: imports only go down, and some names stay in one place.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Modules by layer; a module may use its own layer's modules (but for L3 and L2 only itself) and
/// those below.
const LAYERS: [(&str, u8); 11] = [
    ("http", 3),
    ("cli", 3),
    ("service", 2),
    ("eval", 2),
    ("engine", 1),
    ("gallery", 1),
    ("artifacts", 1),
    ("vision", 0),
    ("features", 0),
    ("model", 0),
    ("onnx", 0),
];
/// Anyone may use these; they use nothing but each other.
const LEAVES: [&str; 2] = ["error", "telemetry"];

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((
                    path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
                        .unwrap()
                        .to_owned(),
                    text,
                ));
            }
        }
    }
    found
}

fn module(path: &Path) -> String {
    path.components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .trim_end_matches(".rs")
        .to_owned()
}

/// The first segments after `crate::`, in `use` groups and in paths, comments left out.
fn imports(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.push(std::mem::take(&mut name)),
                    c if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            found.push(name);
        } else {
            found.push(
                rest.chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect(),
            );
        }
    }
    found
        .iter()
        .map(|name| {
            name.trim()
                .split("::")
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn imports_only_go_down() {
    let layers: BTreeMap<&str, u8> = LAYERS.into();
    let mut checked = 0;
    for (path, text) in sources() {
        let from = module(&path);
        if ["lib", "main"].contains(&from.as_str()) {
            continue;
        }
        for to in imports(&text) {
            checked += 1;
            if to == from || LEAVES.contains(&to.as_str()) {
                continue;
            }
            assert!(
                !LEAVES.contains(&from.as_str()),
                "{}: a leaf uses {to}",
                path.display()
            );
            let (above, below) = (
                layers[from.as_str()],
                *layers
                    .get(to.as_str())
                    .unwrap_or_else(|| panic!("{}: crate::{to} has no layer", path.display())),
            );
            // `dinoserve serve` starts the HTTP edge; nothing else goes sideways at the top.
            let edge_to_edge = from == "cli" && to == "http";
            assert!(
                below < above || (above < 2 && below == above) || edge_to_edge,
                "{}: {from} (L{above}) uses {to} (L{below})",
                path.display()
            );
        }
    }
    assert!(checked > 100, "the imports were found: {checked}");
}

#[test]
fn some_crates_are_named_in_one_place_only() {
    let rules: [(&[&str], &[&str]); 6] = [
        (
            &["ort::"],
            &[
                "engine/session.rs",
                "engine/providers.rs",
                "engine/weights.rs",
            ],
        ),
        (&["axum::", "utoipa::", "utoipa_axum::"], &["http/"]),
        (&["clap::"], &["cli/", "telemetry/logs.rs"]),
        (
            &["tokio::"],
            &["http/", "cli/", "service/", "eval/", "engine/", "gallery/"],
        ),
        (&["heed::", "usearch::"], &["gallery/embedded/"]),
        (
            &["tokio_postgres::", "deadpool_postgres::", "pgvector::"],
            &["gallery/postgres/"],
        ),
    ];
    for (path, text) in sources() {
        let code: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        for (names, places) in &rules {
            let allowed = places
                .iter()
                .any(|place| path.to_string_lossy().starts_with(place));
            let word = |line: &str, name: &str| {
                line.match_indices(name)
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
            };
            for line in &code {
                for name in *names {
                    assert!(
                        allowed || !word(line, name),
                        "{} names {name}: {line}",
                        path.display()
                    );
                }
            }
        }
    }
}

#[test]
fn unsafe_stands_where_mapped_memory_is() {
    let places = [
        "artifacts/mapped.rs",
        "engine/weights.rs",
        "gallery/embedded/environment.rs",
    ];
    for (path, text) in sources() {
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        assert!(
            places.iter().any(|place| path.ends_with(place)) || !code.contains("unsafe {"),
            "{}",
            path.display()
        );
    }
}
