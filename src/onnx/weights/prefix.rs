//! Which of the models in a file is taken.
//!
//! A checkpoint of a training run often holds a student and its moving average, the teacher. Each
//! is known by the prefix of its tensors.

use super::{
    names::plain_name,
    tensor::{RawTensor, TensorMap},
};
use crate::error::{Error, Result};

/// Words of a prefix that mark the moving average of a model.
const AVERAGES: [&str; 9] = [
    "teacher", "ema", "momentum", "target", "averaged", "average", "avg", "swa", "shadow",
];
/// Words of a prefix that mark a model whose moving average is the one to use.
const STUDENTS: [&str; 2] = ["student", "online"];

/// What a prefix says about a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Student,
    Plain,
    Average,
}

impl Rank {
    pub(super) fn of(prefix: &str) -> Self {
        let lower = prefix.to_lowercase();
        let mut words = lower.split(|c: char| !c.is_alphabetic());
        let has = |word: &str| AVERAGES.contains(&word);
        if words.clone().any(has) {
            Self::Average
        } else if words.any(|word| STUDENTS.contains(&word)) {
            Self::Student
        } else {
            Self::Plain
        }
    }
}

/// Returns the prefixes under which a file has a class token, as every model that is read here.
pub(super) fn candidates(tensors: &TensorMap) -> Vec<String> {
    let mut found: Vec<String> = tensors
        .keys()
        .filter_map(|name| {
            let prefix = name
                .strip_suffix("embeddings.cls_token")
                .filter(|prefix| is_path(prefix))
                .or_else(|| name.strip_suffix("cls_token"))?;
            is_path(prefix).then(|| prefix.to_owned())
        })
        .filter(|prefix| has_patches(tensors, prefix))
        .collect();
    found.dedup();
    found
}

/// Returns whether a prefix ends where a name begins.
fn is_path(prefix: &str) -> bool {
    prefix.is_empty() || prefix.ends_with('.')
}

fn has_patches(tensors: &TensorMap, prefix: &str) -> bool {
    under(tensors, prefix).any(|(name, _)| {
        matches!(
            plain_name(&name[prefix.len()..]).as_str(),
            "patch_embed.proj.weight"
                | "embeddings.patch_embeddings.projection.weight"
                | "embeddings.patch_embeddings.weight"
        )
    })
}

/// Iterates over the tensors under a prefix.
pub(super) fn under<'a>(
    tensors: &'a TensorMap,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a String, &'a RawTensor)> {
    tensors
        .range(prefix.to_owned()..)
        .take_while(move |(name, _)| name.starts_with(prefix))
}

/// Chooses a candidate: the one that `wanted` names, else the moving average before a model without
/// a mark, and that before a student.
pub(super) fn choose(
    tensors: &TensorMap,
    candidates: &[String],
    wanted: Option<&str>,
) -> Result<String> {
    let mut left: Vec<&String> = candidates.iter().collect();
    if let Some(wanted) = wanted {
        let path = path_of(wanted);
        if candidates.contains(&path) {
            return Ok(path);
        }
        left.retain(|prefix| prefix.starts_with(&path));
        if left.is_empty() {
            return Err(Error::artifact(format!(
                "the file has no model under {wanted:?}; name one of {} with --weights-prefix",
                list(candidates)
            )));
        }
    }
    let best = left.iter().map(|prefix| Rank::of(prefix)).max();
    left.retain(|prefix| Some(Rank::of(prefix)) == best);
    let (first, others) = match left.split_first() {
        Some((first, others)) => (*first, others),
        None => return Err(Error::artifact("the file holds no model")),
    };
    if others
        .iter()
        .all(|other| are_equal(tensors, first, other.as_str()))
    {
        return Ok(first.clone());
    }
    let names: Vec<String> = left.into_iter().cloned().collect();
    Err(Error::artifact(format!(
        "it is not clear which model of the file is meant: {}; name one with --weights-prefix",
        list(&names)
    )))
}

/// Returns the prefix that a user names, with or without a dot at its end.
pub(super) fn path_of(wanted: &str) -> String {
    match wanted.trim_end_matches('.') {
        "" => String::new(),
        path => format!("{path}."),
    }
}

/// Returns whether two prefixes name the same tensors, as where a module is registered twice.
fn are_equal(tensors: &TensorMap, a: &str, b: &str) -> bool {
    let tails =
        |prefix| under(tensors, prefix).map(move |(name, tensor)| (&name[prefix.len()..], tensor));
    tails(a).count() == tails(b).count()
        && tails(a).zip(tails(b)).all(|((a_name, a), (b_name, b))| {
            a_name == b_name && a.shape == b.shape && a.dtype == b.dtype && a.data == b.data
        })
}

/// Lists prefixes for people.
pub(super) fn list(prefixes: &[String]) -> String {
    let quoted: Vec<String> = prefixes.iter().map(|prefix| quoted(prefix)).collect();
    quoted.join(", ")
}

/// Quotes a prefix; `""` if it is empty.
pub(super) fn quoted(prefix: &str) -> String {
    match prefix.trim_end_matches('.') {
        "" => "\"\" (no prefix)".to_owned(),
        path => format!("`{path}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_prefix_decide() {
        for (prefix, rank) in [
            ("teacher.backbone.", Rank::Average),
            ("state_dict_ema.", Rank::Average),
            ("model_ema.module.", Rank::Average),
            ("student.module.backbone.", Rank::Student),
            ("schema.", Rank::Plain),
            ("model.", Rank::Plain),
            ("", Rank::Plain),
        ] {
            assert_eq!(Rank::of(prefix), rank, "{prefix}");
        }
    }
}
