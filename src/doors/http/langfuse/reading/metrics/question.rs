//! The `query` of a metrics call, checked and put into our words.

use chrono_tz::Tz;
use serde::Deserialize;
use serde_json::Value;

use super::super::super::super::super::Refusal;
use super::super::filters;
use super::super::invalid;
use super::super::parameters::{shown, time};
use super::views::{KINDS, Makes, MeasureOf, VIEWS, ViewOf};
use crate::base::{Day, TimestampUs};
use crate::wire::{
    Aggregation, Filter, FilterOperator, Measure, MetricsRequest, OrderBy, TimeBucket, TimeRange, TimeUnit,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    view: String,
    #[serde(default)]
    dimensions: Vec<SaidDimension>,
    metrics: Vec<SaidMetric>,
    #[serde(default)]
    filters: Vec<Value>,
    time_dimension: Option<SaidTime>,
    from_timestamp: String,
    to_timestamp: String,
    order_by: Option<Vec<SaidOrder>>,
    config: Option<SaidConfig>,
    /// An IANA name: where days, weeks and months begin. Not Langfuse's.
    timezone: Option<String>,
}

#[derive(Deserialize)]
struct SaidDimension {
    field: String,
}

#[derive(Deserialize)]
struct SaidMetric {
    measure: String,
    aggregation: String,
}

#[derive(Deserialize)]
struct SaidTime {
    granularity: String,
}

#[derive(Deserialize)]
struct SaidOrder {
    field: String,
    direction: String,
}

#[derive(Default, Deserialize)]
struct SaidConfig {
    bins: Option<u32>,
    row_limit: Option<u32>,
}

/// A metrics call as we ask it.
pub(super) struct Question {
    pub(super) request: MetricsRequest,
    /// The names of the dimensions, as they were asked for.
    pub(super) dimensions: Vec<String>,
    /// One of them that is about kinds of cost or usage: its place, our field of kinds, the prefix of a kind's field.
    pub(super) kinds: Option<(usize, &'static str, &'static str)>,
    pub(super) zone: Tz,
    pub(super) unit: Option<TimeUnit>,
    pub(super) rows_max: Option<usize>,
    /// How the rows of kinds are ordered: by a name of the answer.
    pub(super) order: Vec<(String, bool)>,
}

const GRANULARITIES: [(&str, TimeUnit); 5] = [
    ("minute", TimeUnit::Minute),
    ("hour", TimeUnit::Hour),
    ("day", TimeUnit::Day),
    ("week", TimeUnit::Week),
    ("month", TimeUnit::Month),
];

impl Question {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let said: Said = serde_json::from_str(text).map_err(|e| invalid(format!("query is no metrics query: {e}")))?;
        let view = ViewOf::named(&said.view).ok_or_else(|| {
            let names: Vec<&str> = VIEWS.iter().map(|view| view.name).collect();
            invalid(format!("view is one of {}, not {}", names.join(", "), shown(&said.view)))
        })?;
        let (from_us, to_us) = (time("fromTimestamp", &said.from_timestamp)?, time("toTimestamp", &said.to_timestamp)?);
        if from_us >= to_us {
            return Err(invalid("fromTimestamp is not before toTimestamp"));
        }
        let zone_name = said.timezone.as_deref().unwrap_or("UTC");
        let zone: Tz = zone_name.parse().map_err(|_| {
            invalid(format!("timezone {} is not known: use an IANA name such as Europe/Berlin", shown(zone_name)))
        })?;
        let unit = said.time_dimension.as_ref().map(|asked| unit(&asked.granularity, to_us - from_us)).transpose()?;
        let config = said.config.unwrap_or_default();
        let rows_max = match config.row_limit {
            None => None,
            Some(0) => return Err(invalid("config.row_limit is a whole number from 1 on")),
            Some(rows) => Some(rows as usize),
        };
        let bins = match config.bins {
            Some(bins) if !(1..=100).contains(&bins) => return Err(invalid("config.bins is 1 to 100")),
            bins => bins.unwrap_or(10),
        };
        if said.metrics.is_empty() {
            return Err(invalid("metrics is empty: ask for one at least"));
        }
        let names: Vec<String> = said.dimensions.iter().map(|dimension| dimension.field.clone()).collect();
        let (dimensions, kinds) = dimensions(view, &names)?;
        let measures = said.metrics.iter().map(|metric| measure(view, metric, bins, kinds.map(|(.., field)| field)));
        let measures = measures.collect::<Result<Vec<Measure>, _>>()?;
        let order = order(&said.order_by.unwrap_or_default(), &measures, &names, unit.is_some())?;
        let ours = |name: &String| match (names.iter().position(|known| known == name), name.as_str()) {
            (Some(at), _) => dimensions[at].clone(),
            (None, "time_dimension") => "bucket".to_owned(),
            (None, measure) => measure.to_owned(),
        };
        let order_by =
            order.iter().map(|(name, ascending)| OrderBy { field: ours(name), ascending: *ascending }).collect();
        let bucket = unit.map(|unit| TimeBucket {
            unit: unit.into(),
            count: 1,
            time_zone: zone.name().to_owned(),
            skip_gaps: true,
        });
        let request = MetricsRequest {
            view: view.view.into(),
            measures,
            dimensions,
            filters: wanted(view, said.filters)?,
            // Both ends are in it.
            range: Some(TimeRange { from_unix_micros: from_us, to_unix_micros: to_us.saturating_add(1) }),
            bucket,
            order_by,
            top_k: if unit.is_none() { config.row_limit.unwrap_or_default() } else { 0 },
            ..Default::default()
        };
        Ok(Self { request, dimensions: names, kinds, zone, unit, rows_max, order })
    }
}

