//! The tokens of an image that is compared with another one.

use ndarray::ArrayView2;

use crate::vision::Grid;

/// Patch tokens of an image that is compared with another one.
#[derive(Debug, Clone, Copy)]
pub struct Patches<'a> {
    /// `[h · w, dim]`, row by row.
    pub tokens: ArrayView2<'a, f32>,
    /// Rows and columns of the patches.
    pub grid: Grid,
    /// Whether a patch may be matched, `[h · w]`; `None` for all.
    pub chosen: Option<&'a [bool]>,
}
