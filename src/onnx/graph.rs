//! Builds an ONNX graph node by node and writes it to a file.
//!
//! Values are handles to names, and every node makes new ones, so that the code reads like the
//! formula that the graph computes.

use std::io::Write;

use bytemuck::NoUninit;
use bytes::Bytes;
use prost::Message;

use super::proto::{
    AttributeProto, AttributeType, DataType, Dimension, DimensionProto, EXTERNAL, GraphProto,
    ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::error::{Error, Result};

/// Domain of ONNX Runtime's fused operators.
pub const MICROSOFT: &str = "com.microsoft";
const OPSET: i64 = 20;
/// Page size to which external tensors are aligned, so that the runtime can map them.
const ALIGNMENT: u64 = 4096;
/// Tensors below this size stay in the model file itself.
const SMALL: usize = 64 << 10;

/// A value of the graph, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(String);

/// An attribute of a node.
#[derive(Debug, Clone, Copy)]
pub enum Attribute<'a> {
    /// A float.
    Float(f32),
    /// An integer.
    Int(i64),
    /// A list of integers.
    Ints(&'a [i64]),
}

/// A file next to the model with its large tensors. A protobuf is limited to 2 GiB, and tensors in
/// a separate file are mapped into memory instead of read.
pub struct ExternalData<'a> {
    /// Path of the file, relative to the model's folder.
    pub location: String,
    /// Writer of the file.
    pub sink: &'a mut dyn Write,
}

/// A graph under construction.
pub struct GraphBuilder<'a> {
    graph: GraphProto,
    data: ExternalData<'a>,
    data_length: u64,
    next: usize,
}

