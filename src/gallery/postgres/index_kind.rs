//! Kinds of approximate indexes: pgvector's HNSW over vectors in one of three precisions.

use crate::gallery::VectorFormat;

/// A kind of index. Searches by it fetch candidates and sort them by the stored vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IndexKind {
    /// Vectors in single precision, by inner product.
    Single,
    /// Vectors in half precision, by inner product.
    Half,
    /// Signs of the values, by the number of different ones.
    Bits,
}

impl IndexKind {
    const ALL: [Self; 3] = [Self::Single, Self::Half, Self::Bits];
    /// Maximum number of values of a vector in single precision, in half precision and in bits that
    /// pgvector indexes.
    const MAX_DIMS: [usize; 3] = [2000, 4000, 64_000];
    /// Minimum number of values whose signs are indexed.
    const MIN_BITS: usize = 128;

    /// Returns the kind for vectors of `dim` values, or `None` if they are too wide for an index.
    pub(super) fn of(format: VectorFormat, dim: usize) -> Option<Self> {
        let [single, half, bits] = Self::MAX_DIMS;
        match format {
            VectorFormat::F32 if dim <= single => Some(Self::Single),
            VectorFormat::F32 | VectorFormat::F16 if dim <= half => Some(Self::Half),
            // Signs of few values are too coarse.
            VectorFormat::B1 if dim < Self::MIN_BITS => Some(Self::Half),
            VectorFormat::B1 if dim <= bits => Some(Self::Bits),
            _ => None,
        }
    }

    /// Returns the kind with which to search, of those that a gallery has.
    pub(super) fn usable(indexes: &[&str], format: VectorFormat, dim: usize) -> Option<Self> {
        let wanted = Self::of(format, dim).into_iter();
        let others = Self::ALL
            .into_iter()
            .zip(Self::MAX_DIMS)
            .filter_map(|(kind, max)| (dim <= max).then_some(kind));
        wanted
            .chain(others)
            .find(|kind| indexes.contains(&kind.name()))
    }

    /// Returns the end of the names of its indexes.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Single => "vector",
            Self::Half => "half",
            Self::Bits => "bits",
        }
    }

    /// Returns the kinds of other indexes.
    pub(super) fn others(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |kind| *kind != self)
    }

    /// Returns what is indexed of `vector`, an expression of `dim` values.
    pub(super) fn expression(self, vector: &str, dim: usize) -> String {
        match self {
            Self::Single => format!("({vector})"),
            Self::Half => format!("({vector}::halfvec({dim}))"),
            Self::Bits => format!("(binary_quantize({vector})::bit({dim}))"),
        }
    }

    /// Returns the class of operators of its indexes.
    pub(super) fn operators(self) -> &'static str {
        match self {
            Self::Single => "vector_ip_ops",
            Self::Half => "halfvec_ip_ops",
            Self::Bits => "bit_hamming_ops",
        }
    }

    /// Returns the operator of the distance.
    pub(super) fn operator(self) -> &'static str {
        match self {
            Self::Single | Self::Half => "<#>",
            Self::Bits => "<~>",
        }
    }

    /// Returns the number of candidates to fetch for `k` neighbors, of vectors of `dim` values.
    pub(super) fn candidates(self, k: usize, dim: usize) -> usize {
        match self {
            Self::Single => k,
            Self::Half => k + k.max(32),
            Self::Bits => (16 * k + 64).saturating_mul(VectorFormat::more_of_narrow(dim)),
        }
    }

    /// Returns the size of the index in memory while it is made, in bytes for each vector: the
    /// vector, and the neighbors with their distances, as pgvector holds them.
    pub(super) fn bytes_in_build(self, dim: usize) -> u64 {
        let vector = match self {
            Self::Single => 4 * dim,
            Self::Half => 2 * dim,
            Self::Bits => dim.div_ceil(8),
        };
        vector as u64 + 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_width_of_vectors_limits_the_kind() {
        let of = |format, dim| IndexKind::of(format, dim);
        assert_eq!(of(VectorFormat::F32, 2000), Some(IndexKind::Single));
        assert_eq!(of(VectorFormat::F32, 2001), Some(IndexKind::Half));
        assert_eq!(of(VectorFormat::F16, 384), Some(IndexKind::Half));
        assert_eq!(of(VectorFormat::F16, 4001), None);
        assert_eq!(of(VectorFormat::B1, 6144), Some(IndexKind::Bits));
        assert_eq!(of(VectorFormat::B1, 64), Some(IndexKind::Half));
    }

    #[test]
    fn another_index_serves_until_the_wanted_one_is_made() {
        let usable = |indexes: &[&str], dim| IndexKind::usable(indexes, VectorFormat::F16, dim);
        assert_eq!(usable(&[], 384), None);
        assert_eq!(usable(&["vector"], 384), Some(IndexKind::Single));
        assert_eq!(usable(&["vector", "half"], 384), Some(IndexKind::Half));
        // Earlier versions gave this name to one in half precision.
        assert_eq!(usable(&["vector"], 3000), None);
    }
}
