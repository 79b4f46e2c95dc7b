//! `Conversations` and `Funnel`: how people go through sessions, and how far through steps.

use super::figures::{Figures, text};
use super::{Preset, and, by, filter, is_there, missing, named, only, percentile, readings};
use crate::query::error::QueryError;
use crate::wire::metric_value::Value;
use crate::wire::{
    Aggregation as A, ConversationsRequest, ConversationsResponse, DropOff, Filter, FilterOperator, FunnelBy,
    FunnelRequest, FunnelResponse, FunnelStep, FunnelStepFigure, Measure, MetricsRequest, MetricsResponse, MetricsRow,
    StepPath, Topic, TurnFigure, View,
};

pub struct Conversing(pub ConversationsRequest);

const QUIET_MINUTES: u32 = 30;
const MINUTE_US: i64 = 60_000_000;
const SATISFACTION: &str = "user_satisfaction";
const PATHS: u32 = 10;
const TURNS_MAX: u32 = 50;

impl Conversing {
    fn score(&self) -> String {
        let name = &self.0.score_name;
        format!("score:{}", if name.is_empty() { SATISFACTION } else { name })
    }
}

impl Preset for Conversing {
    type Response = ConversationsResponse;

    fn asks(&self, now_us: i64) -> Result<Vec<MetricsRequest>, QueryError> {
        let request = &self.0;
        let quiet = if request.quiet_minutes == 0 { QUIET_MINUTES } else { request.quiet_minutes };
        let quiet_us = now_us - i64::from(quiet) * MINUTE_US;
        let quiet_since = chrono::DateTime::from_timestamp_micros(quiet_us).unwrap_or_default().to_rfc3339();
        let rate = |name: &str, rule: &Filter| only(rule.clone(), named(name, "", A::Rate));
        let mut overall = vec![
            named("conversations", "", A::Count),
            named("turns", "turns", A::Avg),
            percentile("turns_p50", "turns", 50.0),
            named("duration", "duration_ms", A::Avg),
            percentile("duration_p95", "duration_ms", 95.0),
            named("cost", "total_cost", A::Avg),
            named("total_cost", "total_cost", A::Sum),
            named("tokens", "total_tokens", A::Avg),
        ];
        overall.extend(request.resolution.as_ref().map(|rule| rate("resolution", rule)));
        overall.extend(request.escalation.as_ref().map(|rule| rate("escalation", rule)));
        let sessions = MetricsRequest {
            view: View::Sessions.into(),
            measures: overall,
            range: request.range,
            filters: request.filters.clone(),
            ..Default::default()
        };
        let drop_off = MetricsRequest {
            measures: vec![named("sessions", "", A::Count), named("share", "", A::Share)],
            dimensions: vec!["turns".to_owned()],
            filters: and(&request.filters, [filter("end_time", FilterOperator::LessOrEqual, &[&quiet_since])]),
            order_by: by("turns", true),
            top_k: TURNS_MAX,
            ..sessions.clone()
        };
        let paths = MetricsRequest {
            measures: vec![named("sessions", "", A::Count), named("share", "", A::Share)],
            dimensions: vec!["path".to_owned()],
            top_k: if request.top_paths == 0 { PATHS } else { request.top_paths },
            ..sessions.clone()
        };
        let turns = MetricsRequest {
            view: View::Traces.into(),
            measures: vec![
                named("turns", "", A::Count),
                named("response", "latency_ms", A::Avg),
                named("gap", "gap_ms", A::Avg),
                percentile("gap_p50", "gap_ms", 50.0),
                named("satisfaction", &self.score(), A::Avg),
                named("satisfaction_n", &self.score(), A::Count),
            ],
            filters: and(&request.filters, [is_there("session_id")]),
            ..sessions.clone()
        };
        let by_turn = MetricsRequest {
            dimensions: vec!["turn".to_owned()],
            order_by: by("turn", true),
            top_k: TURNS_MAX,
            ..turns.clone()
        };
        let mut asks = vec![sessions, drop_off, paths, turns.clone(), by_turn];
        if !request.topic_field.is_empty() {
            asks.push(MetricsRequest {
                measures: vec![
                    named("sessions", "session_id", A::CountDistinct),
                    named("turns", "", A::Count),
                    named("satisfaction", &self.score(), A::Avg),
                    named("cost", "total_cost", A::Sum),
                ],
                dimensions: vec![request.topic_field.clone()],
                top_k: PATHS,
                ..turns
            });
        }
        Ok(asks)
    }

