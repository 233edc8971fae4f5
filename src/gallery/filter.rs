//! Which items may be found: conditions on the label and on members of the metadata.
//!
//! As JSON: `{"label": C, "metadata": {"member": C, …}}`, where all must hold and `C` is
//!
//! * a text, number or truth value: equal to it,
//! * `{"any": [..]}`: equal to one of these,
//! * `{"gte": a, "lt": b}` (also `gt`, `lte`; one or two of them, both numbers or both texts): in
//!   that range.
//!
//! A member that is a list holds if one of its entries does. Texts compare by their bytes, numbers
//! as f64.

use std::cmp::Ordering;

use serde_json::Value;

use super::{item::Metadata, name::Label};
use crate::error::{Error, Result};

/// A value that conditions compare with.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// Any number.
    Number(f64),
    /// A text.
    Text(String),
}

impl Scalar {
    /// The value, if it is one that can be compared.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Number(number) => number.as_f64().map(Self::Number),
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Values of a member of the metadata: itself, or the entries of a list.
    pub fn all_of(value: &Value) -> impl Iterator<Item = Self> + '_ {
        let entries = match value {
            Value::Array(entries) => entries.as_slice(),
            single => std::slice::from_ref(single),
        };
        entries.iter().filter_map(Self::of)
    }

    /// A total order: truth values, then numbers, then texts.
    pub fn total_cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            // -0 and 0 are equal, and no number of JSON is NaN.
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
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
    /// That of [`Scalar::total_cmp`].
    fn cmp(&self, other: &Self) -> Ordering {
        self.total_cmp(other)
    }
}

/// One end of a range.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The end.
    pub value: Scalar,
    /// Whether the end itself is within.
    pub inclusive: bool,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// One of these.
    AnyOf(Vec<Scalar>),
    /// Between these ends, and of their type; at least one is there.
    Range {
        /// The lower end.
        low: Option<Bound>,
        /// The upper end.
        high: Option<Bound>,
    },
}

impl Condition {
    fn parse(name: &str, value: &Value) -> Result<Self> {
        const FORMS: &str =
            "a condition is a value, {\"any\": [..]}, or a range of gt, gte, lt, lte";
        let wrong = |what: &str| Error::option("where", format!("`{name}`: {what}; {FORMS}"));
        if let Some(scalar) = Scalar::of(value) {
            return Ok(Self::AnyOf(vec![scalar]));
        }
        let Value::Object(members) = value else {
            return Err(wrong("neither a value nor an object"));
        };
        if let Some(any) = members.get("any") {
            let Value::Array(entries) = any else {
                return Err(wrong("`any` is no list"));
            };
            let values: Option<Vec<Scalar>> = entries.iter().map(Scalar::of).collect();
            let values = values.ok_or_else(|| wrong("`any` holds what cannot be compared"))?;
            return if members.len() == 1 {
                Ok(Self::AnyOf(values))
            } else {
                Err(wrong("`any` stands alone"))
            };
        }
        let (mut low, mut high) = (None, None);
        for (operator, value) in members {
            let (end, inclusive) = match operator.as_str() {
                "gt" => (&mut low, false),
                "gte" => (&mut low, true),
                "lt" => (&mut high, false),
                "lte" => (&mut high, true),
                _ => return Err(wrong(&format!("{operator:?} is no operator"))),
            };
            let value = Scalar::of(value).filter(|value| !matches!(value, Scalar::Bool(_)));
            let value = value.ok_or_else(|| wrong("the ends of a range are numbers or texts"))?;
            if end.replace(Bound { value, inclusive }).is_some() {
                return Err(wrong("a range has one lower and one upper end"));
            }
        }
        match (&low, &high) {
            (None, None) => Err(wrong("empty")),
            (Some(low), Some(high)) if low.value.rank() != high.value.rank() => {
                Err(wrong("both ends of a range are numbers, or both are texts"))
            }
            _ => Ok(Self::Range { low, high }),
        }
    }

    /// Whether a value is what it must be.
    pub fn holds(&self, value: &Scalar) -> bool {
        match self {
            Self::AnyOf(values) => values.iter().any(|wanted| wanted.total_cmp(value).is_eq()),
            Self::Range { low, high } => {
                let above = |bound: &Bound| {
                    let order = value.total_cmp(&bound.value);
                    value.rank() == bound.value.rank()
                        && (order.is_gt() || (bound.inclusive && order.is_eq()))
                };
                let below = |bound: &Bound| {
                    let order = value.total_cmp(&bound.value);
                    value.rank() == bound.value.rank()
                        && (order.is_lt() || (bound.inclusive && order.is_eq()))
                };
                low.as_ref().is_none_or(above) && high.as_ref().is_none_or(below)
            }
        }
    }
}

/// Which items may be found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemFilter {
    /// What the label must be; an item without a label does not hold.
    pub label: Option<Condition>,
    /// What members of the metadata must be.
    pub metadata: Vec<(String, Condition)>,
}

impl ItemFilter {
    /// Only items of this label.
    pub fn of_label(label: &str) -> Self {
        let label = Some(Condition::AnyOf(vec![Scalar::Text(label.to_owned())]));
        Self {
            label,
            metadata: Vec::new(),
        }
    }

    /// The same, and only items that have a label: any text is at or after the empty one.
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

    /// Reads a filter; see the module for its form.
    ///
    /// # Errors
    /// [`crate::error::Kind::InvalidOption`] that says what a filter looks like.
    pub fn parse(value: &Value) -> Result<Self> {
        const FORM: &str = "a filter is {\"label\": …, \"metadata\": {\"member\": …}}";
        let Value::Object(members) = value else {
            return Err(Error::option("where", FORM));
        };
        let mut filter = Self::default();
        for (name, value) in members {
            match (name.as_str(), value) {
                ("label", value) => filter.label = Some(Condition::parse("label", value)?),
                ("metadata", Value::Object(conditions)) => {
                    for (member, condition) in conditions {
                        filter
                            .metadata
                            .push((member.clone(), Condition::parse(member, condition)?));
                    }
                }
                _ => {
                    return Err(Error::option(
                        "where",
                        format!("{name:?} is not as it should be; {FORM}"),
                    ));
                }
            }
        }
        Ok(filter)
    }

    /// Whether an item passes.
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
