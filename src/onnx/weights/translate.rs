//! Weights under the hub's names: one model of a file, translated.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    blocks, found::Found, names, parts::Named, prefix, tensor::TensorMap, unread::Checkpoint,
};
use crate::error::{Error, Result};

/// Names outside the blocks that change features and that no supported model has.
const FOREIGN: [&str; 9] = [
    "patch_embed.",
    "embeddings.",
    "norm_pre.",
    "fc_norm.",
    "cls_norm.",
    "dist_token",
    "rope",
    "rel_pos",
    "relative_position",
];

/// Weights of a vision transformer under the hub's names.
#[derive(Debug, Clone)]
pub struct Weights {
    pub(super) tensors: Named,
    /// Names in the file of tensors that no supported model has.
    pub(super) foreign: Vec<String>,
    pub(super) prefix: String,
    others: Vec<String>,
    pub(super) found: Found,
    pub(super) has_hugging_face_names: bool,
}

impl Weights {
    /// Takes the model of a file: the only one, or the moving average of a training run.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if the file has no model, it is not clear which, or its
    /// moving average cannot be read.
    pub fn new(file: impl Into<Checkpoint>) -> Result<Self> {
        Self::with_prefix(file, None)
    }

    /// Takes the model whose names begin with `wanted`; by default as [`Weights::new`] does.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if there is no model under the prefix, or several.
    pub fn with_prefix(file: impl Into<Checkpoint>, wanted: Option<&str>) -> Result<Self> {
        let file = file.into();
        let candidates = prefix::candidates(&file.tensors);
        if candidates.is_empty() {
            return Err(no_model(&file, wanted));
        }
        let prefix = prefix::choose(&file.tensors, &candidates, wanted).map_err(|error| {
            let unread = wanted.and_then(|wanted| file.unread_under(wanted));
            unread.unwrap_or(error)
        })?;
        file.check_average(&prefix, wanted)?;
        let tensors = file.tensors;
        let mut weights = Self {
            tensors: Named::default(),
            foreign: Vec::new(),
            others: candidates
                .into_iter()
                .filter(|other| *other != prefix)
                .collect(),
            found: Found::default(),
            has_hugging_face_names: tensors.contains_key(&format!("{prefix}embeddings.cls_token")),
            prefix,
        };
        weights.translate(&tensors)?;
        weights.found = Found::of(&weights.tensors);
        Ok(weights)
    }

    /// Returns the prefix under which the file has the weights; often empty.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Says what the weights are, where the file has them, and which other models it has.
    pub fn summary(&self) -> String {
        let others = match self.others.as_slice() {
            [] => String::new(),
            others => format!(
                "; the file also has {}, see --weights-prefix",
                prefix::list(others)
            ),
        };
        format!(
            "{} under {}{others}",
            self.found,
            prefix::quoted(&self.prefix)
        )
    }

    /// Puts the tensors under the hub's names.
    fn translate(&mut self, tensors: &TensorMap) -> Result<()> {
        let prefix = self.prefix.clone();
        let named: Vec<(String, String)> = prefix::under(tensors, &prefix)
            .map(|(name, _)| (name.clone(), names::plain_name(&name[prefix.len()..])))
            .collect();
        let places: BTreeSet<blocks::Place> = named
            .iter()
            .filter_map(|(_, plain)| Some(blocks::split(plain)?.0))
            .collect();
        let indices = blocks::indices(&places);
        for (name, plain) in named {
            let Some((place, leaf)) = blocks::split(&plain) else {
                match names::outside_block(&plain) {
                    Some(part) => self.insert(part.name.clone(), &part, name, tensors)?,
                    None if FOREIGN.iter().any(|start| plain.starts_with(start)) => {
                        self.foreign.push(name);
                    }
                    None => {}
                }
                continue;
            };
            if names::is_adapter(&plain) {
                return Err(unmerged(&name));
            }
            match names::in_block(leaf) {
                Some(part) => {
                    let hub = format!("blocks.{}.{}", indices[&place], part.name);
                    self.insert(hub, &part, name, tensors)?;
                }
                None => self.foreign.push(name),
            }
        }
        self.complete_biases();
        self.name_feed_forward_layers()
    }

    fn insert(
        &mut self,
        hub: String,
        part: &names::Part,
        name: String,
        tensors: &TensorMap,
    ) -> Result<()> {
        let parts = self
            .tensors
            .entry(hub)
            .or_insert_with(|| vec![None; part.count]);
        let is_other_spelling = parts.len() != part.count;
        match parts.get_mut(part.index) {
            Some(slot @ None) if !is_other_spelling => {
                *slot = tensors.get(&name).cloned().map(|tensor| (name, tensor));
                Ok(())
            }
            _ => Err(under_two_names(&name)),
        }
    }

