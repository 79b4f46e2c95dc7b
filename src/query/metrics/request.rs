//! A metrics request, checked: every name known, every number in bounds, every default filled in.

use datafusion::logical_expr::Expr;

use super::field::{self, Field, Needs, Scope};
use super::fields::FieldKind;
use super::filter;
use super::parts;
use crate::base::TimestampUs;
use crate::query::bucket::{Bucket, Unit};
use crate::query::error::QueryError;
use crate::query::functions::SKETCH_ERROR;
use crate::wire::{Aggregation, Filter, MetricsRequest, TimeUnit, View};

/// What one request may ask at most.
pub(super) const MEASURES_MAX: usize = 50;
const DIMENSIONS_MAX: usize = 10;
const STEPS_MAX: usize = 10;
const BINS_DEFAULT: u32 = 10;
const BINS_MAX: u32 = 100;

#[derive(Debug)]
pub(in crate::query) struct Question {
    pub(super) view: View,
    pub(super) from_us: TimestampUs,
    pub(super) to_us: TimestampUs,
    pub(super) buckets: Option<Buckets>,
    pub(super) dimensions: Vec<Field>,
    pub(super) condition: Option<Expr>,
    /// What an observation must be to be a step, in the order of the steps.
    pub(super) steps: Vec<Expr>,
    pub(super) measures: Vec<Measure>,
    /// The distinct fields the measures are about.
    pub(super) inputs: Vec<Input>,
    pub(super) order: Vec<Order>,
    pub(super) groups_max: usize,
    /// Fewer groups are asked for than there may be.
    pub(super) is_cut: bool,
    pub(super) with_total: bool,
    pub(super) exact_percentiles: bool,
    /// What is computed before dimensions, filters and inputs can be.
    pub(super) needs: Needs,
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
    pub(super) meaning: &'static str,
    pub(super) aggregate: Aggregate,
}

/// A field, of the rows that pass.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) field: Field,
    filters: Vec<Filter>,
    pub(super) condition: Option<Expr>,
    /// The input that says how many rows pass; `None`: all do.
    pub(super) passing: Option<usize>,
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
    /// How many rows have the first, of those that have the second, or of all.
    Rate(usize, Option<usize>),
    /// Of all rows, or of a sum. What is computed is the group's own; the total divides it in the end.
    Share(Option<usize>),
    Histogram(usize, u32),
    Stddev(usize),
    Samples(usize),
    Sketch(usize),
}

