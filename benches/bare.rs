//! The bare loop: OTLP bytes → protobuf → Arrow → Parquet in memory, and nothing else. The limit for the way in:
//! no merging, no pricing, no log, no store. What the way in costs more than this, it must be worth.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeBinaryBuilder, Int32Builder, MapBuilder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use prost::Message;
use tracelake::corpus::{TextSize, requests};

use crate::Settings;
use crate::corpus::config;
use crate::report::{Baseline, Report};
use crate::timing::median;

/// The requests are held in memory; a rate needs no more of them.
const OBSERVATIONS_MAX: u64 = 200_000;
const SPANS_PER_REQUEST: usize = 500;
const ROWS_PER_BATCH: usize = 8_192;

pub(crate) fn run(settings: &Settings, report: &mut Report) {
    let observations = settings.observations.clamp(1, OBSERVATIONS_MAX);
    let bare = case(report, "no text", observations, SPANS_PER_REQUEST, TextSize::None, None);
    case(report, "prompts", (observations / 10).max(1), SPANS_PER_REQUEST, TextSize::Prompts, None);
    // The worst case: every span in a request of its own.
    let one_by_one = (observations / 10).max(1);
    let limit = Baseline { name: "500 a request", value: bare };
    case(report, "one span a request", one_by_one, 1, TextSize::None, Some(limit));
    // The empty case: what a file costs that holds nothing.
    let empty = median(|| (), |()| parquet(&[]).len());
    report.rate("empty files", 1, "files/s", &empty, None);
}

/// Bytes to Parquet on every core at once: the limit for what works on all of them.
pub(crate) fn on_all_cores(bodies: &[Vec<u8>]) -> usize {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        let shares = bodies.chunks(bodies.len().div_ceil(threads).max(1));
        let workers: Vec<_> = shares.map(|share| scope.spawn(move || parquet(share).len())).collect();
        workers.into_iter().map(|worker| worker.join().expect("the bare loop does not fail")).sum()
    })
}

/// Returns spans per second, bytes to Parquet.
fn case(
    report: &mut Report,
    name: &str,
    observations: u64,
    spans_per_request: usize,
    text: TextSize,
    baseline: Option<Baseline>,
) -> f64 {
    let bodies: Vec<Vec<u8>> =
        requests(config(observations, text), spans_per_request).map(|request| request.encode_to_vec()).collect();
    let bytes: u64 = bodies.iter().map(|body| body.len() as u64).sum();

    let protobuf = median(|| (), |()| bodies.iter().map(|body| spans(body).len()).sum::<usize>());
    report.rate(&format!("protobuf, {name}"), observations, "spans/s", &protobuf, None);
    let all = median(|| (), |()| parquet(&bodies).len());
    report.rate(&format!("to Parquet, {name}"), observations, "spans/s", &all, baseline);
    report.rate(&format!("to Parquet, {name}"), bytes, "B/s", &all, None);
    report.value(&format!("Parquet size, {name}"), parquet(&bodies).len() as f64 / observations as f64, "B/span");
    all.per_second(observations)
}

fn spans(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).expect("the corpus encodes what it decodes");
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// One file of all spans: ids, times, status, and the attributes as a map.
pub(crate) fn parquet(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut rows = Rows::new();
    let schema = rows.finish().schema();
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a level of zstd"));
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), schema, Some(properties)).expect("the schema has only plain types");
    for body in bodies {
        for span in spans(body) {
            rows.push(span);
            if rows.count == ROWS_PER_BATCH {
                writer.write(&rows.finish()).expect("memory takes every write");
            }
        }
    }
    writer.write(&rows.finish()).expect("memory takes every write");
    writer.into_inner().expect("memory takes every write")
}

struct Rows {
    count: usize,
    trace_id: FixedSizeBinaryBuilder,
    id: FixedSizeBinaryBuilder,
    parent_id: FixedSizeBinaryBuilder,
    name: StringBuilder,
    start_time: TimestampMicrosecondBuilder,
    end_time: TimestampMicrosecondBuilder,
    status: Int32Builder,
    attributes: MapBuilder<StringBuilder, StringBuilder>,
}

impl Rows {
    fn new() -> Self {
        Self {
            count: 0,
            trace_id: FixedSizeBinaryBuilder::new(16),
            id: FixedSizeBinaryBuilder::new(8),
            parent_id: FixedSizeBinaryBuilder::new(8),
            name: StringBuilder::new(),
            start_time: TimestampMicrosecondBuilder::new(),
            end_time: TimestampMicrosecondBuilder::new(),
            status: Int32Builder::new(),
            attributes: MapBuilder::new(None, StringBuilder::new(), StringBuilder::new()),
        }
    }

    fn push(&mut self, span: Span) {
        self.count += 1;
        self.trace_id.append_value(&span.trace_id).expect("the corpus has ids of 16 bytes");
        self.id.append_value(&span.span_id).expect("the corpus has ids of 8 bytes");
        match span.parent_span_id.as_slice() {
            [] => self.parent_id.append_null(),
            parent => self.parent_id.append_value(parent).expect("the corpus has ids of 8 bytes"),
        }
        self.name.append_value(&span.name);
        self.start_time.append_value(span.start_time_unix_nano as i64 / 1_000);
        self.end_time.append_value(span.end_time_unix_nano as i64 / 1_000);
        self.status.append_value(span.status.map_or(0, |status| status.code));
        for attribute in span.attributes {
            self.attributes.keys().append_value(&attribute.key);
            append(self.attributes.values(), attribute.value);
        }
        self.attributes.append(true).expect("each key was given a value");
    }

    fn finish(&mut self) -> RecordBatch {
        self.count = 0;
        RecordBatch::try_from_iter_with_nullable([
            ("trace_id", Arc::new(self.trace_id.finish()) as ArrayRef, false),
            ("id", Arc::new(self.id.finish()), false),
            ("parent_id", Arc::new(self.parent_id.finish()), true),
            ("name", Arc::new(self.name.finish()), false),
            ("start_time", Arc::new(self.start_time.finish()), false),
            ("end_time", Arc::new(self.end_time.finish()), false),
            ("status", Arc::new(self.status.finish()), false),
            ("attributes", Arc::new(self.attributes.finish()), false),
        ])
        .expect("every push adds one value to every column")
    }
}

fn append(texts: &mut StringBuilder, value: Option<AnyValue>) {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => texts.append_value(text),
        Some(Value::IntValue(integer)) => texts.append_value(integer.to_string()),
        Some(Value::DoubleValue(double)) => texts.append_value(double.to_string()),
        Some(Value::BoolValue(boolean)) => texts.append_value(boolean.to_string()),
        Some(other) => texts.append_value(format!("{other:?}")),
        None => texts.append_null(),
    }
}
