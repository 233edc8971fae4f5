//! Rotary positions, as in DINOv3 (`RopePositionEmbedding`, without its random shifts in training).
//!
//! The channels `j` and `j + head_dim / 2` of a query or key are a pair, which is rotated by an
//! angle. The first half of the angles follows from the row of the patch, the second from its
//! column, each from −1 to 1 over the image. CLS and registers are not rotated.

use std::f32::consts::TAU;

use ndarray::Array3;

use super::Architecture;
use crate::vision::Grid;

/// The periods of a model, from which rotations for a grid are made.
#[derive(Debug, Clone, PartialEq)]
pub struct RopePeriods {
    /// `[head_dim / 4]`.
    periods: Vec<f32>,
    prefix_tokens: usize,
}

impl RopePeriods {
    /// Base of the periods of every published model.
    pub const BASE: f32 = 100.0;

    /// Returns whether angles can be computed from these periods of a model.
    pub fn are_usable(periods: &[f32], architecture: &Architecture) -> bool {
        periods.len() == architecture.head_dim() / 4
            && periods
                .iter()
                .all(|&period| period.is_normal() && period > 0.0)
    }

    /// Wraps the periods of a weight file, `[head_dim / 4]`.
    ///
    /// # Panics
    /// If they are not [usable](Self::are_usable).
    pub fn new(periods: Vec<f32>, architecture: &Architecture) -> Self {
        assert!(Self::are_usable(&periods, architecture));
        Self {
            periods,
            prefix_tokens: architecture.prefix_tokens(),
        }
    }

    /// Computes the periods of a weight file without any: `100^(i / n)`.
    pub fn computed(architecture: &Architecture) -> Vec<f32> {
        let count = architecture.head_dim() / 4;
        (0..count)
            .map(|i| Self::BASE.powf(i as f32 / count as f32))
            .collect()
    }

    /// Computes the cosines and sines for `grid`: `[2, tokens, head_dim / 2]`, CLS and registers
    /// first, with an angle of 0.
    pub fn rotations(&self, grid: Grid) -> Array3<f32> {
        let count = self.periods.len();
        let mut out = Array3::zeros((2, self.prefix_tokens + grid.patches(), 2 * count));
        out.index_axis_mut(ndarray::Axis(0), 0).fill(1.0);
        for patch in 0..grid.patches() {
            let places = [
                place(patch / grid.width, grid.height),
                place(patch % grid.width, grid.width),
            ];
            for (axis, place) in places.into_iter().enumerate() {
                for (i, period) in self.periods.iter().enumerate() {
                    let (sin, cos) = (TAU * place / period).sin_cos();
                    let at = (self.prefix_tokens + patch, axis * count + i);
                    out[(0, at.0, at.1)] = cos;
                    out[(1, at.0, at.1)] = sin;
                }
            }
        }
        out
    }
}

/// Returns the place of the middle of a patch, from −1 to 1.
fn place(index: usize, count: usize) -> f32 {
    2.0 * (index as f32 + 0.5) / count as f32 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Positions;

    fn architecture() -> Architecture {
        Architecture {
            dim: 16,
            heads: 2,
            registers: 1,
            native_grid: 0,
            positions: Positions::Rope,
            ..Architecture::DINOV2_SMALL
        }
    }

    #[test]
    fn rows_come_first_and_the_prefix_is_not_rotated() {
        let architecture = architecture();
        let periods = RopePeriods::computed(&architecture);
        assert_eq!(periods, [1.0, 10.0]);
        let grid = Grid {
            height: 1,
            width: 2,
        };
        let rotations = RopePeriods::new(periods, &architecture).rotations(grid);
        assert_eq!(rotations.dim(), (2, 4, 4));
        for token in 0..2 {
            for channel in 0..4 {
                assert_eq!(rotations[(0, token, channel)], 1.0);
                assert_eq!(rotations[(1, token, channel)], 0.0);
            }
        }
        // The only row is in the middle; the columns are at -0.5 and 0.5.
        let angles = [0.0, 0.0, 0.5 * TAU, 0.05 * TAU];
        for (channel, angle) in angles.into_iter().enumerate() {
            let sine = rotations[(1, 3, channel)];
            assert!((sine - angle.sin()).abs() < 1e-6, "{channel}: {sine}");
            assert!((rotations[(1, 2, channel)] + sine).abs() < 1e-6);
        }
    }
}
