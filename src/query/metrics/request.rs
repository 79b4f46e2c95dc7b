//! A metrics request, checked: every name known, every number in bounds, every default filled in.

use datafusion::logical_expr::Expr;

use super::fields::{self, Field, FieldKind};
use super::filter;
use super::parts;
use crate::base::TimestampUs;
use crate::query::bucket::{Bucket, Unit};
use crate::query::error::QueryError;
use crate::query::limits::QueryLimits;
use crate::wire::{Aggregation, MetricsRequest, TimeUnit, View};

/// What one request may ask at most.
const MEASURES_MAX: usize = 50;
const DIMENSIONS_MAX: usize = 10;
const FILTERS_MAX: usize = 50;

#[derive(Debug)]
pub(in crate::query) struct Question {
    pub(super) view: View,
    pub(super) from_us: TimestampUs,
    pub(super) to_us: TimestampUs,
    pub(super) buckets: Option<Buckets>,
    pub(super) dimensions: Vec<Field>,
    pub(super) filters: Vec<Expr>,
    pub(super) measures: Vec<Measure>,
    /// The distinct fields the measures are about.
    pub(super) inputs: Vec<Field>,
    pub(super) order: Vec<Order>,
    pub(super) groups_max: usize,
    /// Fewer groups are asked for than there may be.
    pub(super) is_cut: bool,
    pub(super) with_total: bool,
    pub(super) exact_percentiles: bool,
    /// Traces only: what is computed of each trace's rows.
    pub(super) needs: Vec<(String, Expr)>,
    pub(super) rows_max: u64,
}

#[derive(Debug)]
pub(super) struct Buckets {
    pub(super) bucket: Bucket,
    pub(super) starts: Vec<TimestampUs>,
    pub(super) skip_gaps: bool,
}

#[derive(Debug)]
pub(super) struct Measure {
    pub(super) name: String,
    pub(super) unit: &'static str,
    pub(super) aggregate: Aggregate,
}

/// Numbers are positions in `inputs`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Aggregate {
    CountRows,
    Count(usize),
    Sum(usize),
    Avg(usize),
    Min(usize),
    Max(usize),
    CountDistinct(usize),
    /// 0 to 1.
    Percentile(usize, f64),
    ErrorRate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) by: By,
    pub(super) ascending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Bucket,
    Dimension(usize),
    Measure(usize),
}

impl Question {
    pub(in crate::query) fn parse(request: &MetricsRequest, limits: &QueryLimits) -> Result<Self, QueryError> {
        let view = match View::try_from(request.view) {
            Ok(View::Unspecified | View::Observations) => View::Observations,
            Ok(view) => view,
            Err(_) => return Err(QueryError::invalid(format!("view {} is not known", request.view))),
        };
        at_most("measures", request.measures.len(), MEASURES_MAX)?;
        at_most("dimensions", request.dimensions.len(), DIMENSIONS_MAX)?;
        at_most("filters", request.filters.len(), FILTERS_MAX)?;
        let range = request.range.ok_or_else(|| QueryError::invalid("a time range is required"))?;
        let (from_us, to_us) = (range.from_unix_micros, range.to_unix_micros);
        if from_us >= to_us {
            return Err(QueryError::invalid(format!("the time range is empty: {from_us} is not before {to_us}")));
        }

        let dimensions = request.dimensions.iter().map(|name| dimension(view, name)).collect::<Result<Vec<_>, _>>()?;
        if let Some(twice) = first_twice(request.dimensions.iter()) {
            return Err(QueryError::invalid(format!("the dimension {twice:?} is asked for twice")));
        }
        let mut needs: Vec<(String, Expr)> = dimensions.iter().flat_map(|field| field.needs.clone()).collect();
        let mut filters = Vec::new();
        for asked in &request.filters {
            let field = fields::resolve(view, &asked.field)?;
            filters.push(filter::condition(&field, asked)?);
            needs.extend(field.needs);
        }
        let mut inputs = Vec::new();
        let measures =
            request.measures.iter().map(|asked| measure(view, asked, &mut inputs)).collect::<Result<Vec<_>, _>>()?;
        if measures.is_empty() {
            return Err(QueryError::invalid("at least one measure is required"));
        }
        if let Some(twice) = first_twice(measures.iter().map(|measure| &measure.name)) {
            return Err(QueryError::invalid(format!("two measures are named {twice:?}: give one of them a name")));
        }
        needs.extend(inputs.iter().flat_map(|field| field.needs.clone()));
        if view == View::Traces {
            needs.push(fields::trace_start());
            if measures.iter().any(|measure| measure.aggregate == Aggregate::ErrorRate) {
                needs.push(fields::trace_errors());
            }
        }
        needs.sort_by(|a, b| a.0.cmp(&b.0));
        needs.dedup_by(|a, b| a.0 == b.0);

        let rows_max = limits.metric_rows_max;
        let buckets = buckets(request, from_us, to_us, rows_max)?;
        let order = order(request, &measures, buckets.is_some())?;
        let rows_per_group = buckets.as_ref().map_or(1, |buckets| buckets.starts.len().max(1));
        let groups_max = match request.top_k {
            // One place is kept for all others together.
            0 => (rows_max as usize / rows_per_group).saturating_sub(1).max(1),
            top_k => (top_k as usize).min(rows_max as usize),
        };
        Ok(Self {
            view,
            from_us,
            to_us,
            buckets,
            dimensions,
            filters,
            measures,
            inputs,
            order,
            groups_max,
            is_cut: request.top_k != 0,
            with_total: request.with_total,
            exact_percentiles: request.exact_percentiles,
            needs,
            rows_max,
        })
    }

