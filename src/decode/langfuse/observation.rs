//! Spans, generations and events, created and updated.

use serde_json::value::RawValue;

use super::super::native::{checked_id, optional_id};
use super::super::trace::AboutTrace;
use super::super::usage::{self, Usage};
use super::super::value::{environment, integer_in, money_in};
use super::super::{DecodeLimits, dialect, reject};
use super::fields::{Fields, Invalid, Said, pairs};
use super::{Context, Read, SOURCE, metadata};
use crate::model::{
    Event, EventKind, Level, Observation, ObservationType, RejectReason, Rejection, Status, observation_bits as bits,
};

/// What an event says by its type alone.
pub(super) struct Kind {
    observation_type: ObservationType,
    is_update: bool,
}

/// The kind that an event's type names; `None` if it names none.
pub(super) fn kind(event_type: &str, body: &mut Fields<'_>) -> Result<Option<Kind>, Invalid> {
    let Some((word, act)) = event_type.split_once('-') else { return Ok(None) };
    let is_update = match act {
        "create" => false,
        "update" => true,
        _ => return Ok(None),
    };
    // The oldest clients say it in the body.
    let observation_type = match word {
        "observation" => {
            let said = body.text("type")?.value().unwrap_or_default();
            let unknown = || Invalid(RejectReason::InvalidValue, "type is not one of its words".to_owned());
            ObservationType::from_word(&said).ok_or_else(unknown)?
        }
        word => match ObservationType::from_word(word) {
            Some(known) => known,
            None => return Ok(None),
        },
    };
    Ok(Some(Kind { observation_type, is_update }))
}

pub(super) fn read(
    kind: Kind,
    mut body: Fields<'_>,
    context: &Context<'_>,
    about: &mut String,
) -> Result<Read, Invalid> {
    let limits = context.limits;
    let Kind { observation_type, is_update } = kind;
    let said_id = body.text("id")?.value();
    if is_update && said_id.is_none() {
        return Err(Invalid(RejectReason::MissingId, "an update needs the id of what it updates".to_owned()));
    }
    // A creation without an id is as good as its event's.
    let id = id("id", said_id.unwrap_or_else(|| context.new_id.to_owned()), limits)?;
    about.clone_from(&id);
    // Without a trace it is a trace of its own.
    let trace_id = self::id("traceId", body.text("traceId")?.value().unwrap_or_else(|| id.clone()), limits)?;
    let parent_id = body.text("parentObservationId")?.value();
    let parent_id = optional_id(parent_id, "parentObservationId", &id, limits).map_err(invalid)?;

    let mut cleared = 0;
    let start_ns = body.time_ns("startTime")?.value();
    // Only what begins an observation tells its start, if need be by its own time.
    let start_ns = start_ns.or((!is_update).then(|| context.event_us.saturating_mul(1000)));
    let end_ns = body.time_ns("endTime")?.or_clear(&mut cleared, bits::end_ns);
    // A point in time ends as it begins.
    let end_ns = end_ns.or(start_ns.filter(|_| observation_type == ObservationType::Event));
    let level = level(body.text("level")?)?;
    let mut observation = Observation {
        trace_id,
        id,
        parent_id,
        observation_type: Some(observation_type.into()),
        name: body.text("name")?.or_clear(&mut cleared, bits::name),
        environment: body.text("environment")?.value().map(|name| environment(&name)),
        version: body.text("version")?.value(),
        level: level.map(Into::into),
        status: level.map(|level| if level == Level::Error { Status::Error } else { Status::Unset }.into()),
        status_message: body.text("statusMessage")?.value(),
        start_ns,
        end_ns,
        completion_start_ns: body.time_ns("completionStartTime")?.or_clear(&mut cleared, bits::completion_start_ns),
        model: body.text("model")?.or_clear(&mut cleared, bits::model),
        metadata: metadata(body.said("metadata")).into_iter().collect(),
        input: body.payload("input"),
        output: body.payload("output"),
        source: Some(SOURCE.to_owned()),
        sdk_name: context.sdk.name.clone(),
        sdk_version: context.sdk.version.clone(),
        ..Observation::default()
    };
    if let Some(parameters) = body.said("modelParameters").value() {
        let said = pairs(parameters).unwrap_or_default();
        observation.model_parameters = said.into_iter().filter(|(_, value)| value != "null").collect();
    }
    observation.service_tier = observation.model_parameters.get("service_tier").cloned();
    prompt(&mut body, &mut observation, &mut cleared)?;
    let (details, legacy) = (body.said("usageDetails").value(), body.said("usage").value());
    let legacy = legacy.map(Fields::read).transpose()?.unwrap_or_default();
    let costs = body.said("costDetails").value();
    usage_and_cost(details, costs, legacy, &mut observation)?;
    observation.attributes.extend(body.rest(limits.attributes_max));
    observation.cleared = cleared & !if end_ns.is_some() { bits::end_ns } else { 0 };

    let about_trace = AboutTrace { is_part: is_update, ..AboutTrace::default() };
    let event = Event { order: context.order(is_update), kind: Some(EventKind::Observation(observation)) };
    Ok(Read::Observation { event, about: about_trace })
}

