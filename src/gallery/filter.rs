//! Item filters: conditions on the label and on members of the metadata.
//!
//! In JSON: `{"label": C, "metadata": {"member": C, …}}`. An item passes if all conditions hold. A
//! condition `C` is
//!
//! * a string, number or boolean: equal to it,
//! * `{"any": [..]}`: equal to one of these,
//! * `{"gte": a, "lt": b}` (also `gt`, `lte`; one or two of them, both numbers or both strings): in
//!   that range.
//!
//! A member that is null counts as absent. A condition on a list holds if it holds for one entry.
//! Strings compare by bytes, numbers as f64.

use std::{cmp::Ordering, collections::BTreeSet};

use serde_json::{Map, Value};

use super::{Label, Metadata};
use crate::error::{Error, Result, shortened};

/// A value that conditions compare.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A string.
    Text(String),
}

impl Scalar {
    /// Converts a JSON value, unless it is null, a list or an object.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Number(number) => number.as_f64().map(Self::Number),
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Returns the values of a metadata member: itself, or the entries of a list.
    pub fn all_of(value: &Value) -> impl Iterator<Item = Self> + '_ {
        let entries = match value {
            Value::Array(entries) => entries.as_slice(),
            single => std::slice::from_ref(single),
        };
        entries.iter().filter_map(Self::of)
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Number(_) => 1,
            Self::Text(_) => 2,
        }
    }
}

impl Eq for Scalar {}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scalar {
    /// Orders booleans before numbers before strings.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            // -0 and 0 are equal, and JSON numbers are never NaN.
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

/// An end of a range.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// Value of the end.
    pub value: Scalar,
    /// Whether the range includes the end.
    pub inclusive: bool,
}

/// A condition on a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Equal to one of these.
    AnyOf(BTreeSet<Scalar>),
    /// Between these ends, and of their type. At least one end is set.
    Range {
        /// Lower end.
        low: Option<Bound>,
        /// Upper end.
        high: Option<Bound>,
    },
}

/// Returns the members of an object that are not null. A member that is null counts as absent.
fn given(object: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> + Clone {
    object.iter().filter(|(_, value)| !value.is_null())
}

impl Condition {
    fn parse(name: &str, value: &Value) -> Result<Self> {
        const FORMS: &str =
            "a condition is a value, {\"any\": [..]}, or a range of gt, gte, lt, lte";
        let wrong = |what: &str| {
            let name = shortened(name);
            Error::option("where", format!("`{name}`: {what}; {FORMS}"))
        };
        if let Some(scalar) = Scalar::of(value) {
            return Ok(Self::AnyOf(BTreeSet::from([scalar])));
        }
        let Value::Object(members) = value else {
            return Err(wrong("neither a value nor an object"));
        };
        let mut members = given(members);
        if let Some((_, any)) = members.clone().find(|(name, _)| *name == "any") {
            let Value::Array(entries) = any else {
                return Err(wrong("`any` is not a list"));
            };
            let values: Option<BTreeSet<Scalar>> = entries.iter().map(Scalar::of).collect();
            let values =
                values.ok_or_else(|| wrong("`any` takes strings, numbers and booleans only"))?;
            return if members.all(|(name, _)| name == "any") {
                Ok(Self::AnyOf(values))
            } else {
                Err(wrong("`any` cannot be combined with other members"))
            };
        }
        let mut low = None;
        let mut high = None;
        for (operator, value) in members {
            let (end, inclusive) = match operator.as_str() {
                "gt" => (&mut low, false),
                "gte" => (&mut low, true),
                "lt" => (&mut high, false),
                "lte" => (&mut high, true),
                _ => return Err(wrong(&format!("{operator:?} is not an operator"))),
            };
            let value = Scalar::of(value).filter(|value| !matches!(value, Scalar::Bool(_)));
            let value = value.ok_or_else(|| wrong("the ends of a range are numbers or strings"))?;
            if end.replace(Bound { value, inclusive }).is_some() {
                return Err(wrong("a range has one lower and one upper end"));
            }
        }
        match (&low, &high) {
            (None, None) => Err(wrong("empty")),
            (Some(low), Some(high)) if low.value.rank() != high.value.rank() => Err(wrong(
                "both ends of a range are numbers, or both are strings",
            )),
            _ => Ok(Self::Range { low, high }),
        }
    }

    /// Returns the number of values that the condition names.
    pub fn values(&self) -> usize {
        match self {
            Self::AnyOf(values) => values.len(),
            Self::Range { low, high } => usize::from(low.is_some()) + usize::from(high.is_some()),
        }
    }

    /// Returns whether the condition holds for a value.
    pub fn holds(&self, value: &Scalar) -> bool {
        match self {
            Self::AnyOf(values) => values.contains(value),
            Self::Range { low, high } => {
                let within = |bound: &Bound, inside: Ordering| {
                    let order = value.cmp(&bound.value);
                    value.rank() == bound.value.rank()
                        && (order == inside || (bound.inclusive && order.is_eq()))
                };
                low.as_ref()
                    .is_none_or(|low| within(low, Ordering::Greater))
                    && high
                        .as_ref()
                        .is_none_or(|high| within(high, Ordering::Less))
            }
        }
    }
}

/// A filter on items.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemFilter {
    /// Condition on the label; items without a label do not pass.
    pub label: Option<Condition>,
    /// Conditions on members of the metadata.
    pub metadata: Vec<(String, Condition)>,
}

