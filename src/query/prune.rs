//! Which files a question can need, from its filters and from what the snapshot knows of each file. Pure.

use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;

use crate::base::TimestampUs;
use crate::catalog::DataFile;

/// Inclusive bounds that every row a filter lets through lies within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    low: i64,
    high: i64,
}

/// Bounds on the table's time column and on its partition column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    time_us: Bounds,
    day: Bounds,
}

impl Window {
    /// What rows that pass all of `filters` have in common.
    pub(super) fn of(filters: &[Expr], time_column: &str) -> Self {
        filters.iter().map(|filter| window(filter, time_column)).fold(Self::ALL, Self::both)
    }

    pub(super) fn may_hold(&self, file: &DataFile) -> bool {
        let day = i64::from(file.day.days());
        let in_day = self.day.low <= day && day <= self.day.high;
        // A row without a time passes no filter on time.
        let in_time = match file.time_us {
            Some((first, last)) => self.time_us.low <= last && first <= self.time_us.high,
            None => self.time_us == Bounds::ALL,
        };
        in_day && in_time
    }

    const ALL: Window = Window { time_us: Bounds::ALL, day: Bounds::ALL };

    fn both(self, other: Self) -> Self {
        Self { time_us: self.time_us.both(other.time_us), day: self.day.both(other.day) }
    }
    fn either(self, other: Self) -> Self {
        Self { time_us: self.time_us.either(other.time_us), day: self.day.either(other.day) }
    }
}

impl Bounds {
    const ALL: Bounds = Bounds { low: i64::MIN, high: i64::MAX };

    fn both(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.min(other.high) }
    }
    fn either(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }
}

fn window(filter: &Expr, time_column: &str) -> Window {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            window(left, time_column).both(window(right, time_column))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            window(left, time_column).either(window(right, time_column))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (column, Expr::Literal(value, _)) => comparison(column, *op, value, time_column),
            (Expr::Literal(value, _), column) => {
                op.swap().map_or(Window::ALL, |op| comparison(column, op, value, time_column))
            }
            _ => Window::ALL,
        },
        Expr::Between(between) if !between.negated => match (between.low.as_ref(), between.high.as_ref()) {
            (Expr::Literal(low, _), Expr::Literal(high, _)) => comparison(
                &between.expr,
                Operator::GtEq,
                low,
                time_column,
            )
            .both(comparison(&between.expr, Operator::LtEq, high, time_column)),
            _ => Window::ALL,
        },
        Expr::InList(list) if !list.negated => {
            let windows = list.list.iter().map(|value| match value {
                Expr::Literal(value, _) => comparison(&list.expr, Operator::Eq, value, time_column),
                _ => Window::ALL,
            });
            windows.reduce(Window::either).unwrap_or(Window::ALL)
        }
        _ => Window::ALL,
    }
}

fn comparison(column: &Expr, op: Operator, value: &ScalarValue, time_column: &str) -> Window {
    let Expr::Column(column) = column else { return Window::ALL };
    // Strict bounds are widened to inclusive ones: a file too many is read, never one too few.
    let bounds = |value: i64| match op {
        Operator::Eq => Bounds { low: value, high: value },
        Operator::Gt | Operator::GtEq => Bounds { low: value, ..Bounds::ALL },
        Operator::Lt | Operator::LtEq => Bounds { high: value, ..Bounds::ALL },
        _ => Bounds::ALL,
    };
    match (column.name.as_str(), value) {
        ("day", ScalarValue::Date32(Some(day))) => Window { day: bounds(i64::from(*day)), ..Window::ALL },
        (name, value) if name == time_column => {
            time_us(value).map_or(Window::ALL, |at| Window { time_us: bounds(at), ..Window::ALL })
        }
        _ => Window::ALL,
    }
}

fn time_us(value: &ScalarValue) -> Option<TimestampUs> {
    match value {
        ScalarValue::TimestampMicrosecond(at, _) => *at,
        ScalarValue::TimestampMillisecond(at, _) => at.and_then(|at| at.checked_mul(1000)),
        ScalarValue::TimestampSecond(at, _) => at.and_then(|at| at.checked_mul(1_000_000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;
    use crate::base::Day;

    fn check(filter: Expr, first_us: i64, last_us: i64) -> bool {
        let file = DataFile {
            path: "day=1970-01-02/x.parquet".to_owned(),
            size_bytes: 1,
            day: Day::from_days(1),
            rows: 1,
            time_us: Some((first_us, last_us)),
            footer_bytes: None,
            index: None,
            rollups: Default::default(),
            added_version: None,
            rewrites: 0,
            undated: false,
            added_us: 0,
        };
        Window::of(&[filter], "start_time").may_hold(&file)
    }

    fn at(us: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())))
    }

    #[test]
    fn a_file_is_skipped_only_when_no_row_can_pass() {
        let time = || col("start_time");
        assert!(check(time().gt_eq(at(10)), 5, 10));
        assert!(!check(time().gt_eq(at(11)), 5, 10));
        assert!(!check(time().lt(at(4)), 5, 10));
        assert!(check(time().between(at(0), at(5)), 5, 10));
        assert!(!check(time().between(at(0), at(4)), 5, 10));
        assert!(check(time().lt(at(4)).or(col("model").eq(lit("x"))), 5, 10));
        assert!(!check(time().lt(at(4)).or(time().gt(at(11))).and(time().lt(at(4))), 5, 10));
        assert!(!check(at(20).lt(time()), 5, 10));
        assert!(check(time().eq(at(4)).is_not_true(), 5, 10), "a negation bounds nothing");
        assert!(check(col("day").eq(lit(ScalarValue::Date32(Some(1)))), 5, 10));
        assert!(!check(col("day").in_list(vec![lit(ScalarValue::Date32(Some(2)))], false), 5, 10));
        assert!(check(col("end_time").lt(at(1)), 5, 10), "another column says nothing about files");
    }
}
