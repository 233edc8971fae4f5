//! Naming schemes of weight files.

use super::TensorMap;
use crate::error::{Error, Result};

/// A naming scheme, with the prefix of every name (`backbone.`, `dinov2.`, …).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// Meta's: `blocks.3.attn.qkv.weight`.
    Hub { prefix: String },
    /// Hugging Face's: `encoder.layer.3.attention.attention.query.weight`; q, k and v are separate
    /// tensors.
    HuggingFace { prefix: String },
}

impl Layout {
    /// Detects the scheme of a file.
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
        let first: Vec<&str> = tensors.keys().take(3).map(String::as_str).collect();
        Err(Error::artifact(format!(
            "the file contains {} tensors ({}…) but no `cls_token`; \
             use a DINOv2 in the hub's or Hugging Face's layout",
            tensors.len(),
            first.join(", ")
        )))
    }

    /// Returns the tensors that, joined along their first axis, make up the hub's `name`; `None` if
    /// the scheme has no name for it.
    pub(super) fn parts(&self, name: &str) -> Option<Vec<String>> {
        match self {
            Self::Hub { prefix } => Some(vec![format!("{prefix}{name}")]),
            Self::HuggingFace { prefix } => {
                let mut parts = hugging_face(name)?;
                for part in &mut parts {
                    part.insert_str(0, prefix);
                }
                Some(parts)
            }
        }
    }
}

/// Translates a name of the hub's layout to Hugging Face's. Queries, keys and values are one tensor
/// in the hub's layout and three in Hugging Face's, to be joined along their first axis. Returns
/// `None` for a tensor that no DINOv2 has.
pub fn hugging_face(name: &str) -> Option<Vec<String>> {
    let Some((block, tensor)) = name
        .strip_prefix("blocks.")
        .and_then(|rest| rest.split_once('.'))
    else {
        return outside_blocks(name).map(|name| vec![name]);
    };
    let (module, leaf) = tensor.rsplit_once('.')?;
    let block = format!("encoder.layer.{block}");
    let module = match module {
        "attn.qkv" => {
            let parts = ["query", "key", "value"]
                .map(|part| format!("{block}.attention.attention.{part}.{leaf}"));
            return Some(parts.to_vec());
        }
        "ls1" | "ls2" if leaf == "gamma" => {
            return Some(vec![format!("{block}.layer_scale{}.lambda1", &module[2..])]);
        }
        "attn.proj" => "attention.output.dense",
        "mlp.w12" => "mlp.weights_in",
        "mlp.w3" => "mlp.weights_out",
        "norm1" | "norm2" | "mlp.fc1" | "mlp.fc2" => module,
        _ => return None,
    };
    Some(vec![format!("{block}.{module}.{leaf}")])
}

fn outside_blocks(name: &str) -> Option<String> {
    match name {
        "cls_token" | "register_tokens" | "mask_token" => Some(format!("embeddings.{name}")),
        "pos_embed" => Some("embeddings.position_embeddings".to_owned()),
        "norm.weight" | "norm.bias" => Some(name.replacen("norm", "layernorm", 1)),
        _ => {
            let leaf = name.strip_prefix("patch_embed.proj.")?;
            Some(format!("embeddings.patch_embeddings.projection.{leaf}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_dinov2_are_translated() {
        for (hub, expected) in [
            ("norm.bias", Some("layernorm.bias")),
            (
                "blocks.3.mlp.fc1.weight",
                Some("encoder.layer.3.mlp.fc1.weight"),
            ),
            (
                "blocks.0.ls2.gamma",
                Some("encoder.layer.0.layer_scale2.lambda1"),
            ),
            ("blocks.0.attn.k_norm.weight", None),
            ("rope_embed.periods", None),
        ] {
            let found = hugging_face(hub);
            assert_eq!(found, expected.map(|name| vec![name.to_owned()]), "{hub}");
        }
        let qkv = hugging_face("blocks.1.attn.qkv.bias").expect("a name of a DINOv2");
        assert_eq!(qkv[1], "encoder.layer.1.attention.attention.key.bias");
    }
}
