//! `observations`: narrow and hot, one row per span, generation or event.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Column;
use super::columns::{self as fill, ColumnType as T};
use super::own::Own;
use crate::base::{Money, TimestampUs};
use crate::model::{CostSource, DimensionKeys, Level, Observation, ObservationType, Status, TraceFacts, UsageSource};

pub(super) const COMMENT: &str = "One row per span, generation or event. What is said about a trace (user, session, tags, names) stands on every row.";

/// A merged observation with all that is derived from it: everything a row of the table needs, nothing copied.
#[derive(Debug, Clone)]
pub struct ObservationRow {
    pub observation: Arc<Observation>,
    /// What is said about its trace; what the observation says itself goes before.
    pub facts: Option<Arc<TraceFacts>>,
    /// What stands in for the root of its trace, if no root was known.
    pub orphan: Option<Orphan>,
    pub keys: Arc<DimensionKeys>,
    pub cost: RowCost,
    pub ingested_at_us: TimestampUs,
    pub provenance: Option<Vec<u8>>,
}

/// For a row whose trace has no known root. Facts that name a root make it void.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orphan {
    /// The name of what stands for the root.
    pub name: Option<Arc<str>>,
    /// This row is what stands for the root.
    pub is_root: bool,
}

/// What an observation cost, and who says so.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowCost {
    pub by_kind: BTreeMap<String, Money>,
    pub input: Option<Money>,
    pub output: Option<Money>,
    pub total: Option<Money>,
    pub source: Option<CostSource>,
    /// The price book's name for the model.
    pub model_id: Option<String>,
    /// `book version/model/valid-from/tier` of the price used.
    pub price_id: Option<String>,
}

