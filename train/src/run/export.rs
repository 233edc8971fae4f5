//! Exports the teacher in Hugging Face's layout, with a model description for `dinoserve`.

use std::{collections::HashMap, path::Path};

use anyhow::Context;
use dinoserve::model::{Ffn, ModelSpec};
use serde_json::json;

use super::files;
use crate::model::{Backbone, PATCH, spec_toml, to_hugging_face};

/// Writes `model.safetensors`, `config.json` and `<name>.toml` to a folder.
pub fn export(backbone: &Backbone, spec: &ModelSpec, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("creating the folder {}", folder.display()))?;
    let tensors = to_hugging_face(backbone)?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(tensors, Some(metadata))?;
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

/// Returns the `config.json` with which Hugging Face's `transformers` opens the weights.
fn hugging_face_config(spec: &ModelSpec) -> serde_json::Value {
    let (kind, architecture) = if spec.architecture.registers > 0 {
        ("dinov2_with_registers", "Dinov2WithRegistersModel")
    } else {
        ("dinov2", "Dinov2Model")
    };
    let mut config = json!({
        "architectures": [architecture],
        "model_type": kind,
        "hidden_size": spec.architecture.dim,
        "num_hidden_layers": spec.architecture.depth,
        "num_attention_heads": spec.architecture.heads,
        "mlp_ratio": mlp_ratio(spec),
        "use_swiglu_ffn": spec.architecture.ffn == Ffn::Swiglu,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": true,
        "patch_size": PATCH,
        "image_size": spec.architecture.native_grid * PATCH,
        "num_channels": 3,
    });
    if spec.architecture.registers > 0 {
        config["num_register_tokens"] = spec.architecture.registers.into();
    }
    config
}

/// Returns the ratio from which `transformers` computes the hidden width: dim·ratio; for SwiGLU two
/// thirds of that, rounded up to a multiple of 8. `transformers` expects a whole number. The ratio
/// is a fraction for a width that no whole number gives, which needs another configuration there.
fn mlp_ratio(spec: &ModelSpec) -> serde_json::Value {
    let hidden = |ratio: usize| match spec.architecture.ffn {
        Ffn::Mlp => spec.architecture.dim * ratio,
        Ffn::Swiglu => (2 * spec.architecture.dim * ratio / 3).div_ceil(8) * 8,
    };
    let whole = (1..=spec.architecture.ffn_hidden.div_ceil(spec.architecture.dim) * 2)
        .find(|ratio| hidden(*ratio) == spec.architecture.ffn_hidden);
    whole.map_or_else(
        || (spec.architecture.ffn_hidden as f64 / spec.architecture.dim as f64).into(),
        Into::into,
    )
}
