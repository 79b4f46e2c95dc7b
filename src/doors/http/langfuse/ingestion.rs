//! `POST /api/public/ingestion`, answered with 207 and what became of each event; and the single posts of old.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::super::{Doors, Refusal};
use super::scores::check_configs;
use super::{Posted, answer, answer_to_one, decode_aside, keep, post_request, status_of};
use crate::decode::{self, EventAnswer, LangfuseBatch};

pub(in crate::doors::http) async fn batch(State(doors): State<Doors>, request: Request) -> Response {
    post_request(doors, request, |doors, Posted { caller, sdk, held }| async move {
        let (size, bytes, limits) = (held.bytes.len(), held.bytes, doors.limits_for(&caller.tenant));
        let decode =
            move || decode::langfuse_batch(&bytes, &sdk, &limits).map_err(|e| Refusal::from_below(e.kind(), &e));
        let mut batch = decode_aside(size, decode).await?;
        check_configs(&doors, &caller.tenant, &mut batch).await?;
        keep(&doors, &caller, held.room, size, &mut batch).await?;
        Ok(answer(StatusCode::MULTI_STATUS, &answers(&batch)))
    })
    .await
}

fn answers(batch: &LangfuseBatch) -> Value {
    let (refused, kept): (Vec<&EventAnswer>, Vec<&EventAnswer>) =
        batch.answers.iter().partition(|answer| answer.refused.is_some());
    let success = |answer: &EventAnswer| json!({ "id": answer.event_id, "status": 201 });
    let error = |answer: &EventAnswer| {
        let (reason, why) = answer.refused.as_ref()?;
        let status = status_of(*reason).as_u16();
        Some(json!({ "id": answer.event_id, "status": status, "message": "Invalid request data", "error": why }))
    };
    json!({
        "successes": kept.into_iter().map(success).collect::<Vec<_>>(),
        "errors": refused.into_iter().filter_map(error).collect::<Vec<_>>(),
    })
}

pub(in crate::doors::http) async fn trace(State(doors): State<Doors>, request: Request) -> Response {
    one(doors, request, "trace-create").await
}

pub(in crate::doors::http) async fn span(State(doors): State<Doors>, request: Request) -> Response {
    one(doors, request, "span-create").await
}

pub(in crate::doors::http) async fn span_update(State(doors): State<Doors>, request: Request) -> Response {
    one(doors, request, "span-update").await
}

pub(in crate::doors::http) async fn generation(State(doors): State<Doors>, request: Request) -> Response {
    one(doors, request, "generation-create").await
}

pub(in crate::doors::http) async fn generation_update(State(doors): State<Doors>, request: Request) -> Response {
    one(doors, request, "generation-update").await
}

pub(in crate::doors::http) async fn event(State(doors): State<Doors>, request: Request) -> Response {
    one(doors, request, "event-create").await
}

async fn one(doors: Doors, request: Request, kind: &'static str) -> Response {
    post_request(doors, request, |doors, Posted { caller, sdk, held }| async move {
        let (size, bytes, limits) = (held.bytes.len(), held.bytes, doors.limits_for(&caller.tenant));
        let (at_us, new_id) = (doors.clock.now_us(), Uuid::new_v4().to_string());
        let decode = move || {
            let posted = decode::Posted { at_us, new_id: &new_id };
            decode::langfuse_post(kind, &bytes, posted, &sdk, &limits).map_err(|e| Refusal::from_below(e.kind(), &e))
        };
        let mut batch = decode_aside(size, decode).await?;
        keep(&doors, &caller, held.room, size, &mut batch).await?;
        Ok(answer_to_one(&batch))
    })
    .await
}
