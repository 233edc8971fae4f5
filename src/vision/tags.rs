//! Numbers in the directories of tags that TIFF files and EXIF blocks have.

/// Order of the bytes in a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    /// Returns the order that the first two bytes of a file or block state.
    pub(super) fn stated(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'I', b'I', ..] => Some(Self::Little),
            [b'M', b'M', ..] => Some(Self::Big),
            _ => None,
        }
    }

    /// Reads an unsigned integer of at most 8 bytes.
    pub(super) fn number(self, bytes: &[u8]) -> u64 {
        let append = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        match self {
            Self::Little => bytes.iter().rev().fold(0, append),
            Self::Big => bytes.iter().fold(0, append),
        }
    }

    pub(super) fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    pub(super) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }
}

// Types of values.
pub(super) const BYTE: u64 = 1;
pub(super) const SHORT: u64 = 3;
pub(super) const LONG: u64 = 4;
pub(super) const RATIONAL: u64 = 5;
pub(super) const SBYTE: u64 = 6;
pub(super) const SSHORT: u64 = 8;
pub(super) const SLONG: u64 = 9;
pub(super) const SRATIONAL: u64 = 10;
pub(super) const FLOAT: u64 = 11;
pub(super) const DOUBLE: u64 = 12;
pub(super) const IFD: u64 = 13;
pub(super) const LONG8: u64 = 16;
const ASCII: u64 = 2;
const UNDEFINED: u64 = 7;

/// Returns the length in bytes of a value of a type, or `None` for a type that Pillow does not
/// know.
pub(super) const fn size_of(kind: u64) -> Option<usize> {
    match kind {
        BYTE | ASCII | SBYTE | UNDEFINED => Some(1),
        SHORT | SSHORT => Some(2),
        LONG | SLONG | FLOAT | IFD => Some(4),
        RATIONAL | SRATIONAL | DOUBLE | LONG8 => Some(8),
        _ => None,
    }
}
