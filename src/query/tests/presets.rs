//! Presets over rows that can be counted by hand.

use super::metrics::show;
use super::requests::{filter, measure, request};
use super::*;
use crate::query::presets::{self, Preset};
use crate::wire::{
    Aggregation as A, Cohort, CompareMeasure, CompareRequest, ConversationsRequest, Filter, FilterOperator as F,
    FunnelRequest, FunnelStep, GetSpendRequest, RealtimeRequest, ReportRequest, SpendKey, Statistic, TenantUsage,
    TimeRange, TimeUnit, TopRequest, Usage, UsageStatsRequest, UserStatsRequest,
};

async fn run<P: Preset>(setting: &Setting, preset: P, now_us: i64) -> P::Response {
    let asked = preset.asks(now_us).unwrap();
    let answers = setting.engine.metrics(all_of("acme"), asked).await.unwrap();
    preset.answer(answers).unwrap()
}

fn all() -> Option<TimeRange> {
    request(vec![], &[]).range
}

fn is(field: &str, value: &str) -> Filter {
    filter(field, F::Equals, &[value])
}

fn dollars(pico: i128) -> String {
    rust_decimal::Decimal::from_i128_with_scale(pico, 12).normalize().to_string()
}

fn cost<'a>(rows: impl IntoIterator<Item = &'a ObservationRow>) -> i128 {
    rows.into_iter().filter_map(|row| row.cost.total).map(|cost| i128::from(cost.pico())).sum()
}

fn is_error(row: &ObservationRow) -> bool {
    row.observation.level == Some(Level::Error.into()) || row.observation.status == Some(Status::Error.into())
}

/// How many different values rows have.
fn distinct<'a>(rows: impl IntoIterator<Item = &'a ObservationRow>, of: fn(&Observation) -> Option<&String>) -> i64 {
    rows.into_iter().filter_map(|row| of(&row.observation)).collect::<std::collections::BTreeSet<_>>().len() as i64
}

#[tokio::test]
async fn a_tenant_and_a_user_are_billed_to_the_last_digit() {
    let rows = observations(41, 300, 60);
    let setting = acme(&rows).await;
    let asked = UsageStatsRequest {
        range: all(),
        bucket: super::requests::bucket(TimeUnit::Day, 1, ""),
        credits_per_usd: "2".to_owned(),
        ..Default::default()
    };
    let stats = run(&setting, presets::Usages(asked), 0).await;
    let total = stats.total.unwrap();
    assert_eq!(total.total_cost_usd, Some(dollars(cost(&rows))));
    assert_eq!(total.total_credits_used, Some(dollars(cost(&rows) * 2)));
    assert_eq!((total.total_traces, total.observations, total.calls), (100, 300, 300));
    assert_eq!(total.active_users_count, distinct(&rows, |o| o.user_id.as_ref()));
    assert_eq!(total.unpriced_calls, rows.iter().filter(|row| row.cost.total.is_none()).count() as i64);
    assert_eq!(total.errors, rows.iter().filter(|row| is_error(row)).count() as i64);
    assert_eq!(stats.periods.len(), 3);
    let sums: [i64; 2] = [
        stats.periods.iter().map(|period| period.total_traces).sum(),
        stats.periods.iter().map(|period| period.observations).sum(),
    ];
    assert_eq!(sums, [100, 300]);
    assert!(stats.periods.windows(2).all(|two| two[0].period_end_unix_micros == two[1].period_start_unix_micros));

    let of_user = |row: &&ObservationRow| row.observation.user_id.as_deref() == Some("user 2");
    let asked = UserStatsRequest { user_id: "user 2".to_owned(), range: all(), credits_per_usd: "100".to_owned() };
    let user = run(&setting, presets::UserUsage(asked), 0).await;
    assert_eq!(user.cost_usd, Some(dollars(cost(rows.iter().filter(of_user)))));
    assert_eq!(user.credits_used, Some(dollars(cost(rows.iter().filter(of_user)) * 100)));
    assert_eq!(user.traces_count, distinct(rows.iter().filter(of_user), |o| Some(&o.trace_id)));

    let bad =
        presets::Usages(UsageStatsRequest { range: all(), credits_per_usd: "-1".to_owned(), ..Default::default() });
    assert!(bad.asks(0).unwrap_err().to_string().contains("credits_per_usd"));
}

