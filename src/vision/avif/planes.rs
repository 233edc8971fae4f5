//! Samples of an AVIF image, decoded from AV1.

use aom_decode::{
    Config, Decoder, RowsIter, RowsIters,
    color::{ChromaSampling, ColorPrimaries, Depth, MatrixCoefficients, Range},
};

use super::{
    super::{Size, undecodable::undecodable},
    boxes::Color,
};
use crate::error::Result;

/// How many chroma samples there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampling {
    /// None: the image is gray.
    Gray,
    /// One for each pixel (4:4:4).
    Full,
    /// One for two pixels of a row (4:2:2).
    HalfWidth,
    /// One for four pixels (4:2:0).
    Quarter,
}

impl Sampling {
    /// Returns the size of a chroma plane.
    fn chroma(self, Size { width, height }: Size) -> Size {
        match self {
            Self::Gray => Size::new(0, 0),
            Self::Full => Size::new(width, height),
            Self::HalfWidth => Size::new(width.div_ceil(2), height),
            Self::Quarter => Size::new(width.div_ceil(2), height.div_ceil(2)),
        }
    }
}

/// A plane of samples, row by row.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) width: usize,
    samples: Vec<u16>,
}

impl Plane {
    fn new(size: Size) -> Self {
        Self {
            width: size.width,
            samples: vec![0; size.width * size.height],
        }
    }

    pub(super) fn row(&self, y: usize) -> &[u16] {
        &self.samples[y * self.width..][..self.width]
    }

    fn row_mut(&mut self, y: usize) -> &mut [u16] {
        &mut self.samples[y * self.width..][..self.width]
    }

    /// Copies rows of another plane to a place in this one, as far as they fit.
    fn paste<'a>(&mut self, x: usize, y: usize, rows: impl Iterator<Item = &'a [u16]>) {
        let height = self.samples.len().checked_div(self.width).unwrap_or(0);
        for (y, row) in (y..height).zip(rows) {
            let Some(target) = self.row_mut(y).get_mut(x..) else {
                return;
            };
            let length = row.len().min(target.len());
            target[..length].copy_from_slice(&row[..length]);
        }
    }
}

/// A decoded image: luma, and two planes of chroma.
#[derive(Debug)]
pub(super) struct Planes {
    pub(super) size: Size,
    /// Bits of a sample.
    pub(super) depth: u32,
    pub(super) sampling: Sampling,
    pub(super) planes: [Plane; 3],
    /// What the bitstream says of colors.
    pub(super) color: Color,
}

impl Planes {
    /// Makes an image of `size`, in which tiles of the kind of `tile` are placed.
    pub(super) fn canvas(size: Size, tile: &Self) -> Self {
        let chroma = tile.sampling.chroma(size);
        Self {
            size,
            depth: tile.depth,
            sampling: tile.sampling,
            planes: [Plane::new(size), Plane::new(chroma), Plane::new(chroma)],
            color: tile.color,
        }
    }

    /// Copies a tile to a place in this image.
    pub(super) fn place(&mut self, tile: &Self, x: usize, y: usize) -> Result<()> {
        if (tile.depth, tile.sampling) != (self.depth, self.sampling) {
            return Err(undecodable("AVIF", "its tiles are of several kinds"));
        }
        let chroma = self.sampling.chroma(Size::new(x, y));
        let is_between = |at: usize, chroma: usize| chroma > 0 && at != chroma && at % 2 == 1;
        if is_between(x, chroma.width) || is_between(y, chroma.height) {
            return Err(undecodable(
                "AVIF",
                "a tile begins between two chroma samples",
            ));
        }
        let corners = [
            (x, y),
            (chroma.width, chroma.height),
            (chroma.width, chroma.height),
        ];
        for ((target, source), (x, y)) in self.planes.iter_mut().zip(&tile.planes).zip(corners) {
            if source.width > 0 {
                target.paste(x, y, source.samples.chunks_exact(source.width));
            }
        }
        Ok(())
    }