impl Aggregate {
    pub(super) fn input(self) -> Option<usize> {
        match self {
            Self::CountRows => None,
            Self::Share(input) => input,
            Self::Count(input)
            | Self::Sum(input)
            | Self::Avg(input)
            | Self::Min(input)
            | Self::Max(input)
            | Self::CountDistinct(input)
            | Self::Percentile(input, _)
            | Self::Rate(input, _)
            | Self::Histogram(input, _)
            | Self::Stddev(input)
            | Self::Samples(input)
            | Self::Sketch(input) => Some(input),
        }
    }
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
    /// `rows_max`: of the answer.
    pub(in crate::query) fn parse(request: &MetricsRequest, rows_max: u64) -> Result<Self, QueryError> {
        let view = match View::try_from(request.view) {
            Ok(View::Unspecified | View::Observations) => View::Observations,
            Ok(view) => view,
            Err(_) => return Err(QueryError::invalid(format!("view {} is not known", request.view))),
        };
        at_most("measures", request.measures.len(), MEASURES_MAX)?;
        at_most("dimensions", request.dimensions.len(), DIMENSIONS_MAX)?;
        at_most("steps", request.steps.len(), STEPS_MAX)?;
        let (from_us, to_us) = range(request)?;

        let scope = Scope { view, steps: request.steps.len() };
        let mut needs = Needs::default();
        let dimensions = request.dimensions.iter().map(|name| dimension(scope, name)).collect::<Result<Vec<_>, _>>()?;
        if let Some(twice) = first_twice(request.dimensions.iter()) {
            return Err(QueryError::invalid(format!("the dimension {twice:?} is asked for twice")));
        }
        dimensions.iter().for_each(|field| needs.and(&field.needs));
        let condition = filter::all_of(scope, &request.filters, &mut needs)?;
        let mut inputs = Inputs { scope, needs, list: Vec::new() };
        let measures =
            request.measures.iter().map(|asked| measure(scope, asked, &mut inputs)).collect::<Result<Vec<_>, _>>()?;
        if measures.is_empty() {
            return Err(QueryError::invalid("at least one measure is required"));
        }
        if let Some(twice) = first_twice(measures.iter().map(|measure| &measure.name)) {
            return Err(QueryError::invalid(format!("two measures are named {twice:?}: give one of them a name")));
        }
        let Inputs { mut needs, list: inputs, .. } = inputs;
        if field::group_of(view).is_some() {
            needs.and(&Needs { aggregates: vec![field::group_start()], ..Needs::default() });
        }

        let buckets = buckets(request, from_us, to_us, rows_max)?;
        let order = order(request, &measures, buckets.is_some())?;
        let rows_per_group = buckets.as_ref().map_or(1, |buckets| buckets.starts.len().max(1));
        let groups_max = match request.top_k {
            // One place is kept for all others together.
            0 => (rows_max as usize / rows_per_group).saturating_sub(1).max(1),
            top_k => (top_k as usize).min(rows_max as usize),
        };
        let shares = measures.iter().any(|measure| matches!(measure.aggregate, Aggregate::Share(_)));
        Ok(Self {
            view,
            from_us,
            to_us,
            buckets,
            dimensions,
            condition,
            steps: steps(request)?,
            measures,
            inputs,
            order,
            groups_max,
            is_cut: request.top_k != 0,
            with_total: request.with_total || shares,
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
        let money = |input: &Input| input.condition.is_none() && input.field.kind == FieldKind::Money;
        let total = self.inputs.iter().position(|input| money(input) && input.field.name == "total_cost");
        total.or_else(|| self.inputs.iter().position(money))
    }

    /// How far a measure may be from the truth, as a share of it.
    pub(super) fn relative_error(&self, aggregate: Aggregate) -> f64 {
        match aggregate {
            Aggregate::Percentile(..) if self.exact_percentiles => 0.0,
            Aggregate::Percentile(..) | Aggregate::Histogram(..) | Aggregate::Sketch(_) => SKETCH_ERROR,
            _ => 0.0,
        }
    }
}

/// The inputs of a request, each once.
struct Inputs {
    scope: Scope,
    needs: Needs,
    list: Vec<Input>,
}

impl Inputs {
    fn put(&mut self, field: Field, filters: &[Filter]) -> Result<usize, QueryError> {
        let is_same = |known: &Input| known.field.name == field.name && known.filters == filters;
        if let Some(at) = self.list.iter().position(is_same) {
            return Ok(at);
        }
        let passing = match filters.is_empty() || field.name.is_empty() {
            true => None,
            false => Some(self.put(Field::one(), filters)?),
        };
        let condition = filter::all_of(self.scope, filters, &mut self.needs)?;
        self.needs.and(&field.needs);
        self.list.push(Input { field, filters: filters.to_vec(), condition, passing });
        Ok(self.list.len() - 1)
    }
}

pub(super) fn range(request: &MetricsRequest) -> Result<(TimestampUs, TimestampUs), QueryError> {
    let range = request.range.ok_or_else(|| QueryError::invalid("a time range is required"))?;
    let (from_us, to_us) = (range.from_unix_micros, range.to_unix_micros);
    match from_us < to_us {
        true => Ok((from_us, to_us)),
        false => Err(QueryError::invalid(format!("the time range is empty: {from_us} is not before {to_us}"))),
    }
}

/// Steps are observations, whatever the view.
fn steps(request: &MetricsRequest) -> Result<Vec<Expr>, QueryError> {
    let scope = Scope { view: View::Observations, steps: 0 };
    let step = |step: &Filter| -> Result<Expr, QueryError> {
        let mut needs = Needs::default();
        let condition = filter::all_of(scope, std::slice::from_ref(step), &mut needs)?;
        match needs.scores.is_empty() {
            true => condition.ok_or_else(|| QueryError::invalid("a step without a filter")),
            false => Err(QueryError::invalid("a step cannot ask for scores")),
        }
    };
    request.steps.iter().map(step).collect()
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

fn dimension(scope: Scope, name: &str) -> Result<Field, QueryError> {
    let field = field::resolve(scope, name)?;
    match field.kind {
        FieldKind::Time => {
            Err(QueryError::invalid(format!("{name:?} is a time, not a dimension: ask for a time bucket")))
        }
        _ => Ok(field),
    }
}

fn measure(scope: Scope, asked: &crate::wire::Measure, inputs: &mut Inputs) -> Result<Measure, QueryError> {
    let aggregation = Aggregation::try_from(asked.aggregation).unwrap_or(Aggregation::Unspecified);
    let word = aggregation.as_str_name().trim_start_matches("AGGREGATION_").to_ascii_lowercase();
    let filters = &asked.filters;
    let mut input = |takes: Takes| -> Result<usize, QueryError> {
        if asked.field.is_empty() {
            return Err(QueryError::invalid(format!("{word} needs a field")));
        }
        let field = field::resolve(scope, &asked.field)?;
        let name = &field.name;
        match takes {
            Takes::Numbers if !field.is_number() => {
                Err(QueryError::invalid(format!("{word} needs a number, which {name:?} is not")))
            }
            Takes::Ordered if !field.is_number() && field.kind != FieldKind::Time => {
                Err(QueryError::invalid(format!("{word} needs a number or a time, which {name:?} is not")))
            }
            Takes::Texts if field.kind != FieldKind::Text => {
                Err(QueryError::invalid(format!("{word} needs a text, which {name:?} is not")))
            }
            _ if field.kind == FieldKind::Texts => {
                Err(QueryError::invalid(format!("{name:?} is a list: use it as a dimension or in a filter")))
            }
            _ => inputs.put(field, filters),
        }
    };
    let aggregate = match aggregation {
        Aggregation::Unspecified => return Err(QueryError::invalid("a measure without an aggregation")),
        Aggregation::Count if asked.field.is_empty() && filters.is_empty() => Aggregate::CountRows,
        Aggregation::Count if asked.field.is_empty() => Aggregate::Count(inputs.put(Field::one(), filters)?),
        Aggregation::Count => Aggregate::Count(input(Takes::Anything)?),
        Aggregation::Sum => Aggregate::Sum(input(Takes::Numbers)?),
        Aggregation::Avg => Aggregate::Avg(input(Takes::Numbers)?),
        Aggregation::Min => Aggregate::Min(input(Takes::Ordered)?),
        Aggregation::Max => Aggregate::Max(input(Takes::Ordered)?),
        Aggregation::CountDistinct => Aggregate::CountDistinct(input(Takes::Anything)?),
        Aggregation::Stddev => Aggregate::Stddev(input(Takes::Numbers)?),
        Aggregation::Samples => Aggregate::Samples(input(Takes::Texts)?),
        Aggregation::Sketch => Aggregate::Sketch(input(Takes::Numbers)?),
        Aggregation::Histogram => match asked.bins {
            0 => Aggregate::Histogram(input(Takes::Numbers)?, BINS_DEFAULT),
            bins if bins <= BINS_MAX => Aggregate::Histogram(input(Takes::Numbers)?, bins),
            bins => return Err(QueryError::invalid(format!("{bins} bins are not possible: use 1 to {BINS_MAX}"))),
        },
        Aggregation::Percentile => {
            if !(0.0..=100.0).contains(&asked.percentile) {
                return Err(QueryError::invalid(format!("{} is not a percentile from 0 to 100", asked.percentile)));
            }
            Aggregate::Percentile(input(Takes::Numbers)?, asked.percentile / 100.0)
        }
        Aggregation::ErrorRate if scope.view == View::Scores => {
            return Err(QueryError::invalid("scores have no error rate"));
        }
        Aggregation::ErrorRate => {
            let is_error = Filter {
                field: "is_error".to_owned(),
                operator: crate::wire::FilterOperator::Equals.into(),
                values: vec!["true".to_owned()],
                ..Default::default()
            };
            let failing: Vec<Filter> = filters.iter().cloned().chain([is_error]).collect();
            let of = if filters.is_empty() { None } else { Some(inputs.put(Field::one(), filters)?) };
            Aggregate::Rate(inputs.put(Field::one(), &failing)?, of)
        }
        Aggregation::Rate if filters.is_empty() => {
            return Err(QueryError::invalid("rate needs filters: it is the share of rows that pass them"));
        }
        Aggregation::Rate => Aggregate::Rate(inputs.put(Field::one(), filters)?, None),
        Aggregation::Share if !filters.is_empty() => {
            return Err(QueryError::invalid("share takes no filters: use rate for the share of rows that pass"));
        }
        Aggregation::Share if asked.field.is_empty() => Aggregate::Share(None),
        Aggregation::Share => Aggregate::Share(Some(input(Takes::Numbers)?)),
    };
    let field = aggregate.input().map(|input| &inputs.list[input].field);
    let unit = match aggregate {
        Aggregate::CountRows | Aggregate::Count(_) | Aggregate::CountDistinct(_) => "count",
        Aggregate::Rate(..) | Aggregate::Share(_) => "ratio",
        _ => field.map_or("", |field| field.unit),
    };
    let name = match (asked.name.as_str(), aggregate) {
        ("", Aggregate::Percentile(..)) => format!("p{}_{}", asked.percentile, asked.field),
        ("", Aggregate::Rate(..)) => word,
        ("", _) if asked.field.is_empty() => word,
        ("", _) => format!("{word}_{}", asked.field),
        (name, _) => name.to_owned(),
    };
    let meaning = match aggregation {
        Aggregation::ErrorRate => "The share of rows with level ERROR or status error.",
        Aggregation::Rate => "The share of rows that pass the measure's filters.",
        _ => field.map_or("", |field| field.meaning),
    };
    Ok(Measure { name, unit, meaning, aggregate })
}

/// What an aggregation can be asked of.
#[derive(Debug, Clone, Copy)]
enum Takes {
    Anything,
    Numbers,
    Ordered,
    Texts,
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
