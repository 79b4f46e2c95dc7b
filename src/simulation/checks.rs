//! What must hold, asked in SQL as a client would.

use std::collections::BTreeMap;

use serde_json::Value;

use super::history::{self, History, Told};
use super::node::Node;
use crate::model::tables::Table;
use crate::price::PriceBook;

const OBSERVATIONS: &str = "SELECT trace_id, id, name, model, user_id, session_id, input_tokens, output_tokens, \
     CAST(latency_ms AS BIGINT) AS latency_ms, tags, trace_name, start_ns, CAST(total_cost AS VARCHAR) AS cost, metadata \
     FROM observations";
const IO: &str = "SELECT trace_id, id, input, output FROM observation_io";
const TRACES: &str = "SELECT trace_id, name, user_id, session_id, tags, metadata FROM trace_facts";
const SCORES: &str = "SELECT id, value, comment FROM scores";

type Rows = BTreeMap<String, Value>;

/// The rows of a table by key; each key once (I2).
fn rows(node: &Node, table: Table, statement: &str) -> Result<Rows, String> {
    let mut rows = Rows::new();
    for row in node.answer(statement) {
        let key: Vec<&str> = table.key_columns().iter().map(|name| row[*name].as_str().unwrap()).collect();
        if let Some(other) = rows.insert(key.join("/"), row.clone()) {
            return Err(format!("{} holds twice: {row} and {other}", table.name()));
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

const STATEMENTS: [(Table, &str); 4] = [
    (Table::Observations, OBSERVATIONS),
    (Table::ObservationIo, IO),
    (Table::TraceFacts, TRACES),
    (Table::Scores, SCORES),
];

/// What `writer` acked can be read there, each id once; rows of traces that only it knows are right (I1, I2, I3, I4).
pub(super) fn own_acks(node: &Node, history: &History, writer: usize) -> Result<(), String> {
    let told = history.told(|request| request.acked.contains(&writer));
    let exact = history.exact_traces(writer);
    for (table, expected) in expected(&told) {
        let statement = STATEMENTS.iter().find(|(of, _)| *of == table).unwrap().1;
        let found = rows(node, table, statement)?;
        for (key, row) in &expected {
            let Some(found) = found.get(key) else {
                // What is the text of a trace depends on all that is said of it; so it is with rows said by others too.
                return Err(format!("I1: {} lacks {key}, which writer {writer} acked", table.name()));
            };
            let trace = key.split('/').next().unwrap();
            if table != Table::Scores && exact.contains(trace) && !same(row, found) {
                return Err(format!("I3: {} says {found}\n of what must be {row}", table.name()));
            }
        }
    }
    Ok(())
}

/// All that was ever said can be read, each id once, merged by rule; the books balance (I1, I2, I3, I9).
pub(super) fn all(node: &Node, history: &History) -> Result<(), String> {
    let told = history.told(|_| true);
    for (table, expected) in expected(&told) {
        let statement = STATEMENTS.iter().find(|(of, _)| *of == table).unwrap().1;
        let found = rows(node, table, statement)?;
        for (key, row) in &expected {
            match found.get(key) {
                None => return Err(format!("I1: {} lacks {key}", table.name())),
                Some(found) if !same(row, found) => {
                    return Err(format!("I3: {} says {found}\n of what must be {row}", table.name()));
                }
                Some(_) => {}
            }
        }
        if let Some(key) = found.keys().find(|key| !expected.contains_key(*key)) {
            return Err(format!("{} holds {key}, of which nobody spoke", table.name()));
        }
    }
    let ids = (told.observations.len() + told.scores.len()) as i64;
    match books(node)? {
        stored if stored == ids => Ok(()),
        stored => Err(format!("I9: {stored} are counted as stored, and {ids} ids were said")),
    }
}

/// They balance once nothing waits in another's buffer. How many are stored.
fn books(node: &Node) -> Result<i64, String> {
    let sums = node.answer("SELECT outcome, sum(count) AS count FROM ledger GROUP BY outcome");
    let sum = |outcome: &str| {
        let row = sums.iter().find(|row| row["outcome"] == outcome);
        row.and_then(|row| row["count"].as_i64()).unwrap_or(0)
    };
    let [received, stored, merged, rejected] = ["received", "stored", "merged", "rejected"].map(sum);
    match received == stored + merged + rejected {
        true => Ok(stored),
        false => Err(format!("I9: received {received}, stored {stored} + merged {merged} + rejected {rejected}")),
    }
}

/// A trace's name is only told apart where somebody said one.
fn same(expected: &Value, found: &Value) -> bool {
    let (expected, found) = (expected.as_object().unwrap(), found.as_object().unwrap());
    expected.iter().all(|(name, value)| match name.as_str() {
        "trace_name" if value.is_null() => true,
        _ => *value == found[name],
    })
}
