//! The feed-forward network.

use super::builder::{Branch, VitBuilder, scale_rows};
use crate::{
    error::Result,
    model::Ffn,
    onnx::graph::{Attribute::Int, Value},
};

impl VitBuilder<'_> {
    /// Builds the feed-forward network of block `block` on its normalized tokens.
    pub(super) fn feed_forward(&mut self, normed: &Value, block: usize) -> Result<Branch> {
        let dim = self.architecture.dim;
        let ffn = self.architecture.ffn;
        let hidden = self.architecture.ffn_hidden;
        let (first, second, wide) = match ffn {
            Ffn::Mlp => ("mlp.fc1", "mlp.fc2", hidden),
            Ffn::Swiglu => ("mlp.w12", "mlp.w3", 2 * hidden),
        };
        let weight_of = |module: &str| format!("blocks.{block}.{module}.weight");
        let bias_of = |module: &str| format!("blocks.{block}.{module}.bias");

        let weight = self.reader.read(&weight_of(first), &[wide, dim])?;
        let inner = self.product(normed, &weight_of(first), [wide, dim], &weight)?;
        let bias = self.reader.read(&bias_of(first), &[wide])?;
        let bias = self.weight(&bias_of(first), &[wide], &bias)?;
        let inner = match ffn {
            Ffn::Mlp => self.bias_gelu(&inner, &bias),
            Ffn::Swiglu => {
                let inner = self.graph.node("Add", &[&inner, &bias], &[]);
                let split = [("axis", Int(-1)), ("num_outputs", Int(2))];
                let [gate, value] = self.graph.nodes("", "Split", &[&inner], &split);
                let gate = self.silu(&gate);
                self.graph.node("Mul", &[&gate, &value], &[])
            }
        };

        let mut weight = self.reader.read(&weight_of(second), &[dim, hidden])?;
        let mut bias = self.reader.read(&bias_of(second), &[dim])?;
        let scale = self.layer_scale(&format!("blocks.{block}.ls2"))?;
        scale_rows(&mut weight, &scale);
        scale_rows(&mut bias, &scale);
        let bias = self.weight(&bias_of(second), &[dim], &bias)?;
        let output = self.product(&inner, &weight_of(second), [dim, hidden], &weight)?;
        Ok(Branch { output, bias })
    }
}
