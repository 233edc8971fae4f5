//! Rules for the source that the compiler does not check: layers, circles of files, places of some
//! crates and of `unsafe`, lengths of lines and files, and plain words.

mod graph;
pub mod text;

use std::{collections::BTreeMap, fs};

use graph::{Graph, Sources};

/// The modules of `src`, from the lowest layer to the highest. A module uses modules of lower
/// layers, and none of its own layer but itself.
const LAYERS: [&[&str]; 11] = [
    &["background", "error", "hex", "names"],
    &["telemetry"],
    &["vision"],
    &["features", "model"],
    &["onnx"],
    &["artifacts", "sources"],
    &["engine", "gallery"],
    &["eval", "service"],
    &["bulk", "http"],
    &["cli"],
    &["main"],
];

/// The root file of each crate, in the folder of its other files.
const CRATES: [&str; 7] = [
    "src/lib.rs",
    "src/main.rs",
    "train/src/lib.rs",
    "train/src/main.rs",
    "loadtest/src/main.rs",
    "tests/suite.rs",
    "train/tests/suite.rs",
];

/// External crates that only some files of `src` name.
const PLACES: [(&[&str], &[&str]); 6] = [
    (
        &["ort"],
        &[
            "engine/session.rs",
            "engine/providers.rs",
            "engine/weights.rs",
            "engine/lifetime.rs",
        ],
    ),
    (&["axum", "utoipa", "utoipa_axum"], &["http/"]),
    (&["clap"], &["cli/", "telemetry/logs.rs"]),
    (
        &["tokio"],
        &[
            "http/", "cli/", "bulk/", "service/", "eval/", "engine/", "gallery/", "sources/",
        ],
    ),
    (&["heed"], &["gallery/embedded/"]),
    (
        &["tokio_postgres", "deadpool_postgres", "pgvector"],
        &["gallery/postgres/"],
    ),
];

/// Files with `unsafe` code: they map files into memory, or use instructions of the processor.
const UNSAFE: [&str; 5] = [
    "src/artifacts/mapped.rs",
    "src/engine/lifetime.rs",
    "src/engine/weights.rs",
    "src/gallery/embedded/environment.rs",
    "src/gallery/embedded/vectors/native.rs",
];

const MAX_LINE: usize = 100;
const MAX_FILE: usize = 350;
/// Longer files of `src` (without their unit tests), each with the reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Words with a plainer one that says the same (CONTRIBUTING.md, "Language").
const BANNED: [&str; 20] = [
    "anew",
    "beside",
    "told",
    "heard out",
    "hear out",
    "company",
    "likeness",
    "sought",
    "whoever",
    "nobody",
    "somebody",
    "as it is",
    "what of",
    "come to nothing",
    "comes to nothing",
    "mend",
    "mends",
    "mended",
    "tell of",
    "tells of",
];

/// Reads the crate of a root file, with all sources of its folder.
fn read_crate(root: &str) -> (Sources, Graph) {
    let folder = root.rsplit_once('/').expect("a folder").0;
    let sources = text::read(folder, ".rs");
    let graph = Graph::read(&sources, root);
    (sources, graph)
}

#[track_caller]
fn assert_none(what: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{what}:\n{}", problems.join("\n"));
}

/// The circles of a crate, one a line, with the path of each use.
fn circles(graph: &Graph) -> Vec<String> {
    let describe = |circle: &Vec<String>| {
        let uses = (0..circle.len()).map(|index| {
            let from = &circle[index];
            let to = &circle[(index + 1) % circle.len()];
            format!("{from} uses {}", graph.uses[from][to])
        });
        uses.collect::<Vec<_>>().join(", ")
    };
    graph.circles().iter().map(describe).collect()
}

