//! What function calls in a pickle stand for. No function is run.

use std::rc::Rc;

use super::object::{Object, Objects, Storage, TensorRef, Value};
use crate::error::{Error, Result};

/// Number of arguments that are looked at, more than any known function has.
const MAX_ARGUMENTS: usize = 8;
/// Maximum number of axes of a tensor, as in PyTorch.
const MAX_AXES: usize = 64;

impl Objects {
    /// Returns what a call gives. Unknown functions give an instance without content, which is
    /// never a weight.
    pub(super) fn call(&mut self, function: &Value, arguments: &Value) -> Result<Value> {
        let Value::Global(function) = function else {
            return Ok(self.instance_of("?".into(), arguments.clone()));
        };
        let all = arguments;
        let arguments = self.tuple(all).unwrap_or_default();
        let arguments = arguments[..arguments.len().min(MAX_ARGUMENTS)].to_vec();
        match (&**function, arguments.as_slice()) {
            ("collections.OrderedDict", arguments) => Ok(self.ordered_dict(arguments.first())),
            (
                "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                [storage, offset, shape, strides, ..],
            ) => self.tensor(storage, offset, shape, strides, None),
            (
                "torch._utils._rebuild_tensor_v3",
                [
                    storage,
                    offset,
                    shape,
                    strides,
                    _,
                    _,
                    Value::Global(dtype),
                    ..,
                ],
            ) => self.tensor(storage, offset, shape, strides, Some(dtype.clone())),
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                [tensor, ..],
            ) if matches!(self.get(tensor), Some(Object::Tensor(_))) => Ok(tensor.clone()),
            // A class derived from Tensor: the function and the arguments that make a plain one.
            ("torch._tensor._rebuild_from_type_v2", [Value::Global(inner), _, arguments, ..])
                if inner.starts_with("torch._utils._rebuild_tensor") =>
            {
                self.call(&Value::Global(inner.clone()), arguments)
            }
            ("copy_reg._reconstructor" | "copyreg._reconstructor", [Value::Global(class), ..]) => {
                Ok(self.instance(class.clone()))
            }
            _ => Ok(self.instance_of(function.clone(), all.clone())),
        }
    }

    /// Makes an ordered dictionary, of pairs in a list if there is one.
    fn ordered_dict(&mut self, pairs: Option<&Value>) -> Value {
        let pairs = pairs.and_then(|pairs| self.list(pairs)).unwrap_or_default();
        let count = pairs.len();
        let of_pair = |pair: &Value| match (self.list(pair), self.tuple(pair)) {
            (Some([key, value]), _) | (_, Some([key, value])) => Some((key.clone(), value.clone())),
            _ => None,
        };
        let entries = pairs.iter().filter_map(of_pair).collect();
        // Also those that are no pairs: looking at them takes time.
        self.count_values(count);
        self.add(Object::Instance {
            class: "collections.OrderedDict".into(),
            entries,
            items: Vec::new(),
            state: Value::Other,
        })
    }

    fn tensor(
        &mut self,
        storage: &Value,
        offset: &Value,
        shape: &Value,
        strides: &Value,
        dtype: Option<Rc<str>>,
    ) -> Result<Value> {
        let Some(Object::Storage(storage)) = self.get(storage) else {
            return Ok(Value::Other);
        };
        let Some(offset) = size(offset) else {
            return Err(Error::artifact(
                "a tensor's offset in its storage is not a size",
            ));
        };
        let tensor = TensorRef {
            storage: storage.clone(),
            dtype,
            offset,
            shape: self.sizes(shape)?,
            strides: self.sizes(strides)?,
        };
        Ok(self.add(Object::Tensor(tensor)))
    }

    fn sizes(&self, value: &Value) -> Result<Vec<usize>> {
        self.tuple(value)
            .filter(|sizes| sizes.len() <= MAX_AXES)
            .and_then(|sizes| sizes.iter().map(size).collect())
            .ok_or_else(|| Error::artifact("a tensor's shape does not consist of sizes"))
    }

    /// Returns what a persistent id names: a storage by `("storage", class, key, device, length)`,
    /// or in old files a class by `("module", class, file, source)`.
    pub(super) fn persistent(&mut self, id: &Value) -> Value {
        match self.tuple(id) {
            Some([Value::Text(kind), class @ Value::Global(_), ..]) if &**kind == "module" => {
                class.clone()
            }
            Some(
                [
                    Value::Text(kind),
                    Value::Global(class),
                    Value::Text(key),
                    ..,
                ],
            ) if &**kind == "storage" => {
                let storage = Storage {
                    key: key.clone(),
                    class: class.clone(),
                };
                self.add(Object::Storage(storage))
            }
            _ => Value::Other,
        }
    }
}

fn size(value: &Value) -> Option<usize> {
    match value {
        Value::Int(size) => usize::try_from(*size).ok(),
        _ => None,
    }
}
