//! Weights of separable resampling with antialiasing: the filter's support grows with the shrink
//! factor.

use crate::names::option_enum;

option_enum! {
    /// Resampling filter.
    #[derive(Default)]
    pub enum ResampleFilter {
        /// Bicubic with a = −0.5, the evaluation transform's filter.
        #[default]
        Bicubic,
        /// Bilinear (a triangle), torchvision's default.
        Bilinear,
    }
}

/// Shape of a filter before it is stretched.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Half width in source pixels at scale 1.
    pub support: f64,
    /// Weight at a distance, in source pixels at scale 1.
    pub weight: fn(f64) -> f64,
}

impl ResampleFilter {
    /// Returns the kernel of this filter.
    pub fn kernel(self) -> Kernel {
        match self {
            Self::Bicubic => Kernel {
                support: 2.0,
                weight: bicubic,
            },
            Self::Bilinear => Kernel {
                support: 1.0,
                weight: triangle,
            },
        }
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Computes Keys' cubic with a = −0.5, in Pillow's order of operations, so that the last bit
/// agrees.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Source positions and weights of each output position.
#[derive(Debug, Clone)]
pub struct Taps<T> {
    starts: Vec<usize>,
    lengths: Vec<usize>,
    weights: Vec<T>,
    stride: usize,
}

/// Source positions and weights of one output position.
#[derive(Debug, Clone, Copy)]
pub struct Tap<'a, T> {
    /// First source position.
    pub start: usize,
    /// Weights of the source positions from `start` on.
    pub weights: &'a [T],
}

impl<T> Taps<T> {
    /// Returns the tap of output position `i`.
    pub fn at(&self, i: usize) -> Tap<'_, T> {
        let from = i * self.stride;
        Tap {
            start: self.starts[i],
            weights: &self.weights[from..from + self.lengths[i]],
        }
    }

    /// Returns the number of output positions.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no output position.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Counts source positions from `first` on.
    pub(super) fn shifted(mut self, first: usize) -> Self {
        self.starts.iter_mut().for_each(|start| *start -= first);
        self
    }

    pub(super) fn map<U>(self, f: impl Fn(T) -> U) -> Taps<U> {
        Taps {
            starts: self.starts,
            lengths: self.lengths,
            weights: self.weights.into_iter().map(f).collect(),
            stride: self.stride,
        }
    }
}

/// Computes the normalized weights of output positions `range` when `input` samples become
/// `output`.
pub fn taps(
    kernel: Kernel,
    input: usize,
    output: usize,
    range: std::ops::Range<usize>,
) -> Taps<f64> {
    let scale = input as f64 / output as f64;
    let stretch = scale.max(1.0);
    let support = kernel.support * stretch;
    let stride = support.ceil() as usize * 2 + 1;
    let inverse = 1.0 / stretch;
    let mut taps = Taps {
        starts: Vec::with_capacity(range.len()),
        lengths: Vec::with_capacity(range.len()),
        weights: vec![0.0; range.len() * stride],
        stride,
    };
    for (i, position) in range.enumerate() {
        let center = (position as f64 + 0.5) * scale;
        // Pillow truncates toward zero and then clamps.
        let start = ((center - support + 0.5) as i64).max(0) as usize;
        let end = ((center + support + 0.5) as i64).min(input as i64) as usize;
        let row = &mut taps.weights[i * stride..i * stride + (end - start)];
        let mut sum = 0.0;
        for (j, weight) in row.iter_mut().enumerate() {
            *weight = (kernel.weight)(((j + start) as f64 - center + 0.5) * inverse);
            sum += *weight;
        }
        if sum != 0.0 {
            row.iter_mut().for_each(|weight| *weight /= sum);
        }
        taps.starts.push(start);
        taps.lengths.push(end - start);
    }
    taps
}
