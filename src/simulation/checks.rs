//! What must hold, asked in SQL as a client would.

use std::collections::BTreeMap;

use serde_json::Value;

use super::client::Client;
use super::history::{self, Doubts, Told};
use super::node::Node;
use crate::base::{Day, TimestampUs};
use crate::model::tables::Table;
use crate::price::PriceBook;
use crate::wire::{Aggregation, Measure, MetricsRequest, TimeBucket, TimeRange, TimeUnit, View};

const STATEMENTS: [(Table, &str); 4] = [
    (
        Table::Observations,
        "SELECT trace_id, id, name, model, user_id, session_id, input_tokens, output_tokens, \
         CAST(latency_ms AS BIGINT) AS latency_ms, tags, trace_name, start_ns, CAST(total_cost AS VARCHAR) AS cost, \
         metadata FROM observations",
    ),
    (Table::ObservationIo, "SELECT trace_id, id, input, output FROM observation_io"),
    (Table::TraceFacts, "SELECT trace_id, name, user_id, session_id, tags, metadata FROM trace_facts"),
    (Table::Scores, "SELECT id, value, comment FROM scores"),
];
/// What observations have from their traces.
const FROM_TRACES: [&str; 4] = ["user_id", "session_id", "tags", "trace_name"];
/// Columns whose words begin with the voice of the tenant they belong to.
const VOICED: [&str; 7] = ["name", "user_id", "session_id", "trace_name", "input", "output", "comment"];

type Rows = BTreeMap<String, Value>;

/// The rows of a table by key: each key once (I2), what was forgotten is gone, and nothing is another tenant's (I5).
fn rows(node: &Node, client: &Client, doubts: &Doubts<'_>, table: Table) -> Result<Rows, String> {
    let statement = STATEMENTS.iter().find(|(of, _)| *of == table).unwrap().1;
    let mut rows = Rows::new();
    for row in node.answer(&client.tenant, statement) {
        let texts = VOICED.into_iter().filter_map(|name| row[name].as_str());
        if let Some(text) = texts.clone().find(|text| !text.starts_with(client.speaker.voice)) {
            return Err(format!("I5: {} of {} says {text:?}", table.name(), client.tenant));
        }
        let mut named = ["trace_id", "user_id", "session_id"].into_iter().filter_map(|name| row[name].as_str());
        let is_gone = |name: &str| doubts.gone_traces.contains(name) || doubts.gone_owners.contains(name);
        if let Some(name) = named.find(|name| is_gone(name)) {
            return Err(format!("{} shows {name:?}, which was erased: {row}", table.name()));
        }
        let key: Vec<&str> = table.key_columns().iter().map(|name| row[*name].as_str().unwrap()).collect();
        if let Some(other) = rows.insert(key.join("/"), row.clone()) {
            return Err(format!("I2: {} holds twice: {row} and {other}", table.name()));
        }
    }
    Ok(rows)
}

/// The rows that must come of what was told.
fn expected(told: &Told<'_>) -> BTreeMap<Table, Rows> {
    let book = PriceBook::built_in();
    let observations = told.observations.iter().map(|((trace, id), said)| {
        (format!("{trace}/{id}"), history::observation_row(said, told.traces.get(trace), &book))
    });
    let io = told
        .observations
        .iter()
        .filter_map(|((trace, id), said)| Some((format!("{trace}/{id}"), history::io_row(said)?)));
    let io_of_traces =
        told.traces.iter().filter_map(|(trace, said)| Some((format!("{trace}/"), history::io_row_of_trace(said)?)));
    let traces = told.traces.iter().map(|(trace, said)| (trace.to_string(), history::trace_row(said)));
    let scores = told.scores.iter().map(|(id, said)| (id.to_string(), history::score_row(said)));
    [
        (Table::Observations, observations.collect()),
        (Table::ObservationIo, io.chain(io_of_traces).collect()),
        (Table::TraceFacts, traces.collect()),
        (Table::Scores, scores.collect()),
    ]
    .into()
}

/// What `writer` acked can be read there, each id once; rows of traces that only it knows are right (I1, I2, I3, I4);
/// and there is nothing that nobody said here (I5).
pub(super) fn own_acks(node: &Node, client: &Client, writer: usize) -> Result<(), String> {
    let (history, doubts) = (&client.history, client.history.doubts());
    let exact = history.exact_traces(writer);
    let mut known = expected(&history.told(|_| true));
    for (table, expected) in expected(&history.told(|request| request.acked.contains(&writer))) {
        let found = rows(node, client, &doubts, table)?;
        for (key, row) in expected.iter().filter(|(key, _)| !doubts.has(key)) {
            let Some(found) = found.get(key) else {
                return Err(format!("I1: {} lacks {key}, which writer {writer} acked", table.name()));
            };
            // What is known of a trace depends on all that is said of it; so it is with rows said by others too.
            let trace = key.split('/').next().unwrap();
            if table != Table::Scores && exact.contains(trace) && !same(table, row, found, &doubts) {
                return Err(format!("I3: {} says {found}\n of what must be {row}", table.name()));
            }
        }
        let known = known.remove(&table).unwrap();
        nothing_else(table, &found, &known)?;
    }
    Ok(())
}