// One column a line.
#[rustfmt::skip]
pub const OBSERVATIONS: &[Column<ObservationRow>] = &[
    Column { name: "trace_id", kind: T::Text, comment: "The trace, as sent.", fill: |r| fill::text(r, |r| Some(&r.observation.trace_id)) },
    Column { name: "id", kind: T::Text, comment: "The observation, as sent: unique within its trace.", fill: |r| fill::text(r, |r| Some(&r.observation.id)) },
    Column { name: "parent_id", kind: T::Text, comment: "The observation it belongs to; null for a root.", fill: |r| fill::text(r, |r| r.observation.parent_id.as_deref()) },
    Column { name: "is_root", kind: T::Boolean, comment: "No parent, or marked as root by its sender.", fill: |r| fill::boolean(r, |r| Some(r.is_root())) },
    Column { name: "type", kind: T::Text, comment: "SPAN, GENERATION, EVENT, EMBEDDING, AGENT, TOOL, CHAIN, RETRIEVER, GUARDRAIL or EVALUATOR.", fill: |r| fill::text(r, |r| Some(word(r.observation.observation_type, ObservationType::as_str, ObservationType::Span))) },
    Column { name: "operation", kind: T::Text, comment: "gen_ai.operation.name: chat, embeddings, execute_tool, …", fill: |r| fill::text(r, |r| r.observation.operation.as_deref()) },
    Column { name: "name", kind: T::Text, comment: "What the sender calls this step.", fill: |r| fill::text(r, |r| r.observation.name.as_deref()) },
    Column { name: "trace_name", kind: T::Text, comment: "The trace's name; its root's name where none was said.", fill: |r| fill::text(r, |r| r.trace_name().map(|(name, _)| name)) },
    Column { name: "account", kind: T::Text, comment: "The tenant's own customer, from metadata.", fill: |r| fill::text(r, ObservationRow::account) },
    Column { name: "project", kind: T::Text, comment: "From metadata.", fill: |r| fill::text(r, ObservationRow::project) },
    Column { name: "flow", kind: T::Text, comment: "From metadata.", fill: |r| fill::text(r, ObservationRow::flow) },
    Column { name: "user_id", kind: T::Text, comment: "The end user.", fill: |r| fill::text(r, |r| r.said(|o| &o.user_id, |f| &f.user_id)) },
    Column { name: "session_id", kind: T::Text, comment: "The conversation.", fill: |r| fill::text(r, |r| r.said(|o| &o.session_id, |f| &f.session_id)) },
    Column { name: "agent_id", kind: T::Text, comment: "gen_ai.agent.id.", fill: |r| fill::text(r, |r| r.observation.agent_id.as_deref()) },
    Column { name: "agent_name", kind: T::Text, comment: "gen_ai.agent.name.", fill: |r| fill::text(r, |r| r.observation.agent_name.as_deref()) },
    Column { name: "tool_name", kind: T::Text, comment: "gen_ai.tool.name.", fill: |r| fill::text(r, |r| r.observation.tool_name.as_deref()) },
    Column { name: "environment", kind: T::Text, comment: "production, staging, …; `default` where none was said.", fill: |r| fill::text(r, |r| Some(r.said(|o| &o.environment, |f| &f.environment).unwrap_or("default"))) },
    Column { name: "release", kind: T::Text, comment: "The application's release.", fill: |r| fill::text(r, |r| r.said(|o| &o.release, |f| &f.release)) },
    Column { name: "version", kind: T::Text, comment: "The version of this step, else of the service.", fill: |r| fill::text(r, |r| r.said(|o| &o.version, |f| &f.version)) },
    Column { name: "tags", kind: T::TextList, comment: "The trace's tags, sorted, each once.", fill: |r| fill::text_list(r, ObservationRow::tags) },
    Column { name: "level", kind: T::Text, comment: "DEBUG, DEFAULT, WARNING or ERROR.", fill: |r| fill::text(r, |r| Some(word(r.observation.level, Level::as_str, Level::Default))) },
    Column { name: "status", kind: T::Text, comment: "ok, error or unset.", fill: |r| fill::text(r, |r| Some(word(r.observation.status, Status::as_str, Status::Unset))) },
    Column { name: "error_type", kind: T::Text, comment: "error.type, or the type of the exception.", fill: |r| fill::text(r, |r| r.observation.error_type.as_deref()) },
    Column { name: "status_message", kind: T::Text, comment: "What went wrong, as sent.", fill: |r| fill::text(r, |r| r.observation.status_message.as_deref()) },
    Column { name: "finish_reasons", kind: T::TextList, comment: "Why the model stopped: stop, length, tool_calls, …", fill: |r| fill::text_list(r, |r| Cow::Borrowed(&r.observation.finish_reasons)) },
    Column { name: "truncated", kind: T::Boolean, comment: "A finish reason says that the answer was cut (length, max_tokens).", fill: |r| fill::boolean(r, |r| truncated(&r.observation.finish_reasons)) },
    Column { name: "response_id", kind: T::Text, comment: "gen_ai.response.id.", fill: |r| fill::text(r, |r| r.observation.response_id.as_deref()) },
    Column { name: "start_time", kind: T::Timestamp, comment: "Start, UTC, microseconds.", fill: |r| fill::timestamp(r, |r| Some(r.start_us())) },
    Column { name: "start_ns", kind: T::Long, comment: "Start as sent: nanoseconds since 1970; null where none was sent.", fill: |r| fill::long(r, |r| r.observation.start_ns) },
    Column { name: "end_time", kind: T::Timestamp, comment: "End, UTC, microseconds; null while open.", fill: |r| fill::timestamp(r, |r| r.observation.end_ns.map(us)) },
    Column { name: "completion_start_time", kind: T::Timestamp, comment: "When the first token came.", fill: |r| fill::timestamp(r, |r| r.observation.completion_start_ns.map(us)) },
    Column { name: "latency_ms", kind: T::Double, comment: "End − start, milliseconds.", fill: |r| fill::double(r, |r| r.ms_after_start(r.observation.end_ns)) },
    Column { name: "ttft_ms", kind: T::Double, comment: "First token − start, milliseconds.", fill: |r| fill::double(r, |r| r.ms_after_start(r.observation.completion_start_ns)) },
    Column { name: "model", kind: T::Text, comment: "The model as the sender names it.", fill: |r| fill::text(r, |r| r.observation.model.as_deref()) },
    Column { name: "model_id", kind: T::Text, comment: "The price book's name for it; null when unpriced.", fill: |r| fill::text(r, |r| r.cost.model_id.as_deref()) },
    Column { name: "provider", kind: T::Text, comment: "openai, anthropic, aws.bedrock, …", fill: |r| fill::text(r, |r| r.observation.provider.as_deref()) },
    Column { name: "model_parameters", kind: T::TextMap, comment: "temperature, max_tokens, …", fill: |r| fill::text_map(r, |r| &r.observation.model_parameters) },
    Column { name: "prompt_name", kind: T::Text, comment: "The managed prompt used.", fill: |r| fill::text(r, |r| r.observation.prompt_name.as_deref()) },
    Column { name: "prompt_version", kind: T::Long, comment: "Its version.", fill: |r| fill::long(r, |r| r.observation.prompt_version) },
    Column { name: "usage", kind: T::LongMap, comment: "Counts by kind, as reported.", fill: |r| fill::long_map(r, |r| &r.observation.usage) },
    Column { name: "input_tokens", kind: T::Long, comment: "All input tokens, cached ones included.", fill: |r| fill::long(r, |r| r.observation.input_tokens) },
    Column { name: "cached_input_tokens", kind: T::Long, comment: "Read from a cache; a part of input_tokens.", fill: |r| fill::long(r, |r| r.observation.cached_input_tokens) },
    Column { name: "cache_write_tokens", kind: T::Long, comment: "Written to a cache; a part of input_tokens.", fill: |r| fill::long(r, |r| r.observation.cache_write_tokens) },
    Column { name: "uncached_input_tokens", kind: T::Long, comment: "input_tokens − cached_input_tokens − cache_write_tokens, never below 0.", fill: |r| fill::long(r, |r| less(r.observation.input_tokens, &[r.observation.cached_input_tokens, r.observation.cache_write_tokens])) },
    Column { name: "output_tokens", kind: T::Long, comment: "All output tokens, reasoning included.", fill: |r| fill::long(r, |r| r.observation.output_tokens) },
    Column { name: "reasoning_tokens", kind: T::Long, comment: "Spent on reasoning; a part of output_tokens.", fill: |r| fill::long(r, |r| r.observation.reasoning_tokens) },
    Column { name: "answer_tokens", kind: T::Long, comment: "output_tokens − reasoning_tokens, never below 0.", fill: |r| fill::long(r, |r| less(r.observation.output_tokens, &[r.observation.reasoning_tokens])) },
    Column { name: "total_tokens", kind: T::Long, comment: "As sent, else input + output.", fill: |r| fill::long(r, |r| r.observation.total_tokens) },
    Column { name: "usage_source", kind: T::Text, comment: "provided, counted from the texts, none, or repeated (a span that sums up others, or a second report of one call: not counted).", fill: |r| fill::text(r, |r| Some(word(r.observation.usage_source, UsageSource::as_str, UsageSource::None))) },
    Column { name: "cost", kind: T::MoneyMap, comment: "USD by kind; of a repeated report as its sender says it, which counts nowhere.", fill: |r| fill::money_map(r, |r| &r.cost.by_kind) },
    Column { name: "input_cost", kind: T::Money, comment: "USD for input, caches included.", fill: |r| fill::money(r, |r| r.cost.input) },
    Column { name: "output_cost", kind: T::Money, comment: "USD for output, reasoning included.", fill: |r| fill::money(r, |r| r.cost.output) },
    Column { name: "total_cost", kind: T::Money, comment: "USD.", fill: |r| fill::money(r, |r| r.cost.total) },
    Column { name: "cost_source", kind: T::Text, comment: "provided by the client, computed by price, or none.", fill: |r| fill::text(r, |r| Some(r.cost.source.unwrap_or(CostSource::None).as_str())) },
    Column { name: "price_id", kind: T::Text, comment: "The price used: book/model/valid-from/tier.", fill: |r| fill::text(r, |r| r.cost.price_id.as_deref()) },
    Column { name: "metadata", kind: T::TextMap, comment: "The sender's own keys; values that are not text are JSON.", fill: |r| fill::text_map(r, |r| &r.observation.metadata) },
    Column { name: "service_name", kind: T::Text, comment: "Resource service.name.", fill: |r| fill::text(r, |r| r.observation.service_name.as_deref()) },
    Column { name: "scope_name", kind: T::Text, comment: "The instrumentation.", fill: |r| fill::text(r, |r| r.observation.scope_name.as_deref()) },
    Column { name: "scope_version", kind: T::Text, comment: "Its version.", fill: |r| fill::text(r, |r| r.observation.scope_version.as_deref()) },
    Column { name: "sdk_name", kind: T::Text, comment: "telemetry.sdk.* or the Langfuse SDK.", fill: |r| fill::text(r, |r| r.observation.sdk_name.as_deref()) },
    Column { name: "sdk_version", kind: T::Text, comment: "Its version.", fill: |r| fill::text(r, |r| r.observation.sdk_version.as_deref()) },
    Column { name: "source", kind: T::Text, comment: "The protocol it came by: otlp, langfuse-batch, tracelake.", fill: |r| fill::text(r, |r| r.observation.source.as_deref()) },
    Column { name: "ingested_at", kind: T::Timestamp, comment: "The stamp of the log object that first held it.", fill: |r| fill::timestamp(r, |r| Some(r.ingested_at_us)) },
    Column { name: "_merge", kind: T::Binary, comment: "Which event decided which field; null for a row of one event whose time is the row's own.", fill: |r| fill::binary(r, |r| r.provenance.as_deref()) },
    Column { name: "service_tier", kind: T::Text, comment: "priority, flex, batch, …: what the price depends on beside the model.", fill: |r| fill::text(r, |r| r.observation.service_tier.as_deref()) },
    Column { name: "_own", kind: T::Long, comment: "Bit set: which values the row says itself; its trace's facts may replace the others.", fill: |r| fill::long(r, |r| r.own().column()) },
    Column { name: "sensitive_kinds", kind: T::TextList, comment: "Kinds of sensitive text that the tenant's masking rules found in it: email, phone, cpf, … (sorted, each once).", fill: |r| fill::text_list(r, |r| Cow::Borrowed(&r.observation.sensitive_kinds)) },
    Column { name: "tools_offered", kind: T::TextList, comment: "Names of the tools that a call of a model could ask for, each once.", fill: |r| fill::text_list(r, |r| Cow::Borrowed(&r.observation.tools_offered)) },
    Column { name: "tools_called", kind: T::TextList, comment: "Names of the tools that the answer of a call asks for, in order; called twice, it stands twice.", fill: |r| fill::text_list(r, |r| Cow::Borrowed(&r.observation.tools_called)) },
];