/// The uses of a module by another of the same or of a lower layer.
fn upward(graph: &Graph, layers: &[&[&str]]) -> Vec<String> {
    let module = |file: &str| file.split(['/', '.']).nth(1).unwrap_or_default().to_owned();
    let layer = |name: &str| layers.iter().position(|layer| layer.contains(&name));
    let mut found = Vec::new();
    for (file, uses) in &graph.uses {
        let from = module(file);
        for (other, path) in uses {
            let to = module(other);
            if from != to && from != "lib" && layer(&from) <= layer(&to) {
                found.push(format!("{file} ({from}) uses {path} ({to})"));
            }
        }
        if from != "lib" && layer(&from).is_none() {
            found.push(format!("{file}: the module {from} has no layer"));
        }
    }
    found
}

#[test]
fn no_file_uses_another_in_a_circle() {
    let found: Vec<String> = CRATES
        .iter()
        .flat_map(|root| circles(&read_crate(root).1))
        .collect();
    assert_none("circles of files", &found);
}

#[test]
fn modules_use_lower_layers_only() {
    let (_, graph) = read_crate("src/lib.rs");
    let count: usize = graph.uses.values().map(BTreeMap::len).sum();
    assert!(count > 500, "only {count} uses are found");
    assert_none("upward uses", &upward(&graph, &LAYERS));
}

#[test]
fn every_file_belongs_to_a_crate() {
    let mut unlisted = text::read("", ".rs");
    unlisted.retain(|file, _| CRATES.iter().any(|root| file.starts_with(folder_of(root))));
    for root in CRATES {
        for file in read_crate(root).1.uses.keys() {
            unlisted.remove(file);
        }
    }
    assert_none(
        "files that no `mod` names",
        &unlisted.into_keys().collect::<Vec<_>>(),
    );
}

fn folder_of(root: &str) -> &str {
    &root[..=root.rfind('/').expect("a folder")]
}

#[test]
fn some_crates_are_named_in_few_places() {
    let (_, graph) = read_crate("src/lib.rs");
    let mut found = Vec::new();
    for (names, places) in PLACES {
        for (file, outside) in &graph.outside {
            let below = file.trim_start_matches("src/");
            if places.iter().any(|place| below.starts_with(place)) {
                continue;
            }
            let named = names.iter().filter(|name| outside.contains(**name));
            found.extend(named.map(|name| format!("{file} names {name}")));
        }
        for name in names {
            assert!(
                graph
                    .outside
                    .values()
                    .any(|outside| outside.contains(*name)),
                "{name}"
            );
        }
    }
    assert_none("crates in the wrong place", &found);
}

#[test]
fn unsafe_code_is_in_few_files() {
    let mut found = Vec::new();
    for (file, text) in text::read("src", ".rs") {
        let lines = text::code_with(&text, "unsafe");
        assert_eq!(
            UNSAFE.contains(&file.as_str()),
            !lines.is_empty(),
            "{file}: {lines:?}"
        );
        found.extend(lines);
    }
    assert!(!found.is_empty());
}

/// The table of faults names tests by path, such as `ops::faults::the_clock_jumps`.
#[test]
fn the_table_of_faults_names_existing_tests() {
    let table = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/FAULTS.md"));
    let table = table.expect("the table of faults");
    let (sources, _) = read_crate("tests/suite.rs");
    let mut missing = Vec::new();
    for path in table.split('`').filter(|text| text.contains("::")) {
        let (module, name) = path.rsplit_once("::").expect("a path");
        let file = |module: &str| format!("tests/{}.rs", module.replace("::", "/"));
        let is_test = sources
            .get(&file(module))
            .is_some_and(|text| text.contains(&format!("fn {name}(")));
        if !is_test && !sources.contains_key(&file(path)) {
            missing.push(path.to_owned());
        }
    }
    assert_none("unknown tests", &missing);
}

#[test]
fn lines_are_short() {
    let mut found = Vec::new();
    for (file, text) in text::read("", ".rs") {
        let lines = text::long_lines(&text, MAX_LINE);
        found.extend(lines.iter().map(|line| format!("{file}:{line}")));
    }
    assert_none(&format!("more than {MAX_LINE} characters"), &found);
}

