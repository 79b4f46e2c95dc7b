//! `/api/public/media`: what Langfuse's clients take out of inputs and outputs. A client says what it has and gets a link
//! to put it to, or none where the bytes are there already; it reads by the reference that stands in the text.
//!
//! Links need no key: they are signed, for one medium and one hour.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;
use serde_json::json;

use super::super::super::body::{self, Admission, Encoding, Pieces};
use super::super::super::{Door, Doors, REQUEST_MAX, Refusal, auth};
use super::super::instant;
use super::super::problem::Problem;
use super::super::request::text;
use super::{Posted, answer, post_request};
use crate::base::{Kind, Reservation, TenantId, TimestampUs};
use crate::catalog::keys::Role;
use crate::catalog::media::{MediaAction, MediaKind, Medium, Put};
use crate::model::{Event, EventBatch, EventKind, MediaCounts, RejectReason, TraceFacts};

const LINK_GOOD_FOR_US: TimestampUs = 3_600_000_000;
const PIECE_BYTES: usize = 256 << 10;
const FIELDS: [&str; 3] = ["input", "output", "metadata"];
/// What a browser may show in its place; anything else it saves. A page or a picture with a script must not run as ours.
const SHOWN: [&str; 4] = ["image/", "audio/", "video/", "application/pdf"];
const GUARDED: [(HeaderName, &str); 2] = [
    (HeaderName::from_static("x-content-type-options"), "nosniff"),
    (HeaderName::from_static("content-security-policy"), "sandbox; default-src 'none'"),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Announced {
    trace_id: String,
    #[serde(default)]
    observation_id: Option<String>,
    content_type: String,
    content_length: u64,
    sha256_hash: String,
    field: String,
}

/// What a medium is, and where to put it.
pub(in crate::doors::http) async fn announce(State(doors): State<Doors>, request: Request) -> Response {
    let base = base_of(request.headers());
    post_request(doors, request, async move |doors, posted| {
        let Posted { caller, held, .. } = posted;
        let count = |counts: MediaCounts| count(&doors, &caller.tenant, held.room, counts);
        let invalid = |why: String| Refusal::new(Kind::Invalid, why);
        let said: Announced = serde_json::from_slice(&held.bytes).map_err(|e| invalid(format!("the body: {e}")))?;
        if !FIELDS.contains(&said.field.as_str()) {
            return Err(invalid(format!("field is not one of {}", FIELDS.join(", "))));
        }
        if said.trace_id.is_empty() || said.trace_id.len() > 800 {
            return Err(invalid("traceId has no letter, or more than 800".to_owned()));
        }
        if said.content_length > REQUEST_MAX.bytes() {
            count(MediaCounts::one_rejected(RejectReason::TooLarge)).await.ok();
            return Err(Refusal::new(Kind::TooLarge, format!("a medium has at most {REQUEST_MAX}")));
        }
        let hash = BASE64_STANDARD.decode(&said.sha256_hash).unwrap_or_default();
        let kind = MediaKind::new(&hash, &said.content_type)?;
        let (trace, observation) = (said.trace_id.as_str(), said.observation_id.as_deref());
        let link = match is_erased(&doors, &caller.tenant, trace).await {
            // As if it were there: clients ask no further.
            true => {
                count(MediaCounts::one_rejected(RejectReason::Erased)).await?;
                None
            }
            false if doors.media.mention(&caller.tenant, &kind, trace, observation, &said.field).await? => {
                count(MediaCounts::one_merged()).await?;
                None
            }
            false => Some(link(&doors, &base, MediaAction::Upload, &caller.tenant, &kind).await?.0),
        };
        Ok(answer(StatusCode::CREATED, &json!({ "mediaId": kind.id, "uploadUrl": link })))
    })
    .await
}

/// Clients say how their upload went; what came is known here without it.
pub(in crate::doors::http) async fn told(State(doors): State<Doors>, request: Request) -> Response {
    post_request(doors, request, async |_, _| Ok(answer(StatusCode::OK, &json!({})))).await
}

/// What a medium is, and where to read it.
pub(in crate::doors::http) async fn one(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let found = async {
        let (tenant, medium) = found(&doors, &headers, &id).await?;
        let (url, until_us) = link(&doors, &base_of(&headers), MediaAction::Download, &tenant, &medium.kind).await?;
        Ok::<_, Refusal>(json!({
            "mediaId": medium.kind.id,
            "contentType": medium.kind.content_type,
            "contentLength": medium.bytes,
            "uploadedAt": instant(medium.uploaded_us),
            "url": url,
            "urlExpiry": instant(until_us),
        }))
    };
    match found.await {
        Ok(found) => answer(StatusCode::OK, &found),
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

/// The parameters of a link.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::doors::http) struct Link {
    tenant: String,
    content_type: String,
    until: TimestampUs,
    signature: String,
}

/// The bytes of a medium, to whoever holds a link or a key.
pub(in crate::doors::http) async fn download(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    link: Result<Query<Link>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let found = async {
        let (tenant, medium) = match link {
            Ok(Query(link)) => {
                let (tenant, kind) = signed(&doors, MediaAction::Download, &id, &link).await?;
                // What was erased since is not given out by older links.
                let medium = doors.media.find(&tenant, &kind.id).await?.ok_or_else(|| missing(&id))?;
                (tenant, medium)
            }
            Err(_) => found(&doors, &headers, &id).await?,
        };
        let room = doors.intake.admit(medium.bytes).await?;
        let body = doors.media.read(&tenant, &medium.kind).await?.ok_or_else(|| missing(&id))?;
        Ok::<_, Refusal>((medium.kind.content_type, body, room))
    };
    match found.await {
        Ok((content_type, body, room)) => {
            let is_shown = SHOWN.iter().any(|shown| content_type.starts_with(shown)) && content_type != "image/svg+xml";
            let disposition = if is_shown { "inline" } else { "attachment" };
            let private = (CACHE_CONTROL, "private, max-age=3600");
            let disposition = (HeaderName::from_static("content-disposition"), disposition);
            let head = [(CONTENT_TYPE, content_type), (CONTENT_LENGTH, body.len().to_string())];
            (GUARDED, [private, disposition], head, sent_in_room(body, room)).into_response()
        }
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

/// Takes the bytes, durable on a 200: they are what the link is for, or nothing is kept.
pub(in crate::doors::http) async fn upload(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    link: Result<Query<Link>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let mut pieces = Pieces::new(body);
    let stored = async {
        let Query(link) = link.map_err(|e| Refusal::new(Kind::Unauthenticated, e.body_text()))?;
        let (tenant, kind) = signed(&doors, MediaAction::Upload, &id, &link).await?;
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let admission = Admission::Intake(doors.intake.clone());
        let held = body::read(admission, &mut pieces, length, Encoding::Identity, REQUEST_MAX).await?;
        if !kind.is_of(&held.bytes) {
            drop(held.bytes);
            count(&doors, &tenant, held.room, MediaCounts::one_rejected(RejectReason::Malformed)).await.ok();
            return Err(Refusal::new(Kind::Invalid, "these are other bytes than were announced"));
        }
        let bytes = held.bytes.len() as u64;
        let (counts, stored) = match doors.media.put(&tenant, &kind, held.bytes).await? {
            Put::Stored => (MediaCounts::one_stored(), Ok(())),
            Put::StoredAgain => (MediaCounts::one_merged(), Ok(())),
            Put::Unmentioned => (MediaCounts::one_rejected(RejectReason::Erased), Err(missing(&id))),
        };
        count(&doors, &tenant, held.room, counts).await?;
        if stored.is_ok() {
            doors.counters.medium(bytes);
        }
        stored
    };
    match stored.await {
        Ok(()) => {
            doors.counters.answered(Door::LangfuseHttp, "ok");
            StatusCode::OK.into_response()
        }
        Err(refusal) => {
            body::hear_out(&mut pieces).await;
            let refusal = refusal.on_the_way_in();
            doors.counters.answered(Door::LangfuseHttp, refusal.outcome());
            Problem::from(refusal).into_response()
        }
    }
}

/// The bytes piece by piece: their room is given back when the last is on its way.
fn sent_in_room(body: Bytes, room: Reservation) -> Body {
    let pieces = stream::unfold((body, room), |(mut body, room)| async move {
        let piece = body.split_to(body.len().min(PIECE_BYTES));
        (!piece.is_empty()).then(|| (Ok::<_, Infallible>(piece), (body, room)))
    });
    Body::from_stream(pieces)
}

/// A medium of the caller's tenant. A key that is bound sees none: a medium may stand in traces of others, too.
async fn found(doors: &Doors, headers: &HeaderMap, id: &str) -> Result<(TenantId, Medium), Refusal> {
    let who = auth::caller(doors, headers, Role::Read).await?.who;
    if who.bound.is_some() {
        return Err(Refusal::new(Kind::Forbidden, "a key bound to a user or an account reads no media"));
    }
    let medium = doors.media.find(&who.tenant, id).await?.ok_or_else(|| missing(id))?;
    Ok((who.tenant, medium))
}

/// Puts what became of a medium into the books, durable on return. Whoever is refused is so with or without it; whoever is
/// not puts the medium again, which is then counted as merged though nobody counted it as stored.
async fn count(doors: &Doors, tenant: &TenantId, room: Reservation, media: MediaCounts) -> Result<(), Refusal> {
    let door = Door::LangfuseHttp.as_str().to_owned();
    let batch = EventBatch { door, media: Some(media), ..Default::default() };
    doors.intake.append(tenant, batch, room).await.map_err(Refusal::on_the_way_in)
}

fn missing(id: &str) -> Refusal {
    let shown: String = id.chars().take(40).collect();
    Refusal::new(Kind::NotFound, format!("there is no medium {shown}"))
}

/// The medium that a link is good for, and whose it is.
async fn signed(doors: &Doors, action: MediaAction, id: &str, link: &Link) -> Result<(TenantId, MediaKind), Refusal> {
    let refused = || Refusal::new(Kind::Unauthenticated, "this link is not good, or no longer: ask for a new one");
    let tenant: TenantId = link.tenant.parse().map_err(|_| refused())?;
    doors.administration.require(&tenant).await.map_err(|_| refused())?;
    let kind = MediaKind { id: id.to_owned(), content_type: link.content_type.clone() };
    match doors.media.is_signed(&link.signature, action, &tenant, &kind, link.until).await? {
        true => Ok((tenant, kind)),
        false => Err(refused()),
    }
}

/// A link for what `action` says, and until when it is good.
async fn link(
    doors: &Doors,
    base: &str,
    action: MediaAction,
    tenant: &TenantId,
    kind: &MediaKind,
) -> Result<(String, TimestampUs), Refusal> {
    let until_us = doors.clock.now_us() + LINK_GOOD_FOR_US;
    let signature = doors.media.signature(action, tenant, kind, until_us).await?;
    let content_type = kind.content_type.replace('/', "%2F").replace('+', "%2B");
    let parameters = format!("tenant={tenant}&contentType={content_type}&until={until_us}&signature={signature}");
    Ok((format!("{base}/api/public/media/{}/content?{parameters}", kind.id), until_us))
}

/// How the caller reaches us: as its request says, or the proxy before us.
fn base_of(headers: &HeaderMap) -> String {
    let forwarded =
        |name| text(headers, HeaderName::from_static(name)).split(',').next().unwrap_or_default().trim().to_owned();
    let scheme = if forwarded("x-forwarded-proto") == "https" { "https" } else { "http" };
    let host = Some(forwarded("x-forwarded-host")).filter(|host| !host.is_empty());
    format!("{scheme}://{}", host.unwrap_or_else(|| text(headers, HOST)))
}

/// Whether something of this trace's would be refused now.
async fn is_erased(doors: &Doors, tenant: &TenantId, trace_id: &str) -> bool {
    let facts = TraceFacts { trace_id: trace_id.to_owned(), ..Default::default() };
    let events = vec![Event { kind: Some(EventKind::Trace(facts)), ..Default::default() }];
    let mut batch = EventBatch { events, ..Default::default() };
    doors.intake.refuse_erased(tenant, &mut batch).await;
    batch.events.is_empty()
}
