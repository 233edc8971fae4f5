//! Labels and metadata of the rows of a chunk, stored by column for fast filters.

use std::{collections::BTreeMap, ops::Bound};

use crate::gallery::{Condition, ItemFilter, Label, Metadata, Scalar};

/// Maximum number of rows in a chunk.
pub(super) const CHUNK_ROWS: usize = 1024;

/// A set of rows of a chunk, as a bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowSet([u64; CHUNK_ROWS / 64]);

impl RowSet {
    pub(super) const EMPTY: Self = Self([0; CHUNK_ROWS / 64]);

    pub(super) fn first(count: usize) -> Self {
        let mut set = Self::EMPTY;
        (0..count).for_each(|row| set.insert(row));
        set
    }

    pub(super) fn insert(&mut self, row: usize) {
        self.0[row / 64] |= 1 << (row % 64);
    }

    pub(super) fn remove(&mut self, row: usize) {
        self.0[row / 64] &= !(1 << (row % 64));
    }

    pub(super) fn contains(&self, row: usize) -> bool {
        self.0[row / 64] >> (row % 64) & 1 == 1
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    #[must_use]
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// Iterates over the rows in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, &word)| {
            let next = |rest: &u64| Some(rest & (rest - 1)).filter(|rest| *rest != 0);
            std::iter::successors(Some(word).filter(|word| *word != 0), next)
                .map(move |rest| index * 64 + rest.trailing_zeros() as usize)
        })
    }
}

/// Values of one metadata member, with the rows that have each value.
#[derive(Debug, Clone, Default)]
struct Column(BTreeMap<Scalar, Vec<u16>>);

impl Column {
    fn add(&mut self, value: Scalar, row: usize) {
        let rows = self.0.entry(value).or_default();
        // A list may hold a value twice.
        if rows.last() != Some(&(row as u16)) {
            rows.push(row as u16);
        }
    }

    /// Adds the rows of another column that have a number in `new`. New numbers ascend with the old
    /// ones and are above all rows of this column.
    fn add_from(&mut self, other: &Self, new: &[Option<u16>]) {
        for (value, rows) in &other.0 {
            let kept = rows.iter().filter_map(|&row| new[usize::from(row)]);
            let mut rows = kept.peekable();
            if rows.peek().is_some() {
                self.0.entry(value.clone()).or_default().extend(rows);
            }
        }
    }

    fn rows(&self, condition: &Condition) -> RowSet {
        let mut found = RowSet::EMPTY;
        let mut insert = |rows: &[u16]| rows.iter().for_each(|&row| found.insert(usize::from(row)));
        match condition {
            // The smaller of the two is looked up in the larger.
            Condition::AnyOf(values) if values.len() > self.0.len() => {
                self.0
                    .iter()
                    .filter(|(value, _)| values.contains(value))
                    .for_each(|(_, rows)| insert(rows));
            }
            Condition::AnyOf(values) => {
                values
                    .iter()
                    .filter_map(|value| self.0.get(value))
                    .for_each(|rows| insert(rows));
            }
            Condition::Range { low, .. } => {
                let from = low
                    .as_ref()
                    .map_or(Bound::Unbounded, |low| Bound::Included(&low.value));
                // Values are sorted, so matching ones are adjacent. Before them comes the end of an
                // exclusive range; without a lower end, values of other types.
                self.0
                    .range::<Scalar, _>((from, Bound::Unbounded))
                    .skip_while(|(value, _)| !condition.holds(value))
                    .take_while(|(value, _)| condition.holds(value))
                    .for_each(|(_, rows)| insert(rows));
            }
        }
        found
    }
}

/// Columns of the rows of a chunk.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes {
    labels: Column,
    members: BTreeMap<String, Column>,
}

impl Attributes {
    /// Adds a row; rows are added in ascending order.
    pub(super) fn add(&mut self, row: usize, label: Option<&Label>, metadata: &Metadata) {
        if let Some(label) = label {
            self.labels
                .add(Scalar::Text(label.as_str().to_owned()), row);
        }
        for (name, value) in metadata.object() {
            for scalar in Scalar::all_of(value) {
                let column = self.members.entry(name.clone()).or_default();
                column.add(scalar, row);
            }
        }
    }

    /// Adds the rows of another chunk that have a number in `new`. New numbers ascend with the old
    /// ones and are above all rows of this chunk.
    pub(super) fn add_from(&mut self, other: &Self, new: &[Option<u16>]) {
        self.labels.add_from(&other.labels, new);
        for (name, added) in &other.members {
            let column = self.members.entry(name.clone()).or_default();
            column.add_from(added, new);
        }
    }

    /// Returns the rows that pass, by the rules of [`ItemFilter::matches`].
    pub(super) fn rows(&self, filter: &ItemFilter) -> RowSet {
        let label = filter.label.as_ref();
        let mut rows = label.map(|condition| self.labels.rows(condition));
        for (name, condition) in &filter.metadata {
            let column = self.members.get(name);
            let of_member = column.map_or(RowSet::EMPTY, |column| column.rows(condition));
            rows = Some(rows.map_or_else(|| of_member.clone(), |rows| rows.and(&of_member)));
        }
        rows.unwrap_or_else(|| RowSet::first(CHUNK_ROWS))
    }
}
