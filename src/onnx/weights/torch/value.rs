//! The values of a checkpoint's pickle.

use std::rc::Rc;

use crate::{
    error::{Error, Result},
    onnx::weights::Dtype,
};

/// A tensor as a part of a storage.
#[derive(Debug, Clone)]
pub(super) struct TensorRef {
    /// Name of the storage.
    pub(super) key: Rc<str>,
    /// `None` for a type that no weight has, such as integers.
    pub(super) dtype: Option<Dtype>,
    /// Offset in the storage, in elements.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    /// Distances between neighbors along each axis, in elements.
    pub(super) strides: Vec<usize>,
}

/// A value that a pickle builds. Clones are cheap, because a pickle can store and recall a value
/// with one byte.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Mark,
    Other,
    Int(i64),
    Text(Rc<str>),
    Global(Rc<str>),
    Tuple(Rc<[Value]>),
    Dict(Vec<(Rc<str>, Value)>),
    Storage { key: Rc<str>, dtype: Option<Dtype> },
    Tensor(Rc<TensorRef>),
}

impl Value {
    /// Makes a tuple. Tuples that are nested deeper than any tensor needs are dropped, and so are
    /// dictionaries with entries, so that a hostile file cannot build a structure that exhausts the
    /// stack. Values that are shared in the pickle are shared here.
    pub(super) fn tuple(mut items: Vec<Value>) -> Value {
        for item in &mut items {
            if matches!(item, Value::Dict(entries) if !entries.is_empty()) {
                *item = Value::Other;
            }
        }
        let is_tuple = |value: &Value| matches!(value, Value::Tuple(_));
        let is_nested =
            |value: &Value| matches!(value, Value::Tuple(inner) if inner.iter().any(is_tuple));
        if items.iter().any(is_nested) {
            Value::Other
        } else {
            Value::Tuple(items.into())
        }
    }

    /// Whether this is a dictionary that contains another, which is the deepest nesting that a
    /// checkpoint needs.
    pub(super) fn is_nested_dict(&self) -> bool {
        let Value::Dict(entries) = self else {
            return false;
        };
        entries
            .iter()
            .any(|(_, value)| matches!(value, Value::Dict(_)))
    }

    /// Returns the value of a function call. Unknown functions give [`Value::Other`], which is
    /// never a weight.
    pub(super) fn reduce(function: &str, arguments: &[Value]) -> Result<Value> {
        match (function, arguments) {
            ("collections.OrderedDict", _) => Ok(Value::Dict(Vec::new())),
            (
                "torch._utils._rebuild_tensor_v2",
                [
                    Value::Storage { key, dtype },
                    Value::Int(offset),
                    Value::Tuple(shape),
                    Value::Tuple(strides),
                    ..,
                ],
            ) => Ok(Value::Tensor(Rc::new(TensorRef {
                key: key.clone(),
                dtype: *dtype,
                offset: usize::try_from(*offset)
                    .map_err(|_| Error::artifact("a tensor has a negative offset"))?,
                shape: sizes(shape)?,
                strides: sizes(strides)?,
            }))),
            ("torch._utils._rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => {
                Ok(tensor.clone())
            }
            _ => Ok(Value::Other),
        }
    }

    /// Returns the storage that a persistent id `("storage", type, key, device, length)` names.
    pub(super) fn persistent(id: Value) -> Value {
        match id {
            Value::Tuple(parts) => match &*parts {
                [
                    Value::Text(kind),
                    Value::Global(class),
                    Value::Text(key),
                    ..,
                ] if &**kind == "storage" => {
                    let dtype = match &**class {
                        "torch.FloatStorage" => Some(Dtype::F32),
                        "torch.HalfStorage" => Some(Dtype::F16),
                        "torch.BFloat16Storage" => Some(Dtype::Bf16),
                        _ => None,
                    };
                    Value::Storage {
                        key: key.clone(),
                        dtype,
                    }
                }
                _ => Value::Other,
            },
            _ => Value::Other,
        }
    }
}

fn sizes(values: &[Value]) -> Result<Vec<usize>> {
    let size = |value: &Value| match value {
        Value::Int(size) => usize::try_from(*size).ok(),
        _ => None,
    };
    values
        .iter()
        .map(size)
        .collect::<Option<_>>()
        .ok_or_else(|| Error::artifact("a tensor's shape does not consist of sizes"))
}