impl ObservationRow {
    /// Start in microseconds; a span without one started when it was received.
    pub fn start_us(&self) -> TimestampUs {
        self.observation.start_ns.map_or(self.ingested_at_us, us)
    }

    /// What the observation says, else what is said about its trace.
    fn said<'a>(
        &'a self,
        own: fn(&'a Observation) -> &'a Option<String>,
        of_trace: fn(&'a TraceFacts) -> &'a Option<String>,
    ) -> Option<&'a str> {
        own(&self.observation).as_deref().or_else(|| of_trace(self.facts.as_deref()?).as_deref())
    }

    /// The name said for the trace; else the one this row says, the root's, or that of an orphan that stands for a root.
    /// With the bit of `_own` that says so.
    fn trace_name(&self) -> Option<(&str, Own)> {
        let facts = self.facts.as_deref();
        let said = facts.and_then(|facts| facts.name.as_deref()).or(self.observation.trace_name.as_deref());
        let orphans = || self.orphan()?.name.as_deref().map(|name| (name, Own::ORPHAN_NAME));
        let of_root = || facts?.root_name.as_deref().map(|name| (name, Own::ROOT_NAME));
        said.map(|name| (name, Own::default())).or_else(of_root).or_else(orphans)
    }

    /// No parent, or a mark; or the one that stands for the root, unless another is known.
    pub fn is_root(&self) -> bool {
        self.is_root_itself() || self.orphan.as_ref().is_some_and(|orphan| orphan.is_root) && !self.is_other_the_root()
    }

