//! Writes a call to a model, and asks what such calls cost and how slow they are.
//!
//!     cargo run --package tracelake-example

use std::env;
use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Made from the protos by `build.rs`.
#[allow(clippy::doc_lazy_continuation, clippy::large_enum_variant)]
mod wire {
    tonic::include_proto!("tracelake.v1");
}
use wire::ingest_service_client::IngestServiceClient;
use wire::metric_value::Value;
use wire::metrics_service_client::MetricsServiceClient;
use wire::{
    Aggregation, CostBreakdownRequest, IngestRequest, LatencyPercentilesRequest, Measure, MetricsRequest,
    MetricsResponse, MetricsRow, Observation, SubscribeRequest, TimeBucket, TimeRange, TimeSeriesRequest, TimeUnit,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
type Signed = InterceptedService<Channel, Key>;

#[tokio::main]
async fn main() -> Outcome {
    let server = env::var("TRACELAKE_SERVER").unwrap_or_else(|_| "127.0.0.1:4317".to_owned());
    let channel = Endpoint::from_shared(format!("http://{server}"))?.connect().await?;
    let key = Key::of(&env::var("TRACELAKE_PUBLIC_KEY")?, &env::var("TRACELAKE_SECRET_KEY")?)?;
    let mut ingest = IngestServiceClient::with_interceptor(channel.clone(), key.clone());
    let mut metrics = MetricsServiceClient::with_interceptor(channel, key);

    write(&mut ingest).await?;
    let now = since_1970()?.as_micros() as i64;
    let hour = TimeRange { from_unix_micros: now - 3_600_000_000, to_unix_micros: now + 3_600_000_000 };
    cost_breakdown(&mut metrics, hour).await?;
    latency_percentiles(&mut metrics, hour).await?;
    time_series(&mut metrics, hour).await?;
    subscribe(&mut metrics, &mut ingest, hour).await
}

/// When the answer is there, the call is durable and the next question sees it.
async fn write(ingest: &mut IngestServiceClient<Signed>) -> Outcome {
    let end = since_1970()?.as_nanos() as i64;
    let call = Observation {
        trace_id: format!("trace-{end}"),
        id: format!("call-{end}"),
        name: Some("answer".to_owned()),
        start_unix_nano: Some(end - 800_000_000),
        end_unix_nano: Some(end),
        model: Some("gpt-4o-mini".to_owned()),
        input_tokens: Some(1_000),
        output_tokens: Some(200),
        input: Some("What is a lake?".to_owned()),
        output: Some("Standing water, surrounded by land.".to_owned()),
        user_id: Some("ada".to_owned()),
        tags: vec!["example".to_owned()],
        ..Default::default()
    };
    let request = IngestRequest { observations: vec![call], ..Default::default() };
    let answer = ingest.ingest(request).await?.into_inner();
    println!("written: {} accepted, {} rejected", answer.accepted, answer.rejected.len());
    Ok(())
}

async fn cost_breakdown(metrics: &mut MetricsServiceClient<Signed>, range: TimeRange) -> Outcome {
    let dimensions = vec!["model".to_owned(), "user_id".to_owned()];
    let request = CostBreakdownRequest { range: Some(range), dimensions, ..Default::default() };
    let answer = metrics.cost_breakdown(request).await?.into_inner();
    for row in &answer.rows {
        let (model, user) = (dimension(row, 0), dimension(row, 1));
        let (calls, cost) = (value(&answer, row, "count"), value(&answer, row, "sum_total_cost"));
        println!("cost: {model} for {user}: {calls} calls, {cost} USD");
    }
    Ok(())
}

async fn latency_percentiles(metrics: &mut MetricsServiceClient<Signed>, range: TimeRange) -> Outcome {
    let request = LatencyPercentilesRequest { range: Some(range), ..Default::default() };
    let answer = metrics.latency_percentiles(request).await?.into_inner();
    for row in &answer.rows {
        println!("latency: {}: p95 {} ms", dimension(row, 0), value(&answer, row, "p95_latency_ms"));
    }
    Ok(())
}

async fn time_series(metrics: &mut MetricsServiceClient<Signed>, range: TimeRange) -> Outcome {
    let bucket = TimeBucket {
        unit: TimeUnit::Hour.into(),
        time_zone: "Europe/Berlin".to_owned(),
        skip_gaps: true,
        ..Default::default()
    };
    let request = TimeSeriesRequest { range: Some(range), bucket: Some(bucket), ..Default::default() };
    let answer = metrics.time_series(request).await?.into_inner();
    for row in &answer.rows {
        let minute = row.bucket_start_unix_micros.unwrap_or_default() / 60_000_000;
        let (hour, minute) = (minute / 60 % 24, minute % 60);
        println!("series: from {hour:02}:{minute:02} UTC: {} tokens", value(&answer, row, "sum_total_tokens"));
    }
    Ok(())
}

/// First the whole answer, then whatever changes in it.
async fn subscribe(
    metrics: &mut MetricsServiceClient<Signed>,
    ingest: &mut IngestServiceClient<Signed>,
    range: TimeRange,
) -> Outcome {
    let query = MetricsRequest {
        range: Some(range),
        measures: vec![Measure { aggregation: Aggregation::Count.into(), ..Default::default() }],
        dimensions: vec!["model".to_owned()],
        ..Default::default()
    };
    let request = SubscribeRequest { query: Some(query), interval_ms: 1_000 };
    let mut changes = metrics.subscribe(request).await?.into_inner();
    for is_last in [false, true] {
        let Some(changed) = changes.message().await?.and_then(|message| message.changed) else { break };
        for row in &changed.rows {
            println!("pushed: {}: {} calls", dimension(row, 0), value(&changed, row, "count"));
        }
        if !is_last {
            write(ingest).await?;
        }
    }
    Ok(())
}

fn dimension(row: &MetricsRow, place: usize) -> String {
    shown(row.dimensions.get(place).and_then(|dimension| dimension.value.as_ref()))
}

/// A measure by its name.
fn value(answer: &MetricsResponse, row: &MetricsRow, name: &str) -> String {
    let place = answer.measures.iter().position(|measure| measure.name == name);
    shown(place.and_then(|place| row.measures.get(place)?.value.as_ref()))
}

fn shown(value: Option<&Value>) -> String {
    match value {
        // Money is decimal text: a float would round it.
        Some(Value::Text(text) | Value::Decimal(text)) => text.clone(),
        Some(Value::Integer(integer)) => integer.to_string(),
        Some(Value::Number(number)) => format!("{number:.0}"),
        other => format!("{other:?}"),
    }
}

fn since_1970() -> Outcome<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// Attaches `authorization: Basic …` to every call.
#[derive(Clone)]
struct Key(MetadataValue<Ascii>);

impl Key {
    fn of(public_key: &str, secret_key: &str) -> Outcome<Self> {
        let token = BASE64_STANDARD.encode(format!("{public_key}:{secret_key}"));
        Ok(Self(format!("Basic {token}").parse()?))
    }
}

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}
