//! Filters in SQL. They mean what [`ItemFilter::matches`] means; the gallery's tests compare the two.
//!
//! Of the metadata only what a filter can see is compared, in a form that an index can find:
//! `{"member": [values]}`, the numbers as f64 ([`terms`]).

use serde_json::{Map, Value};
use tokio_postgres::types::{ToSql, Type};

use crate::gallery::{
    filter::{Bound, Condition, ItemFilter, Scalar},
    item::Metadata,
};

/// Up to so many values each are looked up in the index; more are compared in a scan.
const LOOK_UPS: usize = 16;

/// What filters compare with.
pub(super) fn terms(metadata: &Metadata) -> Value {
    let members = metadata.object().iter().map(|(name, value)| {
        let values: Vec<Value> = Scalar::all_of(value).map(|scalar| json(&scalar)).collect();
        (name.clone(), Value::Array(values))
    });
    Value::Object(members.collect())
}

fn json(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Bool(value) => Value::from(*value),
        // The sum makes a 0 of -0; they are equal, and jsonb knows one.
        Scalar::Number(value) => Value::from(*value + 0.0),
        Scalar::Text(value) => Value::from(value.as_str()),
    }
}

/// Values that are bound to a statement's `$1`, `$2`, … in their order.
#[derive(Default)]
pub(super) struct Parameters(Vec<(Box<dyn ToSql + Sync + Send>, Type)>);

impl Parameters {
    /// Adds a value and tells how the statement calls it.
    pub(super) fn bind(&mut self, value: impl ToSql + Sync + Send + 'static, kind: Type) -> String {
        self.0.push((Box::new(value), kind));
        format!("${}", self.0.len())
    }

    /// The values with their types.
    pub(super) fn bound(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.0
            .iter()
            .map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone()))
            .collect()
    }
}

/// The filter as an expression over a row of items.
pub(super) fn expression(filter: Option<&ItemFilter>, parameters: &mut Parameters) -> String {
    let Some(filter) = filter else {
        return "TRUE".to_owned();
    };
    let label = filter
        .label
        .iter()
        .map(|condition| of_label(condition, parameters))
        .collect::<Vec<_>>();
    let metadata = filter
        .metadata
        .iter()
        .map(|(member, condition)| of_member(member, condition, parameters));
    let all: Vec<String> = label.into_iter().chain(metadata).collect();
    if all.is_empty() {
        "TRUE".to_owned()
    } else {
        all.join(" AND ")
    }
}

fn of_label(condition: &Condition, parameters: &mut Parameters) -> String {
    match condition {
        Condition::AnyOf(values) => {
            let texts = values.iter().filter_map(|value| match value {
                Scalar::Text(text) if !text.contains('\0') => Some(text.clone()),
                _ => None,
            });
            format!(
                "label = ANY({})",
                parameters.bind(texts.collect::<Vec<_>>(), Type::TEXT_ARRAY)
            )
        }
        Condition::Range { low, high } => {
            let mut all = vec!["label IS NOT NULL".to_owned()];
            for (bound, end) in ends(low, high) {
                all.push(match bound.value {
                    Scalar::Text(_) => format!("label {}", compared(bound, end, parameters)),
                    _ => "FALSE".to_owned(),
                });
            }
            format!("({})", all.join(" AND "))
        }
    }
}

fn of_member(member: &str, condition: &Condition, parameters: &mut Parameters) -> String {
    if member.contains('\0') {
        // No member is called so, and PostgreSQL does not take the name.
        return "FALSE".to_owned();
    }
    let holds = match condition {
        Condition::AnyOf(values) => {
            let known = values
                .iter()
                .filter(|value| !matches!(value, Scalar::Text(text) if text.contains('\0')));
            let wanted: Vec<Value> = known.map(json).collect();
            if wanted.len() <= LOOK_UPS {
                let mut any = vec!["FALSE".to_owned()];
                for value in wanted {
                    let object = Map::from_iter([(member.to_owned(), Value::Array(vec![value]))]);
                    any.push(format!(
                        "terms @> {}",
                        parameters.bind(Value::Object(object), Type::JSONB)
                    ));
                }
                return format!("({})", any.join(" OR "));
            }
            format!("term = ANY({})", parameters.bind(wanted, Type::JSONB_ARRAY))
        }
        Condition::Range { low, high } => {
            let mut all = vec!["TRUE".to_owned()];
            for (bound, end) in ends(low, high) {
                let (kind, value) = match bound.value {
                    Scalar::Bool(_) => ("boolean", "term::boolean"),
                    Scalar::Number(_) => ("number", "term::float8"),
                    Scalar::Text(_) => ("string", "(term #>> '{}') COLLATE \"C\""),
                };
                let compared = compared(bound, end, parameters);
                all.push(format!(
                    "CASE jsonb_typeof(term) WHEN '{kind}' THEN {value} {compared} END"
                ));
            }
            all.join(" AND ")
        }
    };
    let member = parameters.bind(member.to_owned(), Type::TEXT);
    format!(
        "EXISTS (SELECT FROM jsonb_array_elements(terms -> {member}) AS entries (term) WHERE {holds})"
    )
}

#[derive(Clone, Copy)]
enum End {
    Low,
    High,
}

fn ends<'a>(
    low: &'a Option<Bound>,
    high: &'a Option<Bound>,
) -> impl Iterator<Item = (&'a Bound, End)> {
    let low = low.iter().map(|bound| (bound, End::Low));
    low.chain(high.iter().map(|bound| (bound, End::High)))
}

/// An operator and what it compares with.
fn compared(bound: &Bound, end: End, parameters: &mut Parameters) -> String {
    let mut inclusive = bound.inclusive;
    let value = match &bound.value {
        Scalar::Bool(value) => parameters.bind(*value, Type::BOOL),
        Scalar::Number(value) => parameters.bind(*value, Type::FLOAT8),
        Scalar::Text(text) => {
            // No stored text holds a NUL. Those before such an end are the ones up to what precedes
            // its NUL.
            let sendable = text.split('\0').next().unwrap_or_default();
            if sendable.len() < text.len() {
                inclusive = matches!(end, End::High);
            }
            parameters.bind(sendable.to_owned(), Type::TEXT)
        }
    };
    let operator = match (end, inclusive) {
        (End::Low, true) => ">=",
        (End::Low, false) => ">",
        (End::High, true) => "<=",
        (End::High, false) => "<",
    };
    format!("{operator} {value}")
}