fn unit(granularity: &str, span_us: TimestampUs) -> Result<TimeUnit, Refusal> {
    const HOUR_US: i64 = Day::US / 24;
    if granularity == "auto" {
        return Ok(match span_us {
            span if span < 2 * HOUR_US => TimeUnit::Minute,
            span if span < 72 * HOUR_US => TimeUnit::Hour,
            span if span < 60 * Day::US => TimeUnit::Day,
            span if span < 365 * Day::US => TimeUnit::Week,
            _ => TimeUnit::Month,
        });
    }
    let known = GRANULARITIES.iter().find(|(name, _)| *name == granularity);
    known.map(|(_, unit)| *unit).ok_or_else(|| {
        let names: Vec<&str> = GRANULARITIES.iter().map(|(name, _)| *name).collect();
        invalid(format!("timeDimension.granularity is auto, {}, not {}", names.join(", "), shown(granularity)))
    })
}

type Kinds = Option<(usize, &'static str, &'static str)>;

fn dimensions(view: &ViewOf, names: &[String]) -> Result<(Vec<String>, Kinds), Refusal> {
    let has_kinds = view.measures.iter().any(|measure| measure.makes == Makes::ByKind);
    let (mut fields, mut kinds) = (Vec::new(), None);
    for (at, name) in names.iter().enumerate() {
        let kind = KINDS.iter().find(|(kind, ..)| kind == name).filter(|_| has_kinds);
        let field = match kind {
            Some((_, field, prefix)) if kinds.is_none() => {
                kinds = Some((at, *field, *prefix));
                Some(*field)
            }
            Some(_) => return Err(invalid("dimensions can have one of costType and usageType, not both")),
            None => view.dimension(name),
        };
        let field = field.ok_or_else(|| {
            let known = view.dimensions().join(", ");
            invalid(format!("{} is no dimension of {}: it has {known}", shown(name), view.name))
        })?;
        if fields.iter().any(|known| known == field) {
            return Err(invalid(format!("the dimension {} is asked for twice", shown(name))));
        }
        fields.push(field.to_owned());
    }
    Ok((fields, kinds))
}