    /// The measures of all groups together follow from what each group is made of.
    pub(super) fn adds_up(&self) -> bool {
        let all: Vec<usize> = (0..self.measures.len()).collect();
        parts::of(self, &all).into_iter().all(parts::Part::adds_up)
    }

    /// A row is in one group only: lists put it into several.
    pub(super) fn is_disjoint(&self) -> bool {
        self.dimensions.iter().all(|field| field.kind != FieldKind::Texts)
    }

    /// The input that says whether a row has a price, where money is asked for.
    pub(super) fn priced(&self) -> Option<usize> {
        let total = self.inputs.iter().position(|field| field.name == "total_cost");
        total.or_else(|| self.inputs.iter().position(|field| field.kind == FieldKind::Money))
    }
}

fn at_most(what: &str, count: usize, most: usize) -> Result<(), QueryError> {
    match count > most {
        true => Err(QueryError::invalid(format!("{count} {what} are more than the {most} that are possible"))),
        false => Ok(()),
    }
}

fn first_twice<'a>(names: impl Iterator<Item = &'a String> + Clone) -> Option<&'a String> {
    names.clone().enumerate().find(|(at, name)| names.clone().take(*at).any(|other| other == *name)).map(|(_, n)| n)
}

fn dimension(view: View, name: &str) -> Result<Field, QueryError> {
    let field = fields::resolve(view, name)?;
    match field.kind {
        FieldKind::Time => {
            Err(QueryError::invalid(format!("{name:?} is a time, not a dimension: ask for a time bucket")))
        }
        _ => Ok(field),
    }
}