impl<'a> GraphBuilder<'a> {
    /// Starts an empty graph. Large tensors are written to `data` immediately, so that memory does
    /// not grow with the model.
    pub fn new(name: &str, data: ExternalData<'a>) -> Self {
        let graph = GraphProto {
            name: name.to_owned(),
            ..GraphProto::default()
        };
        Self {
            graph,
            data,
            data_length: 0,
            next: 0,
        }
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, kind: DataType, shape: &[Side<'_>]) -> Value {
        self.graph.input.push(value_info(name, kind, shape));
        Value(name.to_owned())
    }

    /// Declares `value` as the output `name`.
    pub fn output(&mut self, name: &str, value: &Value, kind: DataType, shape: &[Side<'_>]) {
        self.graph.node.push(NodeProto {
            name: format!("output_{name}"),
            op_type: "Identity".to_owned(),
            input: vec![value.0.clone()],
            output: vec![name.to_owned()],
            ..NodeProto::default()
        });
        self.graph.output.push(value_info(name, kind, shape));
    }

    /// Adds a constant tensor called `name`, whose elements have the type `kind` in the file.
    pub fn weight<T: NoUninit>(
        &mut self,
        name: &str,
        kind: DataType,
        shape: &[usize],
        values: &[T],
    ) -> Result<Value> {
        assert_eq!(
            shape.iter().product::<usize>(),
            values.len(),
            "weight {name} has as many values as its shape says"
        );
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let mut tensor = TensorProto {
            name: name.to_owned(),
            dims: shape.iter().map(|&side| side as i64).collect(),
            data_type: kind.into(),
            ..TensorProto::default()
        };
        if bytes.len() >= SMALL {
            let offset = self.append(bytes)?;
            tensor.data_location = EXTERNAL;
            let entry = |key: &str, value: String| StringStringEntryProto {
                key: key.to_owned(),
                value,
            };
            tensor.external_data = vec![
                entry("location", self.data.location.clone()),
                entry("offset", offset.to_string()),
                entry("length", bytes.len().to_string()),
            ];
        } else {
            tensor.raw_data = Bytes::copy_from_slice(bytes);
        }
        self.graph.initializer.push(tensor);
        Ok(Value(name.to_owned()))
    }

    /// Appends bytes to the data file, aligned to a page, and returns their offset.
    pub fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let writing = |error| Error::io("writing the model's weights", error);
        let offset = self.data_length.next_multiple_of(ALIGNMENT);
        let padding = vec![0; (offset - self.data_length) as usize];
        self.data.sink.write_all(&padding).map_err(writing)?;
        self.data.sink.write_all(bytes).map_err(writing)?;
        self.data_length = offset + bytes.len() as u64;
        Ok(offset)
    }

    /// Adds the default of an input, which is used if the caller gives none.
    pub fn default_input(&mut self, input: &Value, shape: &[usize], values: &[f32]) {
        // In the model file itself, from where the server reads it.
        let shape = shape.iter().map(|&side| side as i64).collect();
        self.inline(input.0.clone(), DataType::Float, shape, values);
    }

    /// Adds a constant list of integers, for shapes and axes.
    pub fn integers(&mut self, values: &[i64]) -> Value {
        let name = self.fresh("const");
        self.inline(name, DataType::Int64, vec![values.len() as i64], values)
    }

    /// Adds a constant scalar.
    pub fn scalar(&mut self, value: f32) -> Value {
        let name = self.fresh("const");
        self.inline(name, DataType::Float, Vec::new(), &[value])
    }

    /// Adds a node with one output.
    pub fn node(
        &mut self,
        op: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute<'_>)],
    ) -> Value {
        let [output] = self.nodes("", op, inputs, attributes);
        output
    }

    /// Adds a node of ONNX Runtime's own domain with one output.
    pub fn fused(
        &mut self,
        op: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute<'_>)],
    ) -> Value {
        let [output] = self.nodes(MICROSOFT, op, inputs, attributes);
        output
    }

    /// Adds a node of `domain` with `N` outputs.
    pub fn nodes<const N: usize>(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute<'_>)],
    ) -> [Value; N] {
        let name = self.fresh(op);
        let outputs: [Value; N] = std::array::from_fn(|i| {
            Value(if N == 1 {
                name.clone()
            } else {
                format!("{name}.{i}")
            })
        });
        self.graph.node.push(NodeProto {
            output: outputs.iter().map(|value| value.0.clone()).collect(),
            input: inputs.iter().map(|value| value.0.clone()).collect(),
            op_type: op.to_owned(),
            domain: domain.to_owned(),
            attribute: attributes
                .iter()
                .map(|&(name, attribute)| attribute_proto(name, attribute))
                .collect(),
            name,
        });
        outputs
    }

    /// Encodes the model file, with `metadata`.
    pub fn finish(self, metadata: Vec<(String, String)>) -> Vec<u8> {
        let opset = |domain: &str, version| OperatorSetIdProto {
            domain: domain.to_owned(),
            version,
        };
        let model = ModelProto {
            ir_version: 9,
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            opset_import: vec![opset("", OPSET), opset(MICROSOFT, 1)],
            metadata_props: metadata
                .into_iter()
                .map(|(key, value)| StringStringEntryProto { key, value })
                .collect(),
            ..ModelProto::default()
        };
        model.encode_to_vec()
    }

    /// Adds a constant to the model file itself.
    fn inline<T: NoUninit>(
        &mut self,
        name: String,
        kind: DataType,
        dims: Vec<i64>,
        values: &[T],
    ) -> Value {
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims,
            data_type: kind.into(),
            raw_data: Bytes::copy_from_slice(bytemuck::cast_slice(values)),
            ..TensorProto::default()
        });
        Value(name)
    }

    fn fresh(&mut self, what: &str) -> String {
        self.next += 1;
        format!("{what}_{}", self.next)
    }
}

/// One side of a declared shape.
#[derive(Debug, Clone, Copy)]
pub enum Side<'a> {
    /// A fixed length.
    Fixed(usize),
    /// A variable length with a name.
    Varies(&'a str),
}

fn value_info(name: &str, kind: DataType, shape: &[Side<'_>]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|side| DimensionProto {
            value: Some(match side {
                Side::Fixed(length) => Dimension::DimValue(*length as i64),
                Side::Varies(name) => Dimension::DimParam((*name).to_owned()),
            }),
        })
        .collect();
    let tensor = TensorTypeProto {
        elem_type: kind.into(),
        shape: Some(TensorShapeProto { dim }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            tensor_type: Some(tensor),
        }),
    }
}

fn attribute_proto(name: &str, attribute: Attribute<'_>) -> AttributeProto {
    let mut proto = AttributeProto {
        name: name.to_owned(),
        ..AttributeProto::default()
    };
    match attribute {
        Attribute::Float(value) => {
            proto.f = Some(value);
            proto.set_type(AttributeType::Float);
        }
        Attribute::Int(value) => {
            proto.i = Some(value);
            proto.set_type(AttributeType::Int);
        }
        Attribute::Ints(values) => {
            proto.ints = values.to_vec();
            proto.set_type(AttributeType::Ints);
        }
    }
    proto
}