    fn is_root_itself(&self) -> bool {
        self.observation.root_mark == Some(true) || self.observation.parent_id.is_none()
    }

    fn is_other_the_root(&self) -> bool {
        let root_id = self.facts.as_ref().and_then(|facts| facts.root_id.as_ref());
        root_id.is_some_and(|root_id| *root_id != self.observation.id)
    }

    /// What stands in for the root, while none is known.
    fn orphan(&self) -> Option<&Orphan> {
        let has_root = self.facts.as_ref().is_some_and(|facts| facts.root_id.is_some());
        self.orphan.as_ref().filter(|_| !has_root)
    }

    pub fn account(&self) -> Option<&str> {
        self.dimension(&self.keys.account)
    }

    pub fn project(&self) -> Option<&str> {
        self.dimension(&self.keys.project)
    }

    pub fn flow(&self) -> Option<&str> {
        self.dimension(&self.keys.flow)
    }

    fn dimension(&self, key: &str) -> Option<&str> {
        let own = DimensionKeys::find(key, &self.observation.metadata);
        own.or_else(|| DimensionKeys::find(key, &self.facts.as_ref()?.metadata))
    }

    fn own(&self) -> Own {
        let own = &self.observation;
        let is_named = |key: &str| DimensionKeys::find(key, &own.metadata).is_some();
        Own::of(&[
            (Own::TRACE_NAME, own.trace_name.is_some()),
            (Own::USER_ID, own.user_id.is_some()),
            (Own::SESSION_ID, own.session_id.is_some()),
            (Own::ENVIRONMENT, own.environment.is_some()),
            (Own::RELEASE, own.release.is_some()),
            (Own::VERSION, own.version.is_some()),
            (Own::TAGS, !own.tags.is_empty()),
            (Own::ACCOUNT, is_named(&self.keys.account)),
            (Own::PROJECT, is_named(&self.keys.project)),
            (Own::FLOW, is_named(&self.keys.flow)),
            (Own::ROOT_MARK, own.root_mark == Some(true)),
            (Own::NO_ROOT_MARK, own.root_mark == Some(false)),
            (Own::ORPHAN, !self.is_root_itself() && self.orphan.as_ref().is_some_and(|orphan| orphan.is_root)),
            (Own::TYPE, says(own.observation_type, ObservationType::Span)),
            (Own::LEVEL, says(own.level, Level::Default)),
            (Own::STATUS, says(own.status, Status::Unset)),
            (Own::USAGE_SOURCE, says(own.usage_source, UsageSource::None)),
        ])
        .with(self.trace_name().map(|(_, bit)| bit).unwrap_or_default())
    }

