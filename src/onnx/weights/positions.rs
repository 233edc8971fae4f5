//! Which tokens a position table covers.

/// Tokens of a position table, in front of the patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    /// CLS, as in Meta's models.
    Cls,
    /// None: the table has only patches, as in timm's models with registers, whose CLS token
    /// contains its position.
    Patches,
    /// CLS and this many registers.
    Registers(usize),
}

impl Coverage {
    /// Finds what a table of `rows` rows covers, and the side of its grid.
    pub(super) fn of(rows: usize, registers: usize) -> Option<(Self, usize)> {
        [Self::Cls, Self::Patches, Self::Registers(registers)]
            .into_iter()
            .find_map(|coverage| {
                let patches = rows.checked_sub(coverage.prefix())?;
                let grid = patches.isqrt();
                (grid > 0 && grid * grid == patches).then_some((coverage, grid))
            })
    }

    /// Returns the number of tokens in front of the patches.
    fn prefix(self) -> usize {
        match self {
            Self::Patches => 0,
            Self::Cls => 1,
            Self::Registers(count) => count.saturating_add(1),
        }
    }

    /// Returns the number of rows for a grid.
    pub(super) fn rows(self, grid: usize) -> usize {
        grid.saturating_mul(grid).saturating_add(self.prefix())
    }

    /// Returns a table of rows of `width` values with one row for CLS in front of the patches.
    pub(super) fn with_cls_only(self, table: &[f32], width: usize) -> Vec<f32> {
        let (prefix, patches) = table.split_at((self.prefix() * width).min(table.len()));
        let mut out = vec![0.0; width];
        if let Some(cls) = prefix.get(..width) {
            out.copy_from_slice(cls);
        }
        out.extend_from_slice(patches);
        out
    }

    /// Returns the positions of registers.
    pub(super) fn registers(self, table: &[f32], width: usize) -> &[f32] {
        table
            .get(width..(self.prefix() * width).min(table.len()))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_rows_says_what_a_table_covers() {
        assert_eq!(Coverage::of(1370, 0), Some((Coverage::Cls, 37)));
        assert_eq!(Coverage::of(1370, 4), Some((Coverage::Cls, 37)));
        assert_eq!(Coverage::of(1369, 4), Some((Coverage::Patches, 37)));
        assert_eq!(Coverage::of(1374, 4), Some((Coverage::Registers(4), 37)));
        assert_eq!(Coverage::of(1375, 4), None);
        assert_eq!(Coverage::of(0, 0), None);
    }

    #[test]
    fn tables_get_one_row_for_cls() {
        let table = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(
            Coverage::Patches.with_cls_only(&table, 1),
            [0.0, 1.0, 2.0, 3.0, 4.0]
        );
        assert_eq!(Coverage::Registers(2).with_cls_only(&table, 1), [1.0, 4.0]);
        assert_eq!(Coverage::Registers(2).registers(&table, 1), [2.0, 3.0]);
    }
}
