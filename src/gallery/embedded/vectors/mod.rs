//! Vectors in memory, in one of four precisions, and their products with a query.
//!
//! Products in single precision are the scores of answers. All others are estimates, by which
//! searches choose the rows whose stored vectors they read.

mod bits;
mod bytes;
mod halves;
mod native;
mod rotation;
mod singles;

use std::sync::Arc;

use half::f16;

pub(super) use self::{
    bits::{BitCodes, BitQuery, RawCodes},
    bytes::{ByteCodes, ByteQuery},
    rotation::Rotation,
    singles::products,
};
use crate::gallery::VectorFormat;

/// A rotation, and the center of the codes of all rows.
#[derive(Debug)]
pub(super) struct BitCoder {
    rotation: Rotation,
    /// Rotated center: `[dim]`.
    center: Vec<f32>,
}

impl BitCoder {
    /// Returns the coder whose center is the mean of vectors of `dim` values.
    pub(super) fn of_mean<'a>(vectors: impl Iterator<Item = &'a [f32]>, dim: usize) -> Self {
        let mut center = vec![0.0; dim];
        let mut count = 0.0f32;
        for vector in vectors {
            count += 1.0;
            center
                .iter_mut()
                .zip(vector)
                .for_each(|(sum, value)| *sum += value);
        }
        center.iter_mut().for_each(|sum| *sum /= count.max(1.0));
        let rotation = Rotation::new(dim);
        rotation.apply(&mut center);
        Self { rotation, center }
    }

    fn rotated(&self, vector: &[f32]) -> Vec<f32> {
        let mut rotated = vector.to_vec();
        self.rotation.apply(&mut rotated);
        rotated
    }
}

/// How vectors are encoded.
#[derive(Debug, Clone)]
pub(super) enum Encoding {
    F32,
    F16,
    I8,
    B1(Arc<BitCoder>),
}

impl Encoding {
    /// Returns the encoding of a format. Without a coder, one bit is not possible yet.
    pub(super) fn of(format: VectorFormat, coder: Option<&Arc<BitCoder>>) -> Self {
        match (format, coder) {
            (VectorFormat::F16, _) => Self::F16,
            (VectorFormat::I8, _) => Self::I8,
            (VectorFormat::B1, Some(coder)) => Self::B1(Arc::clone(coder)),
            (VectorFormat::F32, _) | (VectorFormat::B1, None) => Self::F32,
        }
    }
}

/// Vectors of the rows of a chunk.
#[derive(Debug)]
pub(super) enum Vectors {
    /// `[rows, dim]`.
    F32(Vec<f32>),
    /// `[rows, dim]`.
    F16(Vec<f16>),
    I8(ByteCodes),
    B1(BitCodes, Arc<BitCoder>),
}

impl Vectors {
    pub(super) fn with_capacity(encoding: &Encoding, rows: usize, dim: usize) -> Self {
        match encoding {
            Encoding::F32 => Self::F32(Vec::with_capacity(rows * dim)),
            Encoding::F16 => Self::F16(Vec::with_capacity(rows * dim)),
            Encoding::I8 => Self::I8(ByteCodes::with_capacity(dim, rows)),
            Encoding::B1(coder) => Self::B1(BitCodes::with_capacity(dim, rows), Arc::clone(coder)),
        }
    }

    pub(super) fn push(&mut self, vector: &[f32]) {
        match self {
            Self::F32(values) => values.extend_from_slice(vector),
            Self::F16(values) => values.extend(vector.iter().map(|&value| f16::from_f32(value))),
            Self::I8(codes) => codes.push(vector),
            Self::B1(codes, coder) => codes.push(&coder.rotated(vector), &coder.center),
        }
    }

    /// Adds a row of other vectors, of the same encoding or in single precision.
    pub(super) fn push_from(&mut self, other: &Self, row: usize, dim: usize) {
        let range = row * dim..(row + 1) * dim;
        match (self, other) {
            (to, Self::F32(from)) => to.push(&from[range]),
            (Self::F16(to), Self::F16(from)) => to.extend_from_slice(&from[range]),
            (Self::I8(to), Self::I8(from)) => to.push_from(from, row, dim),
            (Self::B1(to, _), Self::B1(from, _)) => to.push_from(from, row),
            _ => unreachable!("the encoding of a gallery changes from single precision only"),
        }
    }

    /// Returns all rows in single precision, if they are.
    pub(super) fn singles(&self) -> Option<&[f32]> {
        match self {
            Self::F32(values) => Some(values),
            _ => None,
        }
    }

    /// Copies a row in single precision into `to`, and returns whether the precision of the rows
    /// allows it.
    pub(super) fn copy_row(&self, row: usize, dim: usize, to: &mut Vec<f32>) -> bool {
        let range = row * dim..(row + 1) * dim;
        to.clear();
        match self {
            Self::F32(values) => to.extend_from_slice(&values[range]),
            Self::F16(values) => to.extend(values[range].iter().map(|value| value.to_f32())),
            Self::I8(_) | Self::B1(..) => return false,
        }
        true
    }
}

/// A query, prepared for the vectors of a gallery.
pub(super) struct Scorer<'a> {
    query: &'a [f32],
    bytes: Option<ByteQuery>,
    bits: Option<BitQuery>,
    scores: Vec<f32>,
}

impl<'a> Scorer<'a> {
    pub(super) fn new(query: &'a [f32]) -> Self {
        Self {
            query,
            bytes: None,
            bits: None,
            scores: Vec::new(),
        }
    }

    /// Returns the products of a range of rows, or their estimates.
    pub(super) fn all(&mut self, vectors: &Vectors, rows: std::ops::Range<usize>) -> &[f32] {
        let dim = self.query.len();
        let values = rows.start * dim..rows.end * dim;
        if let Vectors::B1(codes, coder) = vectors {
            let query = self
                .bits
                .get_or_insert_with(|| BitQuery::new(&coder.rotated(self.query), &coder.center));
            let (first, count) = (
                codes.estimate(query, rows.clone(), &mut self.scores),
                rows.len(),
            );
            return &self.scores[first..first + count];
        }
        self.scores.clear();
        self.scores.resize(rows.len(), 0.0);
        match vectors {
            Vectors::F32(all) => products(self.query, &all[values], &mut self.scores),
            Vectors::F16(all) => halves::products(self.query, &all[values], &mut self.scores),
            Vectors::I8(codes) => {
                let query = self.bytes.get_or_insert_with(|| ByteQuery::new(self.query));
                codes.estimate(query, rows.start, &mut self.scores);
            }
            Vectors::B1(..) => unreachable!("returned above"),
        }
        &self.scores
    }

    /// Returns the product of a row, bit for bit the same as of [`Scorer::all`].
    pub(super) fn one(&mut self, vectors: &Vectors, row: usize) -> f32 {
        self.all(vectors, row..row + 1)[0]
    }
}
