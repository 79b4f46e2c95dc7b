//! What can be asked about: the fields of each view, their types and their units.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::functions_nested::expr_fn::{array_to_string, string_to_array};
use datafusion::logical_expr::{AggregateUDF, Expr, cast, lit, try_cast, when};
use datafusion::prelude::ident;

use crate::model::tables::{ColumnType, Table};
use crate::query::error::QueryError;
use crate::query::functions;
use crate::wire::View;

/// How a field's values compare and print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    Text,
    Whole,
    Number,
    Money,
    Boolean,
    Time,
    Texts,
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: FieldKind,
    /// Over the columns of the table, or of the traces that `needs` make.
    pub(super) expr: Expr,
    /// Traces only: the aggregates over a trace's rows that `expr` is made of, by column name.
    pub(super) needs: Vec<(String, Expr)>,
}

impl Field {
    pub(super) fn is_number(&self) -> bool {
        matches!(self.kind, FieldKind::Whole | FieldKind::Number | FieldKind::Money)
    }

    pub(super) fn unit(&self) -> &'static str {
        match (self.kind, self.name.as_str()) {
            (FieldKind::Money, _) => "USD",
            (_, "tokens_per_second") => "tokens/s",
            (_, "observations" | "errors") => "count",
            (_, name) if name.ends_with("_ms") => "ms",
            (_, name) if name.ends_with("_tokens") => "tokens",
            _ => "",
        }
    }
}

pub(super) fn table_of(view: View) -> Table {
    match view {
        View::Scores => Table::Scores,
        View::Unspecified | View::Observations | View::Traces => Table::Observations,
    }
}

/// When a row of the view happened.
pub(super) fn time_of(view: View) -> Expr {
    ident(table_of(view).time_column())
}

/// Whether a row is an error; `None` where that has no meaning.
pub(super) fn error_of(view: View) -> Option<Expr> {
    match view {
        View::Unspecified | View::Observations => Some(is_error()),
        View::Traces => Some(ident("errors").gt(lit(0))),
        View::Scores => None,
    }
}

/// The aggregate [`error_of`] a trace needs.
pub(super) fn trace_errors() -> (String, Expr) {
    ("errors".to_owned(), count(when(is_error(), lit(1)).end().expect("a condition with one branch is complete")))
}

pub(super) fn resolve(view: View, name: &str) -> Result<Field, QueryError> {
    let found = match view {
        View::Traces => trace_field(name),
        _ => row_field(view, name),
    };
    found.ok_or_else(|| unknown(view, name))
}

const METADATA: &str = "metadata:";

fn row_field(view: View, name: &str) -> Option<Field> {
    let field = |kind, expr| Some(Field { name: name.to_owned(), kind, expr, needs: Vec::new() });
    let table = table_of(view);
    if let Some(key) = name.strip_prefix(METADATA) {
        return field(FieldKind::Text, get_field(ident("metadata"), key));
    }
    if table == Table::Observations && name == "tokens_per_second" {
        let seconds = ident("latency_ms") / lit(1000.0);
        let speed = cast(ident("output_tokens"), DataType::Float64) / seconds;
        let speed = when(ident("latency_ms").gt(lit(0.0)), speed).end().ok()?;
        return field(FieldKind::Number, speed);
    }
    let (_, kind, _) = table.columns().into_iter().find(|(column, ..)| *column == name)?;
    field(kind_of(kind)?, ident(name))
}

fn kind_of(column: ColumnType) -> Option<FieldKind> {
    match column {
        ColumnType::Text => Some(FieldKind::Text),
        ColumnType::Long => Some(FieldKind::Whole),
        ColumnType::Double => Some(FieldKind::Number),
        ColumnType::Boolean => Some(FieldKind::Boolean),
        ColumnType::Timestamp => Some(FieldKind::Time),
        ColumnType::Money => Some(FieldKind::Money),
        ColumnType::TextList => Some(FieldKind::Texts),
        ColumnType::Binary | ColumnType::TextMap | ColumnType::LongMap | ColumnType::MoneyMap => None,
    }
}

/// What is said about a trace stands on each of its rows, and is nearly always the same on all.
const TRACE_TEXTS: [&str; 14] = [
    "trace_name",
    "account",
    "project",
    "flow",
    "user_id",
    "session_id",
    "environment",
    "release",
    "version",
    "service_name",
    "scope_name",
    "sdk_name",
    "sdk_version",
    "source",
];
const TRACE_SUMS: [&str; 9] = [
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "total_tokens",
    "input_cost",
    "output_cost",
    "total_cost",
];
/// Stands between a trace's tags while the rows of the trace are brought together.
const TAG_SEPARATOR: &str = "\u{1f}";

