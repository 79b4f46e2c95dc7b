//! Our own proto, whole: observations in parts, trace facts, scores; unary and streaming; read back by SQL and metrics.

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use tracelake::wire::ingest_service_client::IngestServiceClient;
use tracelake::wire::score::Value;
use tracelake::wire::{
    Aggregation, IngestRequest, Measure, MetricsRequest, Observation, Score, TimeRange, Trace, metric_value,
};

use crate::kills::basic;
use crate::process::{ServerProcess, path, sql, texts};

const START_NS: i64 = 1_790_000_000_000_000_000;

fn observation(id: &str) -> Observation {
    Observation {
        trace_id: "trace-1".into(),
        id: id.into(),
        name: Some("llm".into()),
        start_unix_nano: Some(START_NS),
        ..Default::default()
    }
}

fn authorized<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", basic().parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_merge_bad_items_are_refused_alone_and_answers_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    let mut client = IngestServiceClient::connect(format!("http://{}", server.grpc_addr)).await.unwrap();
    let late = Observation {
        end_unix_nano: Some(START_NS + 2_000_000_000),
        event_unix_nano: Some(START_NS + 2_000_000_000),
        model: Some("gpt-4o-mini".into()),
        input_tokens: Some(120),
        cached_input_tokens: Some(100),
        output_tokens: Some(45),
        ..observation("a")
    };
    let first = IngestRequest {
        observations: vec![
            Observation { event_unix_nano: Some(START_NS), ..observation("a") },
            Observation { cost: [("total".to_owned(), "0.0031".to_owned())].into(), ..observation("b") },
            Observation { cost: [("total".to_owned(), "much".to_owned())].into(), ..observation("c") },
            observation(""),
        ],
        traces: vec![Trace { id: "trace-1".into(), user_id: Some("ada".into()), ..Default::default() }],
        scores: vec![Score {
            id: "s".into(),
            trace_id: Some("trace-1".into()),
            name: "helpful".into(),
            value: Some(Value::Numeric(0.5)),
            ..Default::default()
        }],
    };
    let answer = client.ingest(authorized(first)).await.unwrap().into_inner();
    let reasons: Vec<_> =
        answer.rejected.iter().map(|rejected| (rejected.id.as_str(), rejected.reason.as_str())).collect();
    assert_eq!((answer.accepted, reasons), (4, vec![("c", "invalid_cost"), ("", "missing_id")]));
    let parts =
        [vec![late], vec![observation("d")]].map(|observations| IngestRequest { observations, ..Default::default() });
    let answer = client.ingest_stream(authorized(futures::stream::iter(parts))).await.unwrap().into_inner();
    assert_eq!(answer.accepted, 2);

    let connection = server.connect().await;
    let ids = sql(&connection, "SELECT id FROM observations WHERE user_id = 'ada' ORDER BY id").await.unwrap();
    assert_eq!(texts(&ids), ["a", "b", "d"], "each once, with the trace's user");
    let row = sql(
        &connection,
        "SELECT latency_ms, input_tokens, cast(total_cost AS VARCHAR) FROM observations WHERE id = 'a'",
    );
    let row = row.await.unwrap().remove(0);
    assert_eq!(row.column(0).as_primitive::<Float64Type>().value(0), 2000.0, "start from one part, end from another");
    assert_eq!(row.column(1).as_primitive::<Int64Type>().value(0), 120);
    // 20 at 0.15, 100 at 0.075 and 45 at 0.60 USD a million.
    assert_eq!(texts(&[row.project(&[2]).unwrap()]), ["0.000037500000"]);
    let score = sql(&connection, "SELECT value FROM scores WHERE name = 'helpful'").await.unwrap();
    assert_eq!(score[0].column(0).as_primitive::<Float64Type>().value(0), 0.5);

    let start_us = START_NS / 1000;
    let request = MetricsRequest {
        measures: vec![Measure {
            field: "total_cost".into(),
            aggregation: Aggregation::Sum.into(),
            ..Default::default()
        }],
        range: Some(TimeRange { from_unix_micros: start_us - 1, to_unix_micros: start_us + 1 }),
        ..Default::default()
    };
    let total = connection.metrics(request).await.unwrap();
    let Some(metric_value::Value::Decimal(cost)) = &total.rows[0].measures[0].value else { panic!("money is decimal") };
    assert_eq!(cost.trim_end_matches('0'), "0.0031375", "provided 0.0031 and computed 0.0000375, exactly");

    let books = "SELECT outcome || ' ' || cast(sum(count) AS VARCHAR) FROM ledger GROUP BY outcome ORDER BY outcome";
    let books = texts(&sql(&connection, books).await.unwrap());
    assert_eq!(books, ["merged 1", "received 7", "rejected 2", "stored 4"], "received = stored + merged + rejected");
}
