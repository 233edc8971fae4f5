//! Connected patches.

use crate::vision::Grid;

/// Which patches are neighbors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connectivity {
    /// Those that share an edge.
    Edges,
    /// Those that share an edge or a corner.
    Corners,
}

/// Returns the connected components of the chosen patches, in the order of their first patch.
pub(super) fn components(
    chosen: &[bool],
    grid: Grid,
    connectivity: Connectivity,
) -> Vec<Vec<bool>> {
    let mut rest = chosen.to_vec();
    let mut components = Vec::new();
    while let Some(first) = rest.iter().position(|&patch| patch) {
        let mut component = vec![false; chosen.len()];
        let mut queue = vec![first];
        rest[first] = false;
        while let Some(patch) = queue.pop() {
            component[patch] = true;
            let (row, column) = (patch / grid.width, patch % grid.width);
            for near_row in row.saturating_sub(1)..(row + 2).min(grid.height) {
                for near_column in column.saturating_sub(1)..(column + 2).min(grid.width) {
                    let shares_edge = near_row == row || near_column == column;
                    let near = near_row * grid.width + near_column;
                    if (shares_edge || connectivity == Connectivity::Corners)
                        && std::mem::take(&mut rest[near])
                    {
                        queue.push(near);
                    }
                }
            }
        }
        components.push(component);
    }
    components
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_connect_only_where_they_may() {
        let grid = Grid {
            height: 3,
            width: 4,
        };
        let chosen = b"##...#.##..#".map(|byte| byte == b'#');
        let count = |connectivity| {
            let components = components(&chosen, grid, connectivity);
            components
                .iter()
                .map(|component| component.iter().filter(|&&patch| patch).count())
                .collect::<Vec<_>>()
        };
        assert_eq!(count(Connectivity::Edges), [3, 2, 1]);
        assert_eq!(count(Connectivity::Corners), [4, 2]);
    }
}