#[tokio::test]
async fn what_keys_spent_is_known_up_to_the_watermark() {
    let rows = observations(42, 300, 60);
    let setting = acme(&rows).await;
    let keys: Vec<SpendKey> = (0..40)
        .map(|at| SpendKey { name: format!("key {at}"), filters: vec![is("user_id", &format!("user {at}"))] })
        .chain([SpendKey { name: "all".to_owned(), filters: vec![] }])
        .collect();
    let spent = run(&setting, presets::Spending(GetSpendRequest { keys, range: all() }), 0).await;
    assert_eq!(spent.spends.len(), 41);
    for (at, spend) in spent.spends[..8].iter().enumerate() {
        let own = || rows.iter().filter(move |row| row.observation.user_id == Some(format!("user {at}")));
        assert_eq!((spend.cost_usd.clone(), spend.calls), (Some(dollars(cost(own()))), own().count() as i64));
        assert_eq!(spend.unpriced_calls, own().filter(|row| row.cost.total.is_none()).count() as i64);
    }
    assert_eq!(spent.spends[40].cost_usd, Some(dollars(cost(&rows))));
    assert!(spent.watermark_unix_micros > START_US);
}

#[tokio::test]
async fn now_is_the_last_minutes() {
    let rows = observations(43, 300, 10);
    let setting = acme(&rows).await;
    let now = START_US + 5 * HOUR_US;
    let realtime = run(&setting, presets::Now(RealtimeRequest { window_minutes: 30, ..Default::default() }), now).await;
    // Clocks may run an hour ahead.
    let since = |us: i64| rows.iter().filter(move |row| (now - us..now + HOUR_US).contains(&row.start_us()));
    assert_eq!(realtime.active_sessions, distinct(since(HOUR_US / 2), |o| o.session_id.as_ref()));
    let tokens: i64 = since(HOUR_US / 2).filter_map(|row| row.observation.total_tokens).sum();
    assert_eq!(realtime.current_token_usage, tokens);
    assert_eq!(realtime.current_cost_usd, Some(dollars(cost(since(HOUR_US / 2)))));
    assert_eq!(realtime.error_count_last_hour, since(HOUR_US).filter(|row| is_error(row)).count() as i64);
    assert!(realtime.response_time_p95.unwrap() > 0.0 && realtime.traces_last_hour > 0);
}

#[tokio::test]
async fn errors_are_grouped_by_what_they_have_in_common() {
    let mut rows = observations(44, 90, 10);
    for (at, row) in rows.iter_mut().enumerate() {
        let mut changed = Observation::clone(&row.observation);
        changed.level = (at % 3 < 2).then(|| Level::Error.into());
        changed.status = None;
        changed.error_type = (at % 3 == 0).then(|| "Timeout".to_owned());
        changed.status_message = Some(format!("request {at} failed after {}.5 s", at * 7));
        row.observation = changed.into();
    }
    let setting = acme(&rows).await;
    let answer =
        setting.metrics("acme", presets::errors(TopRequest { range: all(), ..Default::default() })).await.unwrap();
    let names: Vec<&str> = answer.measures.iter().map(|measure| measure.name.as_str()).collect();
    assert_eq!(names, ["count", "share", "users", "traces", "first_seen", "last_seen", "sample_traces"]);
    let shown: Vec<_> = answer.rows.iter().map(|row| (show(&row.dimensions[0]), show(&row.measures[0]))).collect();
    let expected = ["Timeout: request <number> failed after <number> s", "request <number> failed after <number> s"];
    assert_eq!(shown, expected.map(|error| (error.to_owned(), "30".to_owned())));
    assert!(
        answer.rows.iter().all(|row| show(&row.measures[1]) == "0.5" && show(&row.measures[6]).contains("trace-44-"))
    );
}

