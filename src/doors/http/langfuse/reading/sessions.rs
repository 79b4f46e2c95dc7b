//! `GET /api/public/sessions` and `/sessions/{id}`.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::Value;

use super::super::super::super::Doors;
use super::shapes::{self, Parts};
use super::{ALL_TIME, answered, is, list_of, not_found, one_of, page_of};
use crate::query::records::{RecordKind, RecordsAsked, With};

/// Traces of one session in one answer; `/traces?sessionId=` has them all, by page.
const TRACES_MAX: usize = 1_000;

pub(in crate::doors::http::langfuse) async fn list(State(doors): State<Doors>, request: Request) -> Response {
    answered(doors, request, async |asked| {
        let parameters = &asked.parameters;
        let page = parameters.page()?;
        let range = parameters.range("fromTimestamp", "toTimestamp")?;
        let filters = parameters.among("environment", "environment").into_iter().collect();
        let with = With { count: true, ..With::default() };
        let list =
            RecordsAsked { skip: page.skip(), ..list_of(RecordKind::Sessions, range, filters, page.limit, with) };
        let (sessions, items) = asked.one(list).await?.sessions()?;
        let data = sessions.iter().map(|session| shapes::session(session, asked.project()).into());
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
        let mut found = asked
            .records(vec![
                one_of(RecordKind::Sessions, "id", &id, With::default()),
                list_of(RecordKind::Traces, ALL_TIME, vec![is("session_id", &id)], TRACES_MAX, with),
            ])
            .await?;
        let session = found.sessions()?.0.pop().ok_or_else(|| not_found("session", &id))?;
        let parts = Parts { io: true, scores: false, observations: false, metrics: false };
        let traces = found.traces()?.0.into_iter().map(|trace| {
            let mut shown = shapes::trace(&trace, asked.project(), parts);
            // These are told of traces alone.
            for name in ["observations", "scores", "totalCost", "latency", "htmlPath"] {
                shown.remove(name);
            }
            Value::from(shown)
        });
        let mut shown = shapes::session(&session, asked.project());
        shown.insert("traces".to_owned(), traces.collect());
        Ok(shown.into())
    })
    .await
}
