//! Langfuse's `filter`: a JSON list of `{type, column, operator, value, key}`, put into our words.

use serde::Deserialize;
use serde_json::Value;

use super::super::super::super::Refusal;
use super::parameters::{shown, time};
use super::{comparison, invalid};
use crate::wire::{Filter, FilterOperator as Op};

/// A column that Langfuse's clients name, and what it is here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) field: &'static str,
    pub(super) kind: ColumnKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Text,
    /// What is asked for in seconds and stands in milliseconds.
    Seconds,
    Number,
    Time,
    Boolean,
    List,
    /// A value under a key: the field ends with a colon and the key follows.
    TextUnder,
    NumberUnder,
    ListUnder,
}

pub(super) const fn column(name: &'static str, field: &'static str, kind: ColumnKind) -> Column {
    Column { name, field, kind }
}

#[derive(Deserialize)]
struct Said {
    #[serde(default, rename = "type")]
    kind: String,
    column: String,
    operator: String,
    #[serde(default)]
    value: Value,
    key: Option<String>,
}

/// What a text of JSON says about `columns`.
pub(super) fn parse(text: &str, columns: &[Column]) -> Result<Vec<Filter>, Refusal> {
    let list: Vec<Value> = serde_json::from_str(text)
        .map_err(|e| invalid(format!("filter is no JSON list of {{type, column, operator, value}}: {e}")))?;
    all(&list, columns)
}

