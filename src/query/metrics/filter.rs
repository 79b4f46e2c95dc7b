//! Filters: a field, an operator, values; checked against the field's type.
//!
//! What is not there is not equal: the negative operators keep rows without a value.
//! Filters combine by and, or and not, to a bounded depth.

use chrono::DateTime;
use datafusion::common::DFSchema;
use datafusion::functions::string::expr_fn::starts_with;
use datafusion::functions::string::expr_fn::{contains, ends_with};
use datafusion::functions_nested::expr_fn::{array_has, cardinality};
use datafusion::logical_expr::{Expr, lit};
use datafusion::scalar::ScalarValue;

use super::field::{self, Field, Needs, Scope};
use super::fields::FieldKind;
use crate::base::Money;
use crate::query::error::QueryError;
use crate::wire::{Filter, FilterOperator};

/// Values of one filter.
const VALUES_MAX: usize = 1000;

/// Filters nest this deep.
pub(super) const LEVELS_MAX: usize = 16;
/// Comparisons of one request.
pub(super) const FILTERS_MAX: usize = 200;

/// All of `filters` hold; adds what they need. `None` without filters.
pub(super) fn all_of(scope: Scope, filters: &[Filter], needs: &mut Needs) -> Result<Option<Expr>, QueryError> {
    all_hold(filters, &mut |name| {
        let field = field::resolve(scope, name)?;
        needs.and(&field.needs);
        Ok(field)
    })
}

/// All of `filters` hold, of the columns of a plan; `metadata:<key>` is what stands under the key of such a map.
pub(in crate::query) fn on_columns(schema: &DFSchema, filters: &[Filter]) -> Result<Option<Expr>, QueryError> {
    all_hold(filters, &mut |name| field::of_column(schema, name))
}

type Resolve<'a> = dyn FnMut(&str) -> Result<Field, QueryError> + 'a;

fn all_hold(filters: &[Filter], resolve: &mut Resolve<'_>) -> Result<Option<Expr>, QueryError> {
    let mut left = FILTERS_MAX;
    let conditions = filters.iter().map(|filter| one(filter, resolve, 1, &mut left));
    Ok(conditions.collect::<Result<Vec<_>, _>>()?.into_iter().reduce(Expr::and))
}

fn one(filter: &Filter, resolve: &mut Resolve<'_>, level: usize, left: &mut usize) -> Result<Expr, QueryError> {
    if level > LEVELS_MAX {
        return Err(QueryError::invalid(format!("filters nest at most {LEVELS_MAX} levels deep")));
    }
    let is_comparison = !filter.field.is_empty() || filter.operator != 0 || !filter.values.is_empty();
    let groups = [&filter.all_of, &filter.any_of, &filter.none_of];
    let filled = groups.iter().filter(|group| !group.is_empty()).count();
    match (is_comparison, filled) {
        (true, 0) => {
            *left = left.checked_sub(1).ok_or_else(|| {
                QueryError::invalid(format!("more than {FILTERS_MAX} filters: use IN for lists of values"))
            })?;
            return condition(&resolve(&filter.field)?, filter);
        }
        (false, 1) => {}
        _ => {
            return Err(QueryError::invalid(
                "a filter is a comparison (field, operator, values) or one of all_of, any_of and none_of",
            ));
        }
    }
    let mut inner = |filters: &[Filter]| -> Result<Vec<Expr>, QueryError> {
        filters.iter().map(|filter| one(filter, resolve, level + 1, left)).collect()
    };
    let nothing = || lit(false);
    Ok(if !filter.all_of.is_empty() {
        inner(&filter.all_of)?.into_iter().reduce(Expr::and).unwrap_or_else(nothing)
    } else if !filter.any_of.is_empty() {
        inner(&filter.any_of)?.into_iter().reduce(Expr::or).unwrap_or_else(nothing)
    } else {
        // What is not known to hold does not.
        inner(&filter.none_of)?.into_iter().reduce(Expr::or).unwrap_or_else(nothing).is_not_true()
    })
}

