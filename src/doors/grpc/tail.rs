//! Traces as they come in: asked for again and again by when their last part came in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use tokio::time::Instant;

use super::super::{Answers, Refusal};
use crate::base::{Day, Kind, TimestampUs};
use crate::catalog::keys::Identity;
use crate::wire::{
    Aggregation, Filter, FilterOperator, ListTracesRequest, Measure, MetricValue, MetricsRequest, TailRequest,
    TailResponse, TimeRange, View, metric_value::Value,
};

const INTERVAL_DEFAULT_MS: u32 = 2_000;
const INTERVAL_MIN_MS: u32 = 1_000;
const INTERVAL_MAX_MS: u32 = 60_000;
const QUIET_DEFAULT_MS: u32 = 5_000;
/// Then whoever listens shows its key again: one that was revoked has gone.
const TIME_MAX: Duration = Duration::from_secs(600);
/// Of one message.
const TRACES_MAX: u32 = 200;
/// What carries a stamp so much older than the last look may only have become visible since.
const OVERLAP_US: i64 = 10_000_000;
/// Traces that began longer ago are not looked for, nor those of clocks that run further ahead.
const BEGAN_US: i64 = Day::US;
const AHEAD_US: i64 = Day::US / 24;
/// The field that says when the last part of a trace came in.
const INGESTED: &str = "ingested_at";

pub(super) struct Tail {
    answers: Arc<dyn Answers>,
    who: Identity,
    asked: TailRequest,
    interval: Duration,
    until: Instant,
    /// Everything stamped up to here was told.
    told_us: TimestampUs,
    /// Within the overlap: what was told of which trace.
    told: BTreeMap<String, TimestampUs>,
}

impl Tail {
    pub(super) fn begin(
        answers: Arc<dyn Answers>,
        who: Identity,
        asked: TailRequest,
        now_us: TimestampUs,
    ) -> Result<Self, Refusal> {
        let invalid = |message: String| Refusal::new(Kind::Invalid, message);
        let ms = if asked.interval_ms == 0 { INTERVAL_DEFAULT_MS } else { asked.interval_ms };
        if !(INTERVAL_MIN_MS..=INTERVAL_MAX_MS).contains(&ms) {
            let message = format!("an interval of {ms} ms is not possible: use {INTERVAL_MIN_MS} to {INTERVAL_MAX_MS}");
            return Err(invalid(message));
        }
        let told_us = match asked.cursor.as_str() {
            "" => now_us,
            cursor => cursor
                .parse()
                .ok()
                .filter(|us| (0..=now_us).contains(us))
                .ok_or_else(|| invalid("the cursor is not one of ours: use that of a message before".to_owned()))?,
        };
        let (interval, until) = (Duration::from_millis(ms.into()), Instant::now() + TIME_MAX);
        Ok(Self { answers, who, asked, interval, until, told_us, told: BTreeMap::new() })
    }

    /// Until the next look; `None`: the time is over.
    pub(super) async fn wait(&self) -> Option<()> {
        tokio::time::sleep(self.interval).await;
        (Instant::now() < self.until).then_some(())
    }

    /// What came in since the last look; `None`: nothing.
    pub(super) async fn next(&mut self, now_us: TimestampUs) -> Result<Option<TailResponse>, Refusal> {
        let quiet_us = match (self.asked.finished_only, self.asked.quiet_ms) {
            (false, _) => 0,
            (true, 0) => i64::from(QUIET_DEFAULT_MS) * 1_000,
            (true, ms) => i64::from(ms) * 1_000,
        };
        let (since_us, up_to_us) = (self.told_us - OVERLAP_US, now_us - quiet_us);
        if up_to_us <= self.told_us && quiet_us > 0 {
            return Ok(None);
        }
        let stamped = |operator: FilterOperator, us: TimestampUs| Filter {
            field: INGESTED.to_owned(),
            operator: operator.into(),
            values: vec![DateTime::from_timestamp_micros(us).unwrap_or_default().to_rfc3339()],
            ..Default::default()
        };
        let came_in = [stamped(FilterOperator::Greater, since_us), stamped(FilterOperator::LessOrEqual, up_to_us)];
        let filters: Vec<Filter> = self.asked.filters.iter().cloned().chain(came_in).collect();
        let range = Some(TimeRange {
            from_unix_micros: since_us.saturating_sub(BEGAN_US),
            to_unix_micros: now_us.saturating_add(AHEAD_US),
        });
        let fields: Vec<String> = self.asked.fields.iter().cloned().chain([INGESTED.to_owned()]).collect();
        let page =
            ListTracesRequest { range, filters: filters.clone(), limit: TRACES_MAX, fields, ..Default::default() };
        let page = self.answers.list_traces(&self.who, page).await?;
        let dropped = match page.next_cursor.is_empty() {
            true => 0,
            false => self.count(range, filters).await? - page.traces.len() as i64,
        };

        let mut traces = page.traces;
        traces.retain_mut(|trace| {
            let ingested_us = stamp(trace.values.pop());
            let known = self.told.insert(trace.id.clone(), ingested_us);
            known != Some(ingested_us)
        });
        self.told_us = self.told_us.max(up_to_us);
        let told_us = self.told_us;
        self.told.retain(|_, ingested_us| *ingested_us > told_us - 2 * OVERLAP_US);
        if traces.is_empty() && dropped == 0 {
            return Ok(None);
        }
        let watermark = page.reading.map_or(0, |reading| reading.watermark_unix_micros);
        Ok(Some(TailResponse { traces, cursor: told_us.to_string(), dropped, watermark_unix_micros: watermark }))
    }

    async fn count(&self, range: Option<TimeRange>, filters: Vec<Filter>) -> Result<i64, Refusal> {
        let count = Measure { aggregation: Aggregation::Count.into(), ..Default::default() };
        let asked =
            MetricsRequest { view: View::Traces.into(), measures: vec![count], range, filters, ..Default::default() };
        let mut answers = self.answers.metrics(&self.who, vec![asked]).await?;
        let row = answers.pop().and_then(|answer| answer.rows.into_iter().next());
        match row.and_then(|row| row.measures.into_iter().next()).and_then(|value| value.value) {
            Some(Value::Integer(count)) => Ok(count),
            _ => Ok(0),
        }
    }
}

fn stamp(value: Option<MetricValue>) -> TimestampUs {
    match value.and_then(|value| value.value) {
        Some(Value::UnixMicros(us)) => us,
        _ => 0,
    }
}
