//! `GET /api/public/scores`, `/v2/scores`, `/v3/scores`, and one of them by its id.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::super::super::super::{Doors, Refusal};
use super::cursor::Cursor;
use super::filters::{self, Column, ColumnKind as K, column};
use super::parameters::{Parameters, shown};
use super::{answered, comparison, invalid, list_of, not_found, one_of, page_of, shapes};
use crate::query::records::{RecordKind, RecordsAsked, ScoreRecord, With};
use crate::wire::{Filter, FilterOperator as Op};

const COLUMNS: [Column; 20] = [
    column("id", "id", K::Text),
    column("name", "name", K::Text),
    column("source", "source", K::Text),
    column("dataType", "data_type", K::Text),
    column("environment", "environment", K::Text),
    column("value", "value", K::Number),
    column("stringValue", "string_value", K::Text),
    column("comment", "comment", K::Text),
    column("configId", "config_id", K::Text),
    column("queueId", "queue_id", K::Text),
    column("traceId", "trace_id", K::Text),
    column("observationId", "observation_id", K::Text),
    column("sessionId", "session_id", K::Text),
    column("datasetRunId", "dataset_run_id", K::Text),
    column("timestamp", "timestamp", K::Time),
    column("userId", "user_id", K::Text),
    column("traceName", "trace_name", K::Text),
    column("tags", "tags", K::List),
    column("traceTags", "tags", K::List),
    column("metadata", "metadata:", K::TextUnder),
];

const SOURCES: [&str; 3] = ["API", "EVAL", "ANNOTATION"];
const DATA_TYPES: [&str; 5] = ["NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"];

pub(in crate::doors::http::langfuse) async fn first(State(doors): State<Doors>, request: Request) -> Response {
    by_page(doors, request, true).await
}

pub(in crate::doors::http::langfuse) async fn second(State(doors): State<Doors>, request: Request) -> Response {
    by_page(doors, request, false).await
}

async fn by_page(doors: Doors, request: Request, is_first: bool) -> Response {
    answered(doors, request, async |asked| {
        let parameters = &asked.parameters;
        let page = parameters.page()?;
        let range = parameters.range("fromTimestamp", "toTimestamp")?;
        let groups = parameters.texts("fields");
        let with_trace = is_first || groups.is_empty() || groups.iter().any(|group| group.trim() == "trace");
        let mut filters = wanted(parameters)?;
        if is_first {
            filters.extend(of_first());
        }
        let with = With { count: true, trace: with_trace, ..With::default() };
        let list = list_of(RecordKind::Scores, range, filters, page.limit, with);
        let (scores, items) = asked.one(RecordsAsked { skip: page.skip(), ..list }).await?.scores()?;
        let data = scores.iter().map(|score| {
            let mut shown = shapes::score(score, asked.project());
            if let Some(trace) = &score.trace {
                shown.insert("trace".to_owned(), shapes::scored_trace(trace));
            }
            shown.into()
        });
        Ok(page_of(data.collect(), page, items))
    })
    .await
}

/// Clients of the first generation know scores of traces, of three kinds.
fn of_first() -> [Filter; 2] {
    let kinds = ["NUMERIC", "BOOLEAN", "CATEGORICAL"].map(str::to_owned).to_vec();
    [comparison("trace_id", Op::IsNotNull, Vec::new()), comparison("data_type", Op::In, kinds)]
}

pub(in crate::doors::http::langfuse) async fn one_of_first(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    one(doors, id, request, of_first().to_vec()).await
}

pub(in crate::doors::http::langfuse) async fn one_of_second(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    one(doors, id, request, Vec::new()).await
}

async fn one(doors: Doors, id: String, request: Request, filters: Vec<Filter>) -> Response {
    answered(doors, request, async |asked| {
        let mut one = one_of(RecordKind::Scores, "id", &id, With::default());
        one.filters.extend(filters);
        let found = asked.one(one).await?.scores()?.0.pop().ok_or_else(|| not_found("score", &id))?;
        Ok(shapes::score(&found, asked.project()).into())
    })
    .await
}

fn wanted(parameters: &Parameters) -> Result<Vec<Filter>, Refusal> {
    parameters.word("source", &SOURCES)?;
    parameters.word("dataType", &DATA_TYPES)?;
    let operator = parameters.word("operator", &["<", ">", "<=", ">=", "!=", "="])?;
    let value = match (operator, parameters.number("value")?) {
        (None, None) => None,
        (Some(operator), Some(value)) => {
            let operator = match operator {
                "<" => Op::Less,
                ">" => Op::Greater,
                "<=" => Op::LessOrEqual,
                ">=" => Op::GreaterOrEqual,
                "!=" => Op::NotEquals,
                _ => Op::Equals,
            };
            Some(comparison("value", operator, vec![value.to_string()]))
        }
        (Some(_), None) => return Err(invalid("operator needs a value")),
        (None, Some(_)) => return Err(invalid("value needs an operator")),
    };
    let simple = [
        parameters.equal("userId", "user_id"),
        parameters.equal("name", "name"),
        parameters.among("environment", "environment"),
        parameters.equal("source", "source"),
        parameters.equal("dataType", "data_type"),
        parameters.equal("configId", "config_id"),
        parameters.equal("queueId", "queue_id"),
        parameters.equal("traceId", "trace_id"),
        parameters.equal("sessionId", "session_id"),
        parameters.equal("datasetRunId", "dataset_run_id"),
        parameters.among("observationId", "observation_id"),
        parameters.among("scoreIds", "id"),
        parameters.has_all("traceTags", "tags"),
        value,
    ];
    let filter = parameters.text("filter").map(|text| filters::parse(text, &COLUMNS)).transpose()?;
    Ok(filters::over(simple.into_iter().flatten().collect(), filter.unwrap_or_default()))
}