#[test]
fn long_files_have_a_reason() {
    let mut found = Vec::new();
    for (file, text) in text::read("src", ".rs") {
        let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
        let count = code.lines().count();
        let is_listed = LONG_FILES.iter().any(|(name, _)| *name == file);
        if is_listed != (count > MAX_FILE) {
            found.push(format!(
                "{file} has {count} lines; LONG_FILES lists it: {is_listed}"
            ));
        }
    }
    assert_none(&format!("files with more than {MAX_FILE} lines"), &found);
}

#[test]
fn words_are_plain() {
    let mut files = text::read("", ".md");
    files.extend(text::read("", ".rs"));
    files.remove("tests/tidy.rs").expect("the list itself");
    let mut found = Vec::new();
    for (file, text) in &files {
        for (line, word) in text::mentions(text, &BANNED) {
            found.push(format!("{file}:{line} has \"{word}\""));
        }
    }
    assert_none("words", &found);
}

/// A crate of these files.
fn made_up(files: &[(&str, &str)]) -> Graph {
    let sources = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    Graph::read(&sources.collect(), "src/lib.rs")
}

#[test]
fn the_check_finds_circles_and_upward_uses() {
    let fine = [
        ("src/lib.rs", "pub mod high;\npub mod low;"),
        (
            "src/high/mod.rs",
            "mod one;\nmod two;\npub use one::One;\npub use two::Two;",
        ),
        (
            "src/high/one.rs",
            "use super::two;\npub struct One(two::Two);",
        ),
        ("src/high/two.rs", "pub struct Two(crate::low::Low);"),
        (
            "src/low.rs",
            "pub struct Low;\n#[cfg(test)]\nmod tests { use crate::high::One; }",
        ),
    ];
    let layers: [&[&str]; 2] = [&["low"], &["high"]];
    let graph = made_up(&fine);
    assert_none("circles", &circles(&graph));
    assert_none("upward uses", &upward(&graph, &layers));
    assert_eq!(
        graph.uses["src/high/one.rs"].keys().collect::<Vec<_>>(),
        ["src/high/two.rs"]
    );

    let cases = [
        (
            "a sibling by the parent's export",
            "use super::One; pub struct Two(One);",
            "super::One",
        ),
        (
            "a path",
            "pub struct Two(Box<crate::high::one::One>);",
            "crate::high::one::One",
        ),
        (
            "an imported module",
            "use super::one;\npub struct Two(one::One);",
            "one::One",
        ),
        (
            "another name",
            "use super::one as uno;\npub struct Two(uno::One);",
            "uno::One",
        ),
        (
            "all names",
            "use super::one::*;\npub struct Two(One);",
            "One",
        ),
        (
            "a macro's tokens",
            "pub struct Two;\nfn f() { vec![super::One] }",
            "super::One",
        ),
        (
            "an attribute",
            "#[serde(with = \"super::One\")]\npub struct Two;",
            "super::One",
        ),
    ];
    for (name, two, path) in cases {
        let mut files = fine;
        files[3].1 = two;
        let found = circles(&made_up(&files));
        let circle = "src/high/one.rs uses two::Two, src/high/two.rs uses";
        assert_eq!(found, [format!("{circle} {path}")], "{name}");
    }

    let mut files = fine;
    files[4].1 = "pub struct Low;\nimpl Low { fn up() -> crate::high::Two { loop {} } }";
    let graph = made_up(&files);
    assert_eq!(
        upward(&graph, &layers),
        ["src/low.rs (low) uses crate::high::Two (high)"]
    );
    assert_eq!(circles(&graph).len(), 1);
}

#[test]
fn the_check_finds_words_and_long_lines() {
    let text = "/// It is read as\n/// it is.\nlet retold = \"Nobody \\\n    told\";\n";
    let words = ["as it is", "nobody", "told"];
    let found = [(1, "as it is"), (3, "nobody"), (4, "told")];
    assert_eq!(text::mentions(text, &words), found);
    assert_eq!(text::long_lines("ééé\néééé", 3), [2]);
    assert_eq!(
        text::code_with("// unsafe\nunsafe { x }\n#![deny(unsafe_code)]", "unsafe"),
        [2]
    );
}
