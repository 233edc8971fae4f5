//! Checks of a portable map (PBM, PGM, PPM, PAM) before it is decoded.

use image::{ImageDecoder, codecs::pnm::PnmDecoder};

use super::undecodable::undecodable;
use crate::error::Result;

/// Rejects samples of another range than 8 or 16 bits, which the decoder (image 0.25) does not
/// scale as Pillow does. Bitmaps, whose samples are 0 and 1, have no such range. A PAM that does
/// not name its kind of tuples is read as if it had 8 bits.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let decoder = PnmDecoder::new(bytes).map_err(|error| undecodable("PNM", error))?;
    let max = decoder.header().maximal_sample();
    let color = decoder.color_type();
    let bits = 8 * color.bytes_per_pixel() / color.channel_count();
    if max == 1 || max == (1 << bits) - 1 {
        return Ok(());
    }
    if max == 65_535 {
        let reason = "it has 16 bits and no TUPLTYPE; convert it to PNG";
        return Err(undecodable("PNM", reason));
    }
    let reason = format!("its samples range to {max}, not to 255 or 65535; convert it to PNG");
    Err(undecodable("PNM", reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_16_bits_are_not_read_as_8() {
        let file = |tuples: &str, max: u32| {
            format!("P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL {max}\n{tuples}ENDHDR\n\u{7f}\u{7f}")
        };
        check(file("", 255).as_bytes()).expect("8 bits");
        check(file("TUPLTYPE GRAYSCALE\n", 65_535).as_bytes()).expect("16 bits");
        let error = check(file("", 65_535).as_bytes()).expect_err("16 bits without a kind");
        assert!(error.detail().contains("no TUPLTYPE"), "{error}");
    }

    #[test]
    fn the_range_of_samples_is_read_from_the_header() {
        let comment = format!("P2 1 1 # {}\n 15 7", "x".repeat(5000));
        let lines = format!("P5\n{}1 1\n1023\n\0\0", "# by hand\n".repeat(1000));
        for (file, max) in [
            ("P5 # by hand 7\n1 # wide\n 1 1023 \0\0", Some(1023)),
            (
                "P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 15\nENDHDR\nx",
                Some(15),
            ),
            (comment.as_str(), Some(15)),
            (lines.as_str(), Some(1023)),
            ("P2 1 1 15 7", Some(15)),
            ("P6\n1 1\n255\nxxx", None),
            ("P2 1 1 65535 7", None),
            (
                "P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 1\nENDHDR\n\u{1}",
                None,
            ),
            ("P4\n1 1\n\u{7f}", None),
        ] {
            let error = check(file.as_bytes()).err();
            let expected = max.map(|max| {
                format!(
                    "the PNM cannot be decoded: its samples range to {max}, not to 255 or 65535; \
                     convert it to PNG"
                )
            });
            assert_eq!(
                error.map(|error| error.detail().to_owned()),
                expected,
                "{file:.40}"
            );
        }
        assert!(check(b"P6").is_err());
    }
}
