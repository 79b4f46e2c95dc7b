//! I5 within a tenant: a key bound to one user or one account sees that one's rows, by whatever it asks.

use super::*;
use crate::catalog::keys::Bound;
use crate::model::TraceFacts;
use crate::model::tables::{IoRow, OBSERVATION_IO, TRACE_FACTS, TraceRow};
use crate::query::Scope;
use crate::query::records::{RecordKind, Records, RecordsAsked, With};
use crate::wire;

fn user(user: &str) -> Scope {
    Scope { tenant: "acme".parse().unwrap(), bound: Some(Bound::User(user.to_owned())) }
}

fn account(account: &str) -> Scope {
    Scope { tenant: "acme".parse().unwrap(), bound: Some(Bound::Account(account.to_owned())) }
}

impl Setting {
    async fn bound_text(&self, whose: &Scope, sql: &str) -> String {
        let asked = self.engine.sql(whose.clone(), sql, SqlLimits::default()).await;
        let rows: Result<Vec<RecordBatch>, QueryError> = match asked {
            Ok(answer) => answer.try_collect().await,
            Err(error) => Err(error),
        };
        match rows {
            Ok(batches) => pretty_format_batches(&batches).unwrap().to_string(),
            Err(e) => format!("{:?}: {e}", e.kind()),
        }
    }
}

/// One observation of each pair of trace and user, named after the secrets of its user, with text.
async fn shared_and_own() -> Setting {
    let setting = Setting::new(QueryLimits::default()).await;
    let pairs = [("own", "ann"), ("own", "ann"), ("shared", "ann"), ("shared", "bob"), ("bobs", "bob"), ("no", "")];
    let rows: Vec<ObservationRow> = observations(1, pairs.len(), 5)
        .into_iter()
        .zip(pairs)
        .map(|(mut row, (trace, user))| {
            let mut observation = (*row.observation).clone();
            observation.trace_id = trace.to_owned();
            observation.user_id = (!user.is_empty()).then(|| user.to_owned());
            observation.session_id = Some(format!("session-{}", if trace == "own" { "own" } else { "mixed" }));
            observation.name = Some(if user == "ann" { "7" } else { "SECRET of bob" }.to_owned());
            observation.input = Some(format!("{user} says"));
            observation.metadata = [("tenant_id".to_owned(), format!("account of {user}"))].into();
            row.observation = Arc::new(observation);
            row
        })
        .collect();
    setting.add_files("acme", &rows[..4]).await;
    setting.add_fresh("acme", &rows[4..]);

    let day = Day::of_us(START_US).days();
    let facts = |trace: &str| {
        let text = |what: &str| Some(format!("{what} of trace {trace}"));
        let (trace_id, timestamp_us) = (trace.to_owned(), Some(START_US));
        Arc::new(TraceFacts { trace_id, timestamp_us, name: text("name"), input: text("input"), ..Default::default() })
    };
    let traces = ["own", "shared", "bobs", "no", "empty"].map(facts);
    let mut io: Vec<IoRow> = rows
        .iter()
        .map(|row| IoRow::Observation {
            observation: Arc::clone(&row.observation),
            start_us: START_US,
            provenance: None,
        })
        .collect();
    io.extend(traces.iter().map(|facts| IoRow::Trace {
        facts: Arc::clone(facts),
        start_us: START_US,
        provenance: None,
    }));
    let days = |count: usize| std::iter::repeat_n(day, count);
    let table = Table::ObservationIo;
    setting.add_fresh_batch("acme", table, batch(table, OBSERVATION_IO, &io), days(io.len()));
    let facts: Vec<TraceRow> = traces
        .iter()
        .map(|facts| TraceRow { facts: Arc::clone(facts), ingested_at_us: START_US, provenance: None })
        .collect();
    let table = Table::TraceFacts;
    setting.add_fresh_batch("acme", table, batch(table, TRACE_FACTS, &facts), days(facts.len()));

    let (own, bobs) = (&rows[0].observation, &rows[3].observation);
    let targets = [
        (Some(own.trace_id.clone()), Some(own.id.clone()), None),
        (Some(bobs.trace_id.clone()), Some(bobs.id.clone()), None),
        (Some("own".to_owned()), None, None),
        (Some("shared".to_owned()), None, None),
        (None, None, Some("session-own".to_owned())),
        (None, None, Some("session-mixed".to_owned())),
        (Some("unknown".to_owned()), None, None),
    ];
    let scores: Vec<ScoreRow> = targets
        .into_iter()
        .enumerate()
        .map(|(at, (trace_id, observation_id, session_id))| {
            let mut row = score(at, 1.0, START_US);
            row.score = Arc::new(Score { trace_id, observation_id, session_id, ..(*row.score).clone() });
            row
        })
        .collect();
    setting.add_fresh_scores("acme", &scores);
    setting
}

