//! Filters in SQL, by the rules of [`ItemFilter::matches`]; the store tests compare the two.
//!
//! SQL compares only what filters can see of the metadata, in a form that an index supports:
//! `{"member": [values]}`, with numbers as f64 ([`terms`]).

use serde_json::{Map, Value};
use tokio_postgres::types::{ToSql, Type};

use crate::gallery::{Bound, Condition, ItemFilter, Metadata, Scalar};

/// Maximum number of values that are looked up in the index; more are compared in a scan.
const MAX_LOOKUPS: usize = 16;

/// Returns the part of the metadata that filters see.
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
        // The sum turns -0 into 0: filters treat them as equal, and jsonb has only one zero.
        Scalar::Number(value) => Value::from(*value + 0.0),
        Scalar::Text(value) => Value::from(value.as_str()),
    }
}

/// Values of the parameters `$1`, `$2`, … of a statement.
#[derive(Default)]
pub(super) struct Parameters(Vec<(Box<dyn ToSql + Sync + Send>, Type)>);

impl Parameters {
    /// Adds a value, and returns the name of its parameter.
    pub(super) fn bind(&mut self, value: impl ToSql + Sync + Send + 'static, kind: Type) -> String {
        self.0.push((Box::new(value), kind));
        format!("${}", self.0.len())
    }

    /// Returns the values with their types.
    pub(super) fn bound(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.0
            .iter()
            .map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone()))
            .collect()
    }
}

/// Returns the filter as an SQL expression over a row of items.
pub(super) fn expression(filter: Option<&ItemFilter>, parameters: &mut Parameters) -> String {
    let Some(filter) = filter else {
        return "TRUE".to_owned();
    };
    let mut all = Vec::new();
    if let Some(condition) = &filter.label {
        all.push(of_label(condition, parameters));
    }
    for (member, condition) in &filter.metadata {
        all.push(of_member(member, condition, parameters));
    }
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
            let texts = parameters.bind(texts.collect::<Vec<_>>(), Type::TEXT_ARRAY);
            format!("label = ANY({texts})")
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
        // No stored member has such a name, and PostgreSQL rejects it.
        return "FALSE".to_owned();
    }
    let holds = match condition {
        Condition::AnyOf(values) => {
            let values: Vec<Value> = values
                .iter()
                .filter(|value| !matches!(value, Scalar::Text(text) if text.contains('\0')))
                .map(json)
                .collect();
            if values.len() <= MAX_LOOKUPS {
                let mut any = vec!["FALSE".to_owned()];
                for value in values {
                    let object = Map::from_iter([(member.to_owned(), Value::Array(vec![value]))]);
                    let object = parameters.bind(Value::Object(object), Type::JSONB);
                    any.push(format!("terms @> {object}"));
                }
                return format!("({})", any.join(" OR "));
            }
            format!("term = ANY({})", parameters.bind(values, Type::JSONB_ARRAY))
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
        "EXISTS (SELECT FROM jsonb_array_elements(terms -> {member}) AS entries (term)
         WHERE {holds})"
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

/// Returns an operator and its operand.
fn compared(bound: &Bound, end: End, parameters: &mut Parameters) -> String {
    let mut inclusive = bound.inclusive;
    let value = match &bound.value {
        Scalar::Bool(value) => parameters.bind(*value, Type::BOOL),
        Scalar::Number(value) => parameters.bind(*value, Type::FLOAT8),
        Scalar::Text(text) => {
            // No stored string contains a NUL, so the end can be cut at its NUL. Strings below the
            // end are then those up to and including the part before it.
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
