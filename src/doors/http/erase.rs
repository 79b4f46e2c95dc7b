//! Langfuse's calls that delete: `DELETE /api/public/traces`, `/api/public/traces/{id}` and `/api/public/scores/{id}`.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::super::body::{self, Admission, Encoding, Pieces};
use super::super::{Door, Doors, Refusal, auth};
use super::problem::Problem;
use crate::base::{ByteSize, Kind};
use crate::catalog::erasures::{ErasureKind, SUBJECTS_MAX};
use crate::catalog::keys::Role;

/// A thousand ids fit many times.
const BODY_MAX: ByteSize = ByteSize::mib(4);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TraceIds {
    trace_ids: Vec<String>,
}

pub(super) async fn trace(State(doors): State<Doors>, Path(trace): Path<String>, request: Request) -> Response {
    let erased = one(&doors, request, ErasureKind::Trace, trace).await;
    answer(&doors, erased, "Trace deleted successfully")
}

pub(super) async fn score(State(doors): State<Doors>, Path(score): Path<String>, request: Request) -> Response {
    let erased = one(&doors, request, ErasureKind::Score, score).await;
    answer(&doors, erased, "Score deleted successfully")
}

async fn one(doors: &Doors, request: Request, kind: ErasureKind, id: String) -> Result<(), Refusal> {
    let caller = auth::caller(doors, request.headers(), Role::Admin).await?;
    doors.erasing.erase(&caller.who, kind, vec![id]).await.map(drop)
}

pub(super) async fn traces(State(doors): State<Doors>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut pieces = Pieces::new(body);
    let erasing = async {
        let caller = auth::caller(&doors, &parts.headers, Role::Admin).await?;
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let admission = Admission::Intake(doors.intake.clone());
        let held = body::read(admission, &mut pieces, length, Encoding::Identity, BODY_MAX).await?;
        let invalid = |why: String| Refusal::new(Kind::Invalid, why);
        let asked: TraceIds = serde_json::from_slice(&held.bytes)
            .map_err(|e| invalid(format!("the body must be {{\"traceIds\": [\"…\"]}}: {e}")))?;
        let mut ids = asked.trace_ids;
        ids.sort();
        ids.dedup();
        if ids.is_empty() || ids.len() > SUBJECTS_MAX {
            return Err(invalid(format!("traceIds must name 1 to {SUBJECTS_MAX} traces, and it names {}", ids.len())));
        }
        doors.erasing.erase(&caller.who, ErasureKind::Trace, ids).await
    };
    let erased = erasing.await.map(drop);
    if erased.is_err() {
        body::hear_out(&mut pieces).await;
    }
    answer(&doors, erased, "Traces deleted successfully")
}

fn answer(doors: &Doors, erased: Result<(), Refusal>, message: &str) -> Response {
    match erased {
        Ok(()) => {
            doors.counters.answered(Door::LangfuseHttp, "ok");
            let body = serde_json::json!({ "message": message }).to_string();
            (StatusCode::OK, [(CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(refusal) => {
            doors.counters.answered(Door::LangfuseHttp, refusal.outcome());
            Problem::from(refusal).into_response()
        }
    }
}