#[tokio::test]
async fn a_bound_key_sees_its_own_rows_and_what_is_said_of_wholly_own_traces() {
    let setting = shared_and_own().await;
    let list = async |whose: &Scope, what: &str, from: &str| {
        let text = setting.bound_text(whose, &format!("SELECT {what} AS x FROM {from} ORDER BY 1")).await;
        let cells = text.lines().filter_map(|line| line.strip_prefix("| ")).skip(1);
        cells.map(|cell| cell.trim_end_matches(" |").trim_end().to_owned()).collect::<Vec<_>>()
    };
    for ann in [user("ann"), account("account of ann")] {
        assert_eq!(list(&ann, "trace_id", "observations").await, ["own", "own", "shared"]);
        assert_eq!(list(&ann, "trace_id", "trace_facts").await, ["own"]);
        let texts = ["ann says", "ann says", "ann says", "input of trace own"];
        assert_eq!(list(&ann, "input", "observation_io").await, texts);
        assert_eq!(list(&ann, "id", "scores").await, ["score-0", "score-2", "score-4"]);
        assert_eq!(list(&ann, "count(*)", "observations").await, ["3"], "no count from what is known of files");
    }
    assert_eq!(list(&user("bob"), "trace_id", "observations").await, ["bobs", "shared"]);
    assert_eq!(list(&user("bob"), "id", "scores").await, ["score-1"]);
    for nobody in [user("nobody"), user(""), account("ann"), user("ann' OR '1'='1")] {
        for table in ["observations", "trace_facts", "observation_io", "scores"] {
            assert!(list(&nobody, "*", table).await.is_empty(), "{nobody:?} {table}");
        }
    }
}

#[tokio::test]
async fn no_question_of_a_bound_key_tells_of_the_rows_of_others() {
    let setting = shared_and_own().await;
    let ann = user("ann");
    for sql in [
        // A cast that fails on the others' rows, wherever the planner may want to put it.
        "SELECT sum(CAST(name AS BIGINT)) FROM observations",
        "SELECT count(*) FROM observations WHERE CAST(name AS BIGINT) > 0",
        "SELECT count(*) FROM observations WHERE 1 / (CASE WHEN user_id = 'ann' THEN 1 ELSE 0 END) = 1",
        "SELECT count(*) FROM observations WHERE user_id <> 'ann' AND CAST(name AS BIGINT) > 0",
        "SELECT count(*) FROM observations o JOIN observation_io i ON o.id = i.id WHERE CAST(o.name AS BIGINT) = 7",
        "SELECT count(*) FROM observation_io WHERE CAST(input AS BIGINT) > 0 AND false",
        "SELECT name FROM observations ORDER BY CAST(name AS BIGINT) LIMIT 1",
        "SELECT user_id, count(*) FROM observations GROUP BY ROLLUP (user_id)",
        "SELECT (SELECT max(name) FROM observations), (SELECT min(user_id) FROM observations)",
        "SELECT DISTINCT session_id FROM observations WHERE session_id LIKE '%mixed' OR true",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM information_schema.views",
        "EXPLAIN SELECT * FROM observations",
        "EXPLAIN ANALYZE SELECT * FROM observations",
        "EXPLAIN VERBOSE SELECT count(*) FROM observations WHERE name = 'x'",
    ] {
        let text = setting.bound_text(&ann, sql).await;
        let leaks = ["bob", "SECRET", "bool_and", "DataSource", ".parquet"].into_iter().find(|l| text.contains(l));
        assert_eq!(leaks, None, "{sql}: {text}");
        assert!(text.starts_with('+'), "{sql}: {text}");
    }
    let shown = setting.bound_text(&ann, "SELECT table_name FROM information_schema.tables").await;
    for hidden in ["ledger", "files", "erasures"] {
        assert!(!shown.contains(hidden), "{shown}");
        let refused = setting.bound_text(&ann, &format!("SELECT * FROM {hidden}")).await;
        assert!(refused.starts_with("NotFound") || refused.starts_with("Invalid"), "{hidden}: {refused}");
    }
    for refused in ["SELECT * FROM 'tenant://own/observations/'", "COPY observations TO 'tenant://own/x'"] {
        let text = setting.bound_text(&ann, refused).await;
        assert!(!text.starts_with('+'), "{refused}: {text}");
    }
}

