//! A field as a question uses it: looked up in the table of fields, with all that must be computed before it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::functions::core::expr_fn::{coalesce, get_field, greatest};
use datafusion::functions_aggregate::expr_fn::{array_agg, count, count_distinct, max, min};
use datafusion::functions_nested::expr_fn::{array_slice, array_to_string, string_to_array};
use datafusion::functions_window::expr_fn::{lag, row_number};
use datafusion::logical_expr::{AggregateUDF, Expr, ExprFunctionExt, cast, lit, try_cast, when};
use datafusion::prelude::ident;
use datafusion::scalar::ScalarValue;

use super::fields::{self, Entry, FIELDS, FieldKind, How};
use crate::model::UsageSource;
use crate::model::tables::{ColumnType, Table};
use crate::query::error::QueryError;
use crate::query::functions;
use crate::wire::View;

/// What names are looked up in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    pub(super) view: View,
    /// How many steps are asked for.
    pub(super) steps: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: FieldKind,
    pub(super) unit: &'static str,
    pub(super) meaning: &'static str,
    /// Over the columns of the table, or of the groups that `needs` make.
    pub(super) expr: Expr,
    pub(super) needs: Needs,
}

/// What is computed before an expression can be, by column name.
#[derive(Debug, Clone, Default)]
pub(super) struct Needs {
    /// Aggregates over the rows of a trace, session or user.
    pub(super) aggregates: Vec<(String, Expr)>,
    /// Of these: windows over the traces of a session.
    pub(super) windows: Vec<(String, Expr)>,
    /// Scores with these names.
    pub(super) scores: Vec<String>,
    /// Columns of the trace a score is about.
    pub(super) of_trace: Vec<String>,
    /// Columns of the observation a score is about.
    pub(super) of_observation: Vec<String>,
    /// How many scores were given.
    pub(super) scores_given: bool,
    pub(super) steps: bool,
}

impl Needs {
    pub(super) fn and(&mut self, other: &Needs) {
        fn add<T: Clone>(own: &mut Vec<T>, others: &[T], same: impl Fn(&T, &T) -> bool) {
            for other in others {
                if !own.iter().any(|known| same(known, other)) {
                    own.push(other.clone());
                }
            }
        }
        add(&mut self.aggregates, &other.aggregates, |a, b| a.0 == b.0);
        add(&mut self.windows, &other.windows, |a, b| a.0 == b.0);
        add(&mut self.scores, &other.scores, |a, b| a == b);
        add(&mut self.of_trace, &other.of_trace, |a, b| a == b);
        add(&mut self.of_observation, &other.of_observation, |a, b| a == b);
        self.scores_given |= other.scores_given;
        self.steps |= other.steps;
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self { aggregates, windows, scores, of_trace, of_observation, scores_given, steps } = self;
        let before = aggregates.is_empty() && windows.is_empty();
        let joined = scores.is_empty() && of_trace.is_empty() && of_observation.is_empty();
        before && joined && !scores_given && !steps
    }

    fn aggregates(list: impl IntoIterator<Item = (String, Expr)>) -> Self {
        Self { aggregates: list.into_iter().collect(), ..Self::default() }
    }
}

impl Field {
    pub(super) fn is_number(&self) -> bool {
        matches!(self.kind, FieldKind::Whole | FieldKind::Number | FieldKind::Money)
    }

    /// One for every row.
    pub(super) fn one() -> Self {
        Self {
            name: String::new(),
            kind: FieldKind::Whole,
            unit: "count",
            meaning: "",
            expr: lit(1i64),
            needs: Needs::default(),
        }
    }
}

pub(super) fn table_of(view: View) -> Table {
    match view {
        View::Scores => Table::Scores,
        View::Unspecified | View::Observations | View::Traces | View::Sessions | View::Users => Table::Observations,
    }
}

/// What rows are grouped by before they are rows of the view.
pub(super) fn group_of(view: View) -> Option<&'static str> {
    match view {
        View::Traces => Some("trace_id"),
        View::Sessions => Some("session_id"),
        View::Users => Some("user_id"),
        View::Unspecified | View::Observations | View::Scores => None,
    }
}

/// When a row of the view happened.
pub(super) fn time_of(view: View) -> Expr {
    ident(table_of(view).time_column())
}

/// The aggregate that places a group in time.
pub(super) fn group_start() -> (String, Expr) {
    (START.to_owned(), min(ident(START)))
}

