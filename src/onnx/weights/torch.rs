//! Zip-format checkpoints of `torch.save`: a pickled dictionary of tensors beside their storages.
//!
//! Only the pickle instructions that such files consist of are understood, and nothing is ever
//! called: what a name that is not on the short list of [`Value::reduce`] would make is passed
//! over. No code in a checkpoint can run.

use std::{collections::HashMap, io::Cursor, io::Read, rc::Rc};

use bytes::Bytes;
use zip::ZipArchive;

use super::{Dtype, RawTensor, TensorMap};
use crate::error::{Error, Result};

/// Bytes of a pickle that are read: a hundred times what the largest DINOv2 has.
const MOST_PICKLE_BYTES: u64 = 8 << 20;
/// Bytes of a tensor's name at most, as each name is made of two.
const MOST_NAME_BYTES: usize = 512;

/// Reads the floating-point tensors of a checkpoint. A dictionary inside the outer one (`{"model":
/// {…}}`) adds its key and a dot in front of its names.
///
/// # Errors
/// [`crate::error::Kind::Artifact`] if the file is no such checkpoint.
pub fn read_torch(file: Bytes) -> Result<TensorMap> {
    let mut archive = ZipArchive::new(Cursor::new(file.clone())).map_err(|error| {
        bad(format!(
            "not a zip-format PyTorch checkpoint ({error}); save it again with torch.save of PyTorch 1.6 or later"
        ))
    })?;
    let pickle_name = archive
        .file_names()
        .flatten()
        .find(|name| name.ends_with("/data.pkl") || name == "data.pkl")
        .ok_or_else(|| bad("the zip file holds no data.pkl"))?
        .into_owned();
    let root = pickle_name.trim_end_matches("data.pkl").to_owned();
    let mut pickle = Vec::new();
    let entry = archive
        .by_name(&pickle_name)
        .map_err(|error| bad(error.to_string()))?;
    entry
        .take(MOST_PICKLE_BYTES)
        .read_to_end(&mut pickle)
        .map_err(|error| bad(error.to_string()))?;

    let mut storages = Storages {
        file,
        archive,
        root,
        read: HashMap::new(),
    };
    let mut tensors = TensorMap::new();
    collect(
        Unpickler::new(&pickle).run()?,
        "",
        &mut storages,
        &mut tensors,
    )?;
    Ok(tensors)
}

fn bad(detail: impl Into<String>) -> Error {
    Error::artifact(detail)
}

fn collect(
    value: Value,
    prefix: &str,
    storages: &mut Storages,
    tensors: &mut TensorMap,
) -> Result<()> {
    match value {
        Value::Dict(entries) => {
            for (key, value) in entries {
                let name = if prefix.is_empty() {
                    key.to_string()
                } else {
                    format!("{prefix}.{key}")
                };
                collect(value, &name, storages, tensors)?;
            }
        }
        Value::Tensor(tensor) => {
            if let Some(dtype) = tensor.dtype {
                let data = storages.slice(prefix, dtype, &tensor)?;
                tensors.insert(
                    prefix.to_owned(),
                    RawTensor::new(prefix, dtype, tensor.shape.clone(), data)?,
                );
            }
        }
        _ => {}
    }
    Ok(())
}

/// The zip's storages, sliced from the file: PyTorch stores them plainly.
struct Storages {
    file: Bytes,
    archive: ZipArchive<Cursor<Bytes>>,
    root: String,
    read: HashMap<String, Bytes>,
}

impl Storages {
    fn slice(&mut self, name: &str, dtype: Dtype, tensor: &TensorRef) -> Result<Bytes> {
        let mut stride = 1;
        for (&side, &found) in tensor.shape.iter().zip(&tensor.strides).rev() {
            if side != 1 && found != stride {
                return Err(bad(format!(
                    "tensor {name} is not contiguous; save it with .contiguous()"
                )));
            }
            // A shape whose size is no number is refused below.
            stride = stride.saturating_mul(side);
        }
        let storage = self.storage(&tensor.key)?;
        let start = tensor.offset.checked_mul(dtype.bytes());
        let length = tensor
            .shape
            .iter()
            .try_fold(dtype.bytes(), |product, &side| product.checked_mul(side));
        let range = start
            .zip(length)
            .and_then(|(start, length)| Some(start..start.checked_add(length)?));
        match range {
            Some(range) if range.end <= storage.len() => Ok(storage.slice(range)),
            _ => Err(bad(format!("tensor {name} reaches beyond its storage"))),
        }
    }

