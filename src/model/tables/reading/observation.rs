//! Rows of `observations`: what they say themselves, and what is stamped onto them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::super::cells::{Text, cells};
use super::super::own::Own;
use super::super::{Orphan, RowCost};
use super::{events, within};
use crate::base::{Money, TimestampUs};
use crate::model::{
    CostSource, Counted, DimensionKeys, Level, Observation, ObservationType, Order, ReadError, Status, TraceFacts,
    UsageSource,
};

/// A row of `observations`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadObservation {
    /// What the row says itself. Of the tags it is all that stand there, if any are its own; of the trace's name, the one
    /// that stands there.
    pub events: Vec<(Order, Observation)>,
    pub ingested_at_us: TimestampUs,
    /// What of its usage nobody said.
    pub counted: Option<Counted>,
    /// As it was priced.
    pub cost: RowCost,
    /// What stands there because its trace says so.
    pub stamped: Stamped,
}

/// As much of a trace's facts as can be told from one of its rows: enough to build the row again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stamped {
    facts: TraceFacts,
    account: Option<String>,
    project: Option<String>,
    flow: Option<String>,
    /// What stands in for the root, while none is known.
    pub orphan: Option<Orphan>,
}

impl Stamped {
    /// The facts, with the dimensions as metadata that `keys` find. Facts from elsewhere go before them.
    pub fn facts(&self, keys: &DimensionKeys) -> TraceFacts {
        let dimensions = [(&keys.account, &self.account), (&keys.project, &self.project), (&keys.flow, &self.flow)];
        let found = dimensions.into_iter().filter_map(|(key, value)| {
            let value = value.as_ref()?;
            Some((DimensionKeys::matching(key).to_owned(), value.clone()))
        });
        TraceFacts { metadata: found.collect(), ..self.facts.clone() }
    }
}

cells! {
    Columns {
        trace_id: Text, id: Text, parent_id: Text, is_root: Boolean, observation_type: Text = "type", operation: Text,
        name: Text, trace_name: Text, account: Text, project: Text, flow: Text, user_id: Text, session_id: Text,
        agent_id: Text, agent_name: Text, tool_name: Text, environment: Text, release: Text, version: Text,
        tags: TextList, level: Text, status: Text, error_type: Text, status_message: Text, finish_reasons: TextList,
        response_id: Text, start_ns: Long, end_time: Timestamp, completion_start_time: Timestamp, latency_ms: Double,
        ttft_ms: Double, model: Text, model_id: Text, provider: Text, model_parameters: TextMap, prompt_name: Text,
        prompt_version: Long, usage: LongMap, input_tokens: Long, cached_input_tokens: Long, cache_write_tokens: Long,
        output_tokens: Long, reasoning_tokens: Long, total_tokens: Long, usage_source: Text, cost: MoneyMap,
        input_cost: Money, output_cost: Money, total_cost: Money, cost_source: Text, price_id: Text, metadata: TextMap,
        service_name: Text, scope_name: Text, scope_version: Text, sdk_name: Text, sdk_version: Text, source: Text,
        ingested_at: Timestamp, _merge: Binary, service_tier: Text, _own: Long, sensitive_kinds: TextList,
        tools_offered: TextList, tools_called: TextList,
    }
}

/// Reads the rows of a batch of `observations`.
#[derive(Debug)]
pub struct ObservationReader {
    columns: Columns,
    rows: usize,
}

impl ObservationReader {
    pub fn new(batch: &RecordBatch) -> Result<Self, ReadError> {
        Ok(Self { columns: Columns::of(batch)?, rows: batch.num_rows() })
    }

    pub fn read(&self, row: usize) -> Result<ReadObservation, ReadError> {
        within(row, self.rows)?;
        let own = self.own(row);
        let cost = self.cost(row);
        let mut observation = self.observation(row, own, &cost)?;
        let counted = observation.take_counted();
        let stamped = self.stamped(row, own, &observation.trace_id);
        let events = events(observation, self.columns._merge.get(row))?;
        let ingested_at_us = self.columns.ingested_at.always(row)?;
        Ok(ReadObservation { events, ingested_at_us, counted, cost, stamped })
    }

