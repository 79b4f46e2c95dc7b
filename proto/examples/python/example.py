"""Writes a call to a model, and asks what such calls cost and how slow they are.

    pip install -r requirements.txt
    python -m grpc_tools.protoc -I ../.. --python_out=. --pyi_out=. --grpc_python_out=. \\
        tracelake/v1/ingest.proto tracelake/v1/metrics.proto
    python example.py
"""

import base64
import os
import time
import uuid

import grpc
from tracelake.v1 import ingest_pb2, ingest_pb2_grpc, metrics_pb2, metrics_pb2_grpc

SERVER = os.environ.get("TRACELAKE_SERVER", "127.0.0.1:4317")
KEY = f'{os.environ["TRACELAKE_PUBLIC_KEY"]}:{os.environ["TRACELAKE_SECRET_KEY"]}'
HEADERS = (("authorization", "Basic " + base64.b64encode(KEY.encode()).decode()),)
HOUR = 3600 * 1_000_000


def main() -> None:
    with grpc.insecure_channel(SERVER) as channel:
        ingest = ingest_pb2_grpc.IngestServiceStub(channel)
        metrics = metrics_pb2_grpc.MetricsServiceStub(channel)
        write(ingest)
        now = time.time_ns() // 1_000
        hour = metrics_pb2.TimeRange(from_unix_micros=now - HOUR, to_unix_micros=now + HOUR)
        cost_breakdown(metrics, hour)
        latency_percentiles(metrics, hour)
        time_series(metrics, hour)
        subscribe(metrics, ingest, hour)


def write(ingest: ingest_pb2_grpc.IngestServiceStub) -> None:
    """When the answer is there, the call is durable and the next question sees it."""
    end = time.time_ns()
    call = ingest_pb2.Observation(
        trace_id=uuid.uuid4().hex,
        id=uuid.uuid4().hex,
        name="answer",
        start_unix_nano=end - 800_000_000,
        end_unix_nano=end,
        model="gpt-4o-mini",
        input_tokens=1_000,
        output_tokens=200,
        input="What is a lake?",
        output="Standing water, surrounded by land.",
        user_id="ada",
        tags=["example"],
    )
    answer = ingest.Ingest(ingest_pb2.IngestRequest(observations=[call]), metadata=HEADERS)
    print(f"written: {answer.accepted} accepted, {len(answer.rejected)} rejected")


def cost_breakdown(metrics: metrics_pb2_grpc.MetricsServiceStub, hour: metrics_pb2.TimeRange) -> None:
    request = metrics_pb2.CostBreakdownRequest(range=hour, dimensions=["model", "user_id"])
    answer = metrics.CostBreakdown(request, metadata=HEADERS)
    for row in answer.rows:
        model, user = (dimension.text for dimension in row.dimensions)
        cost = value(answer, row, "sum_total_cost")
        print(f"cost: {model} for {user}: {value(answer, row, 'count')} calls, {cost} USD")


def latency_percentiles(metrics: metrics_pb2_grpc.MetricsServiceStub, hour: metrics_pb2.TimeRange) -> None:
    request = metrics_pb2.LatencyPercentilesRequest(range=hour)
    answer = metrics.LatencyPercentiles(request, metadata=HEADERS)
    for row in answer.rows:
        p95 = value(answer, row, "p95_latency_ms")
        print(f"latency: {row.dimensions[0].text}: p95 {p95:.0f} ms")


def time_series(metrics: metrics_pb2_grpc.MetricsServiceStub, hour: metrics_pb2.TimeRange) -> None:
    bucket = metrics_pb2.TimeBucket(unit=metrics_pb2.TIME_UNIT_HOUR, time_zone="Europe/Berlin", skip_gaps=True)
    request = metrics_pb2.TimeSeriesRequest(range=hour, bucket=bucket)
    answer = metrics.TimeSeries(request, metadata=HEADERS)
    for row in answer.rows:
        at = time.strftime("%H:%M", time.gmtime(row.bucket_start_unix_micros / 1e6))
        print(f"series: from {at} UTC: {value(answer, row, 'sum_total_tokens')} tokens")


def subscribe(
    metrics: metrics_pb2_grpc.MetricsServiceStub,
    ingest: ingest_pb2_grpc.IngestServiceStub,
    hour: metrics_pb2.TimeRange,
) -> None:
    """First the whole answer, then whatever changes in it."""
    query = metrics_pb2.MetricsRequest(
        range=hour,
        measures=[metrics_pb2.Measure(aggregation=metrics_pb2.AGGREGATION_COUNT)],
        dimensions=["model"],
    )
    request = metrics_pb2.SubscribeRequest(query=query, interval_ms=1_000)
    changes = metrics.Subscribe(request, metadata=HEADERS)
    for at, message in enumerate(changes):
        for row in message.changed.rows:
            print(f"pushed: {row.dimensions[0].text}: {value(message.changed, row, 'count')} calls")
        if at == 1:
            break
        write(ingest)
    changes.cancel()


def value(answer: metrics_pb2.MetricsResponse, row: metrics_pb2.MetricsRow, name: str):
    """A measure by its name. Money is decimal text: read it as decimal.Decimal, never as a float."""
    place = [measure.name for measure in answer.measures].index(name)
    kind = row.measures[place].WhichOneof("value")
    return None if kind is None else getattr(row.measures[place], kind)


main()
