//! Which combinations of tags are decoded exactly.

use super::{
    color::{Alpha, Color, Format},
    compression::Compression,
    directory::{self as tag, Directory, Tag, listed},
    layout::Layout,
};
use crate::error::Result;

impl Layout<'_> {
    /// Rejects what is not decoded exactly, with the tag that is the reason.
    pub(super) fn check(&self, tags: &Directory<'_>) -> Result<()> {
        self.check_samples()?;
        if self.planar && self.samples == 4 && self.color == Color::Rgb {
            // Pillow takes the fourth sample for alpha, but not if it is in planes.
            if tags.list(tag::EXTRA_SAMPLES)?.is_empty() {
                return Err(tag::EXTRA_SAMPLES.refused("missing with 4 planes"));
            }
        }
        self.check_compression(tags)
    }

    fn check_samples(&self) -> Result<()> {
        let gray = matches!(self.color, Color::Gray { .. });
        // Samples that are left out are not looked at.
        let plain = matches!(self.color, Color::Gray { inverted: false })
            && self.alpha == Alpha::None
            && self.samples_in_chunk() == 1;
        let supported: &[u64] = match (self.format, self.color) {
            (Format::Unsigned, _) if plain => &[1, 2, 4, 8, 16, 32],
            (Format::Unsigned, _) if gray && self.samples == 1 => &[1, 2, 4, 8, 16],
            (Format::Unsigned, Color::Palette) if self.samples == 1 => &[1, 2, 4, 8],
            (Format::Unsigned, Color::Palette | Color::YCbCr) => &[8],
            (Format::Unsigned, _) => &[8, 16],
            (Format::Signed, _) if plain => &[8, 16, 32],
            (Format::Float, _) if plain => &[32],
            (Format::Signed, _) => return Err(tag::SAMPLE_FORMAT.refused("2 (signed)")),
            (Format::Float, _) => return Err(tag::SAMPLE_FORMAT.refused("3 (floating point)")),
        };
        if supported.contains(&self.bits) {
            return Ok(());
        }
        let bits = self.bits;
        Err(tag::BITS_PER_SAMPLE.refused(match self.format {
            Format::Unsigned => format!("{bits}"),
            Format::Signed => format!("{bits} (signed)"),
            Format::Float => format!("{bits} (floating point)"),
        }))
    }

    fn check_compression(&self, tags: &Directory<'_>) -> Result<()> {
        use Compression::{Fax3, Fax4, Jpeg, Runs};
        let subsampling = || tags.list(tag::YCBCR_SUBSAMPLING);
        match self.compression {
            Runs | Fax3 | Fax4 if self.bits != 1 || self.samples != 1 => {
                Err(tag::BITS_PER_SAMPLE.refused(format!("{} in a fax", self.bits)))
            }
            Jpeg if self.bits != 8 || self.format != Format::Unsigned => {
                Err(tag::BITS_PER_SAMPLE.refused(format!("{} in JPEG", self.bits)))
            }
            Jpeg if self.samples != self.color.samples() => {
                let found = listed(&tags.list(tag::EXTRA_SAMPLES)?);
                Err(tag::EXTRA_SAMPLES.refused(format!("{found} in JPEG")))
            }
            Jpeg if self.planar && self.color == Color::YCbCr => {
                Err(tag::PLANAR_CONFIGURATION.refused("2 with YCbCr"))
            }
            Jpeg => Ok(()),
            _ if self.color == Color::YCbCr => {
                let subsampling = subsampling()?;
                if subsampling != [1, 1] {
                    let found = match subsampling.as_slice() {
                        [] => "missing and so 2, 2".to_owned(),
                        numbers => listed(numbers),
                    };
                    return Err(tag::YCBCR_SUBSAMPLING.refused(found));
                }
                require(tags, tag::YCBCR_COEFFICIENTS, &[0.299, 0.587, 0.114])?;
                let full = [0.0, 255.0, 128.0, 255.0, 128.0, 255.0];
                require(tags, tag::REFERENCE_BLACK_WHITE, &full)
            }
            _ => Ok(()),
        }
    }
}

/// Rejects other rational numbers than the usual ones.
fn require(tags: &Directory<'_>, tag: Tag, usual: &[f64]) -> Result<()> {
    let Some(values) = tags.find(tag)? else {
        return Ok(());
    };
    let found = values.rationals();
    let equal = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4;
    if found.len() == usual.len() && found.iter().zip(usual).all(equal) {
        return Ok(());
    }
    Err(tag.refused(format!("not {usual:?}")))
}
