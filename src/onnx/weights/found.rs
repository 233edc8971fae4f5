//! The architecture that the shapes of weights suggest, and how it differs from a description.

use std::fmt;

use super::{
    parts::{Named, shape},
    positions::Coverage,
};
use crate::model::{Catalog, Ffn, ModelSpec, Positions};

/// Letters of ViT sizes by their width.
const SIZES: [(usize, &str); 7] = [
    (192, "-Ti"),
    (384, "-S"),
    (768, "-B"),
    (1024, "-L"),
    (1280, "-H"),
    (1536, "-g"),
    (4096, "-7B"),
];

/// What the shapes of a file say; `None` where a tensor is absent or has an unusual shape.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    dim: Option<usize>,
    patch: Option<usize>,
    depth: usize,
    registers: usize,
    ffn: Option<(Ffn, usize)>,
    /// Number of rows of the position table.
    pub(super) position_rows: Option<usize>,
    layer_scale: bool,
    qkv_bias: bool,
}

impl Found {
    pub(super) fn of(tensors: &Named) -> Self {
        let last_but_one = |name: &str| {
            let shape = shape(tensors, name)?;
            shape.len().checked_sub(2).map(|axis| shape[axis])
        };
        let patches = shape(tensors, "patch_embed.proj.weight");
        let (dim, patch) = match patches.as_deref() {
            Some(&[dim, 3, height, width]) if height == width => (Some(dim), Some(height)),
            _ => (None, None),
        };
        let inner = |name| last_but_one(&format!("blocks.0.mlp.{name}.weight"));
        let has = |name| tensors.contains_key(name);
        let numbers = tensors.keys().filter_map(|name| {
            let (number, _) = name.strip_prefix("blocks.")?.split_once('.')?;
            number.parse::<usize>().ok()
        });
        Self {
            dim,
            patch,
            depth: numbers.max().map_or(0, |last| last.saturating_add(1)),
            registers: last_but_one("register_tokens").unwrap_or(0),
            ffn: inner("w12")
                .map(|wide| (Ffn::Swiglu, wide / 2))
                .or_else(|| inner("fc1").map(|hidden| (Ffn::Mlp, hidden))),
            position_rows: last_but_one("pos_embed"),
            layer_scale: has("blocks.0.ls1.gamma"),
            qkv_bias: has("blocks.0.attn.qkv.bias"),
        }
    }

    /// Returns the tokens that the position table covers, and the side of its grid.
    pub(super) fn positions(&self) -> Option<(Coverage, usize)> {
        Coverage::of(self.position_rows?, self.registers)
    }

    /// Returns the kind of position encoding. Weights of models with rotary positions may have
    /// nothing of it.
    pub(super) fn position_encoding(&self) -> Positions {
        match self.position_rows {
            Some(_) => Positions::Learned,
            None => Positions::Rope,
        }
    }

    /// Returns the fields of a description that these weights need and that differ, as
    /// `(needed, described)` in the syntax of the description.
    pub(super) fn differences(&self, spec: &ModelSpec) -> Vec<(String, String)> {
        let expected = &spec.architecture;
        let (ffn, hidden) = self.ffn.unzip();
        let sizes = [
            ("dim", self.dim, expected.dim),
            ("depth", Some(self.depth), expected.depth),
            ("registers", Some(self.registers), expected.registers),
            ("patch", self.patch, expected.patch.pixels()),
            (
                "native_grid",
                self.positions().map(|(_, grid)| grid),
                expected.native_grid,
            ),
            ("ffn_hidden", hidden, expected.ffn_hidden),
        ];
        // Biases that are 0 are left out in some files of models with rotary positions.
        let qkv_bias = self.qkv_bias || expected.has_rope() && expected.qkv_bias;
        let flags = [
            ("layer_scale", self.layer_scale, expected.layer_scale),
            ("qkv_bias", qkv_bias, expected.qkv_bias),
        ];
        let text = |key: &str, found: String, described: String| {
            (format!("{key} = {found}"), format!("{key} = {described}"))
        };
        let sizes = sizes.into_iter().filter_map(|(key, found, described)| {
            let found = found.filter(|found| *found != described)?;
            Some(text(key, found.to_string(), described.to_string()))
        });
        let ffn = ffn.filter(|ffn| *ffn != expected.ffn);
        let ffn = ffn.map(|ffn| {
            let quoted = |ffn: Ffn| format!("\"{ffn}\"");
            text("ffn", quoted(ffn), quoted(expected.ffn))
        });
        let positions = self.position_encoding();
        let positions = (positions != expected.positions).then(|| {
            let quoted = |positions: Positions| format!("\"{positions}\"");
            text("positions", quoted(positions), quoted(expected.positions))
        });
        let flags = flags
            .into_iter()
            .filter(|(_, found, described)| found != described)
            .map(|(key, found, described)| text(key, found.to_string(), described.to_string()));
        sizes.chain(ffn).chain(positions).chain(flags).collect()
    }

    /// Returns the names of the known models of this architecture.
    pub(super) fn known_as(&self) -> Vec<String> {
        let catalog = Catalog::built_in().ok();
        catalog
            .iter()
            .flat_map(Catalog::iter)
            .filter(|spec| spec.sources.iter().any(|source| source.url.is_some()))
            .filter(|spec| self.differences(spec).is_empty())
            .map(|spec| spec.name.clone())
            .collect()
    }
}

/// As in "ViT-B/14 with 4 registers, 12 blocks, width 768".
impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = SIZES.iter().find(|(width, _)| Some(*width) == self.dim);
        write!(f, "ViT{}", size.map_or("", |(_, letter)| letter))?;
        if let Some(patch) = self.patch {
            write!(f, "/{patch}")?;
        }
        match self.registers {
            0 => {}
            1 => write!(f, " with 1 register")?,
            count => write!(f, " with {count} registers")?,
        }
        write!(f, ", {} blocks", self.depth)?;
        if let Some(dim) = self.dim {
            write!(f, ", width {dim}")?;
        }
        Ok(())
    }
}