    /// The trace's tags and the row's own: sorted, each once.
    fn tags(&self) -> Cow<'_, [String]> {
        let own = &self.observation.tags;
        match self.facts.as_deref().map(|facts| &facts.tags) {
            Some(tags) if own.is_empty() => Cow::Borrowed(tags),
            Some(tags) if !tags.is_empty() && tags != own => {
                let mut all: Vec<String> = own.iter().chain(tags).cloned().collect();
                all.sort_unstable();
                all.dedup();
                Cow::Owned(all)
            }
            _ => Cow::Borrowed(own),
        }
    }

    fn ms_after_start(&self, ns: Option<i64>) -> Option<f64> {
        Some(ns?.saturating_sub(self.observation.start_ns?) as f64 / 1e6)
    }
}

fn us(ns: i64) -> TimestampUs {
    ns.div_euclid(1000)
}

fn word<E: TryFrom<i32>>(number: Option<i32>, word: fn(E) -> &'static str, otherwise: E) -> &'static str {
    word(number.and_then(|number| E::try_from(number).ok()).unwrap_or(otherwise))
}

/// Something is said, and shows as `default`. So does a number unknown to this version.
fn says<E: TryFrom<i32> + PartialEq>(said: Option<i32>, default: E) -> bool {
    said.is_some_and(|number| E::try_from(number).map_or(true, |word| word == default))
}

fn less(whole: Option<i64>, parts: &[Option<i64>]) -> Option<i64> {
    let parts = parts.iter().flatten().fold(0i64, |sum, part| sum.saturating_add(*part));
    Some(whole?.saturating_sub(parts).max(0))
}

fn truncated(finish_reasons: &[String]) -> Option<bool> {
    const CUT: [&str; 4] = ["length", "max_tokens", "max_output_tokens", "model_length"];
    (!finish_reasons.is_empty())
        .then(|| finish_reasons.iter().any(|reason| CUT.iter().any(|cut| reason.eq_ignore_ascii_case(cut))))
}
