//! The objects that a pickle builds.
//!
//! Objects refer to each other by number, so that a pickle may share them and build circles, and
//! dropping them never recurses.

use std::{mem::size_of, rc::Rc};

use crate::error::{Error, Result};

/// A value on the stack of the interpreter.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Mark,
    /// A value that no weight consists of.
    Other,
    Int(i64),
    Text(Rc<str>),
    /// Name of a class or a function, with its module. It is never looked up.
    Global(Rc<str>),
    Object(ObjectId),
}

/// Number of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ObjectId(usize);

/// An object of a pickle.
#[derive(Debug)]
pub(super) enum Object {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Storage(Storage),
    Tensor(TensorRef),
    /// An instance of a class, or the result of a function, neither of which is run. A dictionary
    /// is an instance of [`DICT`].
    Instance {
        class: Rc<str>,
        /// Entries of a dictionary or a class derived from it.
        entries: Vec<(Value, Value)>,
        /// Items of a list or a class derived from it.
        items: Vec<Value>,
        /// What the instance was made of: mostly a dictionary of its attributes, else the arguments
        /// of its function.
        state: Value,
    },
}

/// Maximum length of the name of a class or function, with its module, in bytes.
const MAX_NAME_BYTES: usize = 1024;
/// Class of a plain dictionary.
pub(super) const DICT: &str = "dict";

/// A storage of a tensor.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    /// Name in the file.
    pub(super) key: Rc<str>,
    /// Class, such as `torch.FloatStorage`.
    pub(super) class: Rc<str>,
}

/// A tensor as a part of a storage.
#[derive(Debug, Clone)]
pub(super) struct TensorRef {
    pub(super) storage: Storage,
    /// Name of the element type, such as `torch.float32`, if it is not that of the storage.
    pub(super) dtype: Option<Rc<str>>,
    /// Offset in the storage, in elements.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    /// Distances between neighbors along each axis, in elements.
    pub(super) strides: Vec<usize>,
}

/// All objects of a file.
#[derive(Debug, Default)]
pub(super) struct Objects {
    objects: Vec<Object>,
    /// Bytes that the objects, their values and the names of classes have taken. An object that is
    /// no longer used counts, too.
    bytes: usize,
}

impl Objects {
    pub(super) fn add(&mut self, object: Object) -> Value {
        self.bytes += size_of::<Object>();
        match &object {
            Object::Tuple(items) | Object::List(items) => self.count_values(items.len()),
            Object::Instance { entries, items, .. } => {
                self.count_values(2 * entries.len() + items.len());
            }
            Object::Tensor(tensor) => self.count_values(tensor.shape.len()),
            Object::Storage(_) => {}
        }
        self.objects.push(object);
        Value::Object(ObjectId(self.objects.len() - 1))
    }

    /// Counts values that are stored or looked at.
    pub(super) fn count_values(&mut self, count: usize) {
        self.bytes += count * size_of::<Value>();
    }

    /// Returns the bytes that all objects have taken.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the class or function of a module.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if its name is longer than any is.
    pub(super) fn global(&mut self, module: &str, name: &str) -> Result<Value> {
        let length = module.len() + 1 + name.len();
        if length > MAX_NAME_BYTES {
            return Err(Error::artifact(format!(
                "the pickle names a class with {length} bytes, more than {MAX_NAME_BYTES}; the \
                 file is damaged"
            )));
        }
        self.bytes += length;
        Ok(Value::Global(format!("{module}.{name}").into()))
    }

    pub(super) fn instance(&mut self, class: Rc<str>) -> Value {
        self.instance_of(class, Value::Other)
    }

    /// Adds an instance that was made from `state`.
    pub(super) fn instance_of(&mut self, class: Rc<str>, state: Value) -> Value {
        self.add(Object::Instance {
            class,
            entries: Vec::new(),
            items: Vec::new(),
            state,
        })
    }

    /// Adds an empty object of a class of Python itself.
    pub(super) fn built_in(&mut self, class: &'static str) -> Value {
        self.instance(class.into())
    }

    /// Returns the object that a value refers to.
    pub(super) fn get(&self, value: &Value) -> Option<&Object> {
        match value {
            Value::Object(id) => self.objects.get(id.0),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, value: &Value) -> Option<&mut Object> {
        match value {
            Value::Object(id) => self.objects.get_mut(id.0),
            _ => None,
        }
    }

    /// Returns the items of a tuple.
    pub(super) fn tuple(&self, value: &Value) -> Option<&[Value]> {
        match self.get(value)? {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// Returns the items of a list.
    pub(super) fn list(&self, value: &Value) -> Option<&[Value]> {
        match self.get(value)? {
            Object::List(items) => Some(items),
            _ => None,
        }
    }

    /// Iterates over the storages in the order in which the pickle names them.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// Returns the class of an instance of `torch.nn.Module`, which has its parts in two
    /// dictionaries of its state, or of a TorchScript module.
    pub(super) fn module_class(&self, value: &Value) -> Option<&str> {
        let Object::Instance { class, state, .. } = self.get(value)? else {
            return None;
        };
        let is_script = class.starts_with("__torch__.");
        let has_parts = match self.get(state) {
            Some(Object::Instance { entries, .. }) => entries.iter().take(64).any(|(key, _)| {
                matches!(key, Value::Text(key) if matches!(&**key, "_modules" | "_parameters"))
            }),
            _ => false,
        };
        (is_script || has_parts).then_some(class)
    }
}