    /// Decodes the bitstream of an image of `size`, which [`header::check`](super::header::check)
    /// has accepted.
    pub(super) fn decode(stream: &[u8], size: Size) -> Result<Self> {
        let failed = |error: aom_decode::Error| undecodable("AVIF", error.to_string());
        let mut decoder = Decoder::new(&Config { threads: 1 }).map_err(failed)?;
        let frame = decoder.decode_frame(stream).map_err(failed)?;
        let color = Color {
            primaries: frame
                .color_primaries()
                .map_or(UNSPECIFIED, primaries_number),
            matrix: frame
                .matrix_coefficients()
                .map_or(UNSPECIFIED, matrix_number),
            is_full_range: matches!(frame.range(), Range::Full),
        };
        let (depth, sampling, planes) = match frame.rows_iter().map_err(failed)? {
            RowsIters::Mono8(y) => (Depth::Depth8, Sampling::Gray, [Some(bytes(y)), None, None]),
            RowsIters::Mono16(y, depth) => (depth, Sampling::Gray, [Some(words(y)), None, None]),
            RowsIters::YuvPlanes8 {
                y,
                u,
                v,
                chroma_sampling,
            } => (
                Depth::Depth8,
                sampling(chroma_sampling),
                [y, u, v].map(|rows| Some(bytes(rows))),
            ),
            RowsIters::YuvPlanes16 {
                y,
                u,
                v,
                chroma_sampling,
                depth,
            } => (
                depth,
                sampling(chroma_sampling),
                [y, u, v].map(|rows| Some(words(rows))),
            ),
        };
        let depth = match depth {
            Depth::Depth8 => 8,
            Depth::Depth10 => 10,
            Depth::Depth12 => 12,
            _ => return Err(undecodable("AVIF", "its samples have more than 12 bits")),
        };
        let chroma = sampling.chroma(size);
        let planes = planes.map(|plane| plane.unwrap_or_else(|| Plane::new(Size::new(0, 0))));
        for (plane, size) in planes.iter().zip([size, chroma, chroma]) {
            if plane.width != size.width || plane.samples.len() != size.width * size.height {
                return Err(undecodable(
                    "AVIF",
                    "its frame has another size than its header states",
                ));
            }
        }
        Ok(Self {
            size,
            depth,
            sampling,
            planes,
            color,
        })
    }
}

fn bytes(rows: RowsIter<'_, u8>) -> Plane {
    let width = rows.width();
    let mut samples = Vec::with_capacity(width * rows.height());
    rows.for_each(|row| samples.extend(row.iter().map(|&sample| u16::from(sample))));
    Plane { width, samples }
}

fn words(rows: RowsIter<'_, [u8; 2]>) -> Plane {
    let width = rows.width();
    let mut samples = Vec::with_capacity(width * rows.height());
    rows.for_each(|row| samples.extend(row.iter().map(|&sample| u16::from_ne_bytes(sample))));
    Plane { width, samples }
}

fn sampling(sampling: ChromaSampling) -> Sampling {
    match sampling {
        ChromaSampling::Cs444 => Sampling::Full,
        ChromaSampling::Cs422 => Sampling::HalfWidth,
        ChromaSampling::Cs420 => Sampling::Quarter,
        _ => Sampling::Gray,
    }
}

/// The number for "not known" of ITU-T H.273.
pub(super) const UNSPECIFIED: u16 = 2;

fn primaries_number(primaries: ColorPrimaries) -> u16 {
    match primaries {
        ColorPrimaries::BT709 => 1,
        ColorPrimaries::BT470BG => 5,
        ColorPrimaries::BT601 => 6,
        ColorPrimaries::BT2020 => 9,
        _ => UNSPECIFIED,
    }
}

fn matrix_number(matrix: MatrixCoefficients) -> u16 {
    match matrix {
        MatrixCoefficients::Identity => 0,
        MatrixCoefficients::BT709 => 1,
        MatrixCoefficients::FCC => 4,
        MatrixCoefficients::BT470BG => 5,
        MatrixCoefficients::BT601 => 6,
        MatrixCoefficients::SMPTE240 => 7,
        MatrixCoefficients::YCgCo => 8,
        MatrixCoefficients::BT2020NCL => 9,
        MatrixCoefficients::SMPTE2085 => 11,
        MatrixCoefficients::ChromatNCL => 12,
        MatrixCoefficients::ChromatCL => 13,
        MatrixCoefficients::ICtCp => 14,
        _ => UNSPECIFIED,
    }
}
