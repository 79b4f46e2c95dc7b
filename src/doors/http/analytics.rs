//! `GET /api/v2/analytics/…`: the presets of `MetricsService` by link, for dashboards and `curl`.
//!
//! A preset is one entry in a table: its call, and which parameters it takes. The question is put together as proto3 JSON
//! and asked as at `/api/v1/`, so keys, roles, limits and answers are those of the call.

use std::collections::BTreeMap;

use axum::extract::{Query, RawPathParams, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::{Router, routing};
use chrono::{DateTime, NaiveDate, TimeZone};
use chrono_tz::Tz;
use serde_json::{Map, Value, json};

use super::super::{Doors, Refusal, auth};
use super::problem::Problem;
use super::{rpc, serve};
use crate::base::{Day, Kind, TimestampUs};

/// Where no `from` is given.
const DAYS_DEFAULT: i64 = 30;
/// Every preset takes these.
const ALL: [&str; 3] = ["from", "to", "timezone"];
const UNITS: [&str; 5] = ["minute", "hour", "day", "week", "month"];

struct Preset {
    path: &'static str,
    call: &'static str,
    /// Besides `from`, `to` and `timezone`.
    takes: &'static [&'static str],
    /// Where the call needs buckets.
    granularity: Option<&'static str>,
}

const fn preset(path: &'static str, call: &'static str, takes: &'static [&'static str]) -> Preset {
    Preset { path, call, takes, granularity: None }
}

const PLATFORM: Preset = preset("platform/stats", "PlatformStats", &["credits_per_usd"]);
static PRESETS: [Preset; 7] = [
    PLATFORM,
    preset("tenant/{id}/stats", "UsageStats", &["granularity", "filters", "credits_per_usd"]),
    preset("user/{id}/stats", "UserStats", &["credits_per_usd"]),
    Preset {
        granularity: Some("day"),
        ..preset("time-series", "TimeSeries", &["granularity", "group_by", "limit", "filters"])
    },
    preset("top-users", "TopUsers", &["limit", "filters"]),
    preset("top-flows", "TopFlows", &["limit", "filters"]),
    preset("cost-breakdown", "CostBreakdown", &["granularity", "group_by", "limit", "filters"]),
];

type Parameters = BTreeMap<String, String>;

