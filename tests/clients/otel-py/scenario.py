"""OpenTelemetry's own SDK with the GenAI conventions, over gRPC, HTTP with protobuf, and HTTP with JSON."""

import base64
import json
import os
import sys

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, Status, StatusCode, set_span_in_context

wire = sys.argv[1]
credentials = f"{os.environ['LANGFUSE_PUBLIC_KEY']}:{os.environ['LANGFUSE_SECRET_KEY']}"
headers = {"authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}
endpoint = os.environ["LANGFUSE_HOST"] + "/v1/traces"
if wire == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint=os.environ["TRACELAKE_GRPC"], insecure=True, headers=headers)
elif wire == "http":
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint=endpoint, headers=headers, compression=Compression.Gzip)
else:
    from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint=endpoint, headers=headers)

provider = TracerProvider(resource=Resource.create({"service.name": "agent", "deployment.environment.name": "e2e"}))
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = provider.get_tracer("scenario")
about = {"user.id": "user-42", "session.id": f"session-{wire}"}


def llm(name, **more):
    call = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini", "gen_ai.provider.name": "openai"}
    return tracer.start_as_current_span(name, attributes={**call, **more})


with tracer.start_as_current_span("agent-run", attributes={**about, "langfuse.trace.tags": ["a", "b"]}) as root:
    root.set_attribute("langfuse.trace.metadata", json.dumps({"tenant": "acme"}))
    with tracer.start_as_current_span("plan"):
        counts = {"gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 45}
        with llm("plan-llm", **counts, **{"gen_ai.usage.cache_read.input_tokens": 100}):
            pass
    with llm("priced-llm", **{"gen_ai.usage.cost": 0.0031}):
        pass
    counts = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5}
    with llm("stream-llm", **counts, **{"gen_ai.response.time_to_first_chunk": 0.0001}):
        pass
    with llm("broken-llm", **{"error.type": "RateLimitError"}) as broken:
        broken.set_status(Status(StatusCode.ERROR, "429"))
provider.force_flush()

# Later, in a request of its own.
below = set_span_in_context(NonRecordingSpan(root.get_span_context()))
with tracer.start_as_current_span("late", context=below, attributes={**about, "langfuse.trace.tags": ["late"]}):
    pass
provider.shutdown()
print(format(root.get_span_context().trace_id, "032x"))
