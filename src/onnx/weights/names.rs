//! Names of tensors: Meta's (the hub's), and how other libraries spell them.

/// Spellings of a tensor of the hub's layout. Each is a list of parts that are joined along their
/// first axis.
type Spellings = (&'static str, &'static [&'static [&'static str]]);

/// Modules of a block, which have `weight` and `bias`. The first spelling is that of DINOv2 in
/// transformers 4, which files for exchange use; then come other versions and families.
const BLOCK_MODULES: &[Spellings] = &[
    ("norm1", &[&["norm1"], &["layernorm_before"]]),
    ("norm2", &[&["norm2"], &["layernorm_after"]]),
    (
        "attn.qkv",
        &[
            &[
                "attention.attention.query",
                "attention.attention.key",
                "attention.attention.value",
            ],
            &["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        ],
    ),
    (
        "attn.proj",
        &[&["attention.output.dense"], &["attention.o_proj"]],
    ),
    ("mlp.fc1", &[&["mlp.fc1"], &["intermediate.dense"]]),
    ("mlp.fc2", &[&["mlp.fc2"], &["output.dense"]]),
    (
        "mlp.w12",
        &[
            &["mlp.weights_in"],
            &["mlp.gate_proj", "mlp.up_proj"],
            &["mlp.w1", "mlp.w2"],
            &["mlp.fc1_g", "mlp.fc1_x"],
        ],
    ),
    ("mlp.w3", &[&["mlp.weights_out"], &["mlp.down_proj"]]),
];

/// Factor of the biases of queries, keys and values in Meta's DINOv3, within a block.
pub(super) const BIAS_MASK: &str = "attn.qkv.bias_mask";

/// Single tensors of a block.
const BLOCK_TENSORS: &[Spellings] = &[
    ("ls1.gamma", &[&["layer_scale1.lambda1"], &["gamma_1"]]),
    ("ls2.gamma", &[&["layer_scale2.lambda1"], &["gamma_2"]]),
    (BIAS_MASK, &[]),
];

/// Tensors of a block that only timm spells otherwise. The bias of k is left out if it is 0.
const TIMM_BIASES: [&str; 3] = ["attn.q_bias", "attn.k_bias", "attn.v_bias"];

/// Tensors outside the blocks.
const OUTSIDE: &[Spellings] = &[
    ("cls_token", &[&["embeddings.cls_token"]]),
    ("mask_token", &[&["embeddings.mask_token"]]),
    (
        "register_tokens",
        &[
            &["embeddings.register_tokens"],
            &["reg_token"],
            &["storage_tokens"],
        ],
    ),
    ("pos_embed", &[&["embeddings.position_embeddings"]]),
    ("rope_embed.periods", &[]),
    ("norm.weight", &[&["layernorm.weight"]]),
    ("norm.bias", &[&["layernorm.bias"]]),
    (
        "patch_embed.proj.weight",
        &[
            &["embeddings.patch_embeddings.projection.weight"],
            &["embeddings.patch_embeddings.weight"],
        ],
    ),
    (
        "patch_embed.proj.bias",
        &[
            &["embeddings.patch_embeddings.projection.bias"],
            &["embeddings.patch_embeddings.bias"],
        ],
    ),
];

/// Parts of names that wrappers of modules add: `torch.compile`, FSDP, activation checkpointing,
/// DDP, and PEFT around a layer whose adapter is merged.
const WRAPPERS: [&str; 6] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "module",
    "base_layer",
];

/// How names of PEFT's adapters begin.
const ADAPTERS: [&str; 8] = [
    "lora_",
    "hada_",
    "lokr_",
    "oft_",
    "boft_",
    "vera_",
    "ia3_",
    "randlora_",
];

/// A tensor of the hub's layout, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Name in the hub's layout; in a block without the block's path.
    pub(super) name: String,
    /// Which part of it, in the order in which they are joined.
    pub(super) index: usize,
    /// Number of parts.
    pub(super) count: usize,
}

impl Part {
    fn new(name: String, index: usize, count: usize) -> Self {
        Self { name, index, count }
    }
}