impl ItemFilter {
    /// Returns a filter for items with this label.
    pub fn of_label(label: &str) -> Self {
        let label = Some(Condition::AnyOf(BTreeSet::from([Scalar::Text(
            label.to_owned(),
        )])));
        Self {
            label,
            metadata: Vec::new(),
        }
    }

    /// Restricts the filter to items with a label: every string sorts at or after the empty one.
    #[must_use]
    pub fn labeled(mut self) -> Self {
        let from_first = || Bound {
            value: Scalar::Text(String::new()),
            inclusive: true,
        };
        self.label.get_or_insert_with(|| Condition::Range {
            low: Some(from_first()),
            high: None,
        });
        self
    }

    /// Parses a filter; the module documentation describes its form.
    pub fn parse(value: &Value) -> Result<Self> {
        const FORM: &str = "a filter is {\"label\": …, \"metadata\": {\"member\": …}}";
        let Value::Object(members) = value else {
            return Err(Error::option("where", FORM));
        };
        let mut filter = Self::default();
        for (name, value) in given(members) {
            match (name.as_str(), value) {
                ("label", value) => filter.label = Some(Condition::parse("label", value)?),
                ("metadata", Value::Object(conditions)) => {
                    for (member, condition) in given(conditions) {
                        let condition = Condition::parse(member, condition)?;
                        filter.metadata.push((member.clone(), condition));
                    }
                }
                _ => {
                    let name = shortened(name);
                    let detail = format!("{name:?} is not valid here; {FORM}");
                    return Err(Error::option("where", detail));
                }
            }
        }
        Ok(filter)
    }

    /// Returns the conditions on the label and on the metadata.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        let of_metadata = self.metadata.iter().map(|(_, condition)| condition);
        self.label.iter().chain(of_metadata)
    }

    /// Returns whether an item passes.
    pub fn matches(&self, label: Option<&Label>, metadata: &Metadata) -> bool {
        let of_label = |condition: &Condition| {
            label.is_some_and(|label| condition.holds(&Scalar::Text(label.as_str().to_owned())))
        };
        let of_metadata = |(member, condition): &(String, Condition)| {
            let value = metadata.object().get(member);
            value.is_some_and(|value| Scalar::all_of(value).any(|scalar| condition.holds(&scalar)))
        };
        self.label.as_ref().is_none_or(of_label) && self.metadata.iter().all(of_metadata)
    }
}