fn trace_field(name: &str) -> Option<Field> {
    let field = |kind, expr, needs| Some(Field { name: name.to_owned(), kind, expr, needs });
    let own = |aggregate: Expr| vec![(name.to_owned(), aggregate)];
    if let Some(key) = name.strip_prefix(METADATA) {
        return field(FieldKind::Text, ident(name), own(max(get_field(ident("metadata"), key))));
    }
    let sum = |column: &str| AggregateUDF::call(&functions::exact_sum(), vec![ident(column)]);
    match name {
        "trace_id" => field(FieldKind::Text, ident(name), Vec::new()),
        "name" => field(FieldKind::Text, ident(name), own(max(ident("trace_name")))),
        text if TRACE_TEXTS.contains(&text) => field(FieldKind::Text, ident(name), own(max(ident(text)))),
        "tags" | "finish_reasons" => {
            let joined = array_to_string(ident(name), lit(TAG_SEPARATOR));
            let empty_is_null = when(ident(name).not_eq(lit("")), ident(name)).end().ok()?;
            let split = string_to_array(cast(empty_is_null, DataType::Utf8), lit(TAG_SEPARATOR), lit_null());
            field(FieldKind::Texts, split, own(max(cast(joined, DataType::Utf8))))
        }
        "start_time" => field(FieldKind::Time, ident(name), Vec::new()),
        "end_time" => field(FieldKind::Time, ident(name), own(max(ident(name)))),
        "latency_ms" => {
            let us = |column: &str| cast(ident(column), DataType::Int64);
            let latency = cast(us("end_time") - us("start_time"), DataType::Float64) / lit(1000.0);
            field(FieldKind::Number, latency, vec![("end_time".to_owned(), max(ident("end_time")))])
        }
        "observations" => field(FieldKind::Whole, ident(name), own(count(lit(1)))),
        "errors" => field(FieldKind::Whole, ident(name), vec![trace_errors()]),
        sums if TRACE_SUMS.contains(&sums) => match sums.ends_with("_cost") {
            true => field(FieldKind::Money, ident(name), own(sum(sums))),
            false => field(FieldKind::Whole, try_cast(ident(name), DataType::Int64), own(sum(sums))),
        },
        _ => None,
    }
}

fn lit_null() -> Expr {
    lit(datafusion::scalar::ScalarValue::Utf8(None))
}

/// The aggregate that places a trace in time.
pub(super) fn trace_start() -> (String, Expr) {
    ("start_time".to_owned(), min(ident("start_time")))
}

fn is_error() -> Expr {
    ident("level").eq(lit("ERROR")).or(ident("status").eq(lit("error")))
}

fn names(view: View) -> Vec<String> {
    let extra = ["metadata:<key>", if view == View::Scores { "value" } else { "tokens_per_second" }];
    match view {
        View::Traces => {
            let fixed = ["trace_id", "name", "tags", "start_time", "end_time", "latency_ms", "observations", "errors"];
            fixed.iter().chain(&TRACE_TEXTS).chain(&TRACE_SUMS).chain(&extra[..1]).map(|n| n.to_string()).collect()
        }
        _ => {
            let columns = table_of(view).columns().into_iter();
            let columns = columns.filter(|(_, kind, _)| kind_of(*kind).is_some()).map(|(name, ..)| name.to_owned());
            columns.chain(extra.iter().map(|name| name.to_string())).collect()
        }
    }
}

fn unknown(view: View, name: &str) -> QueryError {
    let shown: String = name.chars().take(80).collect();
    let view_name = view.as_str_name().trim_start_matches("VIEW_").to_ascii_lowercase();
    let mut near: Vec<(usize, String)> = names(view)
        .into_iter()
        .map(|known| (distance(&shown.to_ascii_lowercase(), &known), known))
        .filter(|(distance, known)| *distance <= 3 || (shown.len() > 2 && known.contains(&shown.to_ascii_lowercase())))
        .collect();
    near.sort();
    near.dedup();
    let near: Vec<&str> = near.iter().take(4).map(|(_, known)| known.as_str()).collect();
    match near.is_empty() {
        true => QueryError::invalid(format!("{shown:?} is not a field of {view_name}: see sql/schema.sql")),
        false => {
            QueryError::invalid(format!("{shown:?} is not a field of {view_name}: did you mean {}?", near.join(" or ")))
        }
    }
}

/// Edits between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Arc<[char]> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, b) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}
