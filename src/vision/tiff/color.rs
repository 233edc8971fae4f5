//! The tags that say what the samples of a pixel are.

use super::directory::{self as tag, Directory, listed};
use crate::error::Result;

/// What a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Unsigned,
    Signed,
    Float,
}

/// What the samples of a pixel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Color {
    /// Gray; `inverted` if white is zero.
    Gray {
        inverted: bool,
    },
    Palette,
    Rgb,
    Cmyk,
    YCbCr,
}

/// What the sample after the color is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alpha {
    None,
    Straight,
    /// The color is multiplied by the alpha.
    Premultiplied,
}

impl Color {
    pub(super) const fn samples(self) -> usize {
        match self {
            Self::Gray { .. } | Self::Palette => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }
}

/// Reads what the samples are. Samples after the alpha are not.
pub(super) fn color(tags: &Directory<'_>, samples: usize) -> Result<(Color, Alpha)> {
    // A missing tag counts as 0, as in Pillow.
    let photometric = tags.number(tag::PHOTOMETRIC)?.unwrap_or(0);
    let color = match photometric {
        0 => Color::Gray { inverted: true },
        1 => Color::Gray { inverted: false },
        2 => Color::Rgb,
        3 => Color::Palette,
        5 => Color::Cmyk,
        6 if samples == 1 => Color::Gray { inverted: false },
        6 => Color::YCbCr,
        _ => {
            let name = match photometric {
                4 => " (transparency mask)",
                8..=10 => " (L*a*b*)",
                32803 => " (color filter array)",
                32844 | 32845 => " (logarithmic luminance)",
                34892 => " (linear raw)",
                _ => "",
            };
            return Err(tag::PHOTOMETRIC.refused(format!("{photometric}{name}")));
        }
    };
    let extra = tags.list(tag::EXTRA_SAMPLES)?;
    let is_rgb = color == Color::Rgb;
    let (first, rest) = match extra.as_slice() {
        [] if is_rgb && samples == 4 => (2, [].as_slice()),
        [] => (0, [].as_slice()),
        [first, rest @ ..] => (*first, rest),
    };
    let alpha = match (first, color) {
        (0, _) => Alpha::None,
        (2, Color::Rgb | Color::Palette | Color::Gray { inverted: false }) => Alpha::Straight,
        // CorelDRAW 10.
        (999, Color::Rgb) if extra.len() == 1 => Alpha::Straight,
        (1, Color::Rgb | Color::Gray { inverted: false }) => Alpha::Premultiplied,
        _ => {
            let value = format!("{} with {} {photometric}", listed(&extra), tag::PHOTOMETRIC);
            return Err(tag::EXTRA_SAMPLES.refused(value));
        }
    };
    let stated = color.samples() + extra.len().max(usize::from(alpha != Alpha::None));
    if stated == samples && rest.iter().all(|&kind| kind == 0) {
        return Ok((color, alpha));
    }
    let found = match extra.as_slice() {
        [] => "missing".to_owned(),
        numbers => listed(numbers),
    };
    let value = format!(
        "{found} with {samples} samples and {} {photometric}",
        tag::PHOTOMETRIC
    );
    Err(tag::EXTRA_SAMPLES.refused(value))
}