pub(super) fn routes(mut router: Router<Doors>, services: &Router) -> Router<Doors> {
    for preset in &PRESETS {
        let services = services.clone();
        let answer = move |State(doors): State<Doors>, in_path: RawPathParams, request: Request| async move {
            let id = in_path.iter().next().map(|(_, id)| id);
            match answer(&doors, services, preset, id, &request.into_parts().0).await {
                Ok(answer) => {
                    (StatusCode::OK, [(CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
                }
                Err(problem) => problem.into_response(),
            }
        };
        router = serve(router, &format!("/api/v2/analytics/{}", preset.path), routing::get(answer));
    }
    router
}

async fn answer(
    doors: &Doors,
    services: Router,
    preset: &Preset,
    id: Option<&str>,
    asked: &Parts,
) -> Result<Value, Problem> {
    let who = auth::identity(doors, &asked.headers).await?;
    let parameters = Query::<Vec<(String, String)>>::try_from_uri(&asked.uri);
    let Query(parameters) = parameters.map_err(|_| invalid("the parameters cannot be read".to_owned()))?;
    let now_us = doors.clock.now_us();
    let question = |preset: &Preset| question(preset, id, &parameters, now_us).map_err(invalid);
    match (preset.call, id) {
        ("UsageStats", Some(id)) if who.tenant.as_str() != id => {
            let all = ask(services, &asked.headers, &PLATFORM, question(&PLATFORM)?).await?;
            one_of(all, id).ok_or_else(|| Refusal::new(Kind::NotFound, "there is no such tenant").into())
        }
        _ => ask(services, &asked.headers, preset, question(preset)?).await,
    }
}

async fn ask(services: Router, headers: &HeaderMap, preset: &Preset, question: Value) -> Result<Value, Problem> {
    rpc::ask(services, &format!("MetricsService/{}", preset.call), headers, &question).await
}

/// One tenant's usage as it would be told itself.
fn one_of(mut all: Value, id: &str) -> Option<Value> {
    let of = all["tenants"].as_array_mut()?.iter_mut().find(|tenant| tenant["tenant"] == id)?;
    Some(json!({ "total": of["usage"].take(), "reading": of["reading"].take() }))
}

fn question(
    preset: &Preset,
    id: Option<&str>,
    said: &[(String, String)],
    now_us: TimestampUs,
) -> Result<Value, String> {
    let mut parameters = Parameters::new();
    for (name, value) in said {
        if !ALL.contains(&name.as_str()) && !preset.takes.contains(&name.as_str()) {
            let takes = [&ALL[..], preset.takes].concat().join(", ");
            let name: String = name.chars().take(80).collect();
            return Err(format!("there is no parameter {name:?} here: there are {takes}"));
        }
        if parameters.insert(name.clone(), value.clone()).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    let get = |name: &str| parameters.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let zone: Tz = match get("timezone") {
        None => Tz::UTC,
        Some(name) => name.parse().map_err(|_| format!("timezone {name:?} is none: use a name as Europe/Berlin"))?,
    };
    let to_us = get("to").map_or(Ok(now_us), |text| time(text, zone, "to"))?;
    let from_us = get("from").map_or(Ok(to_us - DAYS_DEFAULT * Day::US), |text| time(text, zone, "from"))?;

    let mut question = Map::new();
    question.insert("range".into(), json!({ "fromUnixMicros": from_us, "toUnixMicros": to_us }));
    if let (Some(id), "UserStats") = (id, preset.call) {
        question.insert("userId".into(), id.into());
    }
    if let Some(unit) = get("granularity").or(preset.granularity) {
        if !UNITS.contains(&unit) {
            return Err(format!("granularity {unit:?} is none: use {}", UNITS.join(", ")));
        }
        question.insert("bucket".into(), json!({ "unit": unit.to_ascii_uppercase(), "timeZone": zone.name() }));
    }
    if let Some(fields) = get("group_by") {
        question.insert("dimensions".into(), fields.split(',').map(str::trim).collect());
    }
    if let Some(limit) = get("limit") {
        let limit: u32 = limit.parse().map_err(|_| "limit is not a whole number of 0 or more".to_owned())?;
        question.insert("topK".into(), limit.into());
    }
    if let Some(filters) = get("filters") {
        let filters: Value = serde_json::from_str(filters).map_err(|e| format!("filters is not JSON: {e}"))?;
        question.insert("filters".into(), filters);
    }
    if let Some(rate) = get("credits_per_usd") {
        question.insert("creditsPerUsd".into(), rate.into());
    }
    Ok(question.into())
}

/// A moment, or a day's beginning in the zone.
fn time(text: &str, zone: Tz, name: &str) -> Result<TimestampUs, String> {
    // In links a plus sign is read as a space.
    let moment = DateTime::parse_from_rfc3339(&text.replace(' ', "+")).ok().map(|time| time.timestamp_micros());
    let day = || {
        let midnight = text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0)?;
        // Some zones skip midnight when their clocks change: then the day begins an hour later.
        let begins = zone.from_local_datetime(&midnight).earliest();
        let begins = begins.or_else(|| zone.from_local_datetime(&(midnight + chrono::TimeDelta::hours(1))).earliest());
        Some(begins?.timestamp_micros())
    };
    moment
        .or_else(day)
        .ok_or_else(|| format!("{name} is no time: use 2026-01-31T00:00:00Z, or 2026-01-31 for its start"))
}

fn invalid(why: String) -> Problem {
    Refusal::new(Kind::Invalid, why).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, id: Option<&str>, said: &[(&str, &str)]) -> Result<Value, String> {
        let preset = PRESETS.iter().find(|preset| preset.path == path).unwrap();
        let said: Vec<_> = said.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        question(preset, id, &said, 2_592_000_000_000)
    }

    #[test]
    fn a_link_is_the_question_of_its_call() {
        let month = json!({ "fromUnixMicros": 0, "toUnixMicros": 2_592_000_000_000_i64 });
        assert_eq!(asked("top-users", None, &[]), Ok(json!({ "range": month })));
        assert_eq!(
            asked("user/{id}/stats", Some("ann"), &[("credits_per_usd", "100")]),
            Ok(json!({ "range": month, "userId": "ann", "creditsPerUsd": "100" }))
        );
        let said = [
            ("from", "1970-03-29"),
            ("to", "1970-03-30T00:00:00 01:00"),
            ("timezone", "Europe/Berlin"),
            ("group_by", "model,tags"),
            ("limit", "3"),
            ("filters", r#"[{"field": "level", "operator": "EQUALS", "values": ["ERROR"]}]"#),
        ];
        let expected = json!({
            "range": { "fromUnixMicros": 7_513_200_000_000_i64, "toUnixMicros": 7_599_600_000_000_i64 },
            "bucket": { "unit": "DAY", "timeZone": "Europe/Berlin" },
            "dimensions": ["model", "tags"],
            "topK": 3,
            "filters": [{ "field": "level", "operator": "EQUALS", "values": ["ERROR"] }],
        });
        assert_eq!(asked("time-series", None, &said), Ok(expected));
    }

    #[test]
    fn what_a_preset_does_not_take_is_refused_by_name() {
        for (path, said, says) in [
            ("top-users", ("granularity", "day"), "from, to, timezone, limit, filters"),
            ("time-series", ("granularity", "fortnight"), "use minute, hour, day"),
            ("time-series", ("timezone", "Berlin"), "Europe/Berlin"),
            ("top-flows", ("from", "yesterday"), "from is no time"),
            ("top-flows", ("limit", "-1"), "limit"),
            ("cost-breakdown", ("filters", "["), "filters is not JSON"),
        ] {
            let refused = asked(path, None, &[said]).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
        assert!(asked("top-flows", None, &[("limit", "1"), ("limit", "2")]).unwrap_err().contains("twice"));
    }
}
