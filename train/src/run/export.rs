//! Exports the teacher in Hugging Face's layout, with a model description for `dinoserve`.

use std::{collections::HashMap, path::Path};

use anyhow::Context;
use dinoserve::model::{Architecture, Ffn, ModelSpec};
use serde_json::json;

use super::files;
use crate::model::{Backbone, spec_toml, to_hugging_face};

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
        serde_json::to_string_pretty(&hugging_face_config(&spec.architecture))?.as_bytes(),
    )?;
    files::write(
        &folder.join(format!("{}.toml", spec.name)),
        spec_toml(spec).as_bytes(),
    )
}

/// Returns the `config.json` with which Hugging Face's `transformers` opens the weights.
fn hugging_face_config(architecture: &Architecture) -> serde_json::Value {
    let (kind, class) = if architecture.registers > 0 {
        ("dinov2_with_registers", "Dinov2WithRegistersModel")
    } else {
        ("dinov2", "Dinov2Model")
    };
    let patch = architecture.patch.pixels();
    let mut config = json!({
        "architectures": [class],
        "model_type": kind,
        "hidden_size": architecture.dim,
        "num_hidden_layers": architecture.depth,
        "num_attention_heads": architecture.heads,
        "mlp_ratio": mlp_ratio(architecture),
        "use_swiglu_ffn": architecture.ffn == Ffn::Swiglu,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": architecture.qkv_bias,
        "patch_size": patch,
        "image_size": architecture.native_grid * patch,
        "num_channels": 3,
    });
    if architecture.registers > 0 {
        config["num_register_tokens"] = architecture.registers.into();
    }
    config
}

/// Returns the ratio from which `transformers` computes the hidden width: dim·ratio; for SwiGLU two
/// thirds of that, rounded up to a multiple of 8. `transformers` expects a whole number. The ratio
/// is a fraction for a width that no whole number gives, which needs another configuration there.
fn mlp_ratio(architecture: &Architecture) -> serde_json::Value {
    let dim = architecture.dim;
    let width = architecture.ffn_hidden;
    let width_of = |ratio: usize| match architecture.ffn {
        Ffn::Mlp => dim * ratio,
        Ffn::Swiglu => (2 * dim * ratio / 3).div_ceil(8) * 8,
    };
    match (1..=width.div_ceil(dim) * 2).find(|ratio| width_of(*ratio) == width) {
        Some(ratio) => ratio.into(),
        None => (width as f64 / dim as f64).into(),
    }
}
