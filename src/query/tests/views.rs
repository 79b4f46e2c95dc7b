//! Sessions, users, steps, scores beside traces; measures with filters; each against the rows themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::metrics::{ask, lines, show};
use super::oracle::facts;
use super::requests::{bucket, filter, measure, percentile, request};
use super::*;
use crate::wire::{
    Aggregation as A, Filter, FilterOperator as F, Measure, OrderBy, Reading, TimeRange, TimeUnit, View,
};

type Rows<'a> = Vec<&'a ObservationRow>;

/// Rows by what `key` says of them; those of which it says nothing are left out.
fn by<'a>(
    rows: &'a [ObservationRow],
    key: impl Fn(&'a ObservationRow) -> Option<&'a str>,
) -> BTreeMap<&'a str, Rows<'a>> {
    let mut groups: BTreeMap<&str, Rows<'_>> = BTreeMap::new();
    for row in rows {
        if let Some(key) = key(row) {
            groups.entry(key).or_default().push(row);
        }
    }
    groups
}

fn span_ms(rows: &[&ObservationRow]) -> Option<f64> {
    let start = rows.iter().map(|row| row.start_us()).min().unwrap();
    let end = rows.iter().filter_map(|row| row.observation.end_ns).max()?;
    Some((end / 1000 - start) as f64 / 1000.0)
}

fn distinct<'a>(rows: &[&'a ObservationRow], of: impl Fn(&'a ObservationRow) -> Option<&'a str>) -> usize {
    rows.iter().filter_map(|row| of(row)).collect::<BTreeSet<_>>().len()
}

fn is_error(row: &ObservationRow) -> bool {
    row.observation.level == Some(Level::Error.into()) || row.observation.status == Some(Status::Error.into())
}

fn cost(rows: &[&ObservationRow]) -> String {
    let pico: i128 = rows.iter().filter_map(|row| row.cost.total).map(|cost| i128::from(cost.pico())).sum();
    format!("${}", rust_decimal::Decimal::from_i128_with_scale(pico, 12).normalize())
}

fn order(field: &str) -> Vec<OrderBy> {
    vec![OrderBy { field: field.to_owned(), ascending: true }]
}

fn only(measure: Measure, filters: Vec<Filter>, name: &str) -> Measure {
    Measure { filters, name: name.to_owned(), ..measure }
}