    fn storage(&mut self, key: &str) -> Result<Bytes> {
        if let Some(bytes) = self.read.get(key) {
            return Ok(bytes.clone());
        }
        let path = format!("{}data/{key}", self.root);
        let entry = self
            .archive
            .by_name(&path)
            .map_err(|error| bad(format!("storage {path}: {error}")))?;
        let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
        let start = entry
            .data_start()
            .and_then(|start| usize::try_from(start).ok());
        let stored = entry.compression() == zip::CompressionMethod::Stored;
        if !stored {
            // It could be of any size.
            return Err(bad(format!(
                "storage {path} is compressed, which PyTorch does not do; save it with torch.save"
            )));
        }
        let range = start.and_then(|start| Some(start..start.checked_add(size)?));
        let range = range.filter(|range| range.end <= self.file.len());
        let bytes = self
            .file
            .slice(range.ok_or_else(|| bad(format!("storage {path} reaches beyond the file")))?);
        self.read.insert(key.to_owned(), bytes.clone());
        Ok(bytes)
    }
}

#[derive(Debug, Clone)]
struct TensorRef {
    key: Rc<str>,
    /// `None` for a type that no weight of ours has, such as integers.
    dtype: Option<Dtype>,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// What a pickle builds. A copy is small, whatever it is of: a pickle may remember and recall a
/// value with one byte.
#[derive(Debug, Clone)]
enum Value {
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
    /// A tuple. One that is nested deeper than any tensor's needs is dropped, and so are
    /// dictionaries with entries, so that a hostile file cannot build a structure that exhausts the
    /// stack; what is shared there is shared here.
    fn tuple(mut items: Vec<Value>) -> Value {
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

    /// Whether this is a dictionary that holds another: the deepest that a checkpoint of ours goes.
    fn is_nested_dict(&self) -> bool {
        matches!(self, Value::Dict(entries) if entries.iter().any(|(_, value)| matches!(value, Value::Dict(_))))
    }

    /// What calling a global with arguments gives. Unknown globals give [`Value::Other`], which no
    /// weight can be.
    fn reduce(function: &str, arguments: &[Value]) -> Result<Value> {
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
                    .map_err(|_| bad("a tensor has a negative offset"))?,
                shape: sizes(shape)?,
                strides: sizes(strides)?,
            }))),
            ("torch._utils._rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => {
                Ok(tensor.clone())
            }
            _ => Ok(Value::Other),
        }
    }

    /// The storage that a persistent id `("storage", type, key, device, length)` names.
    fn persistent(id: Value) -> Value {
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
        .ok_or_else(|| bad("a tensor's shape is not made of sizes"))
}

struct Unpickler<'a> {
    rest: &'a [u8],
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
}

impl<'a> Unpickler<'a> {
    fn new(pickle: &'a [u8]) -> Self {
        Self {
            rest: pickle,
            stack: Vec::new(),
            memo: HashMap::new(),
        }
    }

