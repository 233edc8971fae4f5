//! Bytes as hexadecimal text.

/// Returns `bytes` as lowercase hexadecimal digits.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn encode_writes_two_digits_a_byte() {
        assert_eq!(super::encode(&[0x00, 0x0f, 0xa5]), "000fa5");
    }
}
