//! Parts of a file that are not read, although they may be the moving average of its model.
//!
//! A module or a list of tensors has no names by which its model could be read. If the model that
//! is read is the student of such a part, its features would be worse without notice.

use std::{collections::BTreeMap, fmt};

use super::{
    prefix::{Rank, path_of, quoted, under},
    tensor::{RawTensor, TensorMap},
};
use crate::error::{Error, Result};

/// The content of a weight file.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// Tensors by their names.
    pub tensors: TensorMap,
    /// Objects with tensors that only their own code can read.
    pub unread: Vec<Unread>,
}

/// An object with tensors that only its own code can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Keys that lead to it, with dots between them.
    pub path: String,
    /// Class with its module.
    pub class: String,
    /// Whether the class is one of `torch.nn.Module`.
    pub is_module: bool,
}

impl From<TensorMap> for Checkpoint {
    fn from(tensors: TensorMap) -> Self {
        Self {
            tensors,
            unread: Vec::new(),
        }
    }
}

/// As in "a whole module of class vit.Model".
impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.is_module {
            true => "a whole module",
            false => "an object",
        };
        write!(f, "{kind} of class {}", self.class)
    }
}

impl Checkpoint {
    /// Rejects a file whose model under the prefix `chosen` has a moving average in it that cannot
    /// be read. A prefix that was `wanted` is taken without this check.
    pub(super) fn check_average(&self, chosen: &str, wanted: Option<&str>) -> Result<()> {
        let wanted = wanted.map(path_of);
        if Rank::of(chosen) == Rank::Average || wanted.as_deref() == Some(chosen) {
            return Ok(());
        }
        let searched = wanted.unwrap_or_default();
        let object = self
            .unread
            .iter()
            .filter(|part| part.path.starts_with(&searched))
            .find_map(|part| Some((average_of(&part.path)?, part.to_string())));
        let found = object.or_else(|| {
            let path = self.nameless_average(chosen, &searched)?;
            let detail = "tensors without the names of a ViT".to_owned();
            Some((path.to_owned(), detail))
        });
        match found {
            None => Ok(()),
            Some((path, detail)) => Err(Error::artifact(format!(
                "the moving average of the model seems to be at `{path}`, but that is {detail}, \
                 which cannot be read; save it as a state dict: load it into the model, then \
                 torch.save(model.state_dict(), \"weights.pth\"). To take {} instead, use \
                 --weights-prefix \"{}\"",
                quoted(chosen),
                chosen.trim_end_matches('.')
            ))),
        }
    }

    /// Returns the error for a prefix under which there is an object, but no model.
    pub(super) fn unread_under(&self, wanted: &str) -> Option<Error> {
        let path = path_of(wanted);
        let is_there = |part: &&Unread| format!("{}.", part.path).starts_with(&path);
        let part = self.unread.iter().find(is_there)?;
        Some(Error::artifact(format!(
            "`{}` is {part}, which only its own code can read, not a state dict; save one where \
             that code is installed: torch.save(model.state_dict(), \"weights.pth\")",
            part.path
        )))
    }

    /// Returns the path of tensors that are marked as an average and are as many values as the
    /// model has, or items of a list, as of `shadow_params`.
    fn nameless_average(&self, chosen: &str, searched: &str) -> Option<String> {
        let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
        for (name, tensor) in under(&self.tensors, searched) {
            if let Some(path) = average_of(name) {
                let size = match is_listed_matrix(name, tensor) {
                    true => usize::MAX,
                    false => elements(tensor),
                };
                let sum = sizes.entry(path).or_default();
                *sum = sum.saturating_add(size);
            }
        }
        let model: usize = under(&self.tensors, chosen)
            .map(|(_, tensor)| elements(tensor))
            .sum();
        // A center of the teacher is smaller, and so are most heads.
        let is_whole = |size: usize| size >= model / 2;
        let found = sizes.into_iter().find(|(_, size)| is_whole(*size))?;
        Some(found.0)
    }
}

/// Returns the part of a path up to the key that marks a moving average; `None` if there is none,
/// or if an optimizer keeps the averages of its gradients there.
fn average_of(path: &str) -> Option<String> {
    let keys: Vec<&str> = path.split('.').collect();
    let of_optimizer = |key: &&str| {
        let key = key.to_lowercase();
        let mut words = key.split(|c: char| !c.is_alphabetic());
        words.any(|word| word == "opt" || word.starts_with("optim"))
            || key.contains("exp_avg")
            || key.contains("momentum_buffer")
    };
    if keys.iter().any(of_optimizer) {
        return None;
    }
    let last = keys.iter().position(|key| Rank::of(key) == Rank::Average)?;
    Some(keys[..=last].join("."))
}

/// Returns whether a tensor is an item of a list, and has more than one row and column.
fn is_listed_matrix(name: &str, tensor: &RawTensor) -> bool {
    let key = name.rsplit('.').next().unwrap_or_default();
    let axes = tensor.shape.iter().filter(|side| **side > 1).count();
    key.bytes().all(|byte| byte.is_ascii_digit()) && axes > 1
}

fn elements(tensor: &RawTensor) -> usize {
    tensor.data.len() / tensor.dtype.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_of_gradients_are_none_of_the_model() {
        for (path, expected) in [
            ("ema.shadow_params.0", Some("ema")),
            ("state.model_ema", Some("state.model_ema")),
            ("checkpoint.EMA.module", Some("checkpoint.EMA")),
            ("optimizer.state.0.exp_avg", None),
            ("optimizer_states.0.state.3.momentum_buffer", None),
            ("sgd.state.0.momentum_buffer", None),
            ("adam.exp_avg.blocks.0.norm1.weight", None),
            ("opt_ema.0", None),
            ("model.blocks.0", None),
        ] {
            assert_eq!(average_of(path).as_deref(), expected, "{path}");
        }
    }
}
