//! From pixels to tokens: patch projection, positions, CLS and registers.

use super::builder::{Rotations, VitBuilder};
use crate::{
    error::Result,
    model::{Architecture, Normalization, PositionEncoding, Positions},
    onnx::{
        Dialect, Precision,
        graph::{
            Attribute::{Int, Ints},
            Side::{Fixed, Varies},
            Value,
        },
        metadata,
        proto::DataType,
    },
};

impl VitBuilder<'_> {
    /// Builds the tokens of the first block, `[batch, tokens, dim]`.
    pub(super) fn embed(&mut self) -> Result<Value> {
        let Architecture { dim, registers, .. } = *self.architecture;
        let shape = [Varies("batch"), Varies("height"), Varies("width"), Fixed(3)];
        let pixels = self.graph.input("pixels", DataType::Uint8, &shape);
        let positions = self.positions()?;

        let patches = self.patchify(&pixels);
        let (weight, bias) = self.folded_projection()?;
        // Always f32: with the normalization folded in, its values would be subnormal in f16.
        let weight = self.graph.weight(
            "patch_embed.weight",
            DataType::Float,
            &[weight.len() / dim, dim],
            &weight,
        )?;
        let bias = self
            .graph
            .weight("patch_embed.bias", DataType::Float, &[dim], &bias)?;
        let patches = self.graph.node("MatMul", &[&patches, &weight], &[]);
        let patches = self.graph.node("Add", &[&patches, &bias], &[]);
        let cls = self.token_weight("cls_token", 1)?;
        let (cls, patches) = match &positions {
            Some(table) => {
                let of_patches = self.rows(table, 1, i64::MAX);
                let of_cls = self.rows(table, 0, 1);
                let graph = &mut self.graph;
                (
                    graph.node("Add", &[&cls, &of_cls], &[]),
                    graph.node("Add", &[&patches, &of_patches], &[]),
                )
            }
            None => (cls, patches),
        };
        let mut parts = vec![self.for_each_image(&pixels, &cls, 1)];
        if registers > 0 {
            let tokens = self.token_weight("register_tokens", registers)?;
            parts.push(self.for_each_image(&pixels, &tokens, registers));
        }
        parts.push(patches);
        let tokens = self.concat(&parts, 1);
        Ok(match self.conversion.precision {
            Precision::Fp16 => self.cast(&tokens, DataType::Float16),
            _ => tokens,
        })
    }

    /// Declares the input of positions: returns the table that is added to the tokens, or keeps the
    /// rotations for the blocks.
    fn positions(&mut self) -> Result<Option<Value>> {
        let kind = self.architecture.positions;
        let name = PositionEncoding::input_name_of(kind);
        match kind {
            Positions::Learned => {
                let dim = self.architecture.dim;
                let shape = [Fixed(1), Varies("1 + patches"), Fixed(dim)];
                let input = self.graph.input(name, DataType::Float, &shape);
                let (rows, _) = self.architecture.position_table_shape();
                let shape = [1, rows, dim];
                let table = self.reader.read("pos_embed", &shape)?;
                self.store_table(&input, &shape, &table)?;
                Ok(Some(input))
            }
            Positions::Rope => {
                let half = self.architecture.head_dim() / 2;
                let shape = [Fixed(2), Varies("tokens"), Fixed(half)];
                let input = self.graph.input(name, DataType::Float, &shape);
                let periods = self.reader.rope_periods(self.architecture)?;
                let text = serde_json::to_string(&periods).expect("numbers are plain data");
                self.positions_entry = Some((metadata::ROPE_PERIODS, text));
                self.rotations = Some(self.rotations_of(&input));
                Ok(None)
            }
        }
    }

    /// Splits the input of rotations, once for all blocks.
    fn rotations_of(&mut self, input: &Value) -> Rotations {
        let input = match self.conversion.precision {
            Precision::Fp16 => self.cast(input, DataType::Float16),
            _ => input.clone(),
        };
        let [cos, sin]: [Value; 2] = self.graph.nodes(
            "",
            "Split",
            &[&input],
            &[("axis", Int(0)), ("num_outputs", Int(2))],
        );
        let mut shaped = |half: &Value| {
            let axis = self.graph.integers(&[0]);
            let half = self.graph.node("Squeeze", &[half, &axis], &[]);
            match self.conversion.dialect {
                Dialect::Fused => half,
                Dialect::Plain => {
                    let axis = self.graph.integers(&[1]);
                    self.graph.node("Unsqueeze", &[&half, &axis], &[])
                }
            }
        };
        Rotations {
            cos: shaped(&cos),
            sin: shaped(&sin),
        }
    }

    /// Stores the position table, from which the server interpolates that of a grid. The plain
    /// dialect has it in the data file: OpenVINO takes an input with a default for a constant.
    fn store_table(&mut self, input: &Value, shape: &[usize], table: &[f32]) -> Result<()> {
        match self.conversion.dialect {
            Dialect::Fused => self.graph.default_input(input, shape, table),
            Dialect::Plain => {
                let bytes: &[u8] = bytemuck::cast_slice(table);
                let offset = self.graph.append(bytes)?;
                let place = format!("{offset}+{}", bytes.len());
                self.positions_entry = Some((metadata::POSITIONS, place));
            }
        }
        Ok(())
    }

    /// Cuts the image into patches: `[batch, patches, patch · patch · 3]` f32, the bytes of a patch
    /// in rows, ready for one matrix product.
    fn patchify(&mut self, pixels: &Value) -> Value {
        let patch = self.architecture.patch.pixels() as i64;
        let graph = &mut self.graph;
        let side = graph.integers(&[patch]);
        let patch_row = graph.integers(&[3 * patch]);
        let patch = graph.integers(&[3 * patch * patch]);
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

    /// Folds the normalization into the patch projection, in f64:
    /// `w·((x/255 − mean)/std) + b = (w/(255·std))·x + (b − Σ w·mean/std)`.
    /// Returns the weight `[patch · patch · 3, dim]` (row, column, channel) and the bias `[dim]`.
    fn folded_projection(&mut self) -> Result<(Vec<f32>, Vec<f32>)> {
        let dim = self.architecture.dim;
        let patch = self.architecture.patch.pixels();
        let Normalization { mean, std } = self.architecture.normalization;
        let weight = self
            .reader
            .read("patch_embed.proj.weight", &[dim, 3, patch, patch])?;
        let bias = self.reader.read("patch_embed.proj.bias", &[dim])?;
        let mut folded = vec![0.0; weight.len()];
        let mut folded_bias: Vec<f64> = bias.iter().map(|&b| f64::from(b)).collect();
        for (output, filter) in weight.chunks(3 * patch * patch).enumerate() {
            for (channel, plane) in filter.chunks(patch * patch).enumerate() {
                for (position, &w) in plane.iter().enumerate() {
                    folded[(position * 3 + channel) * dim + output] =
                        (f64::from(w) / (255.0 * std[channel])) as f32;
                    folded_bias[output] -= f64::from(w) * mean[channel] / std[channel];
                }
            }
        }
        let bias = folded_bias.into_iter().map(|b| b as f32).collect();
        Ok((folded, bias))
    }

    /// Reads `count` trained tokens, `[1, count, dim]`.
    fn token_weight(&mut self, name: &str, count: usize) -> Result<Value> {
        let shape = [1, count, self.architecture.dim];
        let tokens = self.reader.read(name, &shape)?;
        self.graph.weight(name, DataType::Float, &shape, &tokens)
    }

    /// Repeats `[1, count, dim]` for each image of the batch.
    fn for_each_image(&mut self, pixels: &Value, tokens: &Value, count: usize) -> Value {
        let graph = &mut self.graph;
        let batch = graph.node("Shape", &[pixels], &[("start", Int(0)), ("end", Int(1))]);
        let rest = graph.integers(&[count as i64, self.architecture.dim as i64]);
        let shape = graph.node("Concat", &[&batch, &rest], &[("axis", Int(0))]);
        graph.node("Expand", &[tokens, &shape], &[])
    }
}
