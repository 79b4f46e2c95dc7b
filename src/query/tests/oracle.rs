//! The slow way: every row looked at, one by one, for every number.

use std::collections::BTreeSet;

use super::*;
use crate::query::bucket::{Bucket, Unit};
use crate::wire::MetricsRequest;

/// What the oracle knows of a row, or of a trace.
#[derive(Debug, Clone, Default)]
pub(super) struct Fact {
    at_us: i64,
    dimensions: BTreeMap<&'static str, Vec<Option<String>>>,
    pub(super) latency_ms: Option<f64>,
    tokens: Option<i64>,
    cost: Option<i64>,
    user: Option<String>,
    failed: bool,
}

pub(super) fn facts(rows: &[ObservationRow]) -> Vec<Fact> {
    rows.iter()
        .map(|row| {
            let o = &row.observation;
            let tags = match o.tags.is_empty() {
                true => vec![None],
                false => o.tags.iter().cloned().map(Some).collect(),
            };
            Fact {
                at_us: row.start_us(),
                dimensions: BTreeMap::from([
                    ("model", vec![o.model.clone()]),
                    ("account", vec![row.account().map(str::to_owned)]),
                    ("trace_name", vec![o.trace_name.clone()]),
                    ("metadata:team", vec![o.metadata.get("team").cloned()]),
                    ("tags", tags),
                ]),
                latency_ms: o.end_ns.map(|end| (end - o.start_ns.unwrap()) as f64 / 1e6),
                tokens: o.output_tokens,
                cost: row.cost.total.map(Money::pico),
                user: o.user_id.clone(),
                failed: o.level == Some(Level::Error.into()) || o.status == Some(Status::Error.into()),
            }
        })
        .collect()
}

pub(super) fn trace_facts(rows: &[ObservationRow]) -> Vec<Fact> {
    let mut traces: BTreeMap<&str, Vec<&ObservationRow>> = BTreeMap::new();
    for row in rows {
        traces.entry(&row.observation.trace_id).or_default().push(row);
    }
    traces
        .into_values()
        .map(|rows| {
            let owned: Vec<ObservationRow> = rows.iter().copied().cloned().collect();
            let each = facts(&owned);
            let start = rows.iter().map(|row| row.start_us()).min().unwrap();
            let end = rows.iter().filter_map(|row| row.observation.end_ns).max();
            Fact {
                at_us: start,
                latency_ms: end.map(|end| (end / 1000 - start) as f64 / 1000.0),
                tokens: each.iter().filter_map(|fact| fact.tokens).reduce(|a, b| a + b),
                cost: each.iter().filter_map(|fact| fact.cost).reduce(|a, b| a + b),
                failed: each.iter().any(|fact| fact.failed),
                ..each[0].clone()
            }
        })
        .collect()
}

fn oracle_measures(facts: &[&Fact], request: &MetricsRequest) -> Vec<String> {
    let number = |number: Option<f64>| number.map_or("-".to_owned(), |number| format!("{number}"));
    let costs: Vec<i128> = facts.iter().filter_map(|fact| fact.cost.map(i128::from)).collect();
    let cost: i128 = costs.iter().sum();
    let money = |pico: i128| format!("${}", rust_decimal::Decimal::from_i128_with_scale(pico, 12).normalize());
    let average = (!costs.is_empty()).then(|| {
        let exact = rust_decimal::Decimal::from_i128_with_scale(cost, 0) / rust_decimal::Decimal::from(costs.len());
        let strategy = rust_decimal::RoundingStrategy::MidpointNearestEven;
        money(exact.round_dp_with_strategy(0, strategy).to_string().parse().unwrap())
    });
    let tokens: Vec<i64> = facts.iter().filter_map(|fact| fact.tokens).collect();
    let mut latencies: Vec<f64> = facts.iter().filter_map(|fact| fact.latency_ms).collect();
    latencies.sort_by(f64::total_cmp);
    let percentile = |q: f64| {
        let position = q * (latencies.len().checked_sub(1)?) as f64;
        let (low, high) = (latencies[position.floor() as usize], latencies[position.ceil() as usize]);
        Some(low + (high - low) * position.fract())
    };
    let failed = facts.iter().filter(|fact| fact.failed).count();
    // Rows without a price cost no one knows what; no rows cost nothing.
    let known = !costs.is_empty() || facts.is_empty();
    let units = latencies.iter().map(|ms| (ms * 1_099_511_627_776.0).round_ties_even() as i128).sum::<i128>();
    let milliseconds = units as f64 / 1_099_511_627_776.0;
    let users = facts.iter().filter_map(|fact| fact.user.as_ref()).collect::<BTreeSet<_>>().len().to_string();
    let counts_users = request.measures.iter().any(|measure| measure.field == "user_id");
    let plain = vec![
        if known { money(cost) } else { "-".to_owned() },
        facts.len().to_string(),
        costs.len().to_string(),
        latencies.len().to_string(),
        tokens.iter().sum::<i64>().to_string(),
        average.unwrap_or("-".to_owned()),
        number((!tokens.is_empty()).then(|| tokens.iter().sum::<i64>() as f64 / tokens.len() as f64)),
        number(latencies.first().copied()),
        number(latencies.last().copied()),
        number(Some(milliseconds)),
        number((!latencies.is_empty()).then(|| milliseconds / latencies.len() as f64)),
        number((!facts.is_empty()).then(|| failed as f64 / facts.len() as f64)),
    ];
    let percentiles = [number(percentile(0.5)), number(percentile(0.99))];
    plain.into_iter().chain(counts_users.then_some(users)).chain(percentiles).collect()
}

