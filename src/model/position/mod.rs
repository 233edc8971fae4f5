//! Position encodings: what the graph needs to know about an image's grid.

mod rope;
mod table;

use ndarray::{Array3, Axis};

pub use self::{rope::RopePeriods, table::PositionTable};
use super::{Architecture, Positions};
use crate::vision::Grid;

/// The position encoding of a model.
#[derive(Debug, Clone)]
pub enum PositionEncoding {
    /// A trained table.
    Table(PositionTable),
    /// Rotations.
    Rope(RopePeriods),
}

impl PositionEncoding {
    /// Returns the name of the graph's input.
    pub fn input_name(&self) -> &'static str {
        Self::input_name_of(match self {
            Self::Table(_) => Positions::Learned,
            Self::Rope(_) => Positions::Rope,
        })
    }

    /// Returns the name of the graph's input for a kind of position encoding.
    pub fn input_name_of(positions: Positions) -> &'static str {
        match positions {
            Positions::Learned => "pos_embed",
            Positions::Rope => "rope",
        }
    }

    /// Computes the graph's input for `grid`: a table `[1, 1 + patches, dim]`, or the cosines and
    /// sines `[2, tokens, head_dim / 2]`.
    pub fn for_grid(&self, grid: Grid) -> Array3<f32> {
        match self {
            Self::Table(table) => table.interpolate(grid).insert_axis(Axis(0)),
            Self::Rope(periods) => periods.rotations(grid),
        }
    }
}
