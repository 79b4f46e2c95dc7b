//! `POST /api/public/scores`: one score, or a list of them.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use uuid::Uuid;

use super::super::super::{Doors, Refusal};
use super::{Posted, answer, answer_to_one, decode_aside, keep, post_request};
use crate::base::TenantId;
use crate::decode::{self, LangfuseBatch};
use crate::model::{EventKind, RejectReason};

/// A list is answered with 202, or with 207 and why some were refused.
pub(in crate::doors::http) async fn create(State(doors): State<Doors>, request: Request) -> Response {
    post_request(doors, request, |doors, Posted { caller, sdk, held }| async move {
        let (size, bytes, limits) = (held.bytes.len(), held.bytes, doors.limits_for(&caller.tenant));
        let (at_us, new_id) = (doors.clock.now_us(), Uuid::new_v4().to_string());
        let decode = move || {
            let posted = decode::Posted { at_us, new_id: &new_id };
            decode::langfuse_scores(&bytes, posted, &sdk, &limits).map_err(|e| Refusal::from_below(e.kind(), &e))
        };
        let (mut batch, is_list) = decode_aside(size, decode).await?;
        check_configs(&doors, &caller.tenant, &mut batch).await?;
        keep(&doors, &caller, held.room, size, &mut batch).await?;
        Ok(if is_list { answer_to_list(&batch) } else { answer_to_one(&batch) })
    })
    .await
}

fn answer_to_list(batch: &LangfuseBatch) -> Response {
    let refused = batch.answers.iter().filter_map(|answer| Some((answer, answer.refused.as_ref()?)));
    let errors: Vec<_> = refused
        .map(|(answer, (_, why))| match answer.about.as_str() {
            "" => json!({ "message": why }),
            id => json!({ "message": format!("{why} (score {id})"), "id": id }),
        })
        .collect();
    if errors.is_empty() {
        return answer(StatusCode::ACCEPTED, &json!({ "message": "Accepted" }));
    }
    let (accepted, rejected) = (batch.answers.len() - errors.len(), errors.len());
    let body = json!({ "accepted": accepted, "rejected": rejected, "errors": errors });
    answer(StatusCode::MULTI_STATUS, &body)
}

/// Refuses scores that break their configurations, and completes those that keep to them.
pub(super) async fn check_configs(doors: &Doors, tenant: &TenantId, batch: &mut LangfuseBatch) -> Result<(), Refusal> {
    let mut broken = Vec::new();
    for event in &mut batch.decoded.batch.events {
        let Some(EventKind::Score(score)) = &mut event.kind else { continue };
        let Some(config_id) = score.config_id.clone() else { continue };
        let found = doors.score_configs.find(tenant, &config_id).await;
        let found = found.map_err(|error| Refusal::from(error).on_the_way_in())?;
        let event_id = event.order.event_id.clone();
        let implied = batch.implied_types.contains(&event_id);
        let kept = match found {
            Some(config) => config.apply(score, implied),
            None => Err("its configuration does not exist".to_owned()),
        };
        broken.extend(kept.err().map(|why| (event_id, why)));
    }
    for (event_id, why) in broken {
        decode::refuse(batch, &event_id, RejectReason::InvalidValue, &why);
    }
    Ok(())
}