fn measure(view: View, asked: &crate::wire::Measure, inputs: &mut Vec<Field>) -> Result<Measure, QueryError> {
    let aggregation = Aggregation::try_from(asked.aggregation).unwrap_or(Aggregation::Unspecified);
    let word = aggregation.as_str_name().trim_start_matches("AGGREGATION_").to_ascii_lowercase();
    let mut input = |numbers_only: bool| -> Result<usize, QueryError> {
        if asked.field.is_empty() {
            return Err(QueryError::invalid(format!("{word} needs a field")));
        }
        let field = fields::resolve(view, &asked.field)?;
        if numbers_only && !field.is_number() {
            return Err(QueryError::invalid(format!("{word} needs a number, which {:?} is not", field.name)));
        }
        if field.kind == FieldKind::Texts {
            return Err(QueryError::invalid(format!(
                "{:?} is a list: use it as a dimension or in a filter",
                field.name
            )));
        }
        if let Some(at) = inputs.iter().position(|known| known.name == field.name) {
            return Ok(at);
        }
        inputs.push(field);
        Ok(inputs.len() - 1)
    };
    let aggregate = match aggregation {
        Aggregation::Unspecified => return Err(QueryError::invalid("a measure without an aggregation")),
        Aggregation::Count if asked.field.is_empty() => Aggregate::CountRows,
        Aggregation::Count => Aggregate::Count(input(false)?),
        Aggregation::Sum => Aggregate::Sum(input(true)?),
        Aggregation::Avg => Aggregate::Avg(input(true)?),
        Aggregation::Min => Aggregate::Min(input(true)?),
        Aggregation::Max => Aggregate::Max(input(true)?),
        Aggregation::CountDistinct => Aggregate::CountDistinct(input(false)?),
        Aggregation::Percentile => {
            if !(0.0..=100.0).contains(&asked.percentile) {
                return Err(QueryError::invalid(format!("{} is not a percentile from 0 to 100", asked.percentile)));
            }
            Aggregate::Percentile(input(true)?, asked.percentile / 100.0)
        }
        Aggregation::ErrorRate if fields::error_of(view).is_none() => {
            return Err(QueryError::invalid("scores have no error rate"));
        }
        Aggregation::ErrorRate => Aggregate::ErrorRate,
    };
    let unit = match aggregate {
        Aggregate::CountRows | Aggregate::Count(_) | Aggregate::CountDistinct(_) => "count",
        Aggregate::ErrorRate => "ratio",
        Aggregate::Sum(input)
        | Aggregate::Avg(input)
        | Aggregate::Min(input)
        | Aggregate::Max(input)
        | Aggregate::Percentile(input, _) => inputs[input].unit(),
    };
    let name = match (asked.name.as_str(), aggregate) {
        ("", Aggregate::Percentile(..)) => format!("p{}_{}", asked.percentile, asked.field),
        ("", Aggregate::ErrorRate) => word,
        ("", _) if asked.field.is_empty() => word,
        ("", _) => format!("{word}_{}", asked.field),
        (name, _) => name.to_owned(),
    };
    Ok(Measure { name, unit, aggregate })
}

fn buckets(
    request: &MetricsRequest,
    from_us: TimestampUs,
    to_us: TimestampUs,
    rows_max: u64,
) -> Result<Option<Buckets>, QueryError> {
    let Some(asked) = &request.bucket else { return Ok(None) };
    let unit = match TimeUnit::try_from(asked.unit) {
        Ok(TimeUnit::Minute) => Unit::Minute,
        Ok(TimeUnit::Hour) => Unit::Hour,
        Ok(TimeUnit::Day) => Unit::Day,
        Ok(TimeUnit::Week) => Unit::Week,
        Ok(TimeUnit::Month) => Unit::Month,
        Ok(TimeUnit::Unspecified) | Err(_) => return Err(QueryError::invalid("a time bucket without a unit")),
    };
    let bucket = Bucket::new(unit, asked.count.max(1), &asked.time_zone).map_err(QueryError::Invalid)?;
    let starts = match bucket.starts(from_us, to_us, rows_max as usize) {
        Some(starts) => starts,
        None if asked.skip_gaps => Vec::new(),
        None => return Err(QueryError::rows(rows_max)),
    };
    Ok(Some(Buckets { bucket, starts, skip_gaps: asked.skip_gaps }))
}

fn order(request: &MetricsRequest, measures: &[Measure], has_buckets: bool) -> Result<Vec<Order>, QueryError> {
    let by = |name: &str| -> Result<By, QueryError> {
        if let Some(at) = measures.iter().position(|measure| measure.name == name) {
            return Ok(By::Measure(at));
        }
        if let Some(at) = request.dimensions.iter().position(|dimension| dimension == name) {
            return Ok(By::Dimension(at));
        }
        match name {
            "bucket" if has_buckets => Ok(By::Bucket),
            _ => {
                let names: Vec<&str> = measures.iter().map(|measure| measure.name.as_str()).collect();
                let shown: String = name.chars().take(80).collect();
                let known = [names.join(", "), request.dimensions.join(", ")].join(", ");
                Err(QueryError::invalid(format!("cannot order by {shown:?}: it is none of {known}, bucket")))
            }
        }
    };
    let mut order = request
        .order_by
        .iter()
        .map(|asked| Ok(Order { by: by(&asked.field)?, ascending: asked.ascending }))
        .collect::<Result<Vec<_>, QueryError>>()?;
    if order.is_empty() && has_buckets {
        order.push(Order { by: By::Bucket, ascending: true });
    }
    if order.iter().all(|order| order.by == By::Bucket) {
        order.push(Order { by: By::Measure(0), ascending: false });
    }
    Ok(order)
}