    /// Of a file that is older than the column, everything that stands there is taken for the row's own: nothing said
    /// is lost.
    fn own(&self, row: usize) -> Own {
        let columns = &self.columns;
        if !columns._own.is_missing() {
            return Own::of_column(columns._own.get(row));
        }
        let is_marked = columns.is_root.get(row) == Some(true) && columns.parent_id.get(row).is_some();
        Own::of(&[
            (Own::TRACE_NAME, true),
            (Own::USER_ID, true),
            (Own::SESSION_ID, true),
            (Own::ENVIRONMENT, columns.environment.get(row) != Some("default")),
            (Own::RELEASE, true),
            (Own::VERSION, true),
            (Own::TAGS, true),
            (Own::ROOT_MARK, is_marked),
        ])
    }

    fn observation(&self, row: usize, own: Own, cost: &RowCost) -> Result<Observation, ReadError> {
        let columns = &self.columns;
        let text = |cells: &Text| cells.owned(row);
        let own_text = |bit: Own, cells: &Text| own.has(bit).then(|| cells.owned(row)).flatten();
        let start_ns = columns.start_ns.get(row);
        let root_mark = own.has(Own::ROOT_MARK).then_some(true).or(own.has(Own::NO_ROOT_MARK).then_some(false));
        let provided_cost = match cost.source {
            Some(CostSource::Provided) => cost.by_kind.iter().map(|(kind, cost)| (kind.clone(), cost.pico())).collect(),
            _ => BTreeMap::new(),
        };
        Ok(Observation {
            trace_id: columns.trace_id.key(row)?,
            id: columns.id.key(row)?,
            parent_id: text(&columns.parent_id),
            root_mark,
            observation_type: number(
                columns.observation_type.get(row).and_then(ObservationType::from_word),
                ObservationType::Span,
                own.has(Own::TYPE),
            ),
            operation: text(&columns.operation),
            name: text(&columns.name),
            trace_name: own_text(Own::TRACE_NAME, &columns.trace_name),
            user_id: own_text(Own::USER_ID, &columns.user_id),
            session_id: own_text(Own::SESSION_ID, &columns.session_id),
            agent_id: text(&columns.agent_id),
            agent_name: text(&columns.agent_name),
            tool_name: text(&columns.tool_name),
            environment: own_text(Own::ENVIRONMENT, &columns.environment),
            release: own_text(Own::RELEASE, &columns.release),
            version: own_text(Own::VERSION, &columns.version),
            tags: if own.has(Own::TAGS) { columns.tags.texts(row) } else { Vec::new() },
            level: number(columns.level.get(row).and_then(Level::from_word), Level::Default, own.has(Own::LEVEL)),
            status: number(columns.status.get(row).and_then(Status::from_word), Status::Unset, own.has(Own::STATUS)),
            error_type: text(&columns.error_type),
            status_message: text(&columns.status_message),
            finish_reasons: columns.finish_reasons.texts(row),
            response_id: text(&columns.response_id),
            start_ns,
            end_ns: ns_of(start_ns, columns.latency_ms.get(row), columns.end_time.get(row)),
            completion_start_ns: ns_of(start_ns, columns.ttft_ms.get(row), columns.completion_start_time.get(row)),
            model: text(&columns.model),
            provider: text(&columns.provider),
            model_parameters: columns.model_parameters.texts(row),
            prompt_name: text(&columns.prompt_name),
            prompt_version: columns.prompt_version.get(row),
            usage: columns.usage.longs(row),
            input_tokens: columns.input_tokens.get(row),
            cached_input_tokens: columns.cached_input_tokens.get(row),
            cache_write_tokens: columns.cache_write_tokens.get(row),
            output_tokens: columns.output_tokens.get(row),
            reasoning_tokens: columns.reasoning_tokens.get(row),
            total_tokens: columns.total_tokens.get(row),
            usage_source: number(
                columns.usage_source.get(row).and_then(UsageSource::from_word),
                UsageSource::None,
                own.has(Own::USAGE_SOURCE),
            ),
            provided_cost,
            service_tier: text(&columns.service_tier),
            metadata: columns.metadata.texts(row),
            service_name: text(&columns.service_name),
            scope_name: text(&columns.scope_name),
            scope_version: text(&columns.scope_version),
            sdk_name: text(&columns.sdk_name),
            sdk_version: text(&columns.sdk_version),
            source: text(&columns.source),
            input: None,
            output: None,
            exception_stacktrace: None,
            attributes: BTreeMap::new(),
            cleared: 0,
            sensitive_kinds: columns.sensitive_kinds.texts(row),
            tools_offered: columns.tools_offered.texts(row),
            tools_called: columns.tools_called.texts(row),
        })
    }