type Key = Vec<Option<String>>;

/// Rows as `lines` shows them: the whole answer, computed the slow way.
pub(super) fn oracle(all: &[Fact], request: &MetricsRequest, unit: Option<(Unit, u32)>) -> (Vec<String>, String) {
    let range = request.range.unwrap();
    let (from, to) = (range.from_unix_micros, range.to_unix_micros);
    let within: Vec<&Fact> = all.iter().filter(|fact| (from..to).contains(&fact.at_us)).collect();
    let mut exploded: Vec<(Key, &Fact)> = Vec::new();
    for fact in &within {
        let mut keys: Vec<Key> = vec![vec![]];
        for dimension in &request.dimensions {
            let values = &fact.dimensions[dimension.as_str()];
            keys = keys
                .iter()
                .flat_map(|key| values.iter().map(move |v| [key.clone(), vec![v.clone()]].concat()))
                .collect();
        }
        exploded.extend(keys.into_iter().map(|key| (key, *fact)));
    }
    let mut groups: BTreeMap<Key, Vec<&Fact>> = BTreeMap::new();
    for (key, fact) in &exploded {
        groups.entry(key.clone()).or_default().push(fact);
    }
    let cost = |facts: &[&Fact]| {
        let known = facts.iter().filter_map(|fact| fact.cost).map(i128::from).reduce(|a, b| a + b);
        known.or(facts.is_empty().then_some(0))
    };
    let last = |key: &Key| key.iter().map(|v| (v.is_none(), v.clone())).collect::<Vec<_>>();
    let by_cost = |a: &(Key, Vec<&Fact>), b: &(Key, Vec<&Fact>)| {
        cost(&b.1).cmp(&cost(&a.1)).then_with(|| last(&a.0).cmp(&last(&b.0)))
    };
    let mut ranked: Vec<(Key, Vec<&Fact>)> = groups.into_iter().collect();
    ranked.sort_by(by_cost);
    if ranked.is_empty() && request.dimensions.is_empty() {
        ranked.push((vec![], vec![]));
    }
    let top_k = if request.top_k == 0 { usize::MAX } else { request.top_k as usize };
    let others: Vec<&Fact> = ranked.iter().skip(top_k).flat_map(|(_, facts)| facts.iter().copied()).collect();
    let has_others = ranked.len() > top_k;
    ranked.truncate(top_k);

    let empty = || "-".to_owned();
    let line = |start: Option<i64>, key: Option<&Key>, facts: &[&Fact]| {
        let start = start.map(|start| ((start - START_US) / 60_000_000).to_string());
        let other = key.is_none().then(|| "*".to_owned());
        let names: Vec<String> = match key {
            Some(key) => key.iter().map(|value| value.clone().unwrap_or_else(empty)).collect(),
            None => request.dimensions.iter().map(|_| empty()).collect(),
        };
        start
            .into_iter()
            .chain(other)
            .chain(names)
            .chain(oracle_measures(facts, request))
            .collect::<Vec<_>>()
            .join(" | ")
    };
    let total = line(None, Some(&vec![None; request.dimensions.len()]), &within);
    let Some((unit, count)) = unit else {
        let mut rows: Vec<String> = ranked.iter().map(|(key, facts)| line(None, Some(key), facts)).collect();
        rows.extend(has_others.then(|| line(None, None, &others)));
        return (rows, total);
    };
    let zone = &request.bucket.as_ref().unwrap().time_zone;
    let bucket = Bucket::new(unit, count, zone).unwrap();
    let clock = bucket.clock(from, to);
    let mut rows = Vec::new();
    for start in bucket.starts(from, to, 10_000).unwrap() {
        let here = |facts: &[&'_ Fact]| -> Vec<Fact> {
            facts.iter().filter(|f| bucket.start_of(&clock, f.at_us) == Some(start)).map(|f| (*f).clone()).collect()
        };
        let mut cut: Vec<(Key, Vec<Fact>)> = ranked.iter().map(|(key, facts)| (key.clone(), here(facts))).collect();
        cut.sort_by(|a, b| by_cost(&(a.0.clone(), a.1.iter().collect()), &(b.0.clone(), b.1.iter().collect())));
        rows.extend(cut.iter().map(|(key, facts)| line(Some(start), Some(key), &facts.iter().collect::<Vec<_>>())));
        rows.extend(has_others.then(|| line(Some(start), None, &here(&others).iter().collect::<Vec<_>>())));
    }
    (rows, total)
}
