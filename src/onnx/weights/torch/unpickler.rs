//! A pickle interpreter for the instructions that checkpoints consist of.

use std::collections::HashMap;

use super::value::Value;
use crate::error::{Error, Result};

/// Maximum length of a key, in bytes; a tensor's name consists of at most two.
const MAX_NAME_BYTES: usize = 512;

/// Runs the instructions of a pickle.
pub(super) struct Unpickler<'a> {
    rest: &'a [u8],
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
}

impl<'a> Unpickler<'a> {
    pub(super) fn new(pickle: &'a [u8]) -> Self {
        Self {
            rest: pickle,
            stack: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Returns the value that the pickle builds.
    pub(super) fn run(mut self) -> Result<Value> {
        loop {
            let [opcode] = self.take()?;
            let value = match opcode {
                b'.' => return self.pop(),
                b'(' => Value::Mark,                             // MARK
                b')' => Value::tuple(Vec::new()),                // EMPTY_TUPLE
                b'}' => Value::Dict(Vec::new()),                 // EMPTY_DICT
                b']' | b'N' | 0x88 | 0x89 => Value::Other, // EMPTY_LIST, NONE, NEWTRUE, NEWFALSE
                b'G' => self.take::<8>().map(|_| Value::Other)?, // BINFLOAT
                b'J' => Value::Int(i32::from_le_bytes(self.take()?).into()),
                b'K' => Value::Int(u8::from_le_bytes(self.take()?).into()),
                b'M' => Value::Int(u16::from_le_bytes(self.take()?).into()),
                0x8A => self.long()?, // LONG1
                b'X' => {
                    let length = u32::from_le_bytes(self.take()?) as usize;
                    self.text(length)?
                }
                0x8C => {
                    let [length] = self.take()?;
                    self.text(length.into())?
                }
                b'c' => Value::Global(format!("{}.{}", self.line()?, self.line()?).into()),
                0x93 => self.stack_global()?,
                b't' => Value::tuple(self.pop_to_mark()?),
                0x85..=0x87 => {
                    // TUPLE1, TUPLE2, TUPLE3
                    let at = self
                        .stack
                        .len()
                        .checked_sub(usize::from(opcode - 0x84))
                        .ok_or_else(underflow)?;
                    Value::tuple(self.stack.split_off(at))
                }
                b'Q' => Value::persistent(self.pop()?),
                b'R' => self.reduce()?,
                b'h' => {
                    let [key] = self.take()?;
                    self.recall(key.into())?
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.take()?);
                    self.recall(key)?
                }
                _ => {
                    self.run_without_value(opcode)?;
                    continue;
                }
            };
            self.stack.push(value);
        }
    }

    /// Runs an instruction that pushes no value.
    fn run_without_value(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            0x80 => drop(self.take::<1>()?), // PROTO
            0x95 => drop(self.take::<8>()?), // FRAME
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![key, value]);
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(items);
            }
            b'a' => drop(self.pop()?), // APPEND: lists contain no weights
            b'e' => drop(self.pop_to_mark()?), // APPENDS
            b'b' => drop(self.pop()?), // BUILD: an object's attributes contain no weights
            b'q' => {
                let [key] = self.take()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.take()?);
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?, // MEMOIZE
            _ => {
                return Err(Error::artifact(format!(
                    "the pickle contains the instruction {opcode:#04x}, \
                         which no plain checkpoint needs"
                )));
            }
        }
        Ok(())
    }

    fn stack_global(&mut self) -> Result<Value> {
        let name = self.pop()?;
        let module = self.pop()?;
        let (Value::Text(module), Value::Text(name)) = (module, name) else {
            return Err(Error::artifact(
                "the pickle names a global by something other than text",
            ));
        };
        Ok(Value::Global(format!("{module}.{name}").into()))
    }

    fn reduce(&mut self) -> Result<Value> {
        let Value::Tuple(arguments) = self.pop()? else {
            return Err(Error::artifact(
                "the pickle contains a call without arguments",
            ));
        };
        match self.pop()? {
            Value::Global(function) => Value::reduce(&function, &arguments),
            _ => Ok(Value::Other),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(taken)
    }

    fn name(&mut self, length: usize) -> Result<&'a str> {
        std::str::from_utf8(self.bytes(length)?)
            .map_err(|_| Error::artifact("a name in the pickle is not UTF-8"))
    }

    fn text(&mut self, length: usize) -> Result<Value> {
        Ok(Value::Text(self.name(length)?.into()))
    }

    fn line(&mut self) -> Result<&'a str> {
        let end = self.rest.iter().position(|&b| b == b'\n');
        let line = self.name(end.ok_or_else(cut_off)?)?;
        self.take::<1>()?;
        Ok(line)
    }

    fn long(&mut self) -> Result<Value> {
        let [length] = self.take()?;
        let bytes = self.bytes(length.into())?;
        if bytes.len() > 8 {
            return Err(Error::artifact(
                "the pickle contains an integer of more than 64 bits",
            ));
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut buffer = [if negative { 0xFF } else { 0 }; 8];
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(buffer)))
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

    /// Adds keys and values to the dictionary on the stack.
    fn set_items(&mut self, items: Vec<Value>) {
        let Some(Value::Dict(entries)) = self.stack.last_mut() else {
            return;
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            if let Value::Text(key) = key
                && key.len() <= MAX_NAME_BYTES
                && !value.is_nested_dict()
            {
                entries.push((key, value));
            }
        }
    }

    fn remember(&mut self, key: u32) -> Result<()> {
        // A dictionary is stored while it is empty, and recalled only by cyclic pickles, which no
        // checkpoint is.
        let value = match self.stack.last().ok_or_else(underflow)? {
            Value::Dict(_) => Value::Dict(Vec::new()),
            other => other.clone(),
        };
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&self, key: u32) -> Result<Value> {
        let value = self.memo.get(&key).cloned();
        value.ok_or_else(|| Error::artifact("the pickle recalls a value that it never stored"))
    }
}

fn cut_off() -> Error {
    Error::artifact("the pickle is cut off")
}

fn underflow() -> Error {
    Error::artifact("the pickle takes more from its stack than it put there")
}
