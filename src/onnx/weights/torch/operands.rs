//! The operands of pickle instructions.

use super::object::Value;
use crate::error::{Error, Result};

/// Reads a pickle from front to back.
pub(super) struct Operands<'a> {
    pickle: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Operands<'a> {
    pub(super) fn new(pickle: &'a [u8]) -> Self {
        Self {
            pickle,
            rest: pickle,
        }
    }

    /// Returns the number of bytes that were read.
    pub(super) fn position(&self) -> usize {
        self.pickle.len() - self.rest.len()
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        let [byte] = self.take()?;
        Ok(byte)
    }

    pub(super) fn skip<const N: usize>(&mut self) -> Result<Value> {
        self.take::<N>().map(|_| Value::Other)
    }

    /// Reads bytes after their count, which has `width` bytes.
    fn counted(&mut self, width: usize) -> Result<&'a [u8]> {
        let mut count = [0; 8];
        for byte in count.iter_mut().take(width) {
            *byte = self.byte()?;
        }
        let count = usize::try_from(u64::from_le_bytes(count)).map_err(|_| cut_off())?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn skip_counted(&mut self, width: usize) -> Result<Value> {
        self.counted(width).map(|_| Value::Other)
    }

    /// Reads a text; bytes that are not UTF-8 are no name.
    pub(super) fn text(&mut self, width: usize) -> Result<Value> {
        let bytes = self.counted(width)?;
        let text = std::str::from_utf8(bytes).map(|text| Value::Text(text.into()));
        Ok(text.unwrap_or(Value::Other))
    }

    /// Reads an integer in two's complement. One of more than 64 bits is no size.
    pub(super) fn long(&mut self, width: usize) -> Result<Value> {
        let bytes = self.counted(width)?;
        if bytes.len() > 8 {
            return Ok(Value::Other);
        }
        let is_negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut buffer = [if is_negative { 0xFF } else { 0 }; 8];
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(buffer)))
    }

    pub(super) fn line(&mut self) -> Result<&'a str> {
        let end = self.rest.iter().position(|&byte| byte == b'\n');
        let (line, rest) = self.rest.split_at(end.ok_or_else(cut_off)?);
        self.rest = &rest[1..];
        std::str::from_utf8(line)
            .map(|line| line.trim_end_matches('\r'))
            .map_err(|_| Error::artifact("a name in the pickle is not UTF-8"))
    }

    /// Reads an integer as text, with an `L` behind it in protocol 0.
    pub(super) fn decimal(&mut self) -> Result<Value> {
        let number = self.line()?.trim_end_matches('L').parse();
        Ok(number.map_or(Value::Other, Value::Int))
    }

    /// Reads a key of the memo as text.
    pub(super) fn key(&mut self) -> Result<u64> {
        let line = self.line()?;
        line.parse().map_err(|_| {
            Error::artifact(format!(
                "the pickle stores a value under {line:?}, no number"
            ))
        })
    }

    /// Reads a text in quotes. One with escapes is no name.
    pub(super) fn quoted(&mut self) -> Result<Value> {
        let line = self.line()?;
        let inner = line
            .strip_prefix('\'')
            .and_then(|line| line.strip_suffix('\''))
            .or_else(|| line.strip_prefix('"')?.strip_suffix('"'));
        Ok(plain(inner.unwrap_or(line)))
    }

    /// Reads a text. One with escapes is no name.
    pub(super) fn escaped(&mut self) -> Result<Value> {
        self.line().map(plain)
    }
}

fn plain(text: &str) -> Value {
    if text.contains('\\') {
        Value::Other
    } else {
        Value::Text(text.into())
    }
}

fn cut_off() -> Error {
    Error::artifact("the pickle is cut off")
}

pub(super) fn underflow() -> Error {
    Error::artifact("the pickle takes more from its stack than it put there")
}
