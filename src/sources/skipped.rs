//! Files that are no images that can be read, counted by kind.

use std::{collections::BTreeMap, fmt};

use crate::names::plural;

/// Files that are no images that can be read, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SkippedFiles(BTreeMap<String, SkippedKind>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct SkippedKind {
    count: usize,
    /// What to do with such files, if that is known.
    advice: Option<&'static str>,
}

impl SkippedFiles {
    /// Returns whether no file was skipped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts a file.
    pub fn add(&mut self, kind: String, advice: Option<&'static str>) {
        let skipped = self.0.entry(kind).or_default();
        skipped.count += 1;
        skipped.advice = advice;
    }
}

/// A line with the counts, such as "3 files skipped, no readable images: 2 HEIC, 1 .txt", and a
/// line for each kind that has an advice.
impl fmt::Display for SkippedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<_> = self.0.iter().collect();
        // Stable: kinds of equal counts stay sorted by name.
        kinds.sort_by_key(|(_, skipped)| std::cmp::Reverse(skipped.count));
        let counts = kinds.iter().map(|(_, skipped)| skipped.count);
        let files = plural(counts.sum::<usize>(), "file");
        write!(f, "{files} skipped, no readable images:")?;
        for (index, (kind, SkippedKind { count, .. })) in kinds.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma} {count} {kind}")?;
        }
        for (kind, skipped) in kinds {
            if let Some(advice) = skipped.advice {
                write!(f, "\n  {kind}: {advice}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_files_are_counted_by_kind() {
        let mut skipped = SkippedFiles::default();
        for kind in [".txt", "HEIC", "HEIC", ".md"] {
            skipped.add(kind.to_owned(), (kind == "HEIC").then_some("convert it"));
        }
        assert_eq!(
            skipped.to_string(),
            "4 files skipped, no readable images: 2 HEIC, 1 .md, 1 .txt\n  HEIC: convert it"
        );
    }
}
