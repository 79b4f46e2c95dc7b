//! Costs and usage by their kinds: first which kinds there are, then a measure for each; told as a row for each.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::super::super::super::super::Refusal;
use super::super::Asked;
use super::question::Question;
use super::{bucket, dimension, measure};
use crate::wire::metric_value::Value as Wire;
use crate::wire::{Aggregation, Filter, FilterOperator, Measure, MetricsRequest};

/// Kinds asked about in one question; each takes a measure for each that was asked for.
const MEASURES_MAX: usize = 48;

pub(super) async fn rows(asked: &Asked, question: &Question) -> Result<Vec<Map<String, Value>>, Refusal> {
    let Some((place, field, prefix)) = question.kinds else { return Ok(Vec::new()) };
    let request = &question.request;
    let all = MetricsRequest {
        dimensions: vec![field.to_owned()],
        measures: vec![Measure { aggregation: Aggregation::Count.into(), ..Default::default() }],
        order_by: Vec::new(),
        bucket: None,
        top_k: 0,
        ..request.clone()
    };
    let kinds: Vec<String> = asked
        .series(all)
        .await?
        .rows
        .into_iter()
        .filter_map(|row| match row.dimensions.into_iter().next()?.value {
            Some(Wire::Text(kind)) => Some(kind),
            _ => None,
        })
        .collect();
    let others: Vec<String> =
        request.dimensions.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, name)| name.clone()).collect();
    let names: Vec<&String> =
        question.dimensions.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, name)| name).collect();
    // How many rows have the kind says whether there is something to tell.
    let each = request.measures.len() + 1;
    let mut rows = Vec::new();
    for kinds in kinds.chunks((MEASURES_MAX / each).max(1)) {
        let measures = kinds.iter().enumerate().flat_map(|(at, kind)| of_kind(request, at, &format!("{prefix}{kind}")));
        let one = MetricsRequest {
            dimensions: others.clone(),
            measures: measures.collect(),
            order_by: Vec::new(),
            top_k: 0,
            ..request.clone()
        };
        for row in asked.series(one).await?.rows {
            for (kind, values) in kinds.iter().zip(row.measures.chunks(each)) {
                let (Some(count), values) = (values.first(), &values[1..]) else { continue };
                if count.value.is_none() || count.value == Some(Wire::Integer(0)) {
                    continue;
                }
                let mut shown = Map::new();
                for (name, value) in names.iter().zip(&row.dimensions) {
                    shown.insert((*name).clone(), dimension(name, value));
                }
                shown.insert(question.dimensions[place].clone(), kind.as_str().into());
                if let (Some(unit), Some(start)) = (question.unit, row.bucket_start_unix_micros) {
                    shown.insert("time_dimension".to_owned(), bucket(unit, start, question.zone).into());
                }
                for (asked, value) in request.measures.iter().zip(values) {
                    shown.insert(asked.name.clone(), measure(value));
                }
                rows.push(shown);
            }
        }
    }
    sort(&mut rows, question);
    Ok(rows)
}

/// How many rows have the kind, then what is asked of them.
fn of_kind(request: &MetricsRequest, at: usize, field: &str) -> Vec<Measure> {
    let has = Filter { field: field.to_owned(), operator: FilterOperator::IsNotNull.into(), ..Default::default() };
    let count = Measure {
        field: field.to_owned(),
        aggregation: Aggregation::Count.into(),
        name: format!("{at} count"),
        ..Default::default()
    };
    let asked = request.measures.iter().map(|asked| {
        let by_kind = asked.field.ends_with(':');
        Measure {
            field: if by_kind { field.to_owned() } else { asked.field.clone() },
            name: format!("{at} {}", asked.name),
            filters: if by_kind { Vec::new() } else { vec![has.clone()] },
            ..asked.clone()
        }
    });
    std::iter::once(count).chain(asked).collect()
}

/// As asked; else by time, then by the first measure, greatest first.
fn sort(rows: &mut [Map<String, Value>], question: &Question) {
    let mut order = question.order.clone();
    if order.is_empty() {
        order.extend(question.unit.map(|_| ("time_dimension".to_owned(), true)));
        order.extend(question.request.measures.first().map(|measure| (measure.name.clone(), false)));
    }
    rows.sort_by(|a, b| {
        let by = |(name, ascending): &(String, bool)| {
            let (a, b) = (a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
            let ordering = match (a, b) {
                (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
                (Value::Null, Value::Null) => Ordering::Equal,
                // What is not there comes last.
                (Value::Null, _) => return Ordering::Greater,
                (_, Value::Null) => return Ordering::Less,
                (a, b) => a.to_string().cmp(&b.to_string()),
            };
            if *ascending { ordering } else { ordering.reverse() }
        };
        order.iter().map(by).fold(Ordering::Equal, Ordering::then)
    });
}
