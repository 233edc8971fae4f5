//! From a run to a service: the teacher in Hugging Face's layout, with a description that
//! `dinoserve` takes as it is.

use std::{borrow::Cow, collections::HashMap, path::Path};

use anyhow::Context;
use dinoserve::model::{Ffn, ModelSpec};
use safetensors::{Dtype, View};
use serde_json::json;

use super::files;
use crate::{
    config::spec_toml,
    model::{Backbone, HostTensor, to_hugging_face},
};

/// Writes `model.safetensors`, `config.json` and `<name>.toml` to a folder.
///
/// # Errors
/// If they cannot be written.
pub fn export(backbone: &Backbone, spec: &ModelSpec, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("making the folder {}", folder.display()))?;
    let tensors = to_hugging_face(backbone)?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(
        tensors.iter().map(|(name, tensor)| (name, Stored(tensor))),
        Some(metadata),
    )?;
    files::write(&folder.join("model.safetensors"), &bytes)?;
    files::write(
        &folder.join("config.json"),
        serde_json::to_string_pretty(&hugging_face_config(spec))?.as_bytes(),
    )?;
    files::write(
        &folder.join(format!("{}.toml", spec.name)),
        spec_toml(spec).as_bytes(),
    )
}

/// The `config.json` with which Hugging Face's `transformers` opens the weights.
fn hugging_face_config(spec: &ModelSpec) -> serde_json::Value {
    let (kind, architecture) = if spec.registers > 0 {
        ("dinov2_with_registers", "Dinov2WithRegistersModel")
    } else {
        ("dinov2", "Dinov2Model")
    };
    let mut config = json!({
        "architectures": [architecture],
        "model_type": kind,
        "hidden_size": spec.dim,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "mlp_ratio": mlp_ratio(spec),
        "use_swiglu_ffn": spec.ffn == Ffn::Swiglu,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": true,
        "patch_size": dinoserve::vision::PATCH,
        "image_size": spec.native_grid * dinoserve::vision::PATCH,
        "num_channels": 3,
    });
    if spec.registers > 0 {
        config["num_register_tokens"] = spec.registers.into();
    }
    config
}

/// What `transformers` makes the hidden width of: dim·ratio, and of that for SwiGLU two thirds,
/// brought up to eights. It is a whole number to them; for a width that none gives they need
/// another configuration.
fn mlp_ratio(spec: &ModelSpec) -> serde_json::Value {
    let hidden = |ratio: usize| match spec.ffn {
        Ffn::Mlp => spec.dim * ratio,
        Ffn::Swiglu => (2 * spec.dim * ratio / 3).div_ceil(8) * 8,
    };
    let whole = (1..=spec.ffn_hidden.div_ceil(spec.dim) * 2)
        .find(|ratio| hidden(*ratio) == spec.ffn_hidden);
    whole.map_or_else(
        || (spec.ffn_hidden as f64 / spec.dim as f64).into(),
        Into::into,
    )
}

struct Stored<'a>(&'a HostTensor);

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.0
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(
            self.0
                .1
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        )
    }

    fn data_len(&self) -> usize {
        self.0.1.len() * size_of::<f32>()
    }
}