/// The column in which the time stands when the step with this number was reached.
pub(super) fn step_name(step: usize) -> String {
    format!("step {step}")
}
pub(super) fn score_name(name: &str) -> String {
    format!("{SCORE}{name}")
}
pub(super) fn label_name(name: &str) -> String {
    format!("{LABEL}{name}")
}
pub(super) fn of_trace_name(column: &str) -> String {
    format!("of trace {column}")
}
pub(super) fn of_observation_name(column: &str) -> String {
    format!("of observation {column}")
}
/// The column in which it stands how many scores were given.
pub(super) const SCORES_GIVEN: &str = "scores given";

const START: &str = "start_time";
const END: &str = "end_time";
const SESSION: &str = "session_id";
const SCORE: &str = "score:";
const LABEL: &str = "score_label:";
/// Stands between a trace's tags while the rows of the trace are brought together.
const TAG_SEPARATOR: &str = "\u{1f}";
const PATH_SEPARATOR: &str = " → ";
const PATH_STEPS_MAX: i64 = 20;

pub(super) fn resolve(scope: Scope, name: &str) -> Result<Field, QueryError> {
    let entry = FIELDS.iter().filter(|entry| entry.views.has(scope.view)).find(|entry| match entry.name {
        prefix if prefix.ends_with(':') => name.starts_with(prefix),
        known => known == name,
    });
    if let Some(entry) = entry {
        return of_entry(scope, entry, name);
    }
    column(scope.view, name).ok_or_else(|| unknown(scope.view, name))
}

/// A column of the view's own table.
fn column(view: View, name: &str) -> Option<Field> {
    if group_of(view).is_some() {
        return None;
    }
    let (_, kind, meaning) = table_of(view).columns().into_iter().find(|(column, ..)| *column == name)?;
    let kind = kind_of(kind)?;
    let unit = match kind {
        FieldKind::Money => "USD",
        _ if name.ends_with("_ms") => "ms",
        _ if name.ends_with("_tokens") => "tokens",
        _ => "",
    };
    Some(Field { name: name.to_owned(), kind, unit, meaning, expr: ident(name), needs: Needs::default() })
}

