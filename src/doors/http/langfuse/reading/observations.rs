//! `GET /api/public/observations` by page, `/v2/observations` by cursor, `/observations/{id}`.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::super::super::super::{Doors, Refusal};
use super::cursor::Cursor;
use super::filters::{self, Column, ColumnKind as K, column};
use super::parameters::Parameters;
use super::shapes::{self, Groups};
use super::{answered, comparison, list_of, not_found, one_of, page_of};
use crate::query::records::{RecordKind, RecordsAsked, With};
use crate::wire::{Filter, FilterOperator};

const LIMIT_MAX: usize = 1_000;

const COLUMNS: [Column; 38] = [
    column("id", "id", K::Text),
    column("type", "type", K::Text),
    column("name", "name", K::Text),
    column("level", "level", K::Text),
    column("statusMessage", "status_message", K::Text),
    column("version", "version", K::Text),
    column("release", "release", K::Text),
    column("environment", "environment", K::Text),
    column("userId", "user_id", K::Text),
    column("sessionId", "session_id", K::Text),
    column("traceId", "trace_id", K::Text),
    column("traceName", "trace_name", K::Text),
    column("tags", "tags", K::List),
    column("traceTags", "tags", K::List),
    column("parentObservationId", "parent_id", K::Text),
    column("isRootObservation", "is_root", K::Boolean),
    column("startTime", "start_time", K::Time),
    column("endTime", "end_time", K::Time),
    column("completionStartTime", "completion_start_time", K::Time),
    column("latency", "latency_ms", K::Seconds),
    column("timeToFirstToken", "ttft_ms", K::Seconds),
    column("inputTokens", "input_tokens", K::Number),
    column("outputTokens", "output_tokens", K::Number),
    column("totalTokens", "total_tokens", K::Number),
    column("inputCost", "input_cost", K::Number),
    column("outputCost", "output_cost", K::Number),
    column("totalCost", "total_cost", K::Number),
    column("model", "model", K::Text),
    column("providedModelName", "model", K::Text),
    column("modelId", "model_id", K::Text),
    column("internalModelId", "model_id", K::Text),
    column("promptName", "prompt_name", K::Text),
    column("promptVersion", "prompt_version", K::Number),
    column("toolNames", "tools_offered", K::List),
    column("calledToolNames", "tools_called", K::List),
    column("input", "input", K::Text),
    column("output", "output", K::Text),
    column("metadata", "metadata:", K::TextUnder),
];

pub(in crate::doors::http::langfuse) async fn list(State(doors): State<Doors>, request: Request) -> Response {
    answered(doors, request, async |asked| {
        let parameters = &asked.parameters;
        let page = parameters.page()?;
        let range = parameters.range("fromStartTime", "toStartTime")?;
        let with = With { count: true, texts: true, ..With::default() };
        let list = list_of(RecordKind::Observations, range, wanted(parameters)?, page.limit, with);
        let list = RecordsAsked { skip: page.skip(), ..list };
        let (observations, items) = asked.one(list).await?.observations()?;
        let prices = asked.unit_prices(&observations).await;
        let data = observations.iter().map(|observation| shapes::observation(observation, asked.project(), &prices));
        Ok(page_of(data.collect(), page, items))
    })
    .await
}

pub(in crate::doors::http::langfuse) async fn one(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    answered(doors, request, async |asked| {
        let with = With { texts: true, ..With::default() };
        let found = asked.one(one_of(RecordKind::Observations, "id", &id, with)).await?.observations()?.0;
        let prices = asked.unit_prices(&found).await;
        let found = found.last().ok_or_else(|| not_found("observation", &id))?;
        Ok(shapes::observation(found, asked.project(), &prices))
    })
    .await
}

pub(in crate::doors::http::langfuse) async fn by_cursor(State(doors): State<Doors>, request: Request) -> Response {
    const IDS: [&str; 2] = ["trace_id", "id"];
    answered(doors, request, async |asked| {
        let parameters = &asked.parameters;
        let (limit, groups) = (parameters.limit(LIMIT_MAX)?, groups(parameters)?);
        let mut range = parameters.range("fromStartTime", "toStartTime")?;
        let mut filters = wanted(parameters)?;
        if let Some(text) = parameters.text("cursor") {
            let cursor = Cursor::parse(text, IDS.len())?;
            range = cursor.rest(range);
            filters.push(cursor.after("start_time", &IDS));
        }
        let with = With { texts: groups.has("io"), ..With::default() };
        // One more says whether there is another page.
        let list = list_of(RecordKind::Observations, range, filters, limit + 1, with);
        let mut observations = asked.one(list).await?.observations()?.0;
        let has_more = observations.len() > limit;
        observations.truncate(limit);
        let last = observations.last().filter(|_| has_more).and_then(|last| {
            let said = last.seen.observation.as_ref()?;
            Some(Cursor::at(last.seen.start_unix_micros, [&said.trace_id, &said.id]).text())
        });
        let priced = if groups.has("model") { &observations[..] } else { &[] };
        let prices = asked.unit_prices(priced).await;
        let shown = |observation| shapes::observation_in_groups(observation, asked.project(), &groups, &prices);
        let data: Vec<Value> = observations.iter().map(shown).collect();
        let meta = last.map_or(json!({}), |cursor| json!({ "cursor": cursor }));
        Ok(json!({ "data": data, "meta": meta }))
    })
    .await
}

fn wanted(parameters: &Parameters) -> Result<Vec<Filter>, Refusal> {
    let root = parameters.boolean("isRootObservation")?;
    let simple = [
        parameters.equal("name", "name"),
        parameters.equal("userId", "user_id"),
        parameters.equal("sessionId", "session_id"),
        parameters.equal("type", "type"),
        parameters.equal("traceId", "trace_id"),
        parameters.equal("level", "level"),
        parameters.equal("version", "version"),
        parameters.equal("parentObservationId", "parent_id"),
        parameters.among("environment", "environment"),
        root.map(|root| comparison("is_root", FilterOperator::Equals, vec![root.to_string()])),
    ];
    const LEVELS: [&str; 4] = ["DEBUG", "DEFAULT", "WARNING", "ERROR"];
    parameters.word("level", &LEVELS)?;
    let filter = parameters.text("filter").map(|text| filters::parse(text, &COLUMNS)).transpose()?;
    Ok(filters::over(simple.into_iter().flatten().collect(), filter.unwrap_or_default()))
}

/// Unknown groups are nothing.
fn groups(parameters: &Parameters) -> Result<Groups, Refusal> {
    let mut names: Vec<String> = parameters.texts("fields").iter().map(|name| name.trim().to_owned()).collect();
    if names.is_empty() {
        names = vec!["core".to_owned(), "basic".to_owned()];
    }
    let parse_io = parameters.boolean("parseIoAsJson")?.unwrap_or_default();
    Ok(Groups { names, whole: parameters.texts("expandMetadata"), parse_io })
}