#[tokio::test]
async fn sessions_and_users_are_what_their_observations_add_up_to() {
    let rows = observations(21, 300, 72);
    let setting = acme(&rows).await;
    let measures = || {
        ["total_cost", "total_tokens", "observations", "calls", "errors", "traces", "duration_ms"]
            .map(|field| measure(A::Sum, field))
            .to_vec()
    };
    let session = |row: &'static ObservationRow| row.observation.session_id.as_deref();
    let user = |row: &'static ObservationRow| row.observation.user_id.as_deref();
    let rows: &'static [ObservationRow] = rows.leak();
    let views: [(View, &str, BTreeMap<&str, Rows<'_>>); 2] =
        [(View::Sessions, "session_id", by(rows, session)), (View::Users, "user_id", by(rows, user))];
    for (view, key, groups) in views {
        let asked = MetricsRequest { view: view.into(), order_by: order(key), ..request(measures(), &[key]) };
        // Sessions of this world last longer than a day: as far as they are looked for, all of them is seen.
        let expected: Vec<String> = groups
            .iter()
            .map(|(key, rows)| {
                let tokens: i64 = rows.iter().filter_map(|row| row.observation.total_tokens).sum();
                let errors = rows.iter().filter(|row| is_error(row)).count();
                let traces = distinct(rows, |row| Some(&row.observation.trace_id));
                let (cost, count, span) = (cost(rows), rows.len(), span_ms(rows).unwrap());
                format!("{key} | {cost} | {tokens} | {count} | {count} | {errors} | {traces} | {span}")
            })
            .collect();
        assert_eq!(lines(&ask(&setting, asked).await.rows), expected);
    }
    let users = MetricsRequest {
        view: View::Sessions.into(),
        ..request(vec![measure(A::Count, ""), measure(A::Max, "users"), measure(A::Avg, "turns")], &[])
    };
    assert_eq!(lines(&ask(&setting, users).await.rows), ["11 | 6 | 9.090909090909092"]);
}

#[tokio::test]
async fn measures_count_only_what_passes_their_own_filters() {
    let rows = observations(22, 300, 72);
    let setting = acme(&rows).await;
    let gpt = || vec![filter("model", F::Equals, &["gpt-5"])];
    let asked = request(
        vec![
            only(measure(A::Count, ""), gpt(), "count"),
            only(measure(A::Sum, "total_cost"), gpt(), "cost"),
            only(measure(A::Avg, "latency_ms"), gpt(), "mean"),
            only(measure(A::Rate, ""), gpt(), "rate"),
            only(measure(A::ErrorRate, ""), gpt(), "errors"),
            only(measure(A::CountDistinct, "user_id"), gpt(), "users"),
            only(measure(A::Sum, "total_cost"), vec![filter("model", F::Equals, &["nothing"])], "none"),
            measure(A::ErrorRate, ""),
        ],
        &["account"],
    );
    let answer = ask(&setting, MetricsRequest { order_by: order("account"), ..asked }).await;
    let groups = by(&rows, |row| row.account());
    for ((account, rows), found) in groups.iter().zip(lines(&answer.rows)) {
        let passing: Rows<'_> =
            rows.iter().copied().filter(|row| row.observation.model.as_deref() == Some("gpt-5")).collect();
        let owned: Vec<ObservationRow> = passing.iter().copied().cloned().collect();
        let latencies: Vec<f64> = facts(&owned).iter().filter_map(|fact| fact.latency_ms).collect();
        let unit = 1_099_511_627_776.0;
        let sum: i128 = latencies.iter().map(|ms| (ms * unit).round_ties_even() as i128).sum();
        let share = |part: usize, all: usize| part as f64 / all as f64;
        let expected = [
            (*account).to_owned(),
            passing.len().to_string(),
            cost(&passing),
            (sum as f64 / unit / latencies.len() as f64).to_string(),
            share(passing.len(), rows.len()).to_string(),
            share(passing.iter().filter(|row| is_error(row)).count(), passing.len()).to_string(),
            distinct(&passing, |row| row.observation.user_id.as_deref()).to_string(),
            "$0".to_owned(),
            share(rows.iter().filter(|row| is_error(row)).count(), rows.len()).to_string(),
        ];
        assert_eq!(found, expected.join(" | "));
    }
}

#[tokio::test]
async fn shares_add_up_histograms_count_all_and_samples_are_the_same_each_time() {
    let rows = observations(23, 300, 72);
    let setting = acme(&rows).await;
    let asked = request(
        vec![
            measure(A::Share, ""),
            measure(A::Share, "total_cost"),
            Measure { bins: 7, ..measure(A::Histogram, "latency_ms") },
            measure(A::Count, "latency_ms"),
            measure(A::Stddev, "latency_ms"),
            measure(A::Min, "start_time"),
            measure(A::Samples, "trace_id"),
        ],
        &["model"],
    );
    let answer = ask(&setting, MetricsRequest { top_k: 3, ..asked.clone() }).await;
    assert_eq!(ask(&setting, MetricsRequest { top_k: 3, ..asked }).await.rows, answer.rows);
    for at in [0, 1] {
        let shares: Vec<f64> = answer.rows.iter().map(|row| show(&row.measures[at]).parse().unwrap()).collect();
        assert_eq!(shares.len(), 4);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{shares:?}");
    }
    let total = answer.total.unwrap();
    assert_eq!(lines(std::slice::from_ref(&total))[0].split(" | ").nth(1), Some("1"));
    for row in answer.rows.iter().chain([&total]) {
        let bins = show(&row.measures[2]);
        let counted: u64 = bins.split(',').map(|count| count.parse::<u64>().unwrap()).sum();
        assert_eq!((bins.split(',').count(), counted.to_string()), (7, show(&row.measures[3])));
        let samples = show(&row.measures[6]);
        assert!(samples.split(',').count() <= 5 && samples.split(',').all(|id| id.starts_with("trace-23-")));
    }
    let latencies: Vec<f64> = facts(&rows).iter().filter_map(|fact| fact.latency_ms).collect();
    let mean = latencies.iter().sum::<f64>() / latencies.len() as f64;
    let squares: f64 = latencies.iter().map(|ms| (ms - mean).powi(2)).sum();
    let expected = (squares / (latencies.len() - 1) as f64).sqrt();
    assert!((show(&total.measures[4]).parse::<f64>().unwrap() / expected - 1.0).abs() < 1e-9);
    let first = rows.iter().map(|row| row.start_us()).min().unwrap();
    assert_eq!(show(&total.measures[5]), format!("@{first}"));
    let unit = |name: &str| answer.measures.iter().find(|measure| measure.name == name).unwrap();
    assert_eq!((unit("share").unit.as_str(), unit("histogram_latency_ms").relative_error), ("ratio", 0.005));
    assert!(unit("min_start_time").meaning.starts_with("Start"));
}

#[tokio::test]
async fn filters_combine_by_and_or_and_not() {
    let rows = observations(24, 300, 72);
    let setting = acme(&rows).await;
    let gpt = filter("model", F::Equals, &["gpt-5"]);
    let team = filter("metadata:team", F::Equals, &["team-1"]);
    let none = filter("model", F::IsNull, &[]);
    let asked = |filter: Filter| MetricsRequest { filters: vec![filter], ..request(vec![measure(A::Count, "")], &[]) };
    let is_gpt = |row: &ObservationRow| row.observation.model.as_deref() == Some("gpt-5");
    let in_team = |row: &ObservationRow| row.observation.metadata["team"] == "team-1";
    type Keep<'a> = &'a dyn Fn(&ObservationRow) -> bool;
    let all_of = Filter { all_of: vec![gpt.clone(), team.clone()], ..Default::default() };
    let any_of = Filter { any_of: vec![gpt.clone(), none, team.clone()], ..Default::default() };
    let none_of = Filter { none_of: vec![gpt, team], ..Default::default() };
    let deep = Filter { none_of: vec![none_of.clone(), all_of.clone()], ..Default::default() };
    let cases: [(Filter, Keep<'_>); 4] = [
        (all_of, &|row| is_gpt(row) && in_team(row)),
        (any_of, &|row| is_gpt(row) || in_team(row) || row.observation.model.is_none()),
        (none_of, &|row| !is_gpt(row) && !in_team(row)),
        (deep, &|row| is_gpt(row) != in_team(row)),
    ];
    for (filter, keep) in cases {
        let expected = rows.iter().filter(|row| keep(row)).count();
        assert_eq!(lines(&ask(&setting, asked(filter)).await.rows), [expected.to_string()]);
    }
}

/// What the table of fields promises: whatever stands in it can be grouped by, counted and asked for.
#[tokio::test]
async fn every_field_of_every_view_answers() {
    let rows = observations(29, 90, 30);
    let setting = acme(&rows).await;
    let steps = vec![filter("name", F::Equals, &["step 0"]), filter("name", F::Equals, &["step 1"])];
    let mut wrong = Vec::new();
    for view in [View::Observations, View::Traces, View::Sessions, View::Users, View::Scores] {
        for name in crate::query::metrics::field_names(view) {
            let name = name.replace("<key>", "team");
            let base = MetricsRequest { view: view.into(), steps: steps.clone(), ..request(vec![], &[]) };
            let is_time = name.ends_with("_time") || name.ends_with("_at") || name == "timestamp";
            let count = vec![measure(A::Count, "")];
            let there = vec![filter(&name, F::IsNotNull, &[])];
            let mut asked = vec![MetricsRequest { filters: there, measures: count.clone(), ..base.clone() }];
            if !is_time {
                let dimensions = vec![name.clone()];
                asked.push(MetricsRequest { dimensions, measures: count, ..base.clone() });
            }
            // Lists are taken apart as dimensions; they are no measures.
            let distinct = MetricsRequest { measures: vec![measure(A::CountDistinct, &name)], ..base };
            let answer = setting.metrics("acme", distinct).await;
            if let Err(error) = answer {
                if !error.to_string().contains("is a list") {
                    wrong.push(format!("{view:?} {name}: {error}"));
                }
                let has = filter(&name, F::HasAny, &["gpt-5"]);
                asked.push(MetricsRequest { filters: vec![has], ..asked[0].clone() });
            }
            for asked in asked {
                let answer = setting.metrics("acme", asked).await;
                wrong.extend(answer.err().map(|error| format!("{view:?} {name}: {error}")));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// An observation of a trace, `at_s` seconds into the world, a second long.
fn step(trace: &str, session: Option<&str>, id: usize, name: &str, at_s: i64) -> ObservationRow {
    let mut row = observations(1, 1, 5).remove(0);
    let start_us = START_US + at_s * 1_000_000;
    row.observation = Arc::new(Observation {
        trace_id: trace.to_owned(),
        id: format!("{trace}-{id}"),
        parent_id: (id > 0).then(|| format!("{trace}-0")),
        name: Some(name.to_owned()),
        trace_name: Some(format!("ask {}", trace.len())),
        session_id: session.map(str::to_owned),
        start_ns: Some(start_us * 1000),
        end_ns: Some((start_us + 1_000_000) * 1000),
        ..Default::default()
    });
    row
}

#[tokio::test]
async fn turns_gaps_and_paths_follow_the_order_of_starts() {
    let setting = Setting::new(QueryLimits::default()).await;
    let rows = [
        step("a", Some("s"), 0, "agent", 0),
        step("a", Some("s"), 2, "search", 2),
        step("a", Some("s"), 1, "plan", 1),
        step("bb", Some("s"), 0, "agent", 60),
        step("ccc", Some("s"), 0, "agent", 60),
        step("dddd", None, 0, "agent", 30),
    ];
    setting.add_files("acme", &rows[..3]).await;
    setting.add_fresh("acme", &rows[3..]);
    let asked = MetricsRequest {
        view: View::Traces.into(),
        order_by: order("trace_id"),
        ..request(vec![measure(A::Max, "turn"), measure(A::Max, "gap_ms")], &["trace_id", "path"])
    };
    assert_eq!(
        lines(&ask(&setting, asked).await.rows),
        ["a | plan → search | 1 | -", "bb | - | 2 | 57000", "ccc | - | 3 | 0", "dddd | - | - | -"]
    );
    let asked =
        MetricsRequest { view: View::Sessions.into(), ..request(vec![measure(A::Count, "")], &["path", "session_id"]) };
    assert_eq!(lines(&ask(&setting, asked).await.rows), ["ask 1 → ask 2 → ask 3 | s | 1"]);
    let asked = MetricsRequest {
        view: View::Traces.into(),
        order_by: order("steps"),
        ..request(vec![measure(A::Count, "")], &["steps"])
    };
    assert_eq!(lines(&ask(&setting, asked).await.rows), ["agent | 4", "plan | 1", "search | 1"]);
}

#[tokio::test]
async fn steps_count_in_their_order_only() {
    let setting = Setting::new(QueryLimits::default()).await;
    let traces: [(&str, &[&str]); 5] = [
        ("a", &["plan", "act", "act", "answer"]),
        ("b", &["act", "plan", "answer"]),
        ("c", &["plan", "plan", "other", "act"]),
        ("d", &["answer"]),
        ("e", &["other"]),
    ];
    let rows: Vec<ObservationRow> = traces
        .iter()
        .flat_map(|(trace, steps)| {
            steps.iter().enumerate().map(move |(at, name)| step(trace, None, at, name, at as i64))
        })
        .collect();
    setting.add_files("acme", &rows).await;
    let steps = ["plan", "act", "answer"].map(|name| filter("name", F::Equals, &[name])).to_vec();
    let asked = MetricsRequest {
        view: View::Traces.into(),
        order_by: order("steps_reached"),
        steps,
        ..request(vec![measure(A::Count, ""), measure(A::Max, "steps_ms")], &["steps_reached"])
    };
    // b acts before it plans, and does not act after.
    assert_eq!(lines(&ask(&setting, asked).await.rows), ["0 | 2 | -", "1 | 1 | -", "2 | 1 | -", "3 | 1 | 3000"]);
}

fn judged(id: usize, name: &str, value: f64, trace: &str, at_us: TimestampUs) -> ScoreRow {
    let mut row = score(id, value, at_us);
    let mut changed = Score::clone(&row.score);
    changed.trace_id = Some(trace.to_owned());
    changed.name = name.to_owned();
    row.score = changed.into();
    row
}

#[tokio::test]
async fn the_last_score_of_a_name_stands_beside_its_trace() {
    let rows = observations(25, 90, 30);
    let setting = acme(&rows).await;
    let traces: Vec<&str> = by(&rows, |row| Some(&row.observation.trace_id)).into_keys().collect();
    let mut scores = Vec::new();
    for (at, trace) in traces.iter().enumerate().filter(|(at, _)| at % 3 > 0) {
        scores.push(judged(scores.len(), "rating", 1.0, trace, START_US + 1));
        scores.push(judged(scores.len(), "rating", at as f64, trace, START_US + 40 * HOUR_US));
        scores.push(judged(scores.len(), "other", 7.0, trace, START_US + 41 * HOUR_US));
    }
    setting.add_fresh_scores("acme", &scores);
    let asked = MetricsRequest {
        view: View::Traces.into(),
        ..request(vec![measure(A::Count, ""), measure(A::Count, "score:rating"), measure(A::Sum, "score:rating")], &[])
    };
    let last: usize = (0..traces.len()).filter(|at| at % 3 > 0).sum();
    let judged = traces.len() - traces.len().div_ceil(3);
    assert_eq!(lines(&ask(&setting, asked).await.rows), [format!("{} | {judged} | {last}", traces.len())]);
    let asked = MetricsRequest {
        view: View::Traces.into(),
        filters: vec![filter("score:rating", F::GreaterOrEqual, &["20"])],
        ..request(vec![measure(A::Count, "")], &[])
    };
    let expected = (20..traces.len()).filter(|at| at % 3 > 0).count();
    assert_eq!(lines(&ask(&setting, asked).await.rows), [expected.to_string()]);
}

#[tokio::test]
async fn an_answer_says_what_it_was_made_from() {
    let rows = observations(26, 300, 72);
    let setting = acme(&rows).await;
    let before = SystemClock.now_us();
    let range = TimeRange { from_unix_micros: START_US, to_unix_micros: START_US + 24 * HOUR_US };
    let one_day = MetricsRequest { range: Some(range), ..request(vec![measure(A::Sum, "total_cost")], &["user_id"]) };
    let Reading { watermark_unix_micros, rows: read, bytes, files, files_pruned, exact, files_rolled_up } =
        ask(&setting, one_day).await.reading.unwrap();
    assert!((before..=SystemClock.now_us()).contains(&watermark_unix_micros));
    assert_eq!((files, files_pruned, files_rolled_up, exact), (1, 2, 0, true));
    let of_day = rows[..200].iter().filter(|row| row.start_us() < START_US + 24 * HOUR_US).count();
    assert_eq!(read as usize, of_day + 100, "the day's file, and what is fresh");
    assert!(bytes > 0);
    let asked = request(vec![percentile("latency_ms", 95.0), measure(A::Count, "")], &[]);
    let answer = ask(&setting, asked.clone()).await;
    assert!(!answer.reading.unwrap().exact);
    assert_eq!(answer.measures.iter().map(|measure| measure.relative_error).collect::<Vec<_>>(), [0.005, 0.0]);
    let exact = ask(&setting, MetricsRequest { exact_percentiles: true, ..asked }).await;
    assert!(exact.reading.unwrap().exact);
}

#[tokio::test]
async fn a_window_cut_in_two_adds_up_to_the_whole() {
    let rows = observations(27, 600, 72);
    let setting = acme(&rows).await;
    for view in [View::Observations, View::Traces] {
        for cut in [1, 17, 40] {
            let part = |from: i64, to: i64| MetricsRequest {
                view: view.into(),
                range: Some(TimeRange {
                    from_unix_micros: START_US + from * HOUR_US,
                    to_unix_micros: START_US + to * HOUR_US,
                }),
                order_by: order("account"),
                ..request(vec![measure(A::Count, ""), measure(A::Sum, "total_tokens")], &["account"])
            };
            let sums = async |parts: Vec<MetricsRequest>| {
                let mut sums: BTreeMap<String, [i64; 2]> = BTreeMap::new();
                for part in parts {
                    for row in ask(&setting, part).await.rows {
                        let sum = sums.entry(show(&row.dimensions[0])).or_default();
                        for (at, value) in row.measures.iter().enumerate() {
                            sum[at] += show(value).parse::<i64>().unwrap();
                        }
                    }
                }
                sums
            };
            assert_eq!(sums(vec![part(0, cut), part(cut, 72)]).await, sums(vec![part(0, 72)]).await);
        }
    }
}

#[tokio::test]
async fn long_series_come_whole_where_short_answers_are_refused() {
    let rows = observations(28, 900, 72);
    let setting = acme(&rows).await;
    let asked = MetricsRequest {
        bucket: bucket(TimeUnit::Hour, 1, "Europe/Berlin"),
        top_k: 10_000,
        ..request(vec![measure(A::Count, "")], &["trace_id"])
    };
    let error = setting.metrics("acme", asked.clone()).await.unwrap_err();
    assert_eq!(error.limit(), Some("rows"));
    let answer = setting.engine.metrics_series(all_of("acme"), asked).await.unwrap();
    assert_eq!(answer.rows.len(), 300 * 72);
    let counted: i64 = answer.rows.iter().map(|row| show(&row.measures[0]).parse::<i64>().unwrap()).sum();
    assert_eq!(counted, 900);
}
