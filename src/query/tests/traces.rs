//! Traces as they were: pages, searches, one whole.

use std::collections::BTreeSet;

use futures::StreamExt;

use super::requests::filter;
use super::*;
use crate::base::Kind;
use crate::model::TraceFacts;
use crate::model::tables::{IoRow, OBSERVATION_IO, TRACE_FACTS, TraceRow};
use crate::wire::{
    Aggregation, FilterOperator as F, GetTraceRequest, GetTraceResponse, ListTracesRequest, Measure, SearchIn,
    SearchTracesRequest, TimeRange, View, metric_value,
};

fn all() -> Option<TimeRange> {
    Some(TimeRange { from_unix_micros: START_US, to_unix_micros: START_US + 720 * HOUR_US })
}

/// Ids of all pages, and how many pages there were.
async fn pages(setting: &Setting, asked: ListTracesRequest) -> (Vec<String>, usize) {
    let (mut ids, mut count, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let asked = ListTracesRequest { cursor, ..asked.clone() };
        let page = setting.engine.list_traces(all_of("acme"), asked).await.unwrap();
        assert!(page.reading.is_some());
        ids.extend(page.traces.into_iter().map(|trace| trace.id));
        (count, cursor) = (count + 1, page.next_cursor);
        if cursor.is_empty() {
            return (ids, count);
        }
    }
}

/// Trace ids, newest first.
fn newest_first(rows: &[ObservationRow], keep: impl Fn(&[&ObservationRow]) -> bool) -> Vec<String> {
    let mut traces: BTreeMap<&str, Vec<&ObservationRow>> = BTreeMap::new();
    for row in rows {
        traces.entry(&row.observation.trace_id).or_default().push(row);
    }
    let mut kept: Vec<(i64, &str)> = traces
        .iter()
        .filter(|(_, rows)| keep(rows))
        .map(|(id, rows)| (-rows.iter().map(|row| row.start_us()).min().unwrap(), *id))
        .collect();
    kept.sort();
    kept.into_iter().map(|(_, id)| id.to_owned()).collect()
}

#[tokio::test]
async fn pages_hold_every_trace_once_newest_first() {
    let rows = observations(31, 240, 200);
    let setting = acme(&rows).await;
    let asked = ListTracesRequest { range: all(), limit: 9, ..Default::default() };
    assert_eq!(pages(&setting, asked.clone()).await, (newest_first(&rows, |_| true), 9));
    let filters = vec![filter("user_id", F::Equals, &["user 3"]), filter("errors", F::Greater, &["0"])];
    let is_error = |row: &&ObservationRow| {
        row.observation.level == Some(Level::Error.into()) || row.observation.status == Some(Status::Error.into())
    };
    let expected = newest_first(&rows, |rows| {
        rows[0].observation.user_id.as_deref() == Some("user 3") && rows.iter().any(is_error)
    });
    assert!(expected.len() > 3);
    assert_eq!(pages(&setting, ListTracesRequest { filters, limit: 2, ..asked }).await.0, expected);
}

#[tokio::test]
async fn traces_that_began_at_the_same_moment_are_on_one_page_each() {
    let mut rows = observations(32, 30, 5);
    for row in &mut rows {
        let mut changed = Observation::clone(&row.observation);
        (changed.start_ns, changed.end_ns) = (Some(START_US * 1_000), None);
        row.observation = changed.into();
    }
    let setting = acme(&rows).await;
    let asked = ListTracesRequest { range: all(), limit: 3, ..Default::default() };
    assert_eq!(pages(&setting, asked).await, (newest_first(&rows, |_| true), 4));
}

