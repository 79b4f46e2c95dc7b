//! Who called: every call of a known key is noted once, however it ends, with what is told of it while it is answered.
//!
//! Calls without a good key belong to no tenant; they are counted in Prometheus only.

use std::future::Future;

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::Mutex;

use super::{Door, Doors};
use crate::base::TenantId;
use crate::catalog::audit::Call;
use crate::catalog::keys::{Identity, Role};

tokio::task_local! {
    static TOLD: Mutex<Told>;
}

/// What is known of a call while it is answered.
#[derive(Debug, Default)]
struct Told {
    who: Option<(TenantId, String)>,
    is_intake: bool,
    query: Option<String>,
}

/// Whose key it is.
pub(super) fn known(who: &Identity) {
    tell(|told| told.who = Some((who.tenant.clone(), who.public_key.clone())));
}

/// For which tenant, and that the key may do it.
pub(super) fn passed(tenant: &TenantId, role: Role) {
    tell(|told| {
        told.is_intake = role == Role::Ingest;
        if let Some((of, _)) = &mut told.who {
            *of = tenant.clone();
        }
    });
}

/// What is asked for, without values: for the audit, if the call that is being answered goes well.
pub fn asked(query: impl FnOnce() -> String) {
    tell(|told| told.query = Some(query()));
}

fn tell(how: impl FnOnce(&mut Told)) {
    // Outside of a call there is nobody to tell.
    let _ = TOLD.try_with(|told| how(&mut told.lock()));
}

/// Answers a call, and notes it.
pub(super) async fn noted(
    doors: &Doors,
    door: Door,
    method: String,
    answering: impl Future<Output = (Response, &'static str)>,
) -> Response {
    let began_us = doors.clock.now_us();
    let answered = async {
        let answered = answering.await;
        (answered, TOLD.with(|told| std::mem::take(&mut *told.lock())))
    };
    let ((response, outcome), told) = TOLD.scope(Mutex::default(), answered).await;
    if let Some((tenant, public_key)) = told.who {
        // Names in a question that was refused may be anything.
        let understood = matches!(outcome, "ok" | "resource_exhausted" | "deadline_exceeded");
        let call = Call {
            public_key,
            door: door.as_str(),
            method,
            query: told.query.filter(|_| understood),
            outcome,
            at_us: began_us,
            duration_us: doors.clock.now_us().saturating_sub(began_us).max(0),
            is_intake: told.is_intake,
        };
        doors.audit.note(&tenant, &call);
        // Another door passed it on: it is noted here, where it is answered, and not there again.
        tell(|outer| outer.who = None);
    }
    response
}

/// Around every path of the HTTP port. Only the pattern of a path is noted: what is in it may be somebody's id.
pub(super) async fn http(State(doors): State<Doors>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let path = path.strip_suffix('/').unwrap_or(path);
    let door = match path.starts_with("/v1/") || path.starts_with("/api/public/otel/") {
        true => Door::OtlpHttp,
        false => Door::LangfuseHttp,
    };
    let method = format!("{} {path}", request.method());
    let answering = async {
        let response = next.run(request).await;
        let outcome = outcome(response.status());
        (response, outcome)
    };
    noted(&doors, door, method, answering).await
}

fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..400 => "ok",
        400 => "invalid_argument",
        401 => "unauthenticated",
        403 => "permission_denied",
        404 => "not_found",
        409 => "already_exists",
        413 | 422 => "resource_exhausted",
        415 => "unsupported_media_type",
        503 => "unavailable",
        _ => "internal",
    }
}
