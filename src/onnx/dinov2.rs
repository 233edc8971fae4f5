//! The DINOv2 graph: `pixels` and `pos_embed` in, every feature out of one forward pass.
//!
//! What differs from the published modules is arithmetic that does not change the result: the input
//! normalization is folded into the patch projection (exact, as that has no padding), LayerScale
//! into the projection before it, and the biases of k and v vanish or move. Attention and bias +
//! GELU are ONNX Runtime's fused operators.

use std::collections::BTreeMap;

use half::f16;
use sha2::{Digest, Sha256};

use super::{
    GRAPH_VERSION, Precision,
    graph::{
        Attribute::{Float, Int, Ints},
        ExternalData, GraphBuilder,
        Side::{Fixed, Varies},
        Value,
    },
    metadata,
    proto::DataType,
    quantize::{Quantized, quantize},
    weights::{Weights, transpose},
};
use crate::{
    error::Result,
    model::{Ffn, ModelSpec},
    vision::{MEAN, PATCH, STD},
};

const EPSILON: f32 = 1e-6;
/// Bytes of one row of a patch: 14 RGB pixels, which lie side by side in the image.
const PATCH_ROW: usize = PATCH * 3;

/// A built model.
#[derive(Debug)]
pub struct BuiltModel {
    /// The ONNX file.
    pub file: Vec<u8>,
    /// The fingerprint in its metadata: 64 hexadecimal digits.
    pub fingerprint: String,
}

/// Builds the graph of `spec` from `weights`; large tensors go to `data`. `progress` is told of
/// each finished block.
///
/// # Errors
/// [`crate::error::Kind::Artifact`] if a weight is missing, of another shape or too many,
/// [`crate::error::Kind::Io`] if `data` cannot be written.
pub fn build<'a>(
    spec: &'a ModelSpec,
    weights: &'a Weights,
    precision: Precision,
    data: ExternalData<'a>,
    progress: &mut dyn FnMut(usize),
) -> Result<BuiltModel> {
    weights.check(spec)?;
    let graph = GraphBuilder::new(&spec.name, data);
    let mut dinov2 = Dinov2 {
        spec,
        precision,
        last_quantized: None,
        reader: Reader::new(weights),
        graph,
    };
    dinov2.forward(progress)?;
    let fingerprint = dinov2.reader.fingerprint(spec, precision);
    let spec_json = serde_json::to_string(spec).expect("a model description is plain data");
    let entries = [
        (metadata::FINGERPRINT, fingerprint.clone()),
        (metadata::SPEC, spec_json),
        (metadata::PRECISION, precision.to_string()),
    ];
    let file = dinov2
        .graph
        .finish(entries.map(|(key, value)| (key.to_owned(), value)).to_vec());
    Ok(BuiltModel { file, fingerprint })
}

/// Reads weights by the hub's names and remembers the hash of each, whatever file they come from.
struct Reader<'a> {
    weights: &'a Weights,
    hashes: BTreeMap<String, [u8; 32]>,
}

impl<'a> Reader<'a> {
    fn new(weights: &'a Weights) -> Self {
        Self {
            weights,
            hashes: BTreeMap::new(),
        }
    }

    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.weights.read(name, shape)?;
        if !self.hashes.contains_key(name) {
            let mut hash = Sha256::new();
            hash.update(format!("{name} {shape:?}\n"));
            hash.update(bytemuck::cast_slice::<f32, u8>(&values));
            self.hashes.insert(name.to_owned(), hash.finalize().into());
        }
        Ok(values)
    }

    /// Does not depend on the order in which a graph reads its weights; what can change a feature
    /// otherwise is in the graph's version.
    fn fingerprint(&self, spec: &ModelSpec, precision: Precision) -> String {
        let mut hash = Sha256::new();
        // The architecture as far as the weights' shapes do not tell it.
        let (heads, ffn) = (spec.heads, spec.ffn);
        hash.update(format!(
            "dinoserve graph {GRAPH_VERSION} {precision} heads {heads} ffn {ffn:?}\n"
        ));
        self.hashes
            .values()
            .for_each(|of_tensor| hash.update(of_tensor));
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

struct Dinov2<'a> {
    spec: &'a ModelSpec,
    precision: Precision,
    last_quantized: Option<(Value, [Value; 3])>,
    reader: Reader<'a>,
    graph: GraphBuilder<'a>,
}

