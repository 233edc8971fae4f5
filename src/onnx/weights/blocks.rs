//! Paths of transformer blocks: `blocks.3.`, `blocks.0.3.` in chunks, `encoder.layer.3.` and
//! `layer.3.`.

use std::collections::{BTreeMap, BTreeSet};

/// Position of a block in a file: chunk, if there are chunks, and number.
pub(super) type Place = (Option<usize>, usize);

/// Splits the path of a block from a name: `blocks.0.3.norm1.weight` is block 3 of chunk 0.
pub(super) fn split(name: &str) -> Option<(Place, &str)> {
    // The last two are those of modules of transformers 5, which it renames when it saves them.
    const PATHS: [&str; 5] = [
        "blocks.",
        "encoder.layer.",
        "layer.",
        "model.layer.",
        "layers.",
    ];
    let rest = PATHS.iter().find_map(|path| name.strip_prefix(path))?;
    let (first, rest) = number(rest)?;
    Some(match number(rest) {
        Some((second, rest)) => ((Some(first), second), rest),
        None => ((None, first), rest),
    })
}

/// Splits a number and a dot from the front of a name.
fn number(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
    Some((number.parse().ok().filter(|_| is_plain)?, rest))
}

/// Returns the index of each block. Meta's chunks count through all blocks; where numbers repeat,
/// each chunk counts its own.
pub(super) fn indices(places: &BTreeSet<Place>) -> BTreeMap<Place, usize> {
    let numbers: BTreeSet<usize> = places.iter().map(|(_, number)| *number).collect();
    let counts_through = numbers.len() == places.len();
    places
        .iter()
        .enumerate()
        .map(|(rank, &place)| (place, if counts_through { place.1 } else { rank }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(places: &[Place]) -> Vec<usize> {
        indices(&places.iter().copied().collect())
            .into_values()
            .collect()
    }

    #[test]
    fn numbers_of_chunks_may_repeat() {
        assert_eq!(
            split("blocks.1.5.norm1.bias"),
            Some(((Some(1), 5), "norm1.bias"))
        );
        assert_eq!(
            split("encoder.layer.7.mlp.fc1.bias"),
            Some(((None, 7), "mlp.fc1.bias"))
        );
        assert_eq!(split("layer.2.norm1.bias"), Some(((None, 2), "norm1.bias")));
        assert_eq!(split("blocks.x.norm1.bias"), None);
        let chunk = |chunk, number| (Some(chunk), number);
        assert_eq!(
            of(&[chunk(0, 0), chunk(0, 1), chunk(1, 2), chunk(1, 3)]),
            [0, 1, 2, 3]
        );
        assert_eq!(
            of(&[chunk(0, 0), chunk(0, 1), chunk(1, 0), chunk(1, 1)]),
            [0, 1, 2, 3]
        );
        assert_eq!(of(&[(None, 0), (None, 2)]), [0, 2]);
    }
}