/// A column of a plan.
pub(super) fn of_column(schema: &DFSchema, name: &str) -> Result<Field, QueryError> {
    let field =
        |kind, expr| Field { name: name.to_owned(), kind, unit: "", meaning: "", expr, needs: Needs::default() };
    let unknown =
        || QueryError::invalid(format!("{:?} cannot be filtered by", name.chars().take(80).collect::<String>()));
    if let Ok(column) = schema.field_with_unqualified_name(name) {
        let kind = match column.data_type() {
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => FieldKind::Text,
            DataType::Int64 => FieldKind::Whole,
            DataType::Float64 => FieldKind::Number,
            DataType::Decimal128(..) => FieldKind::Money,
            DataType::Boolean => FieldKind::Boolean,
            DataType::Timestamp(..) => FieldKind::Time,
            DataType::List(_) => FieldKind::Texts,
            _ => return Err(unknown()),
        };
        return Ok(field(kind, ident(name)));
    }
    let (map, key) = name.split_once(':').ok_or_else(unknown)?;
    match schema.field_with_unqualified_name(map).map(|column| column.data_type()) {
        Ok(DataType::Map(..)) => Ok(field(FieldKind::Text, get_field(ident(map), key))),
        _ => Err(unknown()),
    }
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

fn of_entry(scope: Scope, entry: &Entry, name: &str) -> Result<Field, QueryError> {
    let key = name.strip_prefix(entry.name).unwrap_or_default();
    let by_name = || ident(name);
    let own = |aggregate: Expr| Needs::aggregates([(name.to_owned(), aggregate)]);
    let us = |column: &str| cast(ident(column), DataType::Int64);
    let ms = |us: Expr| cast(us, DataType::Float64) / lit(1000.0);
    let built = |expr: datafusion::error::Result<Expr>| expr.map_err(|e| QueryError::Internal(e.to_string()));
    let end = || (END.to_owned(), max(ident(END)));
    let steps = || (0..scope.steps).map(|step| (step_name(step), max(ident(step_name(step))))).collect::<Vec<_>>();
    let (kind, expr, needs) = match entry.how {
        How::Row(kind, expr) => (kind, expr(), Needs::default()),
        // A repeated report stays readable, and counts nowhere.
        How::Key(map @ ("usage" | "cost"), kind) => {
            let counts = ident("usage_source").not_eq(lit(UsageSource::Repeated.as_str()));
            (kind, built(when(counts, get_field(ident(map), key)).end())?, Needs::default())
        }
        How::Key(map, kind) => (kind, get_field(ident(map), key), Needs::default()),
        How::Group => (FieldKind::Text, by_name(), Needs::default()),
        How::Said(expr) => (FieldKind::Text, by_name(), own(max(expr()))),
        How::SaidUnder(map) => (FieldKind::Text, by_name(), own(max(get_field(ident(map), key)))),
        How::SaidList(list) => {
            let joined = array_to_string(ident(list), lit(TAG_SEPARATOR));
            let empty_is_null = built(when(by_name().not_eq(lit("")), by_name()).end())?;
            let nothing = lit(ScalarValue::Utf8(None));
            let split = string_to_array(cast(empty_is_null, DataType::Utf8), lit(TAG_SEPARATOR), nothing);
            (FieldKind::Texts, split, own(max(cast(joined, DataType::Utf8))))
        }
        How::Sum(column) => {
            let sum = AggregateUDF::call(&functions::exact_sum(), vec![ident(column)]);
            match entry.unit {
                "USD" => (FieldKind::Money, by_name(), own(sum)),
                _ => (FieldKind::Whole, try_cast(by_name(), DataType::Int64), own(sum)),
            }
        }
        // A trace without observations is a row without a type.
        How::Count(None) => (FieldKind::Whole, by_name(), own(count(ident("type")))),
        How::Count(Some(passes)) => (FieldKind::Whole, by_name(), own(count(built(when(passes(), lit(1)).end())?))),
        How::Any(passes) => {
            (FieldKind::Boolean, by_name().gt(lit(0i64)), own(count(built(when(passes(), lit(1)).end())?)))
        }
        How::Distinct(column) => (FieldKind::Whole, by_name(), own(count_distinct(ident(column)))),
        How::List(column) => {
            let list = array_agg(ident(column)).distinct().order_by(vec![ident(column).sort(true, false)]);
            let list = built(list.filter(ident(column).is_not_null()).build())?;
            (FieldKind::Texts, by_name(), own(list))
        }
        How::Path(step, passes) => {
            let order = vec![ident(START).sort(true, false), ident("id").sort(true, false)];
            let all = array_agg(step()).order_by(order).filter(passes().and(step().is_not_null()));
            let first = array_slice(by_name(), lit(1i64), lit(PATH_STEPS_MAX), None);
            (FieldKind::Text, array_to_string(first, lit(PATH_SEPARATOR)), own(built(all.build())?))
        }
        How::Start => (FieldKind::Time, by_name(), Needs::default()),
        How::End => (FieldKind::Time, by_name(), Needs::aggregates([end()])),
        How::Span => (FieldKind::Number, ms(us(END) - us(START)), Needs::aggregates([end()])),
        How::Latest(column) => (FieldKind::Time, by_name(), own(max(ident(column)))),
        How::FirstToken => {
            let first = "completion_start_time";
            (FieldKind::Number, ms(us(first) - us(START)), Needs::aggregates([(first.to_owned(), min(ident(first)))]))
        }
        How::Turn => {
            let in_session = row_number().partition_by(vec![ident(SESSION)]).order_by(by_start()).build();
            let has_session = built(when(ident(SESSION).is_not_null(), cast(by_name(), DataType::Int64)).end())?;
            (FieldKind::Whole, has_session, windowed(name, built(in_session)?))
        }
        How::Gap => {
            let before = lag(ident(END), Some(1), None).partition_by(vec![ident(SESSION)]).order_by(by_start()).build();
            let gap = ms(us(START) - cast(by_name(), DataType::Int64));
            let follows = ident(SESSION).is_not_null().and(by_name().is_not_null());
            let gap = built(when(follows, greatest(vec![gap, lit(0.0)])).end())?;
            (FieldKind::Number, gap, windowed(name, built(before)?))
        }
        How::Score => (FieldKind::Number, by_name(), Needs { scores: vec![key.to_owned()], ..Needs::default() }),
        How::ScoreLabel => (FieldKind::Text, by_name(), Needs { scores: vec![key.to_owned()], ..Needs::default() }),
        How::OfTrace(column, kind) => {
            let needs = Needs { of_trace: vec![column.to_owned()], ..Needs::default() };
            (kind, ident(of_trace_name(column)), needs)
        }
        How::TagsOfTrace => {
            let needs = Needs { of_trace: vec!["tags".to_owned()], ..Needs::default() };
            (FieldKind::Text, fields::joined(ident(of_trace_name("tags"))), needs)
        }
        How::OfObservation(column, kind) => {
            let needs = Needs { of_observation: vec![column.to_owned()], ..Needs::default() };
            (kind, ident(of_observation_name(column)), needs)
        }
        How::Scores => {
            let needs = Needs { scores_given: true, ..Needs::default() };
            (FieldKind::Whole, coalesce(vec![ident(SCORES_GIVEN), lit(0i64)]), needs)
        }
        How::StepsReached | How::StepsTime if scope.steps == 0 => {
            return Err(QueryError::invalid(format!("{name:?} needs `steps` in the request")));
        }
        How::StepsReached => {
            let reached = |step| -> Result<Expr, QueryError> {
                built(when(ident(step_name(step)).is_not_null(), lit(1i64)).otherwise(lit(0i64)))
            };
            let reached = (0..scope.steps).map(reached).collect::<Result<Vec<_>, _>>()?;
            let sum = reached.into_iter().reduce(|a, b| a + b).unwrap_or(lit(0i64));
            (FieldKind::Whole, sum, Needs { steps: true, ..Needs::aggregates(steps()) })
        }
        How::StepsTime => {
            let took = us(&step_name(scope.steps - 1)) - us(&step_name(0));
            (FieldKind::Number, ms(took), Needs { steps: true, ..Needs::aggregates(steps()) })
        }
    };
    Ok(Field { name: name.to_owned(), kind, unit: entry.unit, meaning: entry.meaning, expr, needs })
}

fn by_start() -> Vec<datafusion::logical_expr::SortExpr> {
    vec![ident(START).sort(true, false), ident("trace_id").sort(true, false)]
}

/// A window over the traces of each session.
fn windowed(name: &str, window: Expr) -> Needs {
    let aggregates = [(SESSION.to_owned(), max(ident(SESSION))), (END.to_owned(), max(ident(END)))];
    Needs { windows: vec![(name.to_owned(), window)], ..Needs::aggregates(aggregates) }
}

/// Of all fields, with `<key>` where a key follows.
pub(in crate::query) fn names(view: View) -> Vec<String> {
    let made = FIELDS.iter().filter(|entry| entry.views.has(view)).map(|entry| match entry.name {
        prefix if prefix.ends_with(':') => format!("{prefix}<key>"),
        name => name.to_owned(),
    });
    let columns = match group_of(view) {
        Some(_) => Vec::new(),
        None => table_of(view).columns(),
    };
    let columns = columns.into_iter().filter(|(_, kind, _)| kind_of(*kind).is_some()).map(|(name, ..)| name.to_owned());
    made.chain(columns).collect()
}

fn unknown(view: View, name: &str) -> QueryError {
    let shown: String = name.chars().take(80).collect();
    let lower = shown.to_ascii_lowercase();
    let view_name = view.as_str_name().trim_start_matches("VIEW_").to_ascii_lowercase();
    let all = names(view);
    let mut near: Vec<(usize, &str)> = all
        .iter()
        .map(|known| (distance(&lower, known), known.as_str()))
        .filter(|(distance, known)| *distance <= 3 || (shown.len() > 2 && known.contains(&lower)))
        .collect();
    near.sort();
    near.dedup();
    let near: Vec<&str> = near.iter().take(4).map(|(_, known)| *known).collect();
    match near.is_empty() {
        true => QueryError::invalid(format!("{shown:?} is not a field of {view_name}: it has {}", all.join(", "))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_every_view_is_found_by_its_name() {
        for view in [View::Observations, View::Traces, View::Sessions, View::Users, View::Scores] {
            let names = names(view);
            for name in &names {
                let field = resolve(Scope { view, steps: 2 }, &name.replace("<key>", "k")).unwrap();
                assert!(field.meaning.ends_with(['.', '…']), "{name}: {:?} is no sentence", field.meaning);
            }
            let mut once = names.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), names.len(), "{view:?} has a name twice");
        }
    }

    #[test]
    fn a_name_nearly_right_is_suggested() {
        assert_eq!(distance("modle", "model"), 2);
        let error = resolve(Scope { view: View::Sessions, steps: 0 }, "turn").unwrap_err().to_string();
        assert!(error.contains("did you mean turns"), "{error}");
        let error = resolve(Scope { view: View::Traces, steps: 0 }, "steps_reached").unwrap_err().to_string();
        assert!(error.contains("needs `steps`"), "{error}");
    }
}