#[tokio::test]
async fn cohorts_are_compared_with_the_first() {
    let mut rows = observations(45, 1_200, 60);
    for (at, row) in rows.iter_mut().enumerate() {
        let mut changed = Observation::clone(&row.observation);
        let slow = at / 3 % 2;
        changed.tags = vec![["variant-a", "variant-b"][slow].to_owned()];
        let start = changed.start_ns.unwrap();
        changed.end_ns = Some(start + (1_000 + slow as i64 * 400 + (at as i64 * 37) % 900) * 1_000_000);
        changed.level = (at % 20 < slow * 8).then(|| Level::Error.into());
        changed.status = None;
        row.observation = changed.into();
    }
    let setting = acme(&rows).await;
    let cohort = |tag: &str| Cohort { name: tag.to_owned(), filters: vec![filter("tags", F::HasAny, &[tag])] };
    let of = |field: &str, statistic: Statistic| CompareMeasure {
        field: field.to_owned(),
        statistic: statistic.into(),
        ..Default::default()
    };
    let failing =
        CompareMeasure { filters: vec![is("is_error", "true")], name: "failing".into(), ..of("", Statistic::Rate) };
    let asked = CompareRequest {
        view: crate::wire::View::Observations.into(),
        range: all(),
        cohorts: vec![cohort("variant-a"), cohort("variant-b"), cohort("nothing")],
        measures: vec![
            of("latency_ms", Statistic::Mean),
            CompareMeasure { percentile: 50.0, ..of("latency_ms", Statistic::Percentile) },
            failing,
            of("output_tokens", Statistic::Mean),
        ],
        ..Default::default()
    };
    let compared = run(&setting, presets::Comparison(asked.clone()), 0).await;
    let [mean, median, failing, tokens] = compared.measures.as_slice() else { panic!() };
    for slower in [mean, median] {
        let b = &slower.cohorts[1];
        assert_eq!((b.n, b.is_small, b.is_significant), (600, false, true));
        let (low, high) = (b.difference_low.unwrap(), b.difference_high.unwrap());
        assert!(low < 400.0 && 400.0 < high && low > 300.0 && high < 500.0, "{low} {high}");
        assert!(b.low < b.value && b.value < b.high);
    }
    let b = &failing.cohorts[1];
    let rate = |slow: usize| {
        let own = || rows.iter().enumerate().filter(move |(at, _)| at / 3 % 2 == slow);
        own().filter(|(_, row)| is_error(row)).count() as f64 / own().count() as f64
    };
    assert_eq!((failing.name.as_str(), failing.cohorts[0].value, b.value), ("failing", Some(rate(0)), Some(rate(1))));
    assert!(b.is_significant && b.p_value_adjusted >= b.p_value);
    assert!(!tokens.cohorts[1].is_significant, "{:?}", tokens.cohorts[1]);
    let nothing = &mean.cohorts[2];
    assert_eq!((nothing.n, nothing.value, nothing.difference, nothing.is_small), (0, None, None, true));
    assert_eq!(run(&setting, presets::Comparison(asked.clone()), 0).await.measures, compared.measures);
    // As many filters as one question may have, of each cohort: each is asked by itself.
    let mut apart = asked.clone();
    for cohort in &mut apart.cohorts {
        cohort.filters = vec![cohort.filters[0].clone(); 150];
    }
    assert_eq!(presets::Comparison(apart.clone()).asks(0).unwrap().len(), 3);
    assert_eq!(presets::Comparison(asked.clone()).asks(0).unwrap().len(), 1);
    assert_eq!(run(&setting, presets::Comparison(apart), 0).await.measures, compared.measures);
    let alone = CompareRequest { cohorts: vec![cohort("variant-a")], ..asked };
    assert!(presets::Comparison(alone).asks(0).unwrap_err().to_string().contains("2 to 10"));
}

/// A turn of a session: one trace of one observation, a second long.
fn turn(session: usize, turn: usize, at_s: i64, name: &str) -> ObservationRow {
    let mut row = observations(1, 1, 5).remove(0);
    let start_us = START_US + at_s * 1_000_000;
    row.observation = Arc::new(Observation {
        trace_id: format!("{session}-{turn}"),
        id: "o".to_owned(),
        name: Some(name.to_owned()),
        trace_name: Some(name.to_owned()),
        session_id: Some(format!("session {session}")),
        start_ns: Some(start_us * 1_000),
        end_ns: Some((start_us + 1_000_000) * 1_000),
        total_tokens: Some(10),
        ..Default::default()
    });
    row.cost.total = Some(Money::from_pico(7));
    row
}