fn condition(field: &Field, filter: &Filter) -> Result<Expr, QueryError> {
    use FilterOperator as Op;
    let operator = FilterOperator::try_from(filter.operator).unwrap_or(Op::Unspecified);
    let is_text = field.kind == FieldKind::Text;
    let is_list = field.kind == FieldKind::Texts;
    let fail = |reason: &str| {
        let word = operator.as_str_name().trim_start_matches("FILTER_OPERATOR_");
        Err(QueryError::invalid(format!("the filter {word} on {:?} {reason}", field.name)))
    };
    let fits = match operator {
        Op::Unspecified => return fail("has no operator"),
        Op::Equals | Op::NotEquals | Op::In | Op::NotIn => !is_list,
        Op::Contains | Op::NotContains | Op::StartsWith | Op::EndsWith => is_text,
        Op::Greater | Op::GreaterOrEqual | Op::Less | Op::LessOrEqual => !is_list && field.kind != FieldKind::Boolean,
        Op::IsNull | Op::IsNotNull => true,
        Op::HasAny | Op::HasAll | Op::HasNone => is_list,
    };
    if !fits {
        return match is_list {
            true => fail("does not fit a list: use HAS_ANY, HAS_ALL or HAS_NONE"),
            false => fail("does not fit its type"),
        };
    }
    let wanted = match operator {
        Op::IsNull | Op::IsNotNull => 0..=0,
        Op::In | Op::NotIn | Op::HasAny | Op::HasAll | Op::HasNone => 1..=VALUES_MAX,
        _ => 1..=1,
    };
    if !wanted.contains(&filter.values.len()) {
        return fail(&format!("takes {} values, not {}", describe(wanted), filter.values.len()));
    }

    let values = filter.values.iter().map(|value| literal(field, value)).collect::<Result<Vec<_>, _>>()?;
    let expr = || field.expr.clone();
    let first = || values.first().cloned().unwrap_or_else(|| lit(ScalarValue::Null));
    let has = |value: &Expr| array_has(expr(), value.clone());
    let nothing = || lit(false);
    Ok(match operator {
        Op::Unspecified => nothing(),
        Op::Equals => expr().eq(first()),
        Op::NotEquals => expr().eq(first()).is_not_true(),
        Op::In => expr().in_list(values.clone(), false),
        Op::NotIn => expr().in_list(values.clone(), false).is_not_true(),
        Op::Contains => contains(expr(), first()),
        Op::NotContains => contains(expr(), first()).is_not_true(),
        Op::StartsWith => starts_with(expr(), first()),
        Op::EndsWith => ends_with(expr(), first()),
        Op::Greater => expr().gt(first()),
        Op::GreaterOrEqual => expr().gt_eq(first()),
        Op::Less => expr().lt(first()),
        Op::LessOrEqual => expr().lt_eq(first()),
        // An empty list says as little as none.
        Op::IsNull if is_list => cardinality(expr()).gt(lit(0u64)).is_not_true(),
        Op::IsNotNull if is_list => cardinality(expr()).gt(lit(0u64)),
        Op::IsNull => expr().is_null(),
        Op::IsNotNull => expr().is_not_null(),
        Op::HasAny => values.iter().map(has).reduce(Expr::or).unwrap_or_else(nothing),
        Op::HasAll => values.iter().map(has).reduce(Expr::and).unwrap_or_else(nothing),
        Op::HasNone => values.iter().map(has).reduce(Expr::or).unwrap_or_else(nothing).is_not_true(),
    })
}

fn describe(wanted: std::ops::RangeInclusive<usize>) -> String {
    match (wanted.start(), wanted.end()) {
        (0, 0) => "no".to_owned(),
        (1, 1) => "one".to_owned(),
        (least, most) => format!("{least} to {most}"),
    }
}

fn literal(field: &Field, value: &str) -> Result<Expr, QueryError> {
    let shown: String = value.chars().take(80).collect();
    let bad = |what: &str| QueryError::invalid(format!("{shown:?} in the filter on {:?} is not {what}", field.name));
    Ok(match field.kind {
        FieldKind::Text | FieldKind::Texts => lit(value),
        FieldKind::Whole => match value.parse::<i64>() {
            Ok(whole) => lit(whole),
            Err(_) => lit(value.parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(|| bad("a number"))?),
        },
        FieldKind::Number => lit(value.parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(|| bad("a number"))?),
        FieldKind::Money => {
            let amount: Money = value.parse().map_err(|_| bad("an amount below 1,000,000 USD"))?;
            let (precision, scale) = (Money::PRECISION, Money::SCALE);
            lit(ScalarValue::Decimal128(Some(i128::from(amount.pico())), precision, scale))
        }
        FieldKind::Boolean => lit(value.parse::<bool>().map_err(|_| bad("true or false"))?),
        FieldKind::Time => {
            let at = DateTime::parse_from_rfc3339(value).map_err(|_| bad("a time such as 2026-11-21T08:00:00Z"))?;
            lit(ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into())))
        }
    })
}