    fn cost(&self, row: usize) -> RowCost {
        let columns = &self.columns;
        let source = columns.cost_source.get(row).and_then(CostSource::from_word);
        let by_kind: BTreeMap<String, Money> = columns.cost.amounts(row);
        RowCost {
            by_kind,
            input: columns.input_cost.amount(row),
            output: columns.output_cost.amount(row),
            total: columns.total_cost.amount(row),
            source: source.filter(|source| *source != CostSource::None),
            model_id: columns.model_id.owned(row),
            price_id: columns.price_id.owned(row),
        }
    }

    fn stamped(&self, row: usize, own: Own, trace_id: &str) -> Stamped {
        let columns = &self.columns;
        let of_trace = |bit: Own, cells: &Text| (!own.has(bit)).then(|| cells.owned(row)).flatten();
        let shown_name = of_trace(Own::TRACE_NAME, &columns.trace_name);
        let (mut name, mut root_name, mut orphan_name) = (None, None, None);
        match () {
            () if own.has(Own::ORPHAN_NAME) => orphan_name = shown_name.map(Arc::from),
            () if own.has(Own::ROOT_NAME) => root_name = shown_name,
            () => name = shown_name,
        }
        // One that is not shown as a root any more knows another.
        let is_root = own.has(Own::ORPHAN) && columns.is_root.get(row) == Some(true);
        let facts = TraceFacts {
            trace_id: trace_id.to_owned(),
            name,
            root_name,
            user_id: of_trace(Own::USER_ID, &columns.user_id),
            session_id: of_trace(Own::SESSION_ID, &columns.session_id),
            environment: of_trace(Own::ENVIRONMENT, &columns.environment).filter(|shown| shown != "default"),
            release: of_trace(Own::RELEASE, &columns.release),
            version: of_trace(Own::VERSION, &columns.version),
            tags: if own.has(Own::TAGS) { Vec::new() } else { columns.tags.texts(row) },
            ..TraceFacts::default()
        };
        Stamped {
            facts,
            account: of_trace(Own::ACCOUNT, &columns.account),
            project: of_trace(Own::PROJECT, &columns.project),
            flow: of_trace(Own::FLOW, &columns.flow),
            orphan: (is_root || orphan_name.is_some()).then_some(Orphan { name: orphan_name, is_root }),
        }
    }
}

/// A word that stands for the default was said only if a bit tells so.
fn number<E: PartialEq + Into<i32>>(shown: Option<E>, default: E, is_said: bool) -> Option<i32> {
    shown.filter(|shown| is_said || *shown != default).map(Into::into)
}

/// A time as sent, from the milliseconds since the start: to the nanosecond below 50 days, to the microsecond always,
/// and such that the same milliseconds come of it again.
fn ns_of(start_ns: Option<i64>, ms: Option<f64>, us: Option<TimestampUs>) -> Option<i64> {
    let first_ns = us?.saturating_mul(1000);
    let (Some(start_ns), Some(ms)) = (start_ns, ms) else { return Some(first_ns) };
    let near = ms * 1e6;
    let candidates = [near, near.next_down(), near.next_up()].map(|ns| ns.round() as i64);
    let exact = candidates.into_iter().find(|ns| *ns as f64 / 1e6 == ms);
    Some(start_ns.saturating_add(exact.unwrap_or(candidates[0])).clamp(first_ns, first_ns.saturating_add(999)))
}