    /// Adds biases that are left out because they are 0: of keys in timm's files, which a softmax
    /// cancels, and any of them in timm's and Hugging Face's files of models with rotations.
    fn complete_biases(&mut self) {
        let has_table = self.tensors.contains_key("pos_embed");
        let biases = self
            .tensors
            .iter_mut()
            .filter(|(name, _)| name.ends_with("attn.qkv.bias"));
        for (_, parts) in biases {
            let Some((present, tensor)) = parts.iter().flatten().next().cloned() else {
                continue;
            };
            let is_left_out = match parts.as_slice() {
                [Some((name, _)), None, Some(_)] if name.ends_with("attn.q_bias") => true,
                _ if has_table => false,
                _ => ["attn.q_bias", "attn.k_bias", "attn.v_bias", "_proj.bias"]
                    .iter()
                    .any(|spelling| present.ends_with(spelling)),
            };
            for part in parts
                .iter_mut()
                .filter(|part| part.is_none() && is_left_out)
            {
                *part = Some((format!("{present} (absent)"), tensor.zeros()));
            }
        }
    }

    /// Gives layers whose names are those of the other kind of feed-forward network their names in
    /// the hub's layout: timm's gated layers, and ungated ones of DINOv3 in transformers.
    fn name_feed_forward_layers(&mut self) -> Result<()> {
        let parts = |tensor: &str| self.tensors.get(&format!("blocks.0.mlp.{tensor}.weight"));
        let width = |tensor: &str, axis: usize| {
            let (_, tensor) = parts(tensor)?.first()?.as_ref()?;
            tensor.shape.get(axis).copied()
        };
        let inner = width("fc2", 1);
        let is_gated =
            inner.is_some_and(|inner| inner > 0 && width("fc1", 0) == inner.checked_mul(2));
        let has_gate = parts("w12").is_some();
        let is_ungated = match parts("w12").map(Vec::as_slice) {
            Some([None, Some((name, _))]) => name.ends_with("up_proj.weight"),
            _ => false,
        };
        if is_ungated {
            self.rename(|name| {
                name.replace(".mlp.w12.", ".mlp.fc1.")
                    .replace(".mlp.w3.", ".mlp.fc2.")
            })?;
            for (name, parts) in &mut self.tensors {
                if name.contains(".mlp.fc1.") && parts.first().is_some_and(Option::is_none) {
                    parts.remove(0);
                }
            }
        } else if is_gated || has_gate {
            self.rename(|name| {
                name.replace(".mlp.fc1.", ".mlp.w12.")
                    .replace(".mlp.fc2.", ".mlp.w3.")
            })?;
        }
        Ok(())
    }

    fn rename(&mut self, renamed: impl Fn(&str) -> String) -> Result<()> {
        for (name, parts) in std::mem::take(&mut self.tensors) {
            let new = renamed(&name);
            if self.tensors.insert(new.clone(), parts).is_some() {
                return Err(under_two_names(&new));
            }
        }
        Ok(())
    }
}

fn under_two_names(name: &str) -> Error {
    Error::artifact(format!(
        "the file has a tensor under two names, one of them {name}; leave one out"
    ))
}

fn unmerged(name: &str) -> Error {
    Error::artifact(format!(
        "the file has an adapter that is not merged (LoRA or another of PEFT's): {name}; merge \
         first, with model.merge_and_unload(), and save the merged model"
    ))
}

/// Returns the error for a file without a model.
fn no_model(file: &Checkpoint, wanted: Option<&str>) -> Error {
    let tensors = &file.tensors;
    if let Some(name) = tensors.keys().find(|name| names::is_adapter(name)) {
        return unmerged(name);
    }
    if let Some(error) = file.unread_under(wanted.unwrap_or_default()) {
        return error;
    }
    if tensors.is_empty() {
        return Error::artifact("the file has no tensors of floating-point numbers");
    }
    let mut groups = BTreeMap::new();
    for name in tensors.keys() {
        let group = name
            .split_once('.')
            .map_or(name.as_str(), |(group, _)| group);
        *groups.entry(group).or_insert(0) += 1;
    }
    let shown: Vec<String> = groups
        .iter()
        .take(6)
        .map(|(group, count)| format!("`{group}` ({count})"))
        .collect();
    let more = if groups.len() > 6 { ", …" } else { "" };
    Error::artifact(format!(
        "the file has {} tensors, under {}{more}, but no `cls_token` next to patch embeddings; use \
         weights of a DINO or another ViT with the names of Meta's hub, timm or Hugging Face",
        tensors.len(),
        shown.join(", ")
    ))
}