#[tokio::test]
async fn conversations_are_read_turn_by_turn() {
    let sessions: [&[&str]; 4] =
        [&["ask", "refine", "thanks"], &["ask", "refine"], &["ask"], &["ask", "refine", "human"]];
    let rows: Vec<ObservationRow> = sessions
        .iter()
        .enumerate()
        .flat_map(|(session, turns)| {
            turns.iter().enumerate().map(move |(at, name)| turn(session, at, (session * 100 + at * 11) as i64, name))
        })
        .collect();
    let setting = acme(&rows).await;
    let scores: Vec<ScoreRow> = [("0-2", 1.0), ("3-2", 0.0)]
        .iter()
        .enumerate()
        .map(|(at, (trace, value))| {
            let mut row = score(at, *value, START_US + HOUR_US);
            let mut changed = Score::clone(&row.score);
            (changed.trace_id, changed.name) = (Some((*trace).to_owned()), "user_satisfaction".to_owned());
            row.score = changed.into();
            row
        })
        .collect();
    setting.add_fresh_scores("acme", &scores);
    let asked = ConversationsRequest {
        range: all(),
        resolution: Some(filter("path", F::Contains, &["thanks"])),
        escalation: Some(filter("path", F::EndsWith, &["human"])),
        topic_field: "trace_name".to_owned(),
        ..Default::default()
    };
    let found = run(&setting, presets::Conversing(asked), START_US + 2 * HOUR_US).await;
    assert_eq!((found.conversations, found.total_turns, found.avg_turns), (4, 9, Some(2.25)));
    assert_eq!((found.avg_response_time_ms, found.avg_gap_ms), (Some(1_000.0), Some(10_000.0)));
    assert_eq!((found.user_satisfaction, found.user_satisfaction_count), (Some(0.5), 2));
    assert_eq!(
        (found.conversation_length_tokens, found.total_cost_usd.as_deref()),
        (Some(22.5), Some("0.000000000063"))
    );
    assert_eq!((found.resolution_rate, found.escalation_rate), (Some(0.25), Some(0.25)));
    let drop_off: Vec<_> = found.drop_off.iter().map(|drop| (drop.turn, drop.sessions, drop.share)).collect();
    assert_eq!(drop_off, [(1, 1, 0.25), (2, 1, 0.25), (3, 2, 0.5)]);
    assert_eq!(
        found.by_turn.iter().map(|turn| (turn.turn, turn.sessions)).collect::<Vec<_>>(),
        [(1, 4), (2, 3), (3, 2)]
    );
    assert_eq!(found.common_paths.len(), 4);
    assert!(found.common_paths.iter().any(|path| path.path == "ask → refine → human" && path.share == 0.25));
    let topics: BTreeMap<&str, i64> = found.topics.iter().map(|topic| (topic.topic.as_str(), topic.sessions)).collect();
    assert_eq!(topics, BTreeMap::from([("ask", 4), ("refine", 3), ("thanks", 1), ("human", 1)]));
    // Half an hour after the last turn nobody has left yet.
    let early = ConversationsRequest { range: all(), ..Default::default() };
    assert_eq!(run(&setting, presets::Conversing(early), START_US + HOUR_US / 2).await.drop_off, []);

    let step = |name: &str| FunnelStep { name: name.to_owned(), filters: vec![is("name", name)] };
    let asked = FunnelRequest {
        range: all(),
        steps: ["ask", "refine", "thanks"].map(step).to_vec(),
        by: crate::wire::FunnelBy::Session.into(),
        within_ms: 21_000,
        ..Default::default()
    };
    let funnel = run(&setting, presets::FunnelSteps(asked.clone()), 0).await;
    let steps: Vec<_> = funnel.steps.iter().map(|step| (step.reached, step.dropped, step.share_of_first)).collect();
    assert_eq!((funnel.considered, steps), (4, vec![(4, 0, 1.0), (3, 1, 0.75), (1, 2, 0.25)]));
    assert_eq!((funnel.completed_within, funnel.completion_p50_ms), (0, Some(22_000.0)));
    let longer = run(&setting, presets::FunnelSteps(FunnelRequest { within_ms: 22_000, ..asked }), 0).await;
    assert_eq!(longer.completed_within, 1);
}

