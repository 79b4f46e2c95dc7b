//! `tracelake.v1`: item by item.

use crate::decode::{DecodeLimits, Decoded, ingest_request};
use crate::model::{EventKind, Level, ObservationType, RejectReason, ScoreDataType, UsageSource};
use crate::wire::{IngestRequest, Observation, Score, Trace, score::Value};

fn observation() -> Observation {
    Observation { trace_id: "t".into(), id: "o".into(), ..Observation::default() }
}

fn score(value: Option<Value>) -> Score {
    Score { id: "s".into(), trace_id: Some("t".into()), name: "quality".into(), value, ..Score::default() }
}

fn decode(request: IngestRequest) -> Decoded {
    ingest_request(request, &DecodeLimits::default())
}

fn observed(observation: Observation) -> Result<crate::model::Observation, RejectReason> {
    let decoded = decode(IngestRequest { observations: vec![observation], ..IngestRequest::default() });
    match decoded.rejections.first() {
        Some(rejection) => Err(rejection.reason),
        None => match decoded.batch.events.into_iter().next().unwrap().kind {
            Some(EventKind::Observation(observation)) => Ok(observation),
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn an_observation_keeps_what_it_says() {
    let got = observed(Observation {
        model: Some("m".into()),
        level: Some("error".into()),
        start_unix_nano: Some(5_000),
        input_tokens: Some(120),
        cached_input_tokens: Some(100),
        output_tokens: Some(45),
        reasoning_tokens: Some(20),
        usage: [("images".to_owned(), 2)].into(),
        cost: [("total".to_owned(), "0.0031".to_owned())].into(),
        environment: Some("Prod".into()),
        tags: vec!["b".into(), "a".into(), "b".into()],
        ..observation()
    })
    .unwrap();
    assert_eq!(got.observation_type(), ObservationType::Generation);
    assert_eq!((got.level(), got.source.as_deref()), (Level::Error, Some("tracelake")));
    assert_eq!((got.input_tokens, got.total_tokens, got.usage_source()), (Some(120), Some(165), UsageSource::Provided));
    assert_eq!((got.usage["input"], got.usage["output"], got.usage["images"]), (20, 25, 2));
    assert_eq!((got.provided_cost["total"], got.environment.as_deref()), (3_100_000_000, Some("prod")));
    assert_eq!(got.tags, ["a", "b"]);
}

#[test]
fn a_part_says_nothing_of_what_it_does_not_name() {
    let decoded = decode(IngestRequest {
        observations: vec![Observation { end_unix_nano: Some(9_000), ..observation() }],
        ..IngestRequest::default()
    });
    assert_eq!(decoded.batch.events.len(), 1, "a part without a parent is not a root");
    assert_eq!(decoded.batch.events[0].order.event_time_us, 9);
    let Some(EventKind::Observation(part)) = &decoded.batch.events[0].kind else { panic!() };
    assert_eq!((part.observation_type, part.usage_source, part.level), (None, None, None));
}

#[test]
fn a_root_tells_its_trace() {
    let root = Observation {
        name: Some("run".into()),
        start_unix_nano: Some(5_000),
        user_id: Some("u".into()),
        ..observation()
    };
    let decoded = decode(IngestRequest { observations: vec![root], ..IngestRequest::default() });
    let Some(EventKind::Trace(facts)) = &decoded.batch.events[1].kind else { panic!() };
    assert_eq!((facts.root_id.as_deref(), facts.root_name.as_deref()), (Some("o"), Some("run")));
    assert_eq!((facts.user_id.as_deref(), facts.timestamp_us), (Some("u"), Some(5)));
    assert_eq!(decoded.batch.received, 1);
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let cases = [
        (Observation { id: String::new(), ..observation() }, RejectReason::MissingId),
        (Observation { trace_id: String::new(), ..observation() }, RejectReason::MissingId),
        (Observation { id: "x".repeat(801), ..observation() }, RejectReason::InvalidId),
        (Observation { parent_id: Some("a\0".into()), ..observation() }, RejectReason::InvalidId),
        (Observation { start_unix_nano: Some(-1), ..observation() }, RejectReason::InvalidTime),
        (Observation { level: Some("LOUD".into()), ..observation() }, RejectReason::InvalidValue),
        (Observation { r#type: Some("THING".into()), ..observation() }, RejectReason::InvalidValue),
        (Observation { input_tokens: Some(i64::MAX), ..observation() }, RejectReason::InvalidValue),
        (Observation { output_tokens: Some(-1), ..observation() }, RejectReason::InvalidValue),
        (Observation { usage: [("k".to_owned(), -1)].into(), ..observation() }, RejectReason::InvalidValue),
        (
            Observation { cost: [("k".to_owned(), "free".to_owned())].into(), ..observation() },
            RejectReason::InvalidCost,
        ),
        (Observation { cost: [("k".to_owned(), "-1".to_owned())].into(), ..observation() }, RejectReason::InvalidCost),
        (Observation { cost: [("k".to_owned(), "1e6".to_owned())].into(), ..observation() }, RejectReason::InvalidCost),
        (Observation { name: Some("x".repeat(11 << 20)), ..observation() }, RejectReason::TooLarge),
    ];
    for (bad, reason) in cases {
        assert_eq!(observed(bad).unwrap_err(), reason);
    }
}

#[test]
fn texts_too_long_are_cut_where_it_shows() {
    let long = || Some("x".repeat(11 << 20));
    let said = observed(Observation { input: long(), user_id: Some("u".into()), ..observation() }).unwrap();
    assert!(said.input.unwrap().len() < 10 << 20);
    let gone: usize = said.attributes["truncated_bytes"].parse().unwrap();
    assert!(((1 << 20)..(1 << 21)).contains(&gone), "{gone}");
    assert_eq!(said.user_id.as_deref(), Some("u"));
    let about = Trace { id: "t".into(), output: long(), ..Default::default() };
    let decoded = decode(IngestRequest { traces: vec![about], ..IngestRequest::default() });
    let Some(EventKind::Trace(facts)) = &decoded.batch.events[0].kind else { panic!("{:?}", decoded.rejections) };
    assert!(facts.attributes.contains_key("truncated_bytes"));
}

#[test]
fn scores_have_a_type_a_target_and_a_value() {
    let scored = |score: Score| {
        let decoded = decode(IngestRequest { scores: vec![score], ..IngestRequest::default() });
        match decoded.rejections.first() {
            Some(rejection) => Err(rejection.reason),
            None => match decoded.batch.events.into_iter().next().unwrap().kind {
                Some(EventKind::Score(score)) => Ok((score.data_type(), score.value, score.string_value, score.source)),
                other => panic!("{other:?}"),
            },
        }
    };
    let api = || Some("API".to_owned());
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(scored(score(Some(Value::Numeric(0.5)))), Ok((ScoreDataType::Numeric, Some(0.5), None, api())));
    assert_eq!(scored(score(Some(Value::Boolean(true)))), Ok((ScoreDataType::Boolean, Some(1.0), text("True"), api())));
    assert_eq!(
        scored(score(Some(Value::Categorical("good".into())))),
        Ok((ScoreDataType::Categorical, None, text("good"), api()))
    );
    assert_eq!(scored(score(None)), Err(RejectReason::InvalidValue));
    assert_eq!(scored(score(Some(Value::Numeric(f64::NAN)))), Err(RejectReason::InvalidValue));
    let numeric = || score(Some(Value::Numeric(1.0)));
    assert_eq!(scored(Score { name: String::new(), ..numeric() }), Err(RejectReason::InvalidValue));
    assert_eq!(scored(Score { source: Some("GUESS".into()), ..numeric() }), Err(RejectReason::InvalidValue));
    assert_eq!(scored(Score { trace_id: None, ..numeric() }), Err(RejectReason::MissingId));
    let of_session = Score { trace_id: None, session_id: Some("s".into()), ..numeric() };
    assert!(scored(of_session.clone()).is_ok());
    assert_eq!(scored(Score { observation_id: Some("o".into()), ..of_session }), Err(RejectReason::MissingId));
}

#[test]
fn one_bad_item_leaves_the_others() {
    let decoded = decode(IngestRequest {
        observations: vec![observation(), Observation::default()],
        traces: vec![Trace { id: "t".into(), start_unix_nano: Some(7_000), ..Trace::default() }, Trace::default()],
        scores: vec![score(Some(Value::Numeric(1.0))), Score::default()],
    });
    assert_eq!((decoded.items, decoded.batch.events.len(), decoded.rejections.len()), (6, 3, 3));
    assert_eq!(decoded.batch.received, 5, "facts that were kept are no row in the books");
    assert_eq!(decoded.batch.rejected["missing_id"], 3);
    let Some(EventKind::Trace(facts)) = &decoded.batch.events[1].kind else { panic!() };
    assert_eq!((facts.trace_id.as_str(), facts.timestamp_us), ("t", Some(7)));
}