pub(super) fn all(list: &[Value], columns: &[Column]) -> Result<Vec<Filter>, Refusal> {
    let filters = list.iter().map(|said| {
        let said: Said = serde_json::from_value(said.clone())
            .map_err(|e| invalid(format!("a filter is {{type, column, operator, value, key}}: {e}")))?;
        let column = columns.iter().find(|column| column.name == said.column).ok_or_else(|| {
            let known: Vec<&str> = columns.iter().map(|column| column.name).collect();
            invalid(format!("filter column {} is none of {}", shown(&said.column), known.join(", ")))
        })?;
        one(&said, column)
    });
    // A list of nothing leaves nothing out.
    Ok(filters.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn one(said: &Said, column: &Column) -> Result<Option<Filter>, Refusal> {
    use ColumnKind as K;
    let fail = |why: String| Err(invalid(format!("the filter on {}: {why}", said.column)));
    let operator = match operator(said, column) {
        Some(operator) => operator,
        None => {
            let (kind, operator) = (shown(&said.kind), shown(&said.operator));
            return fail(format!("operator {operator} of type {kind} is not for it: {}", allowed(column)));
        }
    };
    let field = match (column.kind, &said.key) {
        (K::TextUnder | K::NumberUnder | K::ListUnder, Some(key)) if !key.is_empty() => {
            format!("{}{key}", column.field)
        }
        (K::TextUnder | K::NumberUnder | K::ListUnder, _) => return fail("a key is required".to_owned()),
        _ => column.field.to_owned(),
    };
    if matches!(operator, Op::IsNull | Op::IsNotNull) {
        return Ok(Some(comparison(&field, operator, Vec::new())));
    }
    let many = matches!(operator, Op::In | Op::NotIn | Op::HasAny | Op::HasAll | Op::HasNone);
    let values: Vec<&Value> = match (&said.value, many) {
        (Value::Array(values), true) => values.iter().collect(),
        (Value::Null, _) => return fail("value is missing".to_owned()),
        (Value::Array(_) | Value::Object(_), false) => {
            return fail("value is a text or a number, not a list".to_owned());
        }
        (value, _) => vec![value],
    };
    if values.is_empty() {
        return match operator {
            Op::NotIn | Op::HasNone | Op::HasAll => Ok(None),
            _ => fail("value is an empty list: nothing is any of it".to_owned()),
        };
    }
    let values = values.into_iter().map(|value| literal(said, column, value)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(comparison(&field, operator, values)))
}

/// By type where it is said, else by what the operator can only be.
fn operator(said: &Said, column: &Column) -> Option<Op> {
    use ColumnKind as K;
    let is_list = matches!(column.kind, K::List | K::ListUnder);
    let order = |word: &str| match word {
        ">" => Some(Op::Greater),
        ">=" => Some(Op::GreaterOrEqual),
        "<" => Some(Op::Less),
        "<=" => Some(Op::LessOrEqual),
        _ => None,
    };
    let word = said.operator.as_str();
    match (said.kind.as_str(), word) {
        ("null" | "", "is null") => return Some(Op::IsNull),
        ("null" | "", "is not null") => return Some(Op::IsNotNull),
        _ => {}
    }
    match column.kind {
        K::Text | K::TextUnder => match (said.kind.as_str(), word) {
            ("string" | "stringObject" | "numberObject" | "booleanObject" | "number" | "", "=") => Some(Op::Equals),
            ("booleanObject" | "string" | "", "<>" | "!=") => Some(Op::NotEquals),
            ("string" | "stringObject" | "", "contains" | "matches") => Some(Op::Contains),
            ("string" | "stringObject" | "", "does not contain") => Some(Op::NotContains),
            ("string" | "stringObject" | "", "starts with") => Some(Op::StartsWith),
            ("string" | "stringObject" | "", "ends with") => Some(Op::EndsWith),
            ("stringOptions" | "arrayOptions" | "stringObject" | "", "any of") => Some(Op::In),
            ("stringOptions" | "arrayOptions" | "stringObject" | "", "none of") => Some(Op::NotIn),
            _ => None,
        },
        K::Number | K::Seconds | K::NumberUnder => match (said.kind.as_str(), word) {
            ("number" | "numberObject" | "string" | "", "=") => Some(Op::Equals),
            ("number" | "numberObject" | "", "!=" | "<>") => Some(Op::NotEquals),
            ("number" | "numberObject" | "", word) => order(word),
            _ => None,
        },
        K::Time => match said.kind.as_str() {
            "datetime" | "" => order(word),
            _ => None,
        },
        K::Boolean => match (said.kind.as_str(), word) {
            ("boolean" | "", "=") => Some(Op::Equals),
            ("boolean" | "", "<>" | "!=") => Some(Op::NotEquals),
            _ => None,
        },
        K::List | K::ListUnder => match (said.kind.as_str(), word) {
            ("arrayOptions" | "stringOptions" | "categoryOptions" | "", "any of") => Some(Op::HasAny),
            ("arrayOptions" | "stringOptions" | "categoryOptions" | "", "none of") => Some(Op::HasNone),
            ("arrayOptions" | "categoryOptions" | "", "all of") => Some(Op::HasAll),
            ("string", "=") if is_list => Some(Op::HasAny),
            _ => None,
        },
    }
}

fn allowed(column: &Column) -> &'static str {
    match column.kind {
        ColumnKind::Text => {
            "string (=, contains, does not contain, starts with, ends with), stringOptions (any of, none of)"
        }
        ColumnKind::TextUnder => "stringObject (=, contains, does not contain, starts with, ends with) with a key",
        ColumnKind::Number | ColumnKind::Seconds => "number (=, >, <, >=, <=)",
        ColumnKind::NumberUnder => "numberObject (=, >, <, >=, <=) with a key",
        ColumnKind::Time => "datetime (>, <, >=, <=)",
        ColumnKind::Boolean => "boolean (=, <>)",
        ColumnKind::List => "arrayOptions (any of, none of, all of)",
        ColumnKind::ListUnder => "categoryOptions (any of, none of) with a key",
    }
}

fn literal(said: &Said, column: &Column, value: &Value) -> Result<String, Refusal> {
    use ColumnKind as K;
    let bad =
        |what: &str| invalid(format!("the filter on {}: {} is not {what}", said.column, shown(&value.to_string())));
    let number = || match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    };
    match column.kind {
        K::Text | K::TextUnder | K::List | K::ListUnder => match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
            _ => Err(bad("a text")),
        },
        K::Number | K::NumberUnder => number().map(|number| number.to_string()).ok_or_else(|| bad("a number")),
        K::Seconds => number().map(|seconds| (seconds * 1e3).to_string()).ok_or_else(|| bad("a number")),
        K::Boolean => match value {
            Value::Bool(boolean) => Ok(boolean.to_string()),
            Value::String(text) if ["true", "false"].contains(&text.as_str()) => Ok(text.clone()),
            _ => Err(bad("true or false")),
        },
        K::Time => {
            let text = value.as_str().ok_or_else(|| bad("a time"))?;
            Ok(super::shapes::instant_us(time(&said.column, text)?))
        }
    }
}

/// `simple` parameters, but for those whose field the filter is about as well; then the filter.
pub(super) fn over(simple: Vec<Filter>, filter: Vec<Filter>) -> Vec<Filter> {
    let is_free = |simple: &Filter| filter.iter().all(|filter| filter.field != simple.field);
    simple.into_iter().filter(is_free).chain(filter.iter().cloned()).collect()
}
