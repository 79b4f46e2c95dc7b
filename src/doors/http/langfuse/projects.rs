//! `GET /api/public/projects`: how clients check their key, and learn which project it is of.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::super::{Door, Doors, auth};
use super::super::problem::Problem;
use super::answer;

/// Exactly one: the key's tenant.
pub(in crate::doors::http) async fn projects(State(doors): State<Doors>, request: Request) -> Response {
    match auth::identity(&doors, request.headers()).await {
        Ok(who) => {
            doors.counters.answered(Door::LangfuseHttp, "ok");
            let id = who.tenant.as_str();
            let project = json!({
                "id": id, "name": id, "organization": { "id": id, "name": id }, "metadata": {},
            });
            answer(StatusCode::OK, &json!({ "data": [project] }))
        }
        Err(refusal) => {
            doors.counters.answered(Door::LangfuseHttp, refusal.outcome());
            Problem::from(refusal).into_response()
        }
    }
}
