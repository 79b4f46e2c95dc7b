//! Langfuse's own requests: the classic batch, the single posts, scores, and what its clients ask by themselves.

mod ingestion;
mod media;
mod projects;
mod reading;
mod score_configs;
mod scores;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde_json::{Value, json};

use super::super::auth::{self, Caller};
use super::super::body::{self, Admission, Held, Pieces};
use super::super::otlp::{Kept, decode_aside, keep_decoded};
use super::super::{Door, Doors, REQUEST_MAX, Refusal};
use super::problem::Problem;
use super::request::{Refused, encoding, sdk};
use super::{erase, serve};
use crate::catalog::keys::Role;
use crate::decode::{LangfuseBatch, Sdk};
use crate::model::RejectReason;

pub(super) fn routes(mut router: Router<Doors>) -> Router<Doors> {
    let nothing = || async { not_found() };
    let base = "/api/public";
    for (path, methods) in [
        ("ingestion", post(ingestion::batch)),
        ("traces", post(ingestion::trace).delete(erase::traces).get(reading::traces::list)),
        ("traces/{trace}", delete(erase::trace).get(reading::traces::one)),
        ("observations", get(reading::observations::list)),
        ("observations/{observation}", get(reading::observations::one)),
        ("v2/observations", get(reading::observations::by_cursor)),
        ("sessions", get(reading::sessions::list)),
        ("sessions/{session}", get(reading::sessions::one)),
        ("spans", post(ingestion::span).patch(ingestion::span_update)),
        ("generations", post(ingestion::generation).patch(ingestion::generation_update)),
        ("events", post(ingestion::event)),
        ("scores", post(scores::create).get(reading::scores::first)),
        ("scores/{score}", delete(erase::score).get(reading::scores::one_of_first)),
        ("v2/scores", get(reading::scores::second)),
        ("v2/scores/{score}", get(reading::scores::one_of_second)),
        ("v3/scores", get(reading::scores::third)),
        ("score-configs", post(score_configs::create).get(score_configs::list)),
        ("score-configs/{config}", get(score_configs::one).patch(score_configs::change)),
        ("metrics", get(reading::metrics::metrics)),
        ("v2/metrics", get(reading::metrics::metrics)),
        ("metrics/daily", get(reading::metrics::daily)),
        ("projects", get(projects::projects)),
        ("media", post(media::announce)),
        ("media/{medium}", get(media::one).patch(media::told)),
        ("media/{medium}/content", get(media::download).put(media::upload)),
    ] {
        router = serve(router, &format!("{base}/{path}"), methods);
    }
    // What is not here yet, in words that clients know: of a prompt or dataset they then use their own fallback.
    router.route(&format!("{base}/{{*rest}}"), axum::routing::any(nothing))
}

fn not_found() -> Response {
    let body = json!({ "error": "LangfuseNotFoundError", "message": "there is nothing at this path" });
    answer(StatusCode::NOT_FOUND, &body)
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// A request whose body says something: who says it, and the body.
struct Posted {
    caller: Caller,
    sdk: Sdk,
    held: Held,
}

/// Reads a request, and answers it with what `keeping` makes of it.
async fn post_request<F: Future<Output = Result<Response, Refusal>>>(
    doors: Doors,
    request: Request,
    keeping: impl FnOnce(Doors, Posted) -> F,
) -> Response {
    let (parts, body) = request.into_parts();
    let mut pieces = Pieces::new(body);
    let kept = async {
        let posted = read(&doors, &parts.headers, &mut pieces).await?;
        Ok::<_, Refused>(keeping(doors.clone(), posted).await?)
    };
    match kept.await {
        Ok(response) => {
            doors.counters.answered(Door::LangfuseHttp, "ok");
            response
        }
        Err(refused) => refused.answer(&doors, Door::LangfuseHttp, &mut pieces).await,
    }
}

async fn read(doors: &Doors, headers: &HeaderMap, pieces: &mut Pieces) -> Result<Posted, Refused> {
    let caller = auth::caller(doors, headers, Role::Ingest).await?;
    let encoding = encoding(headers)?;
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let admission = Admission::Intake(doors.intake.clone());
    let held = body::read(admission, pieces, length, encoding, REQUEST_MAX).await?;
    Ok(Posted { caller, sdk: sdk(headers), held })
}

/// Appends a decoded request, and adds to its answers what was refused only now.
async fn keep(
    doors: &Doors,
    caller: &Caller,
    room: crate::base::Reservation,
    bytes: usize,
    batch: &mut LangfuseBatch,
) -> Result<(), Refusal> {
    let decoded = std::mem::take(&mut batch.decoded);
    let Kept { rejections, .. } = keep_decoded(doors, Door::LangfuseHttp, caller, room, bytes, decoded).await?;
    // These are named by what they are about: events have no say in what was erased.
    for erased in rejections.iter().filter(|rejection| rejection.reason == RejectReason::Erased) {
        for answer in batch.answers.iter_mut().filter(|answer| answer.about == erased.id) {
            answer.refused = Some((erased.reason, erased.message.clone()));
        }
    }
    Ok(())
}

fn status_of(reason: RejectReason) -> StatusCode {
    match reason {
        RejectReason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The answer to a post of one thing: its id, or why it was refused.
fn answer_to_one(batch: &LangfuseBatch) -> Response {
    match batch.answers.first().map(|answer| (&answer.about, &answer.refused)) {
        Some((id, None)) => answer(StatusCode::OK, &json!({ "id": id })),
        Some((_, Some((reason, message)))) => Problem::new(status_of(*reason), message.clone()).into_response(),
        None => Problem::new(StatusCode::BAD_REQUEST, "the body says nothing").into_response(),
    }
}
