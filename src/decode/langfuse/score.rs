//! Scores: what is judged, by what kind of value.

use serde_json::value::RawValue;

use super::super::native::{SCORE_SOURCES, optional_id};
use super::super::value::environment;
use super::fields::{Fields, Invalid, Said, plain};
use super::observation::{id, invalid};
use super::{Context, Read, metadata};
use crate::model::{Event, EventKind, RejectReason, Score, ScoreDataType, score_bits as bits};

const TEXT_CHARS_MAX: usize = 500;
/// The name of a correction, whatever its sender says.
const CORRECTION_NAME: &str = "output";

pub(super) fn read(mut body: Fields<'_>, context: &Context<'_>, about: &mut String) -> Result<Read, Invalid> {
    let limits = context.limits;
    let id = id("id", body.text("id")?.value().unwrap_or_else(|| context.new_id.to_owned()), limits)?;
    about.clone_from(&id);
    let mut target = |field: &str| {
        let said = body.text(field)?.value();
        optional_id(said, field, &id, limits).map_err(invalid)
    };
    let (trace_id, session_id, dataset_run_id) = (target("traceId")?, target("sessionId")?, target("datasetRunId")?);
    let observation_id = target("observationId")?;
    if [&trace_id, &session_id, &dataset_run_id].into_iter().flatten().count() != 1 {
        let message = "a score needs one of traceId, sessionId and datasetRunId, and only one";
        return Err(Invalid(RejectReason::MissingId, message.to_owned()));
    }
    if observation_id.is_some() && trace_id.is_none() {
        let message = "a score of an observation needs the traceId too";
        return Err(Invalid(RejectReason::MissingId, message.to_owned()));
    }
    let said_type = body.text("dataType")?.value();
    let raw_value = body.said("value");
    let Judged { data_type, value, string_value } = judged(said_type.as_deref(), raw_value)?;
    let mut cleared = 0;
    let name = match data_type {
        ScoreDataType::Correction => CORRECTION_NAME.to_owned(),
        _ => body.text("name")?.value().ok_or_else(|| wrong("a score needs a name"))?,
    };
    let source = body.text("source")?.value().map_or("API".to_owned(), |source| source.to_ascii_uppercase());
    if !SCORE_SOURCES.contains(&source.as_str()) {
        return Err(wrong("a score's source is API, EVAL or ANNOTATION"));
    }
    let config_id = body.text("configId")?.or_clear(&mut cleared, bits::config_id);
    if source == "ANNOTATION" && config_id.is_none() && data_type != ScoreDataType::Correction {
        return Err(wrong("a score with the source ANNOTATION needs a configId"));
    }
    let said_ns = body.time_ns("timestamp")?.value();
    let timestamp_us = said_ns.map_or(context.event_us, |ns| ns.div_euclid(1000));
    let score = Score {
        id,
        trace_id,
        observation_id,
        session_id,
        dataset_run_id,
        name,
        data_type: data_type.into(),
        value,
        string_value,
        source: Some(source),
        comment: body.text("comment")?.or_clear(&mut cleared, bits::comment),
        config_id,
        queue_id: body.text("queueId")?.or_clear(&mut cleared, bits::queue_id),
        execution_trace_id: body.text("executionTraceId")?.or_clear(&mut cleared, bits::execution_trace_id),
        environment: body.text("environment")?.value().map(|name| environment(&name)),
        timestamp_us: Some(timestamp_us),
        metadata: metadata(body.said("metadata")).into_iter().collect(),
        cleared,
        ..Score::default()
    };
    let mut order = context.order(false);
    // Lists of scores have no envelopes: each says when it was given.
    order.event_time_us = timestamp_us;
    let event = Event { order, kind: Some(EventKind::Score(score)) };
    Ok(Read::Score { event, is_type_implied: said_type.is_none() })
}

struct Judged {
    data_type: ScoreDataType,
    value: Option<f64>,
    string_value: Option<String>,
}

/// The value as its type holds it. A type that is not said follows from the value.
fn judged(said_type: Option<&str>, value: Said<&RawValue>) -> Result<Judged, Invalid> {
    let raw = value.value().ok_or_else(|| wrong("a score needs a value"))?;
    let text = raw.get().starts_with('"').then(|| plain(raw));
    let number = match raw.get() {
        "true" => Some(1.0),
        "false" => Some(0.0),
        json => json.parse::<f64>().ok().filter(|number| number.is_finite()),
    };
    let implied = match (raw.get(), &text, number) {
        ("true" | "false", _, _) => ScoreDataType::Boolean,
        (_, Some(_), _) => ScoreDataType::Categorical,
        (_, None, Some(_)) => ScoreDataType::Numeric,
        (_, None, None) => return Err(wrong("a score's value is a finite number or a text")),
    };
    let unknown = || wrong("dataType is NUMERIC, BOOLEAN, CATEGORICAL, TEXT or CORRECTION");
    let data_type = match said_type {
        None => implied,
        Some(word) => ScoreDataType::from_word(word).ok_or_else(unknown)?,
    };
    let need = |what: &str| wrong(&format!("the value of a {} score is {what}", data_type.as_str()));
    match data_type {
        ScoreDataType::Numeric => {
            let value = number.filter(|_| implied == ScoreDataType::Numeric).ok_or_else(|| need("a number"))?;
            Ok(Judged { data_type, value: Some(value), string_value: None })
        }
        ScoreDataType::Boolean => boolean(number).ok_or_else(|| need("0 or 1")),
        ScoreDataType::Categorical | ScoreDataType::Text | ScoreDataType::Correction => {
            let text = text.ok_or_else(|| need("a text"))?;
            let length = text.chars().count();
            if data_type == ScoreDataType::Text && !(1..=TEXT_CHARS_MAX).contains(&length) {
                return Err(need(&format!("a text of 1 to {TEXT_CHARS_MAX} characters, not {length}")));
            }
            Ok(Judged { data_type, value: None, string_value: Some(text) })
        }
    }
}

fn boolean(number: Option<f64>) -> Option<Judged> {
    let word = match number? {
        1.0 => "True",
        0.0 => "False",
        _ => return None,
    };
    Some(Judged { data_type: ScoreDataType::Boolean, value: number, string_value: Some(word.to_owned()) })
}

fn wrong(message: &str) -> Invalid {
    Invalid(RejectReason::InvalidValue, message.to_owned())
}