pub(in crate::doors::http::langfuse) async fn third(State(doors): State<Doors>, request: Request) -> Response {
    const LIMIT_MAX: usize = 100;
    answered(doors, request, async |asked| {
        let parameters = &asked.parameters;
        let limit = parameters.limit(LIMIT_MAX)?;
        let mut range = parameters.range("fromTimestamp", "toTimestamp")?;
        let mut filters = wanted_of_third(parameters)?;
        if let Some(text) = parameters.text("cursor") {
            let cursor = Cursor::parse(text, 1)?;
            range = cursor.rest(range);
            filters.push(cursor.after("timestamp", &["id"]));
        }
        let list = list_of(RecordKind::Scores, range, filters, limit + 1, With::default());
        let mut scores = asked.one(list).await?.scores()?.0;
        let has_more = scores.len() > limit;
        scores.truncate(limit);
        let cursor = |last: &ScoreRecord| Cursor::at(last.timestamp_us, [&last.id]).text();
        let mut meta = json!({ "limit": limit });
        if let Some(last) = scores.last().filter(|_| has_more) {
            meta["cursor"] = cursor(last).into();
        }
        let groups: Vec<String> = parameters.texts("fields").iter().map(|name| name.trim().to_owned()).collect();
        let data: Vec<Value> =
            scores.iter().map(|score| shapes::score_in_groups(score, asked.project(), &groups)).collect();
        Ok(json!({ "data": data, "meta": meta }))
    })
    .await
}

fn wanted_of_third(parameters: &Parameters) -> Result<Vec<Filter>, Refusal> {
    let kinds = parameters.texts("dataType");
    if let Some(kind) = kinds.iter().find(|kind| !DATA_TYPES.contains(&kind.as_str())) {
        return Err(invalid(format!("dataType is one of {}, not {}", DATA_TYPES.join(", "), shown(kind))));
    }
    if parameters.text("observationId").is_some() && parameters.text("traceId").is_none() {
        return Err(invalid("observationId needs traceId"));
    }
    let values = ["value", "valueMin", "valueMax"].into_iter().find(|name| parameters.text(name).is_some());
    let value = match (values, kinds.as_slice()) {
        (None, _) => Vec::new(),
        (Some(_), [kind]) => value_of_third(parameters, kind)?,
        (Some(name), _) => return Err(invalid(format!("{name} needs exactly one dataType"))),
    };
    // Nobody gives scores by hand here.
    let by_hand = parameters.text("authorUserId").map(|_| comparison("id", Op::IsNull, Vec::new()));
    let simple = [
        parameters.among("id", "id"),
        parameters.among("name", "name"),
        parameters.among("source", "source"),
        parameters.among("dataType", "data_type"),
        parameters.among("environment", "environment"),
        parameters.among("configId", "config_id"),
        parameters.among("queueId", "queue_id"),
        parameters.among("traceId", "trace_id"),
        parameters.among("sessionId", "session_id"),
        parameters.among("observationId", "observation_id"),
        parameters.among("experimentId", "dataset_run_id"),
        by_hand,
    ];
    Ok(simple.into_iter().flatten().chain(value).collect())
}

fn value_of_third(parameters: &Parameters, kind: &str) -> Result<Vec<Filter>, Refusal> {
    let bound = |name: &str, operator| -> Result<Option<Filter>, Refusal> {
        let bound = parameters.number(name)?;
        Ok(bound.map(|bound| comparison("value", operator, vec![bound.to_string()])))
    };
    match kind {
        "NUMERIC" => {
            let exact = parameters.among("value", "value");
            // Said here, where the name is known.
            parameters.texts("value").iter().try_for_each(|text| match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(()),
                _ => Err(invalid(format!("value is a number, not {}", shown(text)))),
            })?;
            let bounds = [bound("valueMin", Op::GreaterOrEqual)?, bound("valueMax", Op::LessOrEqual)?];
            Ok(exact.into_iter().chain(bounds.into_iter().flatten()).collect())
        }
        _ if parameters.text("valueMin").or(parameters.text("valueMax")).is_some() => {
            Err(invalid(format!("valueMin and valueMax are for dataType NUMERIC, not {kind}")))
        }
        "BOOLEAN" => {
            let value = parameters.boolean("value")?.map(|value| f64::from(u8::from(value)).to_string());
            Ok(value.map(|value| comparison("value", Op::Equals, vec![value])).into_iter().collect())
        }
        _ => Ok(parameters.among("value", "string_value").into_iter().collect()),
    }
}