#[tokio::test]
async fn a_trace_of_which_nothing_but_itself_was_said_is_a_trace_too() {
    let rows = observations(34, 30, 5);
    let setting = acme(&rows).await;
    let said = |trace: &str, root: Option<&str>, hour: i64| TraceRow {
        facts: Arc::new(TraceFacts {
            trace_id: trace.into(),
            timestamp_us: Some(START_US + hour * HOUR_US),
            name: Some("bare".into()),
            user_id: Some("nobody else".into()),
            session_id: Some("its own".into()),
            tags: vec!["quiet".into()],
            metadata: [("team".to_owned(), "red".to_owned())].into(),
            root_id: root.map(str::to_owned),
            ..Default::default()
        }),
        ingested_at_us: START_US,
        provenance: None,
    };
    // One whose root is said to be there is a trace of observations; its rows may be gone by retention.
    let facts =
        [said("bare", None, 1), said("rooted", Some("r"), 1), said("trace-34-4", None, 1), said("later", None, 800)];
    let facts = batch(Table::TraceFacts, TRACE_FACTS, &facts);
    setting.add_file("acme", Table::TraceFacts, Day::of_us(START_US), facts).await;

    let asked = ListTracesRequest {
        range: all(),
        filters: vec![filter("tags", F::HasAny, &["quiet"])],
        fields: vec!["metadata:team".to_owned()],
        ..Default::default()
    };
    let page = setting.engine.list_traces(all_of("acme"), asked).await.unwrap();
    let [bare] = page.traces.as_slice() else { panic!("{:?}", page.traces) };
    assert_eq!((bare.id.as_str(), bare.name.as_deref(), bare.observations), ("bare", Some("bare"), 0));
    assert_eq!((bare.start_unix_micros, bare.latency_ms), (START_US + HOUR_US, None));
    assert_eq!((bare.total_cost.clone(), bare.calls, bare.errors), (None, 0, 0));
    assert_eq!(bare.values[0].value, Some(metric_value::Value::Text("red".into())));

    let listed = pages(&setting, ListTracesRequest { range: all(), limit: 4, ..Default::default() }).await.0;
    assert_eq!(listed.len(), newest_first(&rows, |_| true).len() + 1);
    let count = |view: View, field: &str| MetricsRequest {
        view: view.into(),
        range: all(),
        measures: vec![
            Measure { aggregation: Aggregation::Count.into(), ..Default::default() },
            Measure { field: field.to_owned(), aggregation: Aggregation::Sum.into(), ..Default::default() },
        ],
        ..Default::default()
    };
    for (view, more) in [(View::Traces, 1), (View::Sessions, 0), (View::Users, 0), (View::Observations, 0)] {
        let groups = |rows: &[ObservationRow]| -> BTreeSet<String> {
            let of = |row: &ObservationRow| match view {
                View::Traces => Some(row.observation.trace_id.clone()),
                View::Sessions => row.observation.session_id.clone(),
                View::Users => row.observation.user_id.clone(),
                _ => Some(format!("{} {}", row.observation.trace_id, row.observation.id)),
            };
            rows.iter().filter_map(of).collect()
        };
        let field = if view == View::Observations { "latency_ms" } else { "observations" };
        let answer = setting.engine.metrics(all_of("acme"), vec![count(view, field)]).await.unwrap().remove(0);
        let counted = answer.rows[0].measures[0].clone();
        let expected = groups(&rows).len() as i64 + more;
        assert_eq!(counted.value, Some(metric_value::Value::Integer(expected)), "{view:?}");
    }
    let funnel = MetricsRequest {
        steps: vec![filter("environment", F::IsNotNull, &[])],
        ..count(View::Traces, "steps_reached")
    };
    let answer = setting.engine.metrics(all_of("acme"), vec![funnel]).await.unwrap().remove(0);
    let reached = answer.rows[0].measures[1].clone().value;
    let traces = newest_first(&rows, |_| true).len() as i64;
    assert_eq!(reached, Some(metric_value::Value::Integer(traces)), "it has done no step");
    assert_eq!(answer.reading.unwrap().files_pruned, 0);
    let asked = GetTraceRequest { trace_id: "bare".into(), ..Default::default() };
    let parts = setting.engine.trace(all_of("acme"), asked).await.unwrap();
    let parts: Vec<GetTraceResponse> = parts.map(Result::unwrap).collect().await;
    assert_eq!(parts[0].trace.as_ref().unwrap().id, "bare");
    assert!(parts.iter().all(|part| part.observations.is_empty()));
}

