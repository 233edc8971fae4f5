//! Multi-head self-attention.

use super::builder::{Branch, VitBuilder, scale_rows};
use crate::{
    error::Result,
    onnx::graph::{Attribute::Int, Value},
};

/// Result of an attention block.
pub(super) struct Attention {
    pub(super) branch: Branch,
    /// Softmax row of CLS, `[batch, heads, tokens]`, if it was requested.
    pub(super) cls_row: Option<Value>,
}

impl VitBuilder<'_> {
    /// Builds the attention of block `block` on its normalized tokens.
    ///
    /// The bias of v passes through the softmax unchanged, since its rows sum to 1, and is added
    /// after the projection. The bias of k adds the same to all scores of a row, which the softmax
    /// cancels, unless keys are rotated: then it is added, as q's is.
    pub(super) fn attention(
        &mut self,
        normed: &Value,
        block: usize,
        with_cls_row: bool,
    ) -> Result<Attention> {
        let dim = self.architecture.dim;
        let qkv_bias = self.architecture.qkv_bias;
        let name = |tensor: &str| format!("blocks.{block}.attn.{tensor}");
        let weights = self.reader.read(&name("qkv.weight"), &[3 * dim, dim])?;
        let qkv_biases = if qkv_bias {
            self.reader.read(&name("qkv.bias"), &[3 * dim])?
        } else {
            vec![0.0; 3 * dim]
        };
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
        let (of_q, others) = qkv_biases.split_at(dim);
        let (of_k, of_v) = others.split_at(dim);
        let mut q = self.biased(q, &name("q.bias"), of_q)?;
        let mut k = k.clone();
        if let Some(rotations) = self.rotations.clone() {
            k = self.biased(&k, &name("k.bias"), of_k)?;
            q = self.rotated(&q, &rotations);
            k = self.rotated(&k, &rotations);
        }
        let mixed = self.multi_head_attention(&q, &k, v);
        let cls_row = with_cls_row.then(|| self.cls_row(&q, &k));

        let mut proj = self.reader.read(&name("proj.weight"), &[dim, dim])?;
        let mut bias = self.reader.read(&name("proj.bias"), &[dim])?;
        let scale = self.layer_scale(&format!("blocks.{block}.ls1"))?;
        for ((bias, row), scale) in bias.iter_mut().zip(proj.chunks(dim)).zip(&scale) {
            let of_v: f64 = row
                .iter()
                .zip(of_v)
                .map(|(&w, &b)| f64::from(w) * f64::from(b))
                .sum();
            *bias = ((f64::from(*bias) + of_v) * f64::from(*scale)) as f32;
        }
        scale_rows(&mut proj, &scale);
        let bias = self.weight(&name("proj.bias"), &[dim], &bias)?;
        let output = self.product(&mixed, &name("proj.weight"), [dim, dim], &proj)?;
        Ok(Attention {
            branch: Branch { output, bias },
            cls_row,
        })
    }

    /// Adds a bias, unless it is zero.
    fn biased(&mut self, tokens: &Value, name: &str, bias: &[f32]) -> Result<Value> {
        if bias.iter().all(|value| *value == 0.0) {
            return Ok(tokens.clone());
        }
        let bias = self.weight(name, &[bias.len()], bias)?;
        Ok(self.graph.node("Add", &[tokens, &bias], &[]))
    }

    /// Computes the softmax row of CLS, which the fused operator does not output.
    fn cls_row(&mut self, q: &Value, k: &Value) -> Value {
        let q = self.rows(q, 0, 1);
        let q = self.in_f32(&q);
        let k = self.in_f32(k);
        let q = self.by_head(&q, [0, 2, 1, 3]);
        let k = self.by_head(&k, [0, 2, 3, 1]);
        let scale = self.head_scale();
        let graph = &mut self.graph;
        let q = graph.node("Mul", &[&q, &scale], &[]);
        let scores = graph.node("MatMul", &[&q, &k], &[]);
        let row = graph.node("Softmax", &[&scores], &[("axis", Int(-1))]);
        let axis = graph.integers(&[2]);
        graph.node("Squeeze", &[&row, &axis], &[])
    }
}