impl Dinov2<'_> {
    fn forward(&mut self, progress: &mut dyn FnMut(usize)) -> Result<()> {
        let ModelSpec {
            dim,
            depth,
            heads,
            registers,
            ..
        } = *self.spec;
        let mut residual = self.embed()?;
        let mut normed = self.layer_norm(&residual, "blocks.0.norm1")?;
        let mut intermediate = Vec::new();
        let final_norm = self.norm_weights("norm")?;
        let mut attention = None;
        for block in 0..depth {
            let last = block + 1 == depth;
            let (mixed, bias, row) = self.attention(&normed, block, last)?;
            attention = row;
            let norm2 = self.norm_weights(&format!("blocks.{block}.norm2"))?;
            (normed, residual) = self.add_and_norm(&mixed, &residual, &norm2, &bias);

            let (mixed, bias) = self.feed_forward(&normed, block)?;
            let next = if last {
                final_norm.clone()
            } else {
                self.norm_weights(&format!("blocks.{}.norm1", block + 1))?
            };
            (normed, residual) = self.add_and_norm(&mixed, &residual, &next, &bias);
            if block + self.spec.layers() >= depth {
                let tokens = if last {
                    normed.clone()
                } else {
                    self.norm(&residual, &final_norm)
                };
                intermediate.push(self.in_f32(&tokens));
            }
            progress(block + 1);
        }

        let (batch, patches) = (Varies("batch"), Varies("patches"));
        let float = DataType::Float;
        let normed = self.in_f32(&normed);
        let cls = self.cls(&normed);
        self.graph.output("cls", &cls, float, &[batch, Fixed(dim)]);
        let tokens = self.rows(&normed, 1 + registers, i64::MAX);
        self.graph.output(
            "patch_tokens",
            &tokens,
            float,
            &[batch, patches, Fixed(dim)],
        );
        if registers > 0 {
            let tokens = self.rows(&normed, 1, 1 + registers as i64);
            self.graph.output(
                "registers",
                &tokens,
                float,
                &[batch, Fixed(registers), Fixed(dim)],
            );
        }
        let attention = attention.expect("the last block gives the attention of CLS");
        self.graph.output(
            "attention",
            &attention,
            float,
            &[batch, Fixed(heads), Varies("tokens")],
        );
        let layers = Fixed(intermediate.len());
        let cls: Vec<Value> = intermediate
            .iter()
            .map(|tokens| self.rows(tokens, 0, 1))
            .collect();
        let cls = self.graph.node(
            "Concat",
            &cls.iter().collect::<Vec<_>>(),
            &[("axis", Int(1))],
        );
        self.graph
            .output("layers_cls", &cls, float, &[batch, layers, Fixed(dim)]);
        let axis = self.graph.integers(&[1]);
        let stacked: Vec<Value> = intermediate
            .iter()
            .map(|tokens| {
                let tokens = self.rows(tokens, 1 + registers, i64::MAX);
                self.graph.node("Unsqueeze", &[&tokens, &axis], &[])
            })
            .collect();
        let stacked = self.graph.node(
            "Concat",
            &stacked.iter().collect::<Vec<_>>(),
            &[("axis", Int(1))],
        );
        self.graph.output(
            "layers_patch",
            &stacked,
            float,
            &[batch, layers, patches, Fixed(dim)],
        );
        Ok(())
    }

    /// `[batch, tokens, dim]` from pixels: patches projected, positions added, CLS and registers in
    /// front.
    fn embed(&mut self) -> Result<Value> {
        let ModelSpec {
            dim,
            registers,
            native_grid,
            ..
        } = *self.spec;
        let shape = [Varies("batch"), Varies("height"), Varies("width"), Fixed(3)];
        let pixels = self.graph.input("pixels", DataType::Uint8, &shape);
        let positions = self.graph.input(
            "pos_embed",
            DataType::Float,
            &[Fixed(1), Varies("1 + patches"), Fixed(dim)],
        );
        let table_shape = [1, 1 + native_grid * native_grid, dim];
        let table = self.reader.read("pos_embed", &table_shape)?;
        self.graph.default_input(&positions, &table_shape, &table);

        let patches = self.patchify(&pixels);
        let (weight, bias) = self.folded_projection()?;
        // Always f32: with the normalization folded in, its values would be subnormal in f16.
        let weight = self.graph.weight(
            "patch_embed.weight",
            DataType::Float,
            &[PATCH * PATCH_ROW, dim],
            &weight,
        )?;
        let bias = self
            .graph
            .weight("patch_embed.bias", DataType::Float, &[dim], &bias)?;
        let patches = self.graph.node("MatMul", &[&patches, &weight], &[]);
        let patches = self.graph.node("Add", &[&patches, &bias], &[]);
        let patch_positions = self.rows(&positions, 1, i64::MAX);
        let patches = self.graph.node("Add", &[&patches, &patch_positions], &[]);

        let cls = self.reader.read("cls_token", &[1, 1, dim])?;
        let cls = self
            .graph
            .weight("cls_token", DataType::Float, &[1, 1, dim], &cls)?;
        let cls_position = self.rows(&positions, 0, 1);
        let cls = self.graph.node("Add", &[&cls, &cls_position], &[]);
        let mut parts = vec![self.for_each_image(&pixels, &cls, 1)];
        if registers > 0 {
            let tokens = self.reader.read("register_tokens", &[1, registers, dim])?;
            let tokens = self.graph.weight(
                "register_tokens",
                DataType::Float,
                &[1, registers, dim],
                &tokens,
            )?;
            parts.push(self.for_each_image(&pixels, &tokens, registers));
        }
        parts.push(patches);
        let tokens = self.graph.node(
            "Concat",
            &parts.iter().collect::<Vec<_>>(),
            &[("axis", Int(1))],
        );
        Ok(match self.precision {
            Precision::Fp16 => self.cast(&tokens, DataType::Float16),
            _ => tokens,
        })
    }

    /// `[batch, patches, 588]` f32: the bytes of a patch in rows, ready for one matrix product.
    fn patchify(&mut self, pixels: &Value) -> Value {
        let graph = &mut self.graph;
        let side = graph.integers(&[PATCH as i64]);
        let patch_row = graph.integers(&[PATCH_ROW as i64]);
        let patch = graph.integers(&[(PATCH * PATCH_ROW) as i64]);
        let rest = graph.integers(&[-1]);
        let batch = graph.node("Shape", &[pixels], &[("start", Int(0)), ("end", Int(1))]);
        let height = graph.node("Shape", &[pixels], &[("start", Int(1)), ("end", Int(2))]);
        let width = graph.node("Shape", &[pixels], &[("start", Int(2)), ("end", Int(3))]);
        let rows = graph.node("Div", &[&height, &side], &[]);
        let columns = graph.node("Div", &[&width, &side], &[]);
        let split = graph.node(
            "Concat",
            &[&batch, &rows, &side, &columns, &patch_row],
            &[("axis", Int(0))],
        );
        let split = graph.node("Reshape", &[pixels, &split], &[]);
        let grouped = graph.node("Transpose", &[&split], &[("perm", Ints(&[0, 1, 3, 2, 4]))]);
        let flat = graph.node("Concat", &[&batch, &rest, &patch], &[("axis", Int(0))]);
        let flat = graph.node("Reshape", &[&grouped, &flat], &[]);
        graph.node("Cast", &[&flat], &[("to", Int(DataType::Float as i64))])
    }

    /// The patch projection as a matrix `[588, dim]` over raw bytes (row, column, channel), and its
    /// bias: `w·((x/255 − mean)/std) + b = (w/(255·std))·x + (b − Σ w·mean/std)`, computed in f64.
    fn folded_projection(&mut self) -> Result<(Vec<f32>, Vec<f32>)> {
        let dim = self.spec.dim;
        let weight = self
            .reader
            .read("patch_embed.proj.weight", &[dim, 3, PATCH, PATCH])?;
        let bias = self.reader.read("patch_embed.proj.bias", &[dim])?;
        let mut folded = vec![0.0; weight.len()];
        let mut folded_bias: Vec<f64> = bias.iter().map(|&b| f64::from(b)).collect();
        for (output, filter) in weight.chunks(3 * PATCH * PATCH).enumerate() {
            for (channel, plane) in filter.chunks(PATCH * PATCH).enumerate() {
                for (position, &w) in plane.iter().enumerate() {
                    folded[(position * 3 + channel) * dim + output] =
                        (f64::from(w) / (255.0 * STD[channel])) as f32;
                    folded_bias[output] -= f64::from(w) * MEAN[channel] / STD[channel];
                }
            }
        }
        Ok((folded, folded_bias.into_iter().map(|b| b as f32).collect()))
    }

    /// Repeats `[1, count, dim]` for each image of the batch.
    fn for_each_image(&mut self, pixels: &Value, tokens: &Value, count: usize) -> Value {
        let batch = self
            .graph
            .node("Shape", &[pixels], &[("start", Int(0)), ("end", Int(1))]);
        let rest = self.graph.integers(&[count as i64, self.spec.dim as i64]);
        let shape = self
            .graph
            .node("Concat", &[&batch, &rest], &[("axis", Int(0))]);
        self.graph.node("Expand", &[tokens, &shape], &[])
    }

    /// Multi-head attention up to its output projection, that projection's bias, and in the `last`
    /// block the softmax row of CLS: `[batch, heads, tokens]`.
    ///
    /// Only q has its bias. That of k adds the same to all scores of a row, which the softmax
    /// cancels; that of v passes through the softmax unchanged, since its rows sum to 1, and is
    /// added behind the projection.
    fn attention(
        &mut self,
        normed: &Value,
        block: usize,
        last: bool,
    ) -> Result<(Value, Value, Option<Value>)> {
        let ModelSpec { dim, heads, .. } = *self.spec;
        let name = |tensor: &str| format!("blocks.{block}.attn.{tensor}");
        let weights = self.reader.read(&name("qkv.weight"), &[3 * dim, dim])?;
        let biases = self.reader.read(&name("qkv.bias"), &[3 * dim])?;
        let mut products = Vec::with_capacity(3);
        for (part, weight) in ["q.weight", "k.weight", "v.weight"]
            .iter()
            .zip(weights.chunks(dim * dim))
        {
            products.push(self.product(normed, &name(part), [dim, dim], weight)?);
        }
        let [q, k, v] = &products[..] else {
            unreachable!("three parts make three products")
        };
        let bias = self.weight(&name("q.bias"), &[dim], &biases[..dim])?;
        let q = self.graph.node("Add", &[q, &bias], &[]);
        let mixed = self.graph.fused(
            "MultiHeadAttention",
            &[&q, k, v],
            &[("num_heads", Int(heads as i64))],
        );
        let row = last.then(|| self.attention_of_cls(&q, k));

        let mut proj = self.reader.read(&name("proj.weight"), &[dim, dim])?;
        let mut bias = self.reader.read(&name("proj.bias"), &[dim])?;
        let scale = self
            .reader
            .read(&format!("blocks.{block}.ls1.gamma"), &[dim])?;
        for ((bias, row), scale) in bias.iter_mut().zip(proj.chunks(dim)).zip(&scale) {
            let of_v: f64 = row
                .iter()
                .zip(&biases[2 * dim..])
                .map(|(&w, &b)| f64::from(w) * f64::from(b))
                .sum();
            *bias = ((f64::from(*bias) + of_v) * f64::from(*scale)) as f32;
        }
        scale_rows(&mut proj, &scale);
        let bias = self.weight(&name("proj.bias"), &[dim], &bias)?;
        Ok((
            self.product(&mixed, &name("proj.weight"), [dim, dim], &proj)?,
            bias,
            row,
        ))
    }

    fn attention_of_cls(&mut self, q: &Value, k: &Value) -> Value {
        let (heads, head_dim) = (
            self.spec.heads as i64,
            (self.spec.dim / self.spec.heads) as i64,
        );
        let q = self.rows(q, 0, 1);
        let (q, k) = (self.in_f32(&q), self.in_f32(k));
        let graph = &mut self.graph;
        let split = graph.integers(&[0, 0, heads, head_dim]);
        let q = graph.node("Reshape", &[&q, &split], &[]);
        let q = graph.node("Transpose", &[&q], &[("perm", Ints(&[0, 2, 1, 3]))]);
        let k = graph.node("Reshape", &[&k, &split], &[]);
        let k = graph.node("Transpose", &[&k], &[("perm", Ints(&[0, 2, 3, 1]))]);
        let scale = graph.scalar((head_dim as f32).sqrt().recip());
        let q = graph.node("Mul", &[&q, &scale], &[]);
        let scores = graph.node("MatMul", &[&q, &k], &[]);
        let row = graph.node("Softmax", &[&scores], &[("axis", Int(-1))]);
        let axis = graph.integers(&[2]);
        graph.node("Squeeze", &[&row, &axis], &[])
    }

    /// The feed-forward network up to its last product, and that product's bias.
    fn feed_forward(&mut self, normed: &Value, block: usize) -> Result<(Value, Value)> {
        let ModelSpec {
            dim,
            ffn_hidden: hidden,
            ..
        } = *self.spec;
        let (first, second, wide) = match self.spec.ffn {
            Ffn::Mlp => ("mlp.fc1", "mlp.fc2", hidden),
            Ffn::Swiglu => ("mlp.w12", "mlp.w3", 2 * hidden),
        };
        let name = |tensor: &str| format!("blocks.{block}.{tensor}");
        let weight = self
            .reader
            .read(&name(&format!("{first}.weight")), &[wide, dim])?;
        let inner = self.product(
            normed,
            &name(&format!("{first}.weight")),
            [wide, dim],
            &weight,
        )?;
        let bias = self.reader.read(&name(&format!("{first}.bias")), &[wide])?;
        let bias = self.weight(&name(&format!("{first}.bias")), &[wide], &bias)?;
        let inner = match self.spec.ffn {
            Ffn::Mlp => self.graph.fused("BiasGelu", &[&inner, &bias], &[]),
            Ffn::Swiglu => {
                let inner = self.graph.node("Add", &[&inner, &bias], &[]);
                let split = [("axis", Int(-1)), ("num_outputs", Int(2))];
                let [gate, value] = self.graph.nodes("", "Split", &[&inner], &split);
                // silu(x) is QuickGelu with alpha 1.
                let gate = self
                    .graph
                    .fused("QuickGelu", &[&gate], &[("alpha", Float(1.0))]);
                self.graph.node("Mul", &[&gate, &value], &[])
            }
        };
        let mut out = self
            .reader
            .read(&name(&format!("{second}.weight")), &[dim, hidden])?;
        let mut bias = self.reader.read(&name(&format!("{second}.bias")), &[dim])?;
        let scale = self.reader.read(&name("ls2.gamma"), &[dim])?;
        scale_rows(&mut out, &scale);
        scale_rows(&mut bias, &scale);
        let bias = self.weight(&name(&format!("{second}.bias")), &[dim], &bias)?;
        Ok((
            self.product(
                &inner,
                &name(&format!("{second}.weight")),
                [dim, hidden],
                &out,
            )?,
            bias,
        ))
    }

    /// `tokens · weightᵀ`, where `weight` is `[outputs, inputs]` as checkpoints have it.
    fn product(
        &mut self,
        tokens: &Value,
        name: &str,
        [outputs, inputs]: [usize; 2],
        weight: &[f32],
    ) -> Result<Value> {
        if self.precision == Precision::Int8 {
            let Quantized { values, scales } = quantize(weight, outputs, inputs);
            let weight = self
                .graph
                .weight(name, DataType::Int8, &[inputs, outputs], &values)?;
            let scales = self.graph.weight(
                &format!("{name}.scale"),
                DataType::Float,
                &[outputs],
                &scales,
            )?;
            let [tokens, scale, zero] = self.quantized(tokens);
            return Ok(self.graph.fused(
                "MatMulIntegerToFloat",
                &[&tokens, &weight, &scale, &scales, &zero],
                &[],
            ));
        }
        let weight = self.weight(
            name,
            &[inputs, outputs],
            &transpose(weight, outputs, inputs),
        )?;
        Ok(self.graph.node("MatMul", &[tokens, &weight], &[]))
    }

    /// Tokens as bytes over the range that they have in this run, with its scale and zero point;
    /// once for all products of the same tokens.
    fn quantized(&mut self, tokens: &Value) -> [Value; 3] {
        match &self.last_quantized {
            Some((of, parts)) if of == tokens => parts.clone(),
            _ => {
                let parts: [Value; 3] =
                    self.graph
                        .nodes("", "DynamicQuantizeLinear", &[tokens], &[]);
                self.last_quantized = Some((tokens.clone(), parts.clone()));
                parts
            }
        }
    }

    /// A constant in the type that the blocks compute in.
    fn weight(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<Value> {
        match self.precision {
            Precision::Fp16 => {
                let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
                self.graph.weight(name, DataType::Float16, shape, &halves)
            }
            _ => self.graph.weight(name, DataType::Float, shape, values),
        }
    }

    fn in_f32(&mut self, value: &Value) -> Value {
        match self.precision {
            Precision::Fp16 => self.cast(value, DataType::Float),
            _ => value.clone(),
        }
    }

    fn cast(&mut self, value: &Value, kind: DataType) -> Value {
        self.graph
            .node("Cast", &[value], &[("to", Int(kind as i64))])
    }

    fn norm_weights(&mut self, module: &str) -> Result<[Value; 2]> {
        let dim = self.spec.dim;
        let mut load = |leaf: &str| {
            let name = format!("{module}.{leaf}");
            let values = self.reader.read(&name, &[dim])?;
            self.weight(&name, &[dim], &values)
        };
        Ok([load("weight")?, load("bias")?])
    }

    fn layer_norm(&mut self, tokens: &Value, module: &str) -> Result<Value> {
        let weights = self.norm_weights(module)?;
        Ok(self.norm(tokens, &weights))
    }

    fn norm(&mut self, tokens: &Value, [weight, bias]: &[Value; 2]) -> Value {
        let attributes = [("epsilon", Float(EPSILON)), ("axis", Int(-1))];
        self.graph
            .node("LayerNormalization", &[tokens, weight, bias], &attributes)
    }

    /// `sum = mixed + bias + residual`; gives `(LayerNorm(sum), sum)`. Plain operators: the fused
    /// `SkipLayerNormalization` is slower on the CPU.
    fn add_and_norm(
        &mut self,
        mixed: &Value,
        residual: &Value,
        norm: &[Value; 2],
        bias: &Value,
    ) -> (Value, Value) {
        let mixed = self.graph.node("Add", &[mixed, bias], &[]);
        let sum = self.graph.node("Add", &[&mixed, residual], &[]);
        (self.norm(&sum, norm), sum)
    }

    /// Tokens `from..to` of `[batch, tokens, …]`.
    fn rows(&mut self, tokens: &Value, from: usize, to: i64) -> Value {
        let bounds = [from as i64, to, 1].map(|value| self.graph.integers(&[value]));
        let [from, to, axis] = &bounds;
        self.graph.node("Slice", &[tokens, from, to, axis], &[])
    }

    /// `[batch, dim]`.
    fn cls(&mut self, tokens: &Value) -> Value {
        let row = self.rows(tokens, 0, 1);
        let axis = self.graph.integers(&[1]);
        self.graph.node("Squeeze", &[&row, &axis], &[])
    }
}

/// Multiplies row `i` of a matrix by `scale[i]`.
fn scale_rows(matrix: &mut [f32], scale: &[f32]) {
    let columns = matrix.len() / scale.len();
    for (row, &scale) in matrix.chunks_mut(columns).zip(scale) {
        row.iter_mut().for_each(|value| *value *= scale);
    }
}
