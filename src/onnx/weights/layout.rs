//! Which names a file uses for the hub's tensors.

use super::TensorMap;
use crate::error::{Error, Result};

/// A naming scheme, with what stands in front of every name (`backbone.`, `dinov2.`, …).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// Meta's: `blocks.3.attn.qkv.weight`.
    Hub { prefix: String },
    /// Hugging Face's: `encoder.layer.3.attention.attention.query.weight`; q, k and v are three
    /// tensors.
    HuggingFace { prefix: String },
}

impl Layout {
    pub(super) fn detect(tensors: &TensorMap) -> Result<Self> {
        for name in tensors.keys() {
            if let Some(prefix) = name.strip_suffix("embeddings.cls_token") {
                return Ok(Self::HuggingFace {
                    prefix: prefix.to_owned(),
                });
            }
        }
        for name in tensors.keys() {
            if let Some(prefix) = name.strip_suffix("cls_token")
                && tensors.contains_key(&format!("{prefix}patch_embed.proj.weight"))
            {
                return Ok(Self::Hub {
                    prefix: prefix.to_owned(),
                });
            }
        }
        let some: Vec<&str> = tensors.keys().take(3).map(String::as_str).collect();
        Err(Error::artifact(format!(
            "the file holds {} tensors ({}…) but no `cls_token`: it is no DINOv2 in the hub's or Hugging Face's layout",
            tensors.len(),
            some.join(", ")
        )))
    }

    /// The tensors that, joined along their first axis, make up the hub's `name`.
    pub(super) fn parts(&self, name: &str) -> Vec<String> {
        match self {
            Self::Hub { prefix } => vec![format!("{prefix}{name}")],
            Self::HuggingFace { prefix } => hugging_face(name)
                .into_iter()
                .map(|part| format!("{prefix}{part}"))
                .collect(),
        }
    }
}

/// The names that Hugging Face's layout has for the hub's `name`: three for queries, keys and
/// values, which are joined along their first axis in the hub's, and one for every other tensor.
pub fn hugging_face(name: &str) -> Vec<String> {
    let one = |name: &str| vec![name.to_owned()];
    match name {
        "cls_token" | "register_tokens" | "mask_token" => {
            return one(&format!("embeddings.{name}"));
        }
        "pos_embed" => return one("embeddings.position_embeddings"),
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("patch_embed.proj.") {
        return one(&format!("embeddings.patch_embeddings.projection.{rest}"));
    }
    if let Some(rest) = name.strip_prefix("norm.") {
        return one(&format!("layernorm.{rest}"));
    }
    let Some((block, tensor)) = name
        .strip_prefix("blocks.")
        .and_then(|rest| rest.split_once('.'))
    else {
        return one(name);
    };
    let block = format!("encoder.layer.{block}.");
    let (module, leaf) = tensor.rsplit_once('.').unwrap_or((tensor, ""));
    match module {
        "attn.qkv" => ["query", "key", "value"]
            .map(|part| format!("{block}attention.attention.{part}.{leaf}"))
            .to_vec(),
        "attn.proj" => one(&format!("{block}attention.output.dense.{leaf}")),
        "mlp.w12" => one(&format!("{block}mlp.weights_in.{leaf}")),
        "mlp.w3" => one(&format!("{block}mlp.weights_out.{leaf}")),
        "ls1" => one(&format!("{block}layer_scale1.lambda1")),
        "ls2" => one(&format!("{block}layer_scale2.lambda1")),
        same => one(&format!("{block}{same}.{leaf}")),
    }
}
