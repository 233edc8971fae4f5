//! Tensors under the hub's names, each as the parts that a file has.

use std::collections::BTreeMap;

use super::tensor::RawTensor;

/// Parts of a tensor with their names in the file; joined along their first axis. `None` for a part
/// that the file lacks.
pub(super) type Parts = Vec<Option<(String, RawTensor)>>;

/// Tensors by the hub's names.
pub(super) type Named = BTreeMap<String, Parts>;

/// Returns the joined shape of a tensor; `None` if a part is missing or does not fit.
pub(super) fn shape(tensors: &Named, name: &str) -> Option<Vec<usize>> {
    let parts: Option<Vec<_>> = tensors
        .get(name)?
        .iter()
        .map(|part| part.as_ref().map(|(name, tensor)| (name.as_str(), tensor)))
        .collect();
    join_shapes(&parts?)
}

/// Returns the shape of tensors that are joined along their first axis; `None` if they do not fit
/// together.
pub(super) fn join_shapes(parts: &[(&str, &RawTensor)]) -> Option<Vec<usize>> {
    let ((_, first), others) = parts.split_first()?;
    let mut joined = first.shape.clone();
    for (_, part) in others {
        if part.shape.get(1..)? != joined.get(1..)? {
            return None;
        }
        joined[0] = joined[0].checked_add(part.shape[0])?;
    }
    Some(joined)
}