pub(super) fn id(field: &str, id: String, limits: &DecodeLimits) -> Result<String, Invalid> {
    checked_id(&id, field, &id, limits).map_err(invalid)
}

pub(super) fn invalid(rejection: Rejection) -> Invalid {
    Invalid(rejection.reason, rejection.message)
}

/// Null is the default level.
fn level(said: Said<String>) -> Result<Option<Level>, Invalid> {
    match said {
        Said::Absent => Ok(None),
        Said::Null => Ok(Some(Level::Default)),
        Said::Value(word) => {
            let shown = || word.chars().take(80).collect::<String>();
            let unknown =
                || Invalid(RejectReason::InvalidValue, format!("level is not one of its words: {:?}", shown()));
            dialect::level(&word).map(Some).ok_or_else(unknown)
        }
    }
}

/// Name and version go together.
fn prompt(body: &mut Fields<'_>, observation: &mut Observation, cleared: &mut u64) -> Result<(), Invalid> {
    let (name, version) = (body.text("promptName")?, body.text("promptVersion")?);
    let invalid = |message: &str| Invalid(RejectReason::InvalidValue, message.to_owned());
    if matches!(name, Said::Value(_)) != matches!(version, Said::Value(_)) {
        return Err(invalid("promptName and promptVersion go together"));
    }
    observation.prompt_name = name.or_clear(cleared, bits::prompt_name);
    if let Some(version) = version.or_clear(cleared, bits::prompt_version) {
        let version = integer_in(&version).ok_or_else(|| invalid("promptVersion is not a whole number"))?;
        observation.prompt_version = Some(version);
    }
    Ok(())
}

/// Today's details, else the object of old, which held both.
fn usage_and_cost(
    details: Option<&RawValue>,
    costs: Option<&RawValue>,
    mut legacy: Fields<'_>,
    observation: &mut Observation,
) -> Result<(), Invalid> {
    let details = details.and_then(|raw| usage::from_json(raw.get())).filter(|usage| !usage.by_kind.is_empty());
    let unit = legacy.text("unit")?.value().filter(|unit| unit != "TOKENS");
    let mut count = |old: &str, older: &str| {
        let said = [legacy.text(old)?.value(), legacy.text(older)?.value()];
        Ok::<_, Invalid>(said.into_iter().flatten().find_map(|text| usage::count_in(&text)))
    };
    let counts =
        [count("input", "promptTokens")?, count("output", "completionTokens")?, count("total", "totalTokens")?];
    match (details, unit) {
        (Some(usage), _) => usage.put(observation, false),
        (None, None) => usage::from_three(counts).put(observation, false),
        // Seconds or images are no tokens: they are priced by their kind, and stand in no column of tokens.
        (None, Some(unit)) => {
            let Usage { by_kind, .. } = usage::from_three(counts);
            Usage { by_kind, ..Usage::default() }.put(observation, false);
            observation.attributes.insert("usage.unit".to_owned(), unit);
        }
    }
    let mut said = costs.and_then(pairs).unwrap_or_default();
    if said.is_empty() {
        for (kind, field) in [("input", "inputCost"), ("output", "outputCost"), ("total", "totalCost")] {
            said.extend(legacy.text(field)?.value().map(|amount| (kind.to_owned(), amount)));
        }
    }
    for (kind, text) in said {
        match money_in(&text) {
            Ok(Some(amount)) => _ = observation.provided_cost.insert(kind, amount.pico()),
            // What is no amount is none, and is kept as it came.
            Ok(None) if text == "null" => {}
            Ok(None) => _ = observation.attributes.insert(format!("cost.{kind}"), text),
            Err(_) if text.trim_start().starts_with('-') => {
                _ = observation.attributes.insert(format!("cost.{kind}"), text);
            }
            Err(why) => {
                let message = format!("the cost {kind:?} is not accepted: {why}");
                return Err(invalid(reject("", RejectReason::InvalidCost, message)));
            }
        }
    }
    for (key, text) in legacy.rest(16) {
        observation.attributes.insert(format!("usage.{key}"), text);
    }
    Ok(())
}