    fn answer(&self, answers: Vec<MetricsResponse>) -> Result<ConversationsResponse, QueryError> {
        let reading = Some(readings(&answers));
        let [overall, drop_off, paths, turns, by_turn, topics @ ..] = answers.as_slice() else { return Err(missing()) };
        let (sessions, traces) = (Figures(overall), Figures(turns));
        let (of_sessions, of_traces) = (sessions.one(), traces.one());
        let drop_off = drop_off.rows.iter().filter_map(|row| {
            let figures = Figures(drop_off);
            Some(DropOff {
                turn: number_of(row)?,
                sessions: figures.whole(row, "sessions"),
                share: figures.number(row, "share").unwrap_or_default(),
            })
        });
        let paths = paths.rows.iter().filter(|row| !row.is_other).filter_map(|row| {
            let figures = Figures(paths);
            Some(StepPath {
                path: text(row.dimensions.first())?,
                sessions: figures.whole(row, "sessions"),
                share: figures.number(row, "share").unwrap_or_default(),
            })
        });
        let by_turn = by_turn.rows.iter().filter_map(|row| {
            let figures = Figures(by_turn);
            Some(TurnFigure {
                turn: number_of(row)?,
                sessions: figures.whole(row, "turns"),
                avg_response_ms: figures.number(row, "response"),
                avg_gap_ms: figures.number(row, "gap"),
                satisfaction: figures.number(row, "satisfaction"),
            })
        });
        let topics = topics.iter().flat_map(|topics| topics.rows.iter().map(move |row| (Figures(topics), row)));
        let topics = topics.filter(|(_, row)| !row.is_other).filter_map(|(figures, row)| {
            Some(Topic {
                topic: text(row.dimensions.first())?,
                sessions: figures.whole(row, "sessions"),
                turns: figures.whole(row, "turns"),
                satisfaction: figures.number(row, "satisfaction"),
                cost_usd: figures.money(row, "cost"),
            })
        });
        Ok(ConversationsResponse {
            conversations: sessions.whole(of_sessions, "conversations"),
            total_turns: traces.whole(of_traces, "turns"),
            avg_turns: sessions.number(of_sessions, "turns"),
            turns_p50: sessions.number(of_sessions, "turns_p50"),
            avg_duration_ms: sessions.number(of_sessions, "duration"),
            duration_p95_ms: sessions.number(of_sessions, "duration_p95"),
            avg_response_time_ms: traces.number(of_traces, "response"),
            avg_gap_ms: traces.number(of_traces, "gap"),
            gap_p50_ms: traces.number(of_traces, "gap_p50"),
            user_satisfaction: traces.number(of_traces, "satisfaction"),
            user_satisfaction_count: traces.whole(of_traces, "satisfaction_n"),
            conversation_length_tokens: sessions.number(of_sessions, "tokens"),
            cost_per_conversation_usd: sessions.money(of_sessions, "cost"),
            total_cost_usd: sessions.money(of_sessions, "total_cost"),
            resolution_rate: sessions.number(of_sessions, "resolution"),
            escalation_rate: sessions.number(of_sessions, "escalation"),
            drop_off: drop_off.collect(),
            by_turn: by_turn.collect(),
            common_paths: paths.collect(),
            topics: topics.collect(),
            reading,
        })
    }
}

/// `Funnel`.
pub struct FunnelSteps(pub FunnelRequest);

impl Preset for FunnelSteps {
    type Response = FunnelResponse;

    fn asks(&self, _: i64) -> Result<Vec<MetricsRequest>, QueryError> {
        let request = &self.0;
        if request.steps.len() < 2 {
            return Err(QueryError::invalid("a funnel has at least two steps"));
        }
        let filters = |step: &FunnelStep| match step.filters.as_slice() {
            [] => Err(QueryError::invalid(format!("the step {:?} has no filters", step.name))),
            filters => Ok(Filter { all_of: filters.to_vec(), ..Default::default() }),
        };
        let view = match FunnelBy::try_from(request.by) {
            Ok(FunnelBy::Unspecified | FunnelBy::Trace) => View::Traces,
            Ok(FunnelBy::Session) => View::Sessions,
            Err(_) => return Err(QueryError::invalid("a funnel is by TRACE or by SESSION")),
        };
        let mut measures = vec![named("reached", "", A::Count), percentile("steps_p50", "steps_ms", 50.0)];
        if request.within_ms > 0 {
            let within = filter("steps_ms", FilterOperator::LessOrEqual, &[&request.within_ms.to_string()]);
            measures.push(Measure { filters: vec![within], ..named("within", "", A::Count) });
        }
        Ok(vec![MetricsRequest {
            view: view.into(),
            measures,
            dimensions: vec!["steps_reached".to_owned()],
            range: request.range,
            filters: request.filters.clone(),
            steps: request.steps.iter().map(filters).collect::<Result<_, _>>()?,
            ..Default::default()
        }])
    }

    fn answer(&self, answers: Vec<MetricsResponse>) -> Result<FunnelResponse, QueryError> {
        let [answer] = answers.as_slice() else { return Err(missing()) };
        let figures = Figures(answer);
        let depth = |row: &MetricsRow| number_of(row).unwrap_or_default();
        let reached = |least: i64| -> i64 {
            answer.rows.iter().filter(|row| depth(row) >= least).map(|row| figures.whole(row, "reached")).sum()
        };
        let share = |part: i64, whole: i64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let steps = self.0.steps.iter().enumerate().map(|(at, step)| {
            let (own, first) = (reached(at as i64 + 1), reached(1));
            let before = if at == 0 { own } else { reached(at as i64) };
            FunnelStepFigure {
                name: step.name.clone(),
                reached: own,
                share_of_first: share(own, first),
                share_of_previous: share(own, before),
                dropped: before - own,
            }
        });
        let last = answer.rows.iter().find(|row| depth(row) == self.0.steps.len() as i64);
        Ok(FunnelResponse {
            considered: reached(0),
            steps: steps.collect(),
            completed_within: last.map_or(0, |row| figures.whole(row, "within")),
            completion_p50_ms: last.and_then(|row| figures.number(row, "steps_p50")),
            reading: Some(readings(&answers)),
        })
    }
}

/// A dimension that counts.
fn number_of(row: &MetricsRow) -> Option<i64> {
    match row.dimensions.first()?.value {
        Some(Value::Integer(number)) => Some(number),
        _ => None,
    }
}