fn measure(view: &ViewOf, said: &SaidMetric, bins: u32, kinds: Option<&str>) -> Result<Measure, Refusal> {
    let known: Option<&MeasureOf> = view.measures.iter().find(|measure| measure.name == said.measure);
    let known = known.ok_or_else(|| {
        let names: Vec<&str> = view.measures.iter().map(|measure| measure.name).collect();
        invalid(format!("{} is no measure of {}: it has {}", shown(&said.measure), view.name, names.join(", ")))
    })?;
    let asked = said.aggregation.as_str();
    let fail = |allowed: &str| {
        Err(invalid(format!("the aggregation {} is not for {}: use {allowed}", shown(asked), known.name)))
    };
    let (aggregation, percentile) = match (known.makes, asked) {
        (Makes::Rows, "count" | "sum") => (Aggregation::Count, 0.0),
        (Makes::Rows, _) => return fail("count"),
        (Makes::Different, "uniq" | "count" | "sum") => (Aggregation::CountDistinct, 0.0),
        (Makes::Different, _) => return fail("uniq"),
        (Makes::Texts | Makes::Numbers, "count") => (Aggregation::Count, 0.0),
        (Makes::Texts | Makes::Numbers, "uniq") => (Aggregation::CountDistinct, 0.0),
        (Makes::Texts, _) => return fail("count, uniq"),
        (Makes::Numbers, "sum") => (Aggregation::Sum, 0.0),
        (Makes::Numbers, "avg") => (Aggregation::Avg, 0.0),
        (Makes::Numbers, "min") => (Aggregation::Min, 0.0),
        (Makes::Numbers, "max") => (Aggregation::Max, 0.0),
        (Makes::Numbers, "histogram") => (Aggregation::Histogram, 0.0),
        (Makes::Numbers, "p50") => (Aggregation::Percentile, 50.0),
        (Makes::Numbers, "p75") => (Aggregation::Percentile, 75.0),
        (Makes::Numbers, "p90") => (Aggregation::Percentile, 90.0),
        (Makes::Numbers, "p95") => (Aggregation::Percentile, 95.0),
        (Makes::Numbers, "p99") => (Aggregation::Percentile, 99.0),
        (Makes::Numbers, _) => return fail("sum, avg, count, max, min, p50, p75, p90, p95, p99, histogram, uniq"),
        (Makes::ByKind, "sum") if kinds == Some(known.field) => (Aggregation::Sum, 0.0),
        (Makes::ByKind, "sum") => {
            let kind = KINDS.iter().find(|(.., field)| *field == known.field).map_or("", |(kind, ..)| kind);
            return Err(invalid(format!("{} needs the dimension {kind}", known.name)));
        }
        (Makes::ByKind, _) => return fail("sum"),
    };
    Ok(Measure {
        field: known.field.to_owned(),
        aggregation: aggregation.into(),
        name: format!("{asked}_{}", known.name),
        percentile,
        bins: if aggregation == Aggregation::Histogram { bins } else { 0 },
        ..Default::default()
    })
}

fn wanted(view: &ViewOf, mut said: Vec<Value>) -> Result<Vec<Filter>, Refusal> {
    for filter in &mut said {
        let name = filter.get("column").and_then(Value::as_str).unwrap_or_default();
        // A name of something else is taken for the name.
        if name.ends_with("Name") && view.columns.iter().all(|column| column.name != name) {
            filter["column"] = "name".into();
        }
    }
    let mut filters = filters::all(&said, view.columns)?;
    for filter in &mut filters {
        // What is said to be empty was not said.
        if filter.operator == i32::from(FilterOperator::Equals) && filter.values == [""] {
            *filter = super::super::comparison(&filter.field, FilterOperator::IsNull, Vec::new());
        }
    }
    filters.extend((view.filters)());
    Ok(filters)
}

fn order(
    said: &[SaidOrder],
    measures: &[Measure],
    dimensions: &[String],
    has_time: bool,
) -> Result<Vec<(String, bool)>, Refusal> {
    let one = |said: &SaidOrder| {
        let known = measures.iter().any(|measure| measure.name == said.field)
            || dimensions.contains(&said.field)
            || (has_time && said.field == "time_dimension");
        let ascending = match said.direction.as_str() {
            "asc" => true,
            "desc" => false,
            other => return Err(invalid(format!("orderBy.direction is asc or desc, not {}", shown(other)))),
        };
        match known {
            true => Ok((said.field.clone(), ascending)),
            false => {
                let measures = measures.iter().map(|measure| measure.name.as_str());
                let names: Vec<&str> = measures.chain(dimensions.iter().map(String::as_str)).collect();
                let names = names.join(", ");
                Err(invalid(format!("orderBy.field {} is none of {names}, time_dimension", shown(&said.field))))
            }
        }
    };
    said.iter().map(one).collect()
}
