//! What the dialects write differently: attention and activations, fused or in plain operators.

use super::builder::{Rotations, VitBuilder};
use crate::onnx::{
    Dialect,
    graph::{
        Attribute::{Float, Int, Ints},
        Value,
    },
};

impl VitBuilder<'_> {
    /// Computes `softmax(q·kᵀ / √head_dim)·v` for each head: `[batch, tokens, dim]` from three of
    /// that shape.
    pub(super) fn multi_head_attention(&mut self, q: &Value, k: &Value, v: &Value) -> Value {
        let Dialect::Plain = self.conversion.dialect else {
            let heads = self.architecture.heads as i64;
            let attributes = [("num_heads", Int(heads))];
            return self
                .graph
                .fused("MultiHeadAttention", &[q, k, v], &attributes);
        };
        let q = self.by_head(q, [0, 2, 1, 3]);
        let k = self.by_head(k, [0, 2, 3, 1]);
        let v = self.by_head(v, [0, 2, 1, 3]);
        let scale = self.head_scale();
        let dim = self.architecture.dim as i64;
        let graph = &mut self.graph;
        let scores = graph.node("MatMul", &[&q, &k], &[]);
        let scores = graph.node("Mul", &[&scores, &scale], &[]);
        let shares = graph.node("Softmax", &[&scores], &[("axis", Int(-1))]);
        let mixed = graph.node("MatMul", &[&shares, &v], &[]);
        let mixed = graph.node("Transpose", &[&mixed], &[("perm", Ints(&[0, 2, 1, 3]))]);
        let joined = graph.integers(&[0, 0, dim]);
        graph.node("Reshape", &[&mixed, &joined], &[])
    }

    /// Rotates the channels `j` and `j + head_dim / 2` of each head: `[batch, tokens, dim]` of the
    /// same.
    pub(super) fn rotated(&mut self, tokens: &Value, rotations: &Rotations) -> Value {
        let Rotations { cos, sin } = rotations;
        let heads = self.architecture.heads as i64;
        let head_dim = self.architecture.head_dim() as i64;
        let graph = &mut self.graph;
        match self.conversion.dialect {
            Dialect::Fused => {
                // One position for all means that it is the first, and the others follow.
                let first = graph.integers(&[0]);
                let attributes = [
                    ("num_heads", Int(heads)),
                    ("rotary_embedding_dim", Int(head_dim)),
                ];
                graph.fused("RotaryEmbedding", &[tokens, &first, cos, sin], &attributes)
            }
            Dialect::Plain => {
                let split = graph.integers(&[0, 0, heads, head_dim]);
                let split = graph.node("Reshape", &[tokens, &split], &[]);
                let halves = [("axis", Int(-1)), ("num_outputs", Int(2))];
                let [a, b]: [Value; 2] = graph.nodes("", "Split", &[&split], &halves);
                let mut product = |x: &Value, y: &Value| graph.node("Mul", &[x, y], &[]);
                let [a_cos, b_sin] = [product(&a, cos), product(&b, sin)];
                let [b_cos, a_sin] = [product(&b, cos), product(&a, sin)];
                let first = graph.node("Sub", &[&a_cos, &b_sin], &[]);
                let second = graph.node("Add", &[&b_cos, &a_sin], &[]);
                let rotated = graph.node("Concat", &[&first, &second], &[("axis", Int(-1))]);
                let joined = graph.integers(&[0, 0, heads * head_dim]);
                graph.node("Reshape", &[&rotated, &joined], &[])
            }
        }
    }

    /// Splits `[batch, tokens, dim]` into heads and puts the axes `[batch, tokens, heads,
    /// head_dim]` in the order `axes`.
    pub(super) fn by_head(&mut self, tokens: &Value, axes: [i64; 4]) -> Value {
        let heads = self.architecture.heads;
        let head_dim = self.architecture.head_dim();
        let graph = &mut self.graph;
        let split = graph.integers(&[0, 0, heads as i64, head_dim as i64]);
        let split = graph.node("Reshape", &[tokens, &split], &[]);
        graph.node("Transpose", &[&split], &[("perm", Ints(&axes))])
    }

    /// Returns the constant `1 / √head_dim`.
    pub(super) fn head_scale(&mut self) -> Value {
        let head_dim = self.architecture.head_dim();
        self.graph.scalar((head_dim as f32).sqrt().recip())
    }

    /// Computes `gelu(tokens + bias)`, exact.
    pub(super) fn bias_gelu(&mut self, tokens: &Value, bias: &Value) -> Value {
        let graph = &mut self.graph;
        match self.conversion.dialect {
            Dialect::Fused => graph.fused("BiasGelu", &[tokens, bias], &[]),
            Dialect::Plain => {
                let sum = graph.node("Add", &[tokens, bias], &[]);
                graph.node("Gelu", &[&sum], &[])
            }
        }
    }

    /// Computes `x·sigmoid(x)`.
    pub(super) fn silu(&mut self, value: &Value) -> Value {
        let graph = &mut self.graph;
        match self.conversion.dialect {
            // QuickGelu with alpha 1.
            Dialect::Fused => graph.fused("QuickGelu", &[value], &[("alpha", Float(1.0))]),
            Dialect::Plain => {
                let gate = graph.node("Sigmoid", &[value], &[]);
                graph.node("Mul", &[value, &gate], &[])
            }
        }
    }
}