/// Returns a name without what wrappers of modules add to it.
pub(super) fn plain_name(name: &str) -> String {
    let parts: Vec<&str> = name
        .split('.')
        .filter(|part| !WRAPPERS.contains(part))
        .collect();
    parts.join(".")
}

/// Returns whether a name is of an adapter.
pub(super) fn is_adapter(name: &str) -> bool {
    name.split('.')
        .any(|part| ADAPTERS.iter().any(|start| part.starts_with(start)))
}

/// Returns which tensor of the hub's layout a name outside the blocks spells.
pub(super) fn outside_block(name: &str) -> Option<Part> {
    find(OUTSIDE, name)
}

/// Returns which tensor of a block a name spells, both without the block's path.
pub(super) fn in_block(name: &str) -> Option<Part> {
    if let Some(index) = TIMM_BIASES.iter().position(|bias| *bias == name) {
        return Some(Part::new("attn.qkv.bias".to_owned(), index, 3));
    }
    if let Some(part) = find(BLOCK_TENSORS, name) {
        return Some(part);
    }
    let (module, leaf) = name.rsplit_once('.')?;
    if !matches!(leaf, "weight" | "bias") {
        return None;
    }
    let part = find(BLOCK_MODULES, module)?;
    Some(Part {
        name: format!("{}.{leaf}", part.name),
        ..part
    })
}

fn find(table: &[Spellings], name: &str) -> Option<Part> {
    table.iter().find_map(|(hub, spellings)| {
        if *hub == name {
            return Some(Part::new(name.to_owned(), 0, 1));
        }
        spellings.iter().find_map(|parts| {
            let index = parts.iter().position(|part| *part == name)?;
            Some(Part::new((*hub).to_owned(), index, parts.len()))
        })
    })
}

/// Translates a name of the hub's layout to that of transformers 4. Queries, keys and values are
/// one tensor in the hub's layout and three in Hugging Face's, to be joined along their first axis.
/// Returns `None` for a tensor that it has no name for.
pub fn hugging_face(name: &str) -> Option<Vec<String>> {
    let first = |table: &[Spellings], name: &str| {
        let (_, spellings) = table.iter().find(|(hub, _)| *hub == name)?;
        spellings.first().copied()
    };
    let Some((block, tensor)) = name
        .strip_prefix("blocks.")
        .and_then(|rest| rest.split_once('.'))
    else {
        let parts = first(OUTSIDE, name)?;
        return Some(parts.iter().map(|&part| part.to_owned()).collect());
    };
    let block = format!("encoder.layer.{block}");
    if let Some(parts) = first(BLOCK_TENSORS, tensor) {
        return Some(parts.iter().map(|part| format!("{block}.{part}")).collect());
    }
    let (module, leaf) = tensor.rsplit_once('.')?;
    let parts = first(BLOCK_MODULES, module)?.iter();
    Some(parts.map(|part| format!("{block}.{part}.{leaf}")).collect())
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

    #[test]
    fn every_spelling_names_a_part() {
        for (name, hub, index, count) in [
            ("attn.qkv.weight", "attn.qkv.weight", 0, 1),
            ("attention.v_proj.bias", "attn.qkv.bias", 2, 3),
            ("attn.v_bias", "attn.qkv.bias", 2, 3),
            ("mlp.up_proj.weight", "mlp.w12.weight", 1, 2),
            ("layer_scale1.lambda1", "ls1.gamma", 0, 1),
            ("gamma_2", "ls2.gamma", 0, 1),
            ("layernorm_after.bias", "norm2.bias", 0, 1),
            ("output.dense.weight", "mlp.fc2.weight", 0, 1),
            ("mlp.fc1_x.weight", "mlp.w12.weight", 1, 2),
        ] {
            let expected = Part::new(hub.to_owned(), index, count);
            assert_eq!(in_block(name), Some(expected), "{name}");
        }
        for name in ["attn.q_norm.weight", "attn.qkv.lora_A", "gamma_3", "mlp"] {
            assert_eq!(in_block(name), None, "{name}");
        }
        let registers = outside_block("reg_token").expect("timm's registers");
        assert_eq!(registers.name, "register_tokens");
    }
}