#[tokio::test]
async fn metrics_of_a_bound_key_are_those_of_its_rows() {
    let rows = observations(5, 400, 40);
    let setting = acme(&rows).await;
    let request = wire::MetricsRequest {
        measures: vec![
            wire::Measure { aggregation: wire::Aggregation::Count.into(), ..Default::default() },
            wire::Measure {
                field: "total_cost".to_owned(),
                aggregation: wire::Aggregation::Sum.into(),
                ..Default::default()
            },
        ],
        dimensions: vec!["model".to_owned()],
        with_total: true,
        range: Some(wire::TimeRange { from_unix_micros: START_US, to_unix_micros: START_US + 40 * HOUR_US }),
        ..Default::default()
    };
    let only = |column: &str, value: &str| {
        let filter = wire::Filter {
            field: column.to_owned(),
            operator: wire::FilterOperator::Equals.into(),
            values: vec![value.to_owned()],
            ..Default::default()
        };
        wire::MetricsRequest { filters: vec![filter], ..request.clone() }
    };
    for (whose, column, value) in
        [(user("user 3"), "user_id", "user 3"), (account("account 2"), "account", "account 2")]
    {
        let bound = setting.engine.metrics(whose, vec![request.clone()]).await.unwrap().remove(0);
        let whole = setting.metrics("acme", only(column, value)).await.unwrap();
        assert!(bound.rows.len() > 2);
        assert_eq!((bound.rows, bound.total), (whole.rows, whole.total));
        let told = bound.reading.unwrap();
        assert_eq!((told.rows, told.bytes, told.files, told.files_pruned), (0, 0, 0, 0), "{told:?}");
        assert!(bound.snapshot.is_empty(), "how often the others' rows change is not told");
    }
}

#[tokio::test]
async fn pages_of_a_bound_key_hold_its_own_rows_only() {
    let setting = shared_and_own().await;
    let page = async |whose: &Scope, kind: RecordKind| {
        let range = wire::TimeRange { from_unix_micros: i64::MIN, to_unix_micros: i64::MAX };
        let with = With { count: true, texts: true, members: true, trace: true };
        let asked = RecordsAsked { kind, range, filters: Vec::new(), order: Vec::new(), skip: 0, limit: 50, with };
        let mut answers = setting.engine.records(whose.clone(), vec![asked]).await.unwrap();
        let answer = answers.remove(0);
        let mut ids: Vec<String> = match &answer.records {
            Records::Traces(traces) => traces.iter().map(|trace| format!("{} {:?}", trace.id, trace.input)).collect(),
            Records::Observations(seen) => {
                seen.iter().map(|seen| seen.text.clone().unwrap_or_default().input.unwrap_or_default()).collect()
            }
            Records::Sessions(sessions) => sessions.iter().map(|session| session.id.clone()).collect(),
            Records::Scores(scores) => scores.iter().map(|score| score.id.clone()).collect(),
        };
        ids.sort();
        assert_eq!(answer.count, Some(ids.len() as u64));
        assert!(!format!("{:?}", answer.records).contains("bob"), "{:?}", answer.records);
        ids
    };
    for ann in [user("ann"), account("account of ann")] {
        let traces = ["own Some(\"input of trace own\")", "shared None"];
        assert_eq!(page(&ann, RecordKind::Traces).await, traces);
        assert_eq!(page(&ann, RecordKind::Observations).await, ["ann says"; 3]);
        assert_eq!(page(&ann, RecordKind::Sessions).await, ["session-mixed", "session-own"]);
        assert_eq!(page(&ann, RecordKind::Scores).await, ["score-0", "score-2", "score-4"]);
    }
    let nobody = user("nobody");
    for kind in [RecordKind::Traces, RecordKind::Observations, RecordKind::Sessions, RecordKind::Scores] {
        assert_eq!(page(&nobody, kind).await, [""; 0]);
    }
}
