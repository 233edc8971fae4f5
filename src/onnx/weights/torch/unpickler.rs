//! A pickle interpreter that builds plain data of all protocols (0 to 5) and runs nothing.

use std::{collections::HashMap, mem::size_of};

use super::{
    object::{DICT, Object, Objects, Value},
    operands::{Operands, underflow},
};
use crate::error::{Error, Result};

/// Maximum number of bytes that are read of a pickle: a hundred times those of a training of the
/// largest DINOv2, without tensors.
pub(super) const MAX_PICKLE_BYTES: usize = 16 << 20;
/// Maximum number of bytes that all values of a checkpoint take: those of 100,000 tensors.
const MAX_STORED_BYTES: usize = 256 << 20;

/// Runs the instructions of a pickle.
pub(super) struct Unpickler<'a> {
    operands: Operands<'a>,
    objects: &'a mut Objects,
    stack: Vec<Value>,
    memo: HashMap<u64, Value>,
}

impl<'a> Unpickler<'a> {
    pub(super) fn new(pickle: &'a [u8], objects: &'a mut Objects) -> Self {
        Self {
            operands: Operands::new(pickle),
            objects,
            stack: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Returns the value that the pickle builds, and the number of its bytes.
    pub(super) fn run(mut self) -> Result<(Value, usize)> {
        loop {
            if self.stored_bytes() > MAX_STORED_BYTES {
                return Err(Error::artifact(format!(
                    "the pickle builds objects of more than {} MiB; save only the weights",
                    MAX_STORED_BYTES >> 20
                )));
            }
            let opcode = self.operands.byte()?;
            if opcode == b'.' {
                let value = self.pop()?;
                return Ok((value, self.operands.position()));
            }
            if let Some(value) = self.scalar(opcode)? {
                self.stack.push(value);
            } else if let Some(value) = self.build(opcode)? {
                self.stack.push(value);
            } else {
                self.change(opcode)?;
            }
        }
    }

    /// Returns the bytes of all values: on the stack, in the memo, and in objects.
    fn stored_bytes(&self) -> usize {
        let values = self.stack.len() + 2 * self.memo.len();
        values * size_of::<Value>() + self.objects.bytes()
    }

    /// Returns the value of an instruction that contains it.
    fn scalar(&mut self, opcode: u8) -> Result<Option<Value>> {
        let operands = &mut self.operands;
        Ok(Some(match opcode {
            b'N' | 0x88 | 0x89 => Value::Other, // NONE, NEWTRUE, NEWFALSE
            b'G' => operands.skip::<8>()?,      // BINFLOAT
            b'F' => operands.line().map(|_| Value::Other)?, // FLOAT
            b'J' => Value::Int(i32::from_le_bytes(operands.take()?).into()),
            b'K' => Value::Int(operands.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(operands.take()?).into()),
            b'I' | b'L' => operands.decimal()?,       // INT, LONG
            0x8A => operands.long(1)?,                // LONG1
            0x8B => operands.long(4)?,                // LONG4
            b'U' => operands.text(1)?,                // SHORT_BINSTRING
            b'T' => operands.text(4)?,                // BINSTRING
            0x8C => operands.text(1)?,                // SHORT_BINUNICODE
            b'X' => operands.text(4)?,                // BINUNICODE
            0x8D => operands.text(8)?,                // BINUNICODE8
            b'S' => operands.quoted()?,               // STRING
            b'V' => operands.escaped()?,              // UNICODE
            b'C' => operands.skip_counted(1)?,        // SHORT_BINBYTES
            b'B' => operands.skip_counted(4)?,        // BINBYTES
            0x8E | 0x96 => operands.skip_counted(8)?, // BINBYTES8, BYTEARRAY8
            b'c' => {
                let module = operands.line()?;
                self.objects.global(module, operands.line()?)?
            }
            b'g' => {
                let key = operands.key()?;
                self.recall(key)?
            }
            b'h' => {
                let key = operands.byte()?;
                self.recall(key.into())?
            }
            b'j' => {
                let key = u32::from_le_bytes(operands.take()?);
                self.recall(key.into())?
            }
            _ => return Ok(None),
        }))
    }

    /// Returns the value of an instruction that builds it, mostly from the stack.
    fn build(&mut self, opcode: u8) -> Result<Option<Value>> {
        Ok(Some(match opcode {
            b'(' => Value::Mark,
            b')' => self.objects.add(Object::Tuple(Vec::new())), // EMPTY_TUPLE
            b'}' => self.objects.built_in(DICT),                 // EMPTY_DICT
            b']' => self.objects.add(Object::List(Vec::new())),  // EMPTY_LIST
            0x8F => self.objects.built_in("set"),                // EMPTY_SET
            b't' => {
                let items = self.pop_to_mark()?;
                self.objects.add(Object::Tuple(items))
            }
            0x85..=0x87 => {
                // TUPLE1, TUPLE2, TUPLE3
                let count = usize::from(opcode - 0x84);
                let at = self.stack.len().checked_sub(count).ok_or_else(underflow)?;
                let items = self.stack.split_off(at);
                self.objects.add(Object::Tuple(items))
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.objects.add(Object::List(items))
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                let dict = self.objects.built_in(DICT);
                self.set_items(&dict, items);
                dict
            }
            0x91 => {
                self.pop_to_mark()?; // FROZENSET
                self.objects.built_in("frozenset")
            }
            0x93 => self.stack_global()?,
            b'P' => {
                self.operands.line()?; // PERSID, which names storages by no text
                Value::Other
            }
            b'Q' => {
                let id = self.pop()?;
                self.objects.persistent(&id)
            }
            b'R' | 0x81 => {
                // REDUCE, NEWOBJ
                let arguments = self.pop()?;
                let function = self.pop()?;
                self.objects.call(&function, &arguments)?
            }
            0x92 => {
                self.pop()?; // NEWOBJ_EX, with named arguments
                let arguments = self.pop()?;
                let class = self.pop()?;
                self.objects.call(&class, &arguments)?
            }
            b'i' => {
                // INST
                let module = self.operands.line()?;
                let class = self.objects.global(module, self.operands.line()?)?;
                self.pop_to_mark()?;
                self.instance(Some(&class))
            }
            b'o' => {
                let items = self.pop_to_mark()?; // OBJ
                self.instance(items.first())
            }
            b'2' => self.stack.last().cloned().ok_or_else(underflow)?, // DUP
            _ => return Ok(None),
        }))
    }

    /// Runs an instruction that pushes no value.
    fn change(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            0x80 => drop(self.operands.byte()?),      // PROTO
            0x95 => drop(self.operands.skip::<8>()?), // FRAME
            b'0' => drop(self.pop()?),                // POP
            b'1' => drop(self.pop_to_mark()?),        // POP_MARK
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_on_top(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_on_top(items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            0x90 => drop(self.pop_to_mark()?), // ADDITEMS: sets contain no weights
            b'b' => {
                // BUILD
                let restored = self.pop()?;
                let top = self.stack.last().ok_or_else(underflow)?;
                if let Some(Object::Instance { state, .. }) = self.objects.get_mut(top) {
                    *state = restored;
                }
            }
            b'p' => {
                let key = self.operands.key()?;
                self.remember(key)?;
            }
            b'q' => {
                let key = self.operands.byte()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.operands.take()?);
                self.remember(key.into())?;
            }
            0x94 => self.remember(self.memo.len() as u64)?, // MEMOIZE
            0x98 => {}                                      // READONLY_BUFFER
            0x82..=0x84 => return Err(refused("names an object by the number of a registry")),
            0x97 => return Err(refused("keeps data outside the file")), // NEXT_BUFFER
            _ => {
                return Err(Error::artifact(format!(
                    "the pickle contains {opcode:#04x}, which is no instruction; the file is \
                     damaged"
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
        self.objects.global(&module, &name)
    }

    /// Adds an instance of a class.
    fn instance(&mut self, class: Option<&Value>) -> Value {
        match class {
            Some(Value::Global(class)) => self.objects.instance(class.clone()),
            _ => self.objects.built_in("?"),
        }
    }

    fn pop(&mut self) -> Result<Value> {
        match self.stack.pop() {
            None | Some(Value::Mark) => Err(underflow()),
            Some(value) => Ok(value),
        }
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

    fn set_on_top(&mut self, items: Vec<Value>) -> Result<()> {
        let top = self.stack.last().cloned().ok_or_else(underflow)?;
        self.set_items(&top, items);
        Ok(())
    }

    /// Adds keys and values to a dictionary. A later value of a key replaces an earlier one when
    /// the tensors are collected.
    fn set_items(&mut self, dict: &Value, items: Vec<Value>) {
        self.objects.count_values(items.len());
        let Some(Object::Instance { entries, .. }) = self.objects.get_mut(dict) else {
            return;
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            entries.push((key, value));
        }
    }

    fn append(&mut self, new: Vec<Value>) -> Result<()> {
        let top = self.stack.last().ok_or_else(underflow)?;
        self.objects.count_values(new.len());
        if let Some(Object::List(items) | Object::Instance { items, .. }) =
            self.objects.get_mut(top)
        {
            items.extend(new);
        }
        Ok(())
    }

    fn remember(&mut self, key: u64) -> Result<()> {
        let value = self.stack.last().ok_or_else(underflow)?;
        self.memo.insert(key, value.clone());
        Ok(())
    }

    fn recall(&self, key: u64) -> Result<Value> {
        let value = self.memo.get(&key).cloned();
        value.ok_or_else(|| Error::artifact("the pickle recalls a value that it never stored"))
    }
}

fn refused(what: &str) -> Error {
    Error::artifact(format!(
        "the pickle {what}, which is not supported; save the weights as a state dict"
    ))
}