    fn run(mut self) -> Result<Value> {
        loop {
            let [opcode] = self.take()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => drop(self.take::<1>()?),      // PROTO
                0x95 => drop(self.take::<8>()?),      // FRAME
                b'(' => self.stack.push(Value::Mark), // MARK
                b')' => self.stack.push(Value::tuple(Vec::new())), // EMPTY_TUPLE
                b'}' => self.stack.push(Value::Dict(Vec::new())), // EMPTY_DICT
                b']' | b'N' | 0x88 | 0x89 => self.stack.push(Value::Other), // EMPTY_LIST NONE NEWTRUE NEWFALSE
                b'G' => {
                    self.take::<8>()?; // BINFLOAT
                    self.stack.push(Value::Other);
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.take()?);
                    self.stack.push(Value::Int(value.into()));
                }
                b'K' => {
                    let [value] = self.take()?;
                    self.stack.push(Value::Int(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.take()?);
                    self.stack.push(Value::Int(value.into()));
                }
                0x8A => self.long()?, // LONG1
                b'X' => {
                    let length = u32::from_le_bytes(self.take()?) as usize;
                    self.text(length)?;
                }
                0x8C => {
                    let [length] = self.take()?;
                    self.text(length.into())?;
                }
                b'c' => {
                    let global = format!("{}.{}", self.line()?, self.line()?);
                    self.stack.push(Value::Global(global.into()));
                }
                0x93 => {
                    // STACK_GLOBAL
                    let (Value::Text(name), Value::Text(module)) = (self.pop()?, self.pop()?)
                    else {
                        return Err(bad(
                            "the pickle names a global by something other than text",
                        ));
                    };
                    self.stack
                        .push(Value::Global(format!("{module}.{name}").into()));
                }
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.stack.push(Value::tuple(items));
                }
                0x85..=0x87 => {
                    // TUPLE1, TUPLE2, TUPLE3
                    let at = self
                        .stack
                        .len()
                        .checked_sub(usize::from(opcode - 0x84))
                        .ok_or_else(underflow)?;
                    let items = self.stack.split_off(at);
                    self.stack.push(Value::tuple(items));
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.stack.push(Value::persistent(id));
                }
                b'R' => {
                    let Value::Tuple(arguments) = self.pop()? else {
                        return Err(bad("a call without arguments"));
                    };
                    let value = match self.pop()? {
                        Value::Global(function) => Value::reduce(&function, &arguments)?,
                        _ => Value::Other,
                    };
                    self.stack.push(value);
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(items)?;
                }
                b'a' => drop(self.pop()?), // APPEND: lists hold no weights
                b'e' => drop(self.pop_to_mark()?), // APPENDS
                b'b' => drop(self.pop()?), // BUILD: an object's attributes hold no weights
                b'q' => {
                    let [key] = self.take()?;
                    self.remember(key.into())?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.take()?);
                    self.remember(key)?;
                }
                0x94 => self.remember(self.memo.len() as u32)?, // MEMOIZE
                b'h' => {
                    let [key] = self.take()?;
                    self.recall(key.into())?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.take()?);
                    self.recall(key)?;
                }
                other => {
                    return Err(bad(format!(
                        "the pickle holds the instruction {other:#04x}, which no plain checkpoint needs"
                    )));
                }
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| bad("the pickle is cut off"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| bad("the pickle is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self, length: usize) -> Result<()> {
        let text = std::str::from_utf8(self.bytes(length)?)
            .map_err(|_| bad("a name in the pickle is not UTF-8"))?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str> {
        let end = self
            .rest
            .iter()
            .position(|&b| b == b'\n')
            .ok_or_else(|| bad("the pickle is cut off"))?;
        let line = std::str::from_utf8(self.bytes(end)?)
            .map_err(|_| bad("a name in the pickle is not UTF-8"))?;
        self.take::<1>()?;
        Ok(line)
    }

    fn long(&mut self) -> Result<()> {
        let [length] = self.take()?;
        let bytes = self.bytes(length.into())?;
        if bytes.len() > 8 {
            return Err(bad("the pickle holds an integer of more than 64 bits"));
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut buffer = [if negative { 0xFF } else { 0 }; 8];
        buffer[..bytes.len()].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(buffer)));
        Ok(())
    }

    fn pop(&mut self) -> Result<Value> {
        self.stack.pop().ok_or_else(underflow)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self
            .stack
            .iter()
            .rposition(|value| matches!(value, Value::Mark))
            .ok_or_else(underflow)?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn set_items(&mut self, items: Vec<Value>) -> Result<()> {
        let Some(Value::Dict(entries)) = self.stack.last_mut() else {
            return Ok(());
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            if let Value::Text(key) = key
                && key.len() <= MOST_NAME_BYTES
                && !value.is_nested_dict()
            {
                entries.push((key, value));
            }
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<()> {
        // A dictionary is remembered while it is empty, and recalled only by cyclic pickles, which
        // no checkpoint is.
        let value = match self.stack.last().ok_or_else(underflow)? {
            Value::Dict(_) => Value::Dict(Vec::new()),
            other => other.clone(),
        };
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        let value = self
            .memo
            .get(&key)
            .cloned()
            .ok_or_else(|| bad("the pickle recalls what it never stored"))?;
        self.stack.push(value);
        Ok(())
    }
}

fn underflow() -> Error {
    bad("the pickle takes more from its stack than it put there")
}
