//! Which service needs which role, and the guard that asks before a byte of the message is held.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tonic::{Code, Status};

use super::super::body::{Admission, Encoding};
use super::super::status::outcome;
use super::super::{Door, Doors, REQUEST_MAX, Refusal, audit, auth};
use super::{Rooms, frames};
use crate::base::{Budget, ByteSize, Kind};
use crate::catalog::keys::Role;

/// Questions are small, each and all together.
const QUESTION_MAX: ByteSize = ByteSize::mib(1);
const QUESTIONS_MAX: ByteSize = ByteSize::mib(16);

#[derive(Clone)]
pub(super) struct Guard {
    doors: Doors,
    questions: Budget,
}

impl Guard {
    pub(super) fn new(doors: Doors) -> Self {
        Self { doors, questions: Budget::new("questions", QUESTIONS_MAX) }
    }
}

struct Access {
    /// Any of these.
    roles: &'static [Role],
    door: Door,
    message_max: ByteSize,
}

impl Access {
    fn is_way_in(&self) -> bool {
        self.roles == INGEST
    }
}

const fn access(roles: &'static [Role], door: Door, message_max: ByteSize) -> Access {
    Access { roles, door, message_max }
}

const INGEST: &[Role] = &[Role::Ingest];
const READ: &[Role] = &[Role::Read];
const ADMIN: &[Role] = &[Role::Admin];
const PLATFORM: &[Role] = &[Role::Platform];
/// Of its own tenant, or of any: the method tells which.
const ADMIN_OR_PLATFORM: &[Role] = &[Role::Admin, Role::Platform];

/// By the start of the path; the first that fits. What stands in neither list does not exist.
const GUARDED: [(&str, Access); 14] = [
    ("/opentelemetry.proto.collector.", access(INGEST, Door::OtlpGrpc, REQUEST_MAX)),
    ("/tracelake.v1.IngestService/", access(INGEST, Door::TracelakeGrpc, REQUEST_MAX)),
    ("/tracelake.v1.MetricsService/PlatformStats", access(PLATFORM, Door::MetricsGrpc, QUESTION_MAX)),
    ("/tracelake.v1.MetricsService/", access(READ, Door::MetricsGrpc, QUESTION_MAX)),
    ("/tracelake.v1.TraceService/", access(READ, Door::TracesGrpc, QUESTION_MAX)),
    ("/tracelake.v1.SqlService/", access(READ, Door::SqlGrpc, QUESTION_MAX)),
    ("/tracelake.v1.ErasureService/", access(ADMIN, Door::ErasureGrpc, QUESTION_MAX)),
    ("/tracelake.v1.PriceService/ListPrices", access(READ, Door::PricesGrpc, QUESTION_MAX)),
    ("/tracelake.v1.PriceService/CheckPrice", access(READ, Door::PricesGrpc, QUESTION_MAX)),
    ("/tracelake.v1.PriceService/", access(ADMIN, Door::PricesGrpc, QUESTION_MAX)),
    ("/tracelake.v1.AdminService/CreateTenant", access(PLATFORM, Door::AdminGrpc, QUESTION_MAX)),
    ("/tracelake.v1.AdminService/ListTenants", access(PLATFORM, Door::AdminGrpc, QUESTION_MAX)),
    ("/tracelake.v1.AdminService/DeleteTenant", access(PLATFORM, Door::AdminGrpc, QUESTION_MAX)),
    ("/tracelake.v1.AdminService/", access(ADMIN_OR_PLATFORM, Door::AdminGrpc, QUESTION_MAX)),
];
const OPEN: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let Some((_, access)) = GUARDED.iter().find(|(start, _)| path.starts_with(start)) else {
        return match OPEN.iter().any(|start| path.starts_with(start)) {
            true => next.run(request).await,
            false => Status::unimplemented(format!("there is no method {path}")).into_http::<Body>(),
        };
    };
    let doors = &guard.doors;
    let method = path.trim_start_matches('/').to_owned();
    let answering = async {
        let response = match admit(&guard, access, request).await {
            Ok(request) => in_our_words(access.is_way_in(), next.run(request).await),
            Err(refusal) => {
                let refusal = if access.is_way_in() { refusal.on_the_way_in() } else { refusal };
                Status::from(refusal).into_http::<Body>()
            }
        };
        // A status in the head is a refusal; that of a success comes after its message.
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
        let outcome = outcome(code);
        doors.counters.answered(access.door, outcome);
        (response, outcome)
    };
    audit::noted(doors, access.door, method, answering).await
}

/// The transport calls bytes that are no message INTERNAL; they are the sender's mistake. What else is INTERNAL on the
/// way in would lose data: clients do not send it again.
fn in_our_words(is_way_in: bool, response: Response) -> Response {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if status.code() != Code::Internal {
        return response;
    }
    let kind = match status.message().starts_with("failed to decode Protobuf message") {
        true => Kind::Invalid,
        false if is_way_in => Kind::Unavailable,
        false => return response,
    };
    let message = match status.message().ends_with("recursion limit reached") {
        true => "the message nests more than 100 levels deep: filters may nest 16",
        false => status.message(),
    };
    Status::from(Refusal::new(kind, message)).into_http::<Body>()
}

async fn admit(Guard { doors, questions }: &Guard, access: &Access, request: Request) -> Result<Request, Refusal> {
    let caller = auth::caller_with(doors, request.headers(), access.roles).await?;
    let (mut parts, body) = request.into_parts();
    // From here on messages are plain: they are inflated here, where their growth is watched.
    let encoding = match parts.headers.remove("grpc-encoding").as_ref().map(|value| value.as_bytes()) {
        None | Some(b"identity") => Encoding::Identity,
        Some(b"gzip") => Encoding::Gzip,
        Some(b"zstd") => Encoding::Zstd,
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            let message = format!("grpc-encoding {other:?} is not accepted: use gzip, zstd or identity");
            return Err(Refusal::new(Kind::Invalid, message));
        }
    };
    let rooms = Rooms::default();
    parts.extensions.insert(caller);
    parts.extensions.insert(rooms.clone());
    let admission = match access.is_way_in() {
        true => Admission::Intake(doors.intake.clone()),
        false => Admission::Questions(questions.clone()),
    };
    let body = frames::plain(admission, body, encoding, access.message_max, rooms);
    Ok(Request::from_parts(parts, body))
}
