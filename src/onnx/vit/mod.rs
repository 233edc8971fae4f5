//! The graph of a vision transformer: `pixels` and positions in, every feature out of one forward
//! pass.
//!
//! Positions are `pos_embed`, which is added to the tokens, or `rope`, which rotates queries and
//! keys. The graph differs from the published modules by rewritings that do not change the result.
//! The input normalization is folded into the patch projection (exact, as that has no padding), and
//! LayerScale into the projection before it. The bias of v moves, and that of k vanishes unless
//! positions are rotary. `operators`
//! writes what the dialects write differently: attention and activations.

mod attention;
mod builder;
mod embed;
mod ffn;
mod operators;
mod reader;

pub use self::reader::GRAPH_VERSION;
use self::{
    attention::Attention,
    builder::{Stream, VitBuilder},
    reader::Reader,
};
use super::{
    Conversion,
    graph::{
        ExternalData, GraphBuilder,
        Side::{self, Fixed, Varies},
        Value,
    },
    metadata,
    proto::DataType,
    weights::Weights,
};
use crate::{error::Result, model::ModelSpec};

/// A built model.
#[derive(Debug)]
pub struct BuiltModel {
    /// The ONNX file.
    pub file: Vec<u8>,
    /// The fingerprint in its metadata: 64 hexadecimal digits.
    pub fingerprint: String,
}

/// Builds the graph of `spec` from `weights`; large tensors go to `data`. `progress` is called with
/// the number of finished blocks after each.
///
/// # Errors
/// [`crate::error::Kind::Artifact`] if a weight is missing, has another shape or does not belong to
/// the model, [`crate::error::Kind::Io`] if `data` cannot be written.
pub fn build<'a>(
    spec: &'a ModelSpec,
    weights: &'a Weights,
    conversion: impl Into<Conversion>,
    data: ExternalData<'a>,
    progress: &mut dyn FnMut(usize),
) -> Result<BuiltModel> {
    weights.check(spec)?;
    let conversion = conversion.into();
    let mut vit = VitBuilder {
        architecture: &spec.architecture,
        conversion,
        reader: Reader::new(weights),
        graph: GraphBuilder::new(&spec.name, data),
        last_quantized: None,
        positions_entry: None,
        rotations: None,
    };
    let tokens = vit.blocks(progress)?;
    vit.outputs(&tokens);
    let Conversion { precision, dialect } = conversion;
    let fingerprint = vit.reader.fingerprint(&spec.architecture, precision);
    let spec_json = serde_json::to_string(spec).expect("a model description is plain data");
    let mut entries = vec![
        (metadata::FINGERPRINT, fingerprint.clone()),
        (metadata::SPEC, spec_json),
        (metadata::PRECISION, precision.to_string()),
        (metadata::DIALECT, dialect.to_string()),
    ];
    entries.extend(vit.positions_entry);
    let entries = entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    let file = vit.graph.finish(entries.collect());
    Ok(BuiltModel { file, fingerprint })
}

/// Tokens and attention after the last block.
struct Tokens {
    /// `[batch, tokens, dim]` f32, after the final norm.
    normed: Value,
    /// The same of each of the last blocks.
    layers: Vec<Value>,
    /// `[batch, heads, tokens]`.
    attention: Value,
}

impl VitBuilder<'_> {
    fn blocks(&mut self, progress: &mut dyn FnMut(usize)) -> Result<Tokens> {
        let depth = self.architecture.depth;
        let residual = self.embed()?;
        let norm = self.norm_weights("blocks.0.norm1")?;
        let mut stream = Stream {
            normed: self.norm(&residual, &norm),
            residual,
        };
        let mut layers = Vec::new();
        let final_norm = self.norm_weights("norm")?;
        let mut attention = None;
        for block in 0..depth {
            let last = block + 1 == depth;
            let Attention { branch, cls_row } = self.attention(&stream.normed, block, last)?;
            attention = cls_row;
            let norm2 = self.norm_weights(&format!("blocks.{block}.norm2"))?;
            stream = self.add_and_norm(&branch, &stream.residual, &norm2);

            let branch = self.feed_forward(&stream.normed, block)?;
            let next = if last {
                final_norm.clone()
            } else {
                self.norm_weights(&format!("blocks.{}.norm1", block + 1))?
            };
            stream = self.add_and_norm(&branch, &stream.residual, &next);
            if block + self.architecture.layers() >= depth {
                let tokens = if last {
                    stream.normed.clone()
                } else {
                    self.norm(&stream.residual, &final_norm)
                };
                layers.push(self.in_f32(&tokens));
            }
            progress(block + 1);
        }
        Ok(Tokens {
            normed: self.in_f32(&stream.normed),
            layers,
            attention: attention.expect("the last block gives the attention of CLS"),
        })
    }

    fn outputs(&mut self, tokens: &Tokens) {
        let dim = Fixed(self.architecture.dim);
        let registers = self.architecture.registers;
        let prefix = self.architecture.prefix_tokens();
        let batch = Varies("batch");
        let patches = Varies("patches");

        let cls = self.rows(&tokens.normed, 0, 1);
        let axis = self.graph.integers(&[1]);
        let cls = self.graph.node("Squeeze", &[&cls, &axis], &[]);
        self.output("cls", &cls, &[batch, dim]);
        let patch_tokens = self.rows(&tokens.normed, prefix, i64::MAX);
        self.output("patch_tokens", &patch_tokens, &[batch, patches, dim]);
        if registers > 0 {
            let tokens = self.rows(&tokens.normed, 1, prefix as i64);
            self.output("registers", &tokens, &[batch, Fixed(registers), dim]);
        }
        let shape = [batch, Fixed(self.architecture.heads), Varies("tokens")];
        self.output("attention", &tokens.attention, &shape);

        let layers = Fixed(tokens.layers.len());
        let cls: Vec<Value> = tokens
            .layers
            .iter()
            .map(|tokens| self.rows(tokens, 0, 1))
            .collect();
        let cls = self.concat(&cls, 1);
        self.output("layers_cls", &cls, &[batch, layers, dim]);
        let axis = self.graph.integers(&[1]);
        let stacked: Vec<Value> = tokens
            .layers
            .iter()
            .map(|tokens| {
                let tokens = self.rows(tokens, prefix, i64::MAX);
                self.graph.node("Unsqueeze", &[&tokens, &axis], &[])
            })
            .collect();
        let stacked = self.concat(&stacked, 1);
        let shape = [batch, layers, patches, dim];
        self.output("layers_patch", &stacked, &shape);
    }

    fn output(&mut self, name: &str, value: &Value, shape: &[Side<'_>]) {
        self.graph.output(name, value, DataType::Float, shape);
    }
}
