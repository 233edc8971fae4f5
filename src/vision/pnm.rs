//! Checks of a portable map (PBM, PGM, PPM, PAM) before it is decoded.

use crate::error::{Error, Kind, Result};

/// Rejects samples of another range than 8 or 16 bits: the decoder (image 0.25) returns them as
/// they are stored, too dark.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    match max_value(bytes) {
        Some(max) if max != 255 && max != 65_535 => {
            let detail = format!(
                "the PNM cannot be decoded: its samples range to {max}, not to 255 or 65535; \
                 convert it to PNG"
            );
            Err(Error::new(Kind::UndecodableImage, detail))
        }
        _ => Ok(()),
    }
}

/// Reads the largest value of a sample from the header. A bitmap has none.
fn max_value(bytes: &[u8]) -> Option<u32> {
    let header = &bytes[..bytes.len().min(4096)];
    let number = |token: &[u8]| std::str::from_utf8(token).ok()?.parse().ok();
    match bytes.get(1)? {
        b'2' | b'3' | b'5' | b'6' => number(&tokens(header.get(2..)?).nth(2)?),
        b'7' => {
            let mut words = tokens(header);
            words.find(|word| word == b"MAXVAL")?;
            let max = number(&words.next()?)?;
            // A bitmap in the form of a PAM
            (max != 1).then_some(max)
        }
        _ => None,
    }
}

/// Returns the words of a header, without its comments.
fn tokens(header: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let lines = header.split(|&byte| byte == b'\n' || byte == b'\r');
    lines
        .map(|line| line.split(|&byte| byte == b'#').next().unwrap_or_default())
        .flat_map(|line| line.split(u8::is_ascii_whitespace))
        .filter(|word| !word.is_empty())
        .map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_samples_is_read_from_the_header() {
        for (header, expected) in [
            ("P6\n2 2\n255\nxxx", Some(255)),
            ("P5 # by hand 7\n2 # wide\n 2 1023 xxx", Some(1023)),
            (
                "P7\nWIDTH 2\nHEIGHT 2\nDEPTH 1\nMAXVAL 15\nENDHDR\n",
                Some(15),
            ),
            ("P7\nWIDTH 2\nMAXVAL 1\nENDHDR\n", None),
            ("P4\n2 2\n\u{7f}", None),
            ("P6", None),
        ] {
            assert_eq!(max_value(header.as_bytes()), expected, "{header:?}");
        }
        let error = check(b"P2 1 1 15 7").expect_err("4 bits");
        assert!(error.detail().contains("range to 15"), "{error}");
        check(b"P2 1 1 65535 7").expect("16 bits");
    }
}
