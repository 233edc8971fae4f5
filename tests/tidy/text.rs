//! Files of the repository as text: their names, the length of their lines, their words.

use std::{fs, path::Path};

use super::graph::Sources;

/// Folders of builds, of downloads and of other repositories.
const SKIPPED: [&str; 4] = ["target", "shared", "node_modules", "demo-output"];

/// Reads all files with this ending below a folder of the repository, or of all of it (`""`).
pub fn read(folder: &str, ending: &str) -> Sources {
    let mut found = Sources::new();
    gather(
        Path::new(env!("CARGO_MANIFEST_DIR")),
        folder,
        ending,
        &mut found,
    );
    assert!(!found.is_empty(), "no {ending} in {folder}");
    found
}

fn gather(root: &Path, folder: &str, ending: &str, found: &mut Sources) {
    for entry in fs::read_dir(root.join(folder)).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() {
            name.clone()
        } else {
            format!("{folder}/{name}")
        };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                gather(root, &path, ending, found);
            }
        } else if name.ends_with(ending) {
            let text = fs::read_to_string(root.join(&path)).expect("text");
            found.insert(path, text);
        }
    }
}

/// Returns the numbers of the lines with more than `limit` characters.
pub fn long_lines(text: &str, limit: usize) -> Vec<usize> {
    numbered(text)
        .filter(|(_, line)| line.chars().count() > limit)
        .map(|(n, _)| n)
        .collect()
}

/// Finds phrases as whole words in any case, also over the end of a line in a comment or a string.
/// Returns each with the number of the line on which it begins.
pub fn mentions<'a>(text: &str, phrases: &[&'a str]) -> Vec<(usize, &'a str)> {
    let mut flat = String::new();
    let mut starts = Vec::new();
    for (_, line) in numbered(text) {
        starts.push(flat.len());
        let line = line
            .trim()
            .trim_start_matches(['/', '!', '>'])
            .trim_end_matches('\\')
            .trim();
        flat.push_str(&line.to_lowercase());
        flat.push(' ');
    }
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for phrase in phrases {
        for (at, _) in flat.match_indices(phrase) {
            let is_whole = !flat[..at].ends_with(is_letter)
                && !flat[at + phrase.len()..].starts_with(is_letter);
            if is_whole {
                found.push((starts.partition_point(|start| *start <= at), *phrase));
            }
        }
    }
    found
}

/// Returns the numbers of the lines whose code, not their comments, has this word.
pub fn code_with(text: &str, word: &str) -> Vec<usize> {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    let lines: Vec<String> = text.lines().map(code).collect();
    mentions(&lines.join("\n"), &[word])
        .into_iter()
        .map(|(line, _)| line)
        .collect()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}
