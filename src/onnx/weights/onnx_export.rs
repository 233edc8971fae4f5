//! ONNX exports of Hugging Face's `Dinov2Model` (made by `torch.onnx.export`).
//!
//! Initializers keep their Hugging Face names, with two exceptions. Linear layers are constants
//! named by number; the name of the `MatMul` node that uses one is the module's path, and the
//! matrix is stored transposed. A position table that the exporter folded is split into the CLS row
//! and the patch rows, which are found by their shapes and consumers.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use super::{Dtype, RawTensor, TensorMap, hugging_face};
use crate::{
    error::{Error, Result},
    onnx::proto::{DataType, EXTERNAL, GraphProto, ModelProto, TensorProto},
};

/// Class token, which is at the same place in every export that is read.
const CLS_TOKEN: &str = "embeddings.cls_token";
/// Tensors that every model has outside of its blocks, under the hub's names.
const OUTSIDE: [&str; 4] = [
    "pos_embed",
    "patch_embed.proj.weight",
    "norm.weight",
    "norm.bias",
];
/// Tensors that every block has, under the hub's names.
const IN_BLOCK: [&str; 8] = [
    "norm1.weight",
    "norm1.bias",
    "attn.qkv.weight",
    "attn.proj.weight",
    "ls1.gamma",
    "norm2.weight",
    "norm2.bias",
    "ls2.gamma",
];

/// Reads the weights of an ONNX export under Hugging Face's names.
///
/// # Errors
/// [`crate::error::Kind::Artifact`] if the file is not an ONNX model, its weights are in another
/// file, or some are absent: other exporters merge equal tensors, fold constants or rename them.
pub fn read_onnx_export(file: Bytes) -> Result<TensorMap> {
    let model = ModelProto::decode(file)
        .map_err(|error| Error::artifact(format!("not a valid ONNX file: {error}")))?;
    let graph = model
        .graph
        .ok_or_else(|| Error::artifact("the ONNX file contains no graph"))?;
    let mut tensors = TensorMap::new();
    for initializer in &graph.initializer {
        if let Some(tensor) = raw(initializer)? {
            tensors.insert(initializer.name.clone(), tensor);
        }
    }
    name_linear_layers(&graph, &mut tensors);
    join_position_table(&graph, &mut tensors);
    check_complete(&tensors)?;
    Ok(tensors)
}

/// Rejects an export without the names of a whole model. The architecture that the other names
/// suggest would be wrong.
fn check_complete(tensors: &TensorMap) -> Result<()> {
    let absent = |name: &str| Error::artifact(format!("the ONNX file has no tensor {name}"));
    let prefix = tensors
        .keys()
        .find_map(|name| name.strip_suffix(CLS_TOKEN))
        .ok_or_else(|| absent(CLS_TOKEN))?;
    let layers = format!("{prefix}encoder.layer.");
    let block_of = |name: &String| {
        let (number, _) = name.strip_prefix(&layers)?.split_once('.')?;
        number.parse::<usize>().ok()
    };
    let blocks: BTreeSet<usize> = tensors.keys().filter_map(block_of).collect();
    let in_blocks = blocks
        .iter()
        .flat_map(|block| IN_BLOCK.map(|name| format!("blocks.{block}.{name}")));
    for hub in OUTSIDE.map(str::to_owned).into_iter().chain(in_blocks) {
        for name in hugging_face(&hub).unwrap_or_default() {
            let name = format!("{prefix}{name}");
            if !tensors.contains_key(&name) {
                return Err(absent(&name));
            }
        }
    }
    // Of the layers that not every model has, at least the biases keep their names.
    let mut modules = tensors
        .keys()
        .filter_map(|name| name.strip_suffix(".bias"))
        .filter(|module| module.starts_with(&layers));
    let weight = modules.find_map(|module| {
        let weight = format!("{module}.weight");
        (!tensors.contains_key(&weight)).then_some(weight)
    });
    weight.map_or(Ok(()), |weight| Err(absent(&weight)))
}

/// Converts an initializer; `None` if its type is not that of a weight.
fn raw(tensor: &TensorProto) -> Result<Option<RawTensor>> {
    let dtype = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => Dtype::F32,
        Ok(DataType::Float16) => Dtype::F16,
        Ok(DataType::Bfloat16) => Dtype::Bf16,
        _ => return Ok(None),
    };
    if tensor.data_location == EXTERNAL {
        let detail = format!(
            "tensor {} is stored in another file; export the model to one file",
            tensor.name
        );
        return Err(Error::artifact(detail));
    }
    let shape = tensor
        .dims
        .iter()
        .map(|&side| usize::try_from(side).unwrap_or(0))
        .collect();
    let data = if tensor.float_data.is_empty() {
        tensor.raw_data.clone()
    } else {
        tensor
            .float_data
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    };
    RawTensor::new(&tensor.name, dtype, shape, data).map(Some)
}

/// Adds linear layers under their names: `/backbone/encoder/layer.0/mlp/fc1/MatMul` uses the weight
/// of `backbone.encoder.layer.0.mlp.fc1`.
fn name_linear_layers(graph: &GraphProto, tensors: &mut TensorMap) {
    for node in graph.node.iter().filter(|node| node.op_type == "MatMul") {
        let (Some(module), Some(weight)) = (node.name.strip_suffix("/MatMul"), node.input.get(1))
        else {
            continue;
        };
        let name = format!(
            "{}.weight",
            module.trim_start_matches('/').replace('/', ".")
        );
        let Some(tensor) = tensors.get(weight).filter(|tensor| tensor.shape.len() == 2) else {
            continue;
        };
        let transposed = RawTensor {
            transposed: true,
            shape: vec![tensor.shape[1], tensor.shape[0]],
            ..tensor.clone()
        };
        tensors.entry(name).or_insert(transposed);
    }
}

/// Adds a folded position table under its name.
fn join_position_table(graph: &GraphProto, tensors: &mut TensorMap) {
    let Some(cls_name) = tensors
        .keys()
        .find(|name| name.ends_with(CLS_TOKEN))
        .cloned()
    else {
        return;
    };
    let prefix = cls_name.trim_end_matches("cls_token").to_owned();
    let name = format!("{prefix}position_embeddings");
    if tensors.contains_key(&name) {
        return;
    }
    let dim = tensors[&cls_name].shape.last().copied().unwrap_or(0);
    let scope = format!("/{}", prefix.replace('.', "/"));
    let used_there = |name: &str| {
        graph.node.iter().any(|node| {
            node.name.starts_with(&scope) && node.input.iter().any(|input| input == name)
        })
    };
    let find = |fits: &dyn Fn(usize) -> bool| {
        tensors.iter().find(|(name, tensor)| {
            matches!(tensor.shape.as_slice(), &[1, rows, width] if width == dim && fits(rows))
                && **name != cls_name
                && used_there(name)
        })
    };
    let (Some((_, cls)), Some((_, patches))) = (find(&|rows| rows == 1), find(&|rows| rows > 1))
    else {
        return;
    };
    if cls.dtype != patches.dtype {
        return;
    }
    let data: Bytes = [cls.data.as_ref(), patches.data.as_ref()].concat().into();
    let shape = vec![1, 1 + patches.shape[1], dim];
    let table = RawTensor {
        dtype: cls.dtype,
        shape,
        data,
        transposed: false,
    };
    tensors.insert(name, table);
}
