//! `GET /api/public/traces` and `/traces/{id}`.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::Value;

use super::super::super::super::{Doors, Refusal};
use super::filters::{self, Column, ColumnKind as K, column};
use super::parameters::{Parameters, shown};
use super::shapes::{self, Parts};
use super::{ALL_TIME, answered, invalid, is, list_of, not_found, one_of, page_of};
use crate::query::records::{RECORDS_MAX, RecordKind, RecordsAsked, With};
use crate::wire::OrderBy;

const COLUMNS: [Column; 26] = [
    column("id", "id", K::Text),
    column("name", "name", K::Text),
    column("timestamp", "timestamp", K::Time),
    column("userId", "user_id", K::Text),
    column("sessionId", "session_id", K::Text),
    column("release", "release", K::Text),
    column("version", "version", K::Text),
    column("environment", "environment", K::Text),
    column("public", "public", K::Boolean),
    column("tags", "tags", K::List),
    column("traceTags", "tags", K::List),
    column("latency", "latency_s", K::Number),
    column("inputTokens", "input_tokens", K::Number),
    column("outputTokens", "output_tokens", K::Number),
    column("totalTokens", "total_tokens", K::Number),
    column("tokens", "total_tokens", K::Number),
    column("inputCost", "input_cost", K::Number),
    column("outputCost", "output_cost", K::Number),
    column("totalCost", "total_cost", K::Number),
    column("level", "levels", K::List),
    column("errorCount", "errors", K::Number),
    column("warningCount", "warnings", K::Number),
    column("scores_avg", "score:", K::NumberUnder),
    column("score_categories", "score_label:", K::ListUnder),
    column("metadata", "metadata:", K::TextUnder),
    column("traceName", "name", K::Text),
];

/// What a list can be ordered by. Nobody bookmarks here: all are equal in that.
const ORDERS: [(&str, &str); 9] = [
    ("timestamp", "timestamp"),
    ("id", "id"),
    ("name", "name"),
    ("userId", "user_id"),
    ("release", "release"),
    ("version", "version"),
    ("public", "public"),
    ("bookmarked", ""),
    ("sessionId", "session_id"),
];

pub(in crate::doors::http::langfuse) async fn list(State(doors): State<Doors>, request: Request) -> Response {
    answered(doors, request, async |asked| {
        let parameters = &asked.parameters;
        let (page, parts) = (parameters.page()?, parts(parameters));
        let list = RecordsAsked {
            order: order(parameters)?,
            skip: page.skip(),
            ..list_of(
                RecordKind::Traces,
                parameters.range("fromTimestamp", "toTimestamp")?,
                wanted(parameters)?,
                page.limit,
                With { count: true, texts: parts.io, members: parts.observations || parts.scores, ..With::default() },
            )
        };
        let (traces, items) = asked.one(list).await?.traces()?;
        let data = traces.iter().map(|trace| shapes::trace(trace, asked.project(), parts).into());
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
        let parts = parts(&asked.parameters);
        let texts = With { texts: parts.io, ..With::default() };
        let members = |kind, with| list_of(kind, ALL_TIME, vec![is("trace_id", &id)], RECORDS_MAX, with);
        let mut questions = vec![one_of(RecordKind::Traces, "id", &id, texts)];
        if parts.observations {
            questions.push(members(RecordKind::Observations, texts));
        }
        if parts.scores {
            questions.push(members(RecordKind::Scores, With::default()));
        }
        let mut found = asked.records(questions).await?;
        let trace = found.traces()?.0.pop().ok_or_else(|| not_found("trace", &id))?;
        let project = asked.project();
        let mut shown = shapes::trace(&trace, project, parts);
        if parts.observations {
            let mut observations = found.observations()?.0;
            // As they happened.
            observations.reverse();
            let prices = asked.unit_prices(&observations).await;
            let observations =
                observations.iter().map(|observation| shapes::observation(observation, project, &prices));
            shown.insert("observations".to_owned(), observations.collect());
        }
        if parts.scores {
            // A correction is no score that clients of this answer know.
            let scores = found.scores()?.0.into_iter().filter(|score| score.data_type != "CORRECTION");
            let scores = scores.map(|score| Value::from(shapes::score(&score, project)));
            shown.insert("scores".to_owned(), scores.collect());
        }
        Ok(shown.into())
    })
    .await
}

/// `fields`: groups, all when none is named.
fn parts(parameters: &Parameters) -> Parts {
    let groups = parameters.texts("fields");
    let has = |name: &str| groups.is_empty() || groups.iter().any(|group| group.trim() == name);
    Parts { io: has("io"), scores: has("scores"), observations: has("observations"), metrics: has("metrics") }
}

fn wanted(parameters: &Parameters) -> Result<Vec<crate::wire::Filter>, Refusal> {
    let simple = [
        parameters.equal("userId", "user_id"),
        parameters.equal("name", "name"),
        parameters.equal("sessionId", "session_id"),
        parameters.equal("version", "version"),
        parameters.equal("release", "release"),
        parameters.has_all("tags", "tags"),
        parameters.among("environment", "environment"),
    ];
    let filter = parameters.text("filter").map(|text| filters::parse(text, &COLUMNS)).transpose()?;
    Ok(filters::over(simple.into_iter().flatten().collect(), filter.unwrap_or_default()))
}

/// `timestamp.desc` and the like.
fn order(parameters: &Parameters) -> Result<Vec<OrderBy>, Refusal> {
    let Some(text) = parameters.text("orderBy") else { return Ok(Vec::new()) };
    let (name, direction) = text.split_once('.').unwrap_or((text, "asc"));
    let known = ORDERS.iter().find(|(known, _)| *known == name);
    let ascending = match direction.to_ascii_lowercase().as_str() {
        "asc" => Some(true),
        "desc" => Some(false),
        _ => None,
    };
    match (known, ascending) {
        (Some((_, "")), Some(_)) => Ok(Vec::new()),
        (Some((_, field)), Some(ascending)) => Ok(vec![OrderBy { field: (*field).to_owned(), ascending }]),
        _ => {
            let names: Vec<&str> = ORDERS.iter().map(|(name, _)| *name).collect();
            Err(invalid(format!("orderBy is one of {}, then .asc or .desc, not {}", names.join(", "), shown(text))))
        }
    }
}