/// All that was ever said and not taken can be read, each id once, merged by rule; the books balance (I1, I2, I3, I9).
/// For how many files roll-ups stood.
pub(super) fn all(node: &Node, client: &Client) -> Result<u64, String> {
    let (told, doubts) = (client.history.told(|_| true), client.history.doubts());
    for (table, expected) in expected(&told) {
        let found = rows(node, client, &doubts, table)?;
        for (key, row) in expected.iter().filter(|(key, _)| !doubts.has(key)) {
            match found.get(key) {
                None => return Err(format!("I1: {} lacks {key}", table.name())),
                Some(found) if !same(table, row, found, &doubts) => {
                    return Err(format!("I3: {} says {found}\n of what must be {row}", table.name()));
                }
                Some(_) => {}
            }
        }
        nothing_else(table, &found, &expected)?;
    }
    let rolled_up = rollups(node, client)?;
    let ids = (told.observations.len() + told.scores.len()) as i64;
    match books(node, client)? {
        // How much was taken, and came again, is not known; the doctor compares what stands with what was dropped.
        stored if stored == ids || client.history.is_trimmed() => Ok(rolled_up),
        stored => Err(format!("I9: {stored} are counted as stored, and {ids} ids were said")),
    }
}

fn nothing_else(table: Table, found: &Rows, known: &Rows) -> Result<(), String> {
    // The text of what was said by half and taken by half may be there and empty.
    match found.keys().find(|key| !known.contains_key(*key)) {
        Some(key) => Err(format!("I5: {} holds {key}, of which nobody spoke here", table.name())),
        None => Ok(()),
    }
}

/// Sums that were kept of files are those of their rows: of all time, and of a part that begins and ends in the middle of
/// an hour. For how many files they stood.
fn rollups(node: &Node, client: &Client) -> Result<u64, String> {
    let measure = |aggregation: Aggregation, field: &str| Measure {
        aggregation: aggregation.into(),
        field: field.to_owned(),
        percentile: 90.0,
        ..Default::default()
    };
    let asked = MetricsRequest {
        range: Some(TimeRange { from_unix_micros: 0, to_unix_micros: TimestampUs::MAX }),
        dimensions: vec!["model".to_owned(), "name".to_owned(), "trace_name".to_owned()],
        measures: vec![
            measure(Aggregation::Count, ""),
            measure(Aggregation::Sum, "total_cost"),
            measure(Aggregation::Sum, "input_tokens"),
            measure(Aggregation::Percentile, "latency_ms"),
        ],
        ..Default::default()
    };
    let ends =
        "SELECT CAST(min(start_time) AS BIGINT) AS first, CAST(max(start_time) AS BIGINT) AS last FROM observations";
    let ends = node.answer(&client.tenant, ends);
    let (first, last) = (ends[0]["first"].as_i64().unwrap_or(0), ends[0]["last"].as_i64().unwrap_or(1));
    let part = TimeRange { from_unix_micros: first / 2 + last / 2 - last / 1_000, to_unix_micros: last };
    let bucket = Some(TimeBucket { unit: TimeUnit::Day.into(), count: 1, skip_gaps: true, ..Default::default() });
    let of_part = MetricsRequest { range: Some(part), bucket, ..asked.clone() };
    let of_traces = [&asked, &of_part].map(|asked| MetricsRequest {
        view: View::Traces.into(),
        dimensions: vec!["name".to_owned(), "user_id".to_owned()],
        ..asked.clone()
    });
    let mut files = 0;
    for asked in [asked, of_part]
        .iter()
        .chain(&of_traces)
        .filter(|asked| asked.range.is_some_and(|range| range.from_unix_micros < range.to_unix_micros))
    {
        let [summed, plain] = node.summed(&client.tenant, asked);
        if summed.rows != plain.rows {
            return Err(format!("I6: roll-ups say {:?}\n where rows say {:?}", summed.rows, plain.rows));
        }
        files += summed.reading.map_or(0, |reading| reading.files_rolled_up);
    }
    Ok(files)
}

/// No day that retention took has rows.
pub(super) fn retention(node: &Node, client: &Client, kept_from: Day) -> Result<(), String> {
    for (table, _) in STATEMENTS {
        let statement = format!("SELECT count(*) AS n FROM {} WHERE day < DATE '{kept_from}'", table.name());
        if let count @ 1.. = node.answer(&client.tenant, &statement)[0]["n"].as_i64().unwrap() {
            return Err(format!("{} holds {count} rows from before {kept_from}", table.name()));
        }
    }
    Ok(())
}

/// They balance once nothing waits in another's buffer. How many are stored.
fn books(node: &Node, client: &Client) -> Result<i64, String> {
    let sums = node.answer(&client.tenant, "SELECT outcome, sum(count) AS count FROM ledger GROUP BY outcome");
    let sum = |outcome: &str| {
        let row = sums.iter().find(|row| row["outcome"] == outcome);
        row.and_then(|row| row["count"].as_i64()).unwrap_or(0)
    };
    let [received, stored, merged, rejected, erased] = ["received", "stored", "merged", "rejected", "erased"].map(sum);
    match received == stored + merged + rejected + erased {
        true => Ok(stored),
        false => Err(format!(
            "I9: received {received}, stored {stored} + merged {merged} + rejected {rejected} + erased {erased}"
        )),
    }
}

/// A trace's name is only told apart where somebody said one.
fn same(table: Table, expected: &Value, found: &Value, doubts: &Doubts<'_>) -> bool {
    let facts_in_doubt = table == Table::Observations && doubts.has_facts(expected["trace_id"].as_str().unwrap());
    let (expected, found) = (expected.as_object().unwrap(), found.as_object().unwrap());
    expected.iter().all(|(name, value)| match name.as_str() {
        "trace_name" if value.is_null() => true,
        name if facts_in_doubt && FROM_TRACES.contains(&name) => true,
        _ => *value == found[name],
    })
}
