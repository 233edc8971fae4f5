//! The graph under construction, and the operations that its parts share.

use half::f16;

use super::reader::Reader;
use crate::{
    error::Result,
    model::Architecture,
    onnx::{
        Conversion, Precision,
        graph::{
            Attribute::{Float, Int},
            GraphBuilder, Value,
        },
        proto::DataType,
        quantize::{Quantized, quantize},
        weights::transpose,
    },
};

/// A vision transformer under construction.
pub(super) struct VitBuilder<'a> {
    pub(super) architecture: &'a Architecture,
    pub(super) conversion: Conversion,
    pub(super) reader: Reader<'a>,
    pub(super) graph: GraphBuilder<'a>,
    pub(super) last_quantized: Option<QuantizedTokens>,
    /// Metadata entry from which the server computes the positions of a grid, if there is one.
    pub(super) positions_entry: Option<(&'static str, String)>,
    /// Rotations of the tokens, if positions are rotary.
    pub(super) rotations: Option<Rotations>,
}

/// Rotations of queries and keys, for the fused operator `[tokens, head_dim / 2]`, for plain ones
/// `[tokens, 1, head_dim / 2]`, in the type that the blocks compute in.
#[derive(Clone)]
pub(super) struct Rotations {
    pub(super) cos: Value,
    pub(super) sin: Value,
}

/// Result of a residual branch: `output + bias` is added to the residual stream.
pub(super) struct Branch {
    pub(super) output: Value,
    pub(super) bias: Value,
}

/// The residual stream, and its LayerNorm for the next branch.
pub(super) struct Stream {
    pub(super) residual: Value,
    pub(super) normed: Value,
}

/// Scale and shift of a LayerNorm.
#[derive(Clone)]
pub(super) struct Norm {
    weight: Value,
    bias: Value,
}

/// Tokens as bytes over the range that they have in a run.
#[derive(Clone)]
pub(super) struct QuantizedTokens {
    /// The tokens as floats.
    source: Value,
    /// Bytes, scale and zero point.
    parts: [Value; 3],
}

impl VitBuilder<'_> {
    /// Computes `tokens · weightᵀ`, where `weight` is `[outputs, inputs]` as in checkpoints.
    pub(super) fn product(
        &mut self,
        tokens: &Value,
        name: &str,
        [outputs, inputs]: [usize; 2],
        weight: &[f32],
    ) -> Result<Value> {
        if self.conversion.precision == Precision::Int8 {
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
        let transposed = transpose(weight, outputs, inputs);
        let weight = self.weight(name, &[inputs, outputs], &transposed)?;
        Ok(self.graph.node("MatMul", &[tokens, &weight], &[]))
    }

    /// Quantizes tokens, once for all consecutive products of the same tokens.
    fn quantized(&mut self, tokens: &Value) -> [Value; 3] {
        match &self.last_quantized {
            Some(last) if last.source == *tokens => last.parts.clone(),
            _ => {
                let parts: [Value; 3] =
                    self.graph
                        .nodes("", "DynamicQuantizeLinear", &[tokens], &[]);
                self.last_quantized = Some(QuantizedTokens {
                    source: tokens.clone(),
                    parts: parts.clone(),
                });
                parts
            }
        }
    }

    /// Adds a constant in the type that the blocks compute in.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<Value> {
        match self.conversion.precision {
            Precision::Fp16 => {
                let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
                self.graph.weight(name, DataType::Float16, shape, &halves)
            }
            _ => self.graph.weight(name, DataType::Float, shape, values),
        }
    }

    /// Converts from the type that the blocks compute in to f32.
    pub(super) fn in_f32(&mut self, value: &Value) -> Value {
        match self.conversion.precision {
            Precision::Fp16 => self.cast(value, DataType::Float),
            _ => value.clone(),
        }
    }

    pub(super) fn cast(&mut self, value: &Value, kind: DataType) -> Value {
        self.graph
            .node("Cast", &[value], &[("to", Int(kind as i64))])
    }

    /// Reads scale and shift of the LayerNorm called `module`.
    pub(super) fn norm_weights(&mut self, module: &str) -> Result<Norm> {
        let dim = self.architecture.dim;
        let mut load = |leaf: &str| {
            let name = format!("{module}.{leaf}");
            let values = self.reader.read(&name, &[dim])?;
            self.weight(&name, &[dim], &values)
        };
        Ok(Norm {
            weight: load("weight")?,
            bias: load("bias")?,
        })
    }

    pub(super) fn norm(&mut self, tokens: &Value, Norm { weight, bias }: &Norm) -> Value {
        let epsilon = self.architecture.norm_eps;
        let attributes = [("epsilon", Float(epsilon)), ("axis", Int(-1))];
        self.graph
            .node("LayerNormalization", &[tokens, weight, bias], &attributes)
    }

    /// Adds a branch to the residual stream and normalizes the sum. Plain operators: the fused
    /// `SkipLayerNormalization` is slower on the CPU.
    pub(super) fn add_and_norm(
        &mut self,
        branch: &Branch,
        residual: &Value,
        norm: &Norm,
    ) -> Stream {
        let output = self.graph.node("Add", &[&branch.output, &branch.bias], &[]);
        let residual = self.graph.node("Add", &[&output, residual], &[]);
        Stream {
            normed: self.norm(&residual, norm),
            residual,
        }
    }

    /// Reads the LayerScale called `name`; ones if the architecture has none.
    pub(super) fn layer_scale(&mut self, name: &str) -> Result<Vec<f32>> {
        let dim = self.architecture.dim;
        if self.architecture.layer_scale {
            self.reader.read(&format!("{name}.gamma"), &[dim])
        } else {
            Ok(vec![1.0; dim])
        }
    }

    /// Takes tokens `from..to` of `[batch, tokens, …]`.
    pub(super) fn rows(&mut self, tokens: &Value, from: usize, to: i64) -> Value {
        let bounds = [from as i64, to, 1].map(|value| self.graph.integers(&[value]));
        let [from, to, axis] = &bounds;
        self.graph.node("Slice", &[tokens, from, to, axis], &[])
    }

    /// Joins values along axis `axis`.
    pub(super) fn concat(&mut self, parts: &[Value], axis: i64) -> Value {
        let parts: Vec<&Value> = parts.iter().collect();
        self.graph.node("Concat", &parts, &[("axis", Int(axis))])
    }
}

/// Multiplies row `i` of a matrix by `scale[i]`.
pub(super) fn scale_rows(matrix: &mut [f32], scale: &[f32]) {
    let columns = matrix.len() / scale.len();
    for (row, &scale) in matrix.chunks_mut(columns).zip(scale) {
        row.iter_mut().for_each(|value| *value *= scale);
    }
}
