//! Langfuse's read API in both generations: lists by page (v1) and by cursor (v2, v3), and each thing by its id.
//!
//! Its traps: latencies are seconds here and milliseconds in metrics; inputs and outputs are JSON in v1 and text in v2;
//! metadata is cut in v2; what a v1 score belongs to is always a trace.

pub(super) mod metrics;
pub(super) mod observations;
pub(super) mod scores;
pub(super) mod sessions;
pub(super) mod traces;

mod cursor;
mod filters;
mod parameters;
mod shapes;
mod unit_prices;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::super::auth::{self, Caller};
use super::super::super::{Door, Doors, Refusal};
use super::super::problem::Problem;
use super::answer;
use crate::base::Kind;
use crate::catalog::keys::Role;
use crate::query::records::{
    ObservationRecord, RecordKind, Records, RecordsAnswer, RecordsAsked, ScoreRecord, SessionRecord, TraceRecord, With,
};
use crate::wire::{Filter, FilterOperator, TimeRange};
use parameters::Parameters;

/// Who asks, and what.
struct Asked {
    doors: Doors,
    caller: Caller,
    parameters: Parameters,
}

/// Answers a request with what `reading` makes of it; needs a key that may read.
async fn answered<F: Future<Output = Result<Value, Refusal>>>(
    doors: Doors,
    request: Request,
    reading: impl FnOnce(Asked) -> F,
) -> Response {
    let (request, _) = request.into_parts();
    let read = async {
        let caller = auth::caller(&doors, &request.headers, Role::Read).await?;
        let parameters = Parameters::of(&request.uri)?;
        reading(Asked { doors: doors.clone(), caller, parameters }).await
    };
    match read.await {
        Ok(body) => {
            doors.counters.answered(Door::LangfuseHttp, "ok");
            answer(StatusCode::OK, &body)
        }
        Err(refusal) => {
            doors.counters.answered(Door::LangfuseHttp, refusal.outcome());
            match refusal.kind {
                Kind::NotFound => {
                    let body = json!({ "error": "LangfuseNotFoundError", "message": refusal.message });
                    answer(StatusCode::NOT_FOUND, &body)
                }
                _ => Problem::from(refusal).into_response(),
            }
        }
    }
}

impl Asked {
    fn project(&self) -> &str {
        self.caller.tenant.as_str()
    }

    /// All from one snapshot.
    async fn records(&self, asked: Vec<RecordsAsked>) -> Result<Found, Refusal> {
        Ok(Found(self.doors.answers.records(&self.caller.who, asked).await?.into_iter()))
    }

    async fn one(&self, asked: RecordsAsked) -> Result<Found, Refusal> {
        self.records(vec![asked]).await
    }
}

/// Answers in the order of the questions.
struct Found(std::vec::IntoIter<RecordsAnswer>);

impl Found {
    fn traces(&mut self) -> Result<(Vec<TraceRecord>, u64), Refusal> {
        match self.next()? {
            (Records::Traces(traces), count) => Ok((traces, count)),
            _ => Err(mixed_up()),
        }
    }
    fn observations(&mut self) -> Result<(Vec<ObservationRecord>, u64), Refusal> {
        match self.next()? {
            (Records::Observations(observations), count) => Ok((observations, count)),
            _ => Err(mixed_up()),
        }
    }
    fn sessions(&mut self) -> Result<(Vec<SessionRecord>, u64), Refusal> {
        match self.next()? {
            (Records::Sessions(sessions), count) => Ok((sessions, count)),
            _ => Err(mixed_up()),
        }
    }
    fn scores(&mut self) -> Result<(Vec<ScoreRecord>, u64), Refusal> {
        match self.next()? {
            (Records::Scores(scores), count) => Ok((scores, count)),
            _ => Err(mixed_up()),
        }
    }

    fn next(&mut self) -> Result<(Records, u64), Refusal> {
        let RecordsAnswer { records, count } = self.0.next().ok_or_else(mixed_up)?;
        Ok((records, count.unwrap_or_default()))
    }
}

fn mixed_up() -> Refusal {
    Refusal::new(Kind::Internal, "an answer is not of what was asked")
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Kind::Invalid, message)
}

fn not_found(what: &str, id: &str) -> Refusal {
    let id: String = id.chars().take(200).collect();
    Refusal::new(Kind::NotFound, format!("{what} {id} is not there"))
}

const ALL_TIME: TimeRange = TimeRange { from_unix_micros: i64::MIN, to_unix_micros: i64::MAX };

/// Newest first, from the start.
fn list_of(kind: RecordKind, range: TimeRange, filters: Vec<Filter>, limit: usize, with: With) -> RecordsAsked {
    RecordsAsked { kind, range, filters, order: Vec::new(), skip: 0, limit, with }
}

/// The one that has `value` in `field`.
fn one_of(kind: RecordKind, field: &str, value: &str, with: With) -> RecordsAsked {
    list_of(kind, ALL_TIME, vec![is(field, value)], 1, with)
}

fn comparison(field: &str, operator: FilterOperator, values: Vec<String>) -> Filter {
    Filter { field: field.to_owned(), operator: operator.into(), values, ..Default::default() }
}

fn is(field: &str, value: &str) -> Filter {
    comparison(field, FilterOperator::Equals, vec![value.to_owned()])
}

/// A page of pages: `data` and what Langfuse says about it.
fn page_of(data: Vec<Value>, page: parameters::Page, items: u64) -> Value {
    let (number, limit) = (page.number, page.limit);
    let pages = items.div_ceil(limit as u64);
    json!({
        "data": data,
        "meta": { "page": number, "limit": limit, "totalItems": items, "totalPages": pages },
    })
}