#[tokio::test]
async fn a_report_sets_each_figure_beside_the_period_before() {
    let rows = observations(46, 600, 48);
    let setting = acme(&rows).await;
    let middle = START_US + 24 * HOUR_US;
    let range = Some(TimeRange { from_unix_micros: middle, to_unix_micros: START_US + 48 * HOUR_US });
    let asked = ReportRequest { range, ..Default::default() };
    let report = run(&setting, presets::Reporting(asked.clone()), 0).await;
    let mut starts: BTreeMap<&str, i64> = BTreeMap::new();
    for row in &rows {
        let start = starts.entry(&row.observation.trace_id).or_insert(i64::MAX);
        *start = (*start).min(row.start_us());
    }
    let traces = |now: bool| starts.iter().filter(move |(_, start)| (**start >= middle) == now).map(|(id, _)| *id);
    let of = |now: bool| {
        let ids: std::collections::BTreeSet<&str> = traces(now).collect();
        rows.iter().filter(move |row| ids.contains(row.observation.trace_id.as_str())).collect::<Vec<_>>()
    };
    let figure = |change: &Option<crate::wire::Change>| {
        let change = change.clone().unwrap();
        (show(&change.value.unwrap()), show(&change.previous.unwrap()), change.relative_change)
    };
    let (now, before) = (traces(true).count(), traces(false).count());
    let relative = (now as f64 - before as f64) / before as f64;
    assert_eq!(figure(&report.total_requests), (now.to_string(), before.to_string(), Some(relative)));
    let costs = [of(true), of(false)].map(|rows| format!("${}", dollars(cost(rows))));
    let found = figure(&report.total_cost);
    assert_eq!([found.0, found.1], costs);
    let succeeded = |now: bool| {
        let failed: std::collections::BTreeSet<&str> =
            of(now).into_iter().filter(|row| is_error(row)).map(|row| row.observation.trace_id.as_str()).collect();
        1.0 - failed.len() as f64 / traces(now).count() as f64
    };
    assert!((figure(&report.success_rate).0.parse::<f64>().unwrap() - succeeded(true)).abs() < 1e-12);
    for change in [
        &report.total_calls,
        &report.total_tokens,
        &report.avg_cost,
        &report.cost_per_request,
        &report.average_latency,
        &report.latency_p95,
        &report.error_rate,
        &report.active_users,
        &report.active_sessions,
    ] {
        let (value, previous, relative) = figure(change);
        assert!(value != "-" && previous != "-" && relative.is_some());
    }
    assert_eq!(figure(&report.user_feedback).0, "-");
    for (table, dimension) in [
        (&report.top_models, "model"),
        (&report.cost_breakdown, "model"),
        (&report.cost_per_user, "user_id"),
        (&report.cost_per_name, "name"),
        (&report.top_errors, "error"),
    ] {
        assert_eq!(table.as_ref().unwrap().dimensions, [dimension]);
        assert!(!table.as_ref().unwrap().rows.is_empty() || dimension == "error");
    }
    assert_eq!(report.performance_trends.unwrap().rows.len(), 1);
    assert!(report.most_used_tools.is_some() && report.quality_scores.is_some());
    let filtered = ReportRequest { filters: vec![is("user_id", "user 1")], ..asked };
    let report = run(&setting, presets::Reporting(filtered), 0).await;
    assert!(report.quality_scores.is_none());
    assert_eq!(figure(&report.active_users).0, "1");
}

#[tokio::test]
async fn several_questions_see_one_snapshot() {
    let rows = observations(47, 90, 30);
    let setting = acme(&rows).await;
    let asked = vec![request(vec![measure(A::Count, "")], &[]); 3];
    let answers = setting.engine.metrics(all_of("acme"), asked).await.unwrap();
    let watermarks: Vec<i64> = answers.iter().map(|answer| answer.reading.unwrap().watermark_unix_micros).collect();
    assert!(watermarks.windows(2).all(|two| two[0] == two[1]));
    assert!(answers.windows(2).all(|two| two[0].rows == two[1].rows && two[0].snapshot == two[1].snapshot));
}

#[test]
fn what_tenants_used_adds_up_exactly() {
    let used = |cost: Option<&str>, traces| TenantUsage {
        usage: Some(Usage { total_traces: traces, total_cost_usd: cost.map(str::to_owned), ..Default::default() }),
        ..Default::default()
    };
    let tenants = vec![used(Some("0.1"), 1), used(None, 2), used(Some("0.200000000001"), 3)];
    let all = presets::platform(tenants).unwrap().total.unwrap();
    assert_eq!((all.total_traces, all.total_cost_usd.as_deref()), (6, Some("0.300000000001")));
}