#[tokio::test]
async fn a_summary_says_what_the_trace_adds_up_to() {
    let rows = observations(33, 30, 5);
    let setting = acme(&rows).await;
    let asked = ListTracesRequest {
        range: all(),
        filters: vec![filter("trace_id", F::Equals, &["trace-33-4"])],
        fields: ["metadata:team", "models", "score:none"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let page = setting.engine.list_traces(all_of("acme"), asked).await.unwrap();
    let [trace] = page.traces.as_slice() else { panic!("{:?}", page.traces) };
    let own: Vec<_> = rows.iter().filter(|row| row.observation.trace_id == "trace-33-4").collect();
    assert_eq!((trace.observations, trace.calls), (3, 3));
    assert_eq!(trace.total_tokens, Some(own.iter().filter_map(|row| row.observation.total_tokens).sum()));
    assert_eq!(trace.user_id.as_deref(), Some("user 4"));
    assert_eq!(trace.account.as_deref(), Some("account 4"));
    assert_eq!(trace.tags, ["paid"]);
    assert_eq!(trace.values.len(), 3);
    let models: BTreeSet<&str> = own.iter().filter_map(|row| row.observation.model.as_deref()).collect();
    assert_eq!(super::metrics::show(&trace.values[0]), "team-0");
    assert_eq!(super::metrics::show(&trace.values[1]), models.into_iter().collect::<Vec<_>>().join(","));
    assert_eq!(trace.values[2].value, None);
}

/// Texts of rows: every seventh answer holds a needle.
async fn add_texts(setting: &Setting, rows: &[ObservationRow]) {
    let days = rows.iter().map(|row| Day::of_us(row.start_us()).days());
    let batch = batch(Table::ObservationIo, OBSERVATION_IO, &texts(rows));
    setting.add_fresh_batch("acme", Table::ObservationIo, batch, days);
}

fn texts(rows: &[ObservationRow]) -> Vec<IoRow> {
    rows.iter()
        .enumerate()
        .map(|(at, row)| {
            let mut observation = Observation::clone(&row.observation);
            observation.input = Some(format!("question {at}"));
            let needle = if at % 7 == 0 { "a NEEDLE of gold" } else { "hay" };
            observation.output = Some(format!("{}{needle} in größe {at}", "before ".repeat(30)));
            IoRow::Observation { observation: observation.into(), start_us: row.start_us(), provenance: None }
        })
        .collect()
}

#[tokio::test]
async fn texts_of_older_days_are_left_alone_while_newer_ones_fill_the_page() {
    let setting = Setting::new(QueryLimits { partitions: 2, ..Default::default() }).await;
    let rows = observations(35, 1_200, 24 * 12);
    setting.add_files("acme", &rows).await;
    for day in 0..12 {
        let of_day = |row: &&ObservationRow| (row.start_us() - START_US) / Day::US == day;
        let of_day: Vec<ObservationRow> = rows.iter().filter(of_day).cloned().collect();
        let texts = batch(Table::ObservationIo, OBSERVATION_IO, &texts(&of_day));
        setting.add_file("acme", Table::ObservationIo, Day::of_us(START_US + day * Day::US), texts).await;
    }
    let search = async |text: &str, limit: u32| {
        let range = Some(TimeRange { from_unix_micros: START_US, to_unix_micros: START_US + 12 * Day::US });
        let asked = SearchTracesRequest { range, text: text.to_owned(), limit, ..Default::default() };
        let found = setting.engine.search_traces(all_of("acme"), asked).await.unwrap();
        let starts: Vec<i64> =
            found.traces.iter().filter_map(|one| Some(one.trace.as_ref()?.start_unix_micros)).collect();
        (starts, found.reading.unwrap().files)
    };
    let (newest, few) = search("needle", 5).await;
    assert!(newest.len() == 5 && few <= 8, "{few} of 24 files for {newest:?}");
    let (everyone, all) = search("NEEDLE", 200).await;
    assert!(everyone.len() > 100 && everyone.is_sorted_by(|a, b| a >= b) && all == 24, "{} by {all}", everyone.len());
    assert_eq!(everyone[..5], newest);
    assert_eq!(search("hay that nobody made", 5).await, (Vec::new(), 12), "texts alone");
}

#[tokio::test]
async fn a_text_is_found_in_what_was_said() {
    let rows = observations(34, 210, 100);
    let setting = acme(&rows).await;
    add_texts(&setting, &rows).await;
    let with_needle: BTreeSet<&str> = rows.iter().step_by(7).map(|row| row.observation.trace_id.as_str()).collect();
    let expected = newest_first(&rows, |rows| with_needle.contains(rows[0].observation.trace_id.as_str()));
    let search = async |asked: SearchTracesRequest| setting.engine.search_traces(all_of("acme"), asked).await.unwrap();
    let asked = SearchTracesRequest { range: all(), text: "needle".to_owned(), limit: 7, ..Default::default() };
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = search(SearchTracesRequest { cursor, ..asked.clone() }).await;
        for trace in page.traces {
            assert!(trace.hits >= 1 && !trace.snippets.is_empty());
            for snippet in trace.snippets {
                assert!(
                    snippet.is_output && snippet.text.contains("NEEDLE") && snippet.text.len() < 200,
                    "{snippet:?}"
                );
            }
            found.push(trace.trace.unwrap().id);
        }
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(found, expected);
    let nothing = [
        SearchTracesRequest { case_sensitive: true, ..asked.clone() },
        SearchTracesRequest { search_in: SearchIn::Input.into(), ..asked.clone() },
        SearchTracesRequest { text: "needle%".to_owned(), ..asked.clone() },
        SearchTracesRequest { filters: vec![filter("user_id", F::Equals, &["nobody"])], ..asked.clone() },
    ];
    for asked in nothing {
        assert_eq!(search(asked).await.traces, []);
    }
}

#[tokio::test]
async fn a_long_trace_comes_whole_and_in_parts() {
    let mut rows = observations(35, 1_300, 5);
    for (at, row) in rows.iter_mut().enumerate() {
        let mut changed = Observation::clone(&row.observation);
        changed.trace_id = "long".to_owned();
        changed.start_ns = Some((START_US + at as i64) * 1_000);
        row.observation = changed.into();
    }
    let setting = acme(&rows).await;
    add_texts(&setting, &rows).await;
    let mut judged = Score::clone(&score(1, 0.5, START_US).score);
    judged.trace_id = Some("long".to_owned());
    setting.add_fresh_scores("acme", &[ScoreRow { score: judged.into(), ingested_at_us: START_US, provenance: None }]);
    let asked = GetTraceRequest { trace_id: "long".to_owned(), with_io: true, range: None };
    let parts = setting.engine.trace(all_of("acme"), asked.clone()).await.unwrap();
    let parts: Vec<GetTraceResponse> = parts.map(Result::unwrap).collect().await;
    assert!(parts.len() >= 7, "{}", parts.len());
    assert_eq!(parts[0].trace.as_ref().unwrap().observations, 1_300);
    let observations: Vec<_> = parts.iter().flat_map(|part| &part.observations).collect();
    assert_eq!(observations.len(), 1_300);
    for (found, row) in observations.iter().zip(&rows) {
        let said = found.observation.as_ref().unwrap();
        assert_eq!(
            (&said.id, &said.model, &said.metadata),
            (&row.observation.id, &row.observation.model, &row.observation.metadata)
        );
        assert_eq!(said.parent_id, row.observation.parent_id);
        let cost = row.cost.total.map(|cost| rust_decimal::Decimal::from_i128_with_scale(cost.pico().into(), 12));
        assert_eq!(found.total_cost, cost.map(|cost| cost.normalize().to_string()));
    }
    let texts: BTreeSet<_> = parts.iter().flat_map(|part| &part.texts).map(|text| &text.observation_id).collect();
    assert_eq!(texts.len(), 1_300);
    assert_eq!(parts.iter().flat_map(|part| &part.scores).count(), 1);
    assert!(parts.last().unwrap().reading.is_some());
    let narrow = GetTraceRequest { with_io: false, ..asked };
    let parts = setting.engine.trace(all_of("acme"), narrow).await.unwrap();
    assert!(parts.map(Result::unwrap).all(|part| async move { part.texts.is_empty() }).await);
}

#[tokio::test]
async fn what_cannot_be_asked_of_traces_is_named() {
    let setting = acme(&observations(36, 30, 5)).await;
    let list = |asked: ListTracesRequest| {
        let engine = setting.engine.clone();
        async move { engine.list_traces(all_of("acme"), asked).await.unwrap_err() }
    };
    let asked = || ListTracesRequest { range: all(), ..Default::default() };
    let cases = [
        (ListTracesRequest { range: None, ..asked() }, "time range is required"),
        (ListTracesRequest { limit: 1_001, ..asked() }, "use 1 to 1000"),
        (ListTracesRequest { cursor: "?".into(), ..asked() }, "next_cursor"),
        (ListTracesRequest { fields: vec!["modles".into()], ..asked() }, "did you mean models"),
        (ListTracesRequest { filters: vec![filter("model", F::IsNull, &[])], ..asked() }, "not a field of traces"),
    ];
    for (asked, expected) in cases {
        let error = list(asked).await;
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let nothing = GetTraceRequest { trace_id: "nothing".to_owned(), ..Default::default() };
    let error = setting.engine.trace(all_of("acme"), nothing).await.err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
    let empty = SearchTracesRequest { range: all(), ..Default::default() };
    let error = setting.engine.search_traces(all_of("acme"), empty).await.unwrap_err();
    assert!(error.to_string().contains("0 characters"), "{error}");
}
